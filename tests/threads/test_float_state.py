"""Another library's flush-to-zero mode changes nothing, on any thread; processes end cleanly."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# mxcsr(value) sets the SSE state of the calling thread; stmxcsr and ldmxcsr in machine code.
MXCSR = """
import ctypes, mmap
code = bytes.fromhex("0fae17" "c3")  # ldmxcsr [rdi]; ret
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(code)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
load = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_uint32))(address)
def mxcsr(value):
    load(ctypes.byref(ctypes.c_uint32(value)))
FLUSH, PLAIN = 0x9FC0, 0x1F80
"""

# Sums of denormals that lowprec itself says are right, before any mode is set.
DENORMALS = """
import numpy as np, lowprec, lowprec.numerics as nx
from lowprec._ext import _core
x = np.full(1 << 18, 0x00080000, np.uint32).view(np.float32)  # 2 ** -130
program = _core.Program()
source = program.add_value("x", np.float32)
made = program.add_value("y", np.float32)
program.add_node("Add", "node", [source, source], [made], {})
program.set_io([source], [made])
plan = program.plan([x.shape])
def right():
    (y,), _ = plan.run([x])
    return bool((y.view(np.uint32) == 0x00100000).all())
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the code that sets the mode is x86-64's"
)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_mode_set_before_the_threads_are_made(count):
    # New threads inherit the state of the thread that makes them.
    code = f"""{MXCSR}{DENORMALS}
lowprec.set_num_threads({count})
mxcsr(FLUSH)
flushed = float(np.float32(2.0 ** -130) + np.float32(2.0 ** -130)) == 0.0
ours = [right() for _ in range(20)]
still = float(np.float32(2.0 ** -130) + np.float32(2.0 ** -130)) == 0.0
mxcsr(PLAIN)
print(flushed, all(ours), still, _core.shared_calls() > 0)
"""
    assert run(code) == f"True True True {count > 1}"


def test_torch_flushing_denormals():
    pytest.importorskip("torch")
    code = f"""
import torch
torch.set_num_threads(2)
assert torch.set_flush_denormal(True)
{DENORMALS}
lowprec.set_num_threads(3)
print(all(right() for _ in range(20)), _core.shared_calls() > 0)
"""
    assert run(code) == "True True"


@pytest.mark.parametrize(
    "ending",
    ["", "sys.exit()", "os._exit(0)", "threading.Thread(target=work, daemon=True).start()"],
    ids=["end of the program", "sys.exit", "os._exit", "a daemon thread at work"],
)
def test_a_process_ends_with_threads_asleep_or_awake(ending):
    code = f"""
import os, sys, threading, numpy as np, lowprec, lowprec.numerics as nx
lowprec.set_num_threads(4)
a, b = np.ones((200, 200), np.uint8), np.ones((200, 200), np.int8)
def work():
    while True:
        nx.matmul_integer(a, b)
nx.matmul_integer(a, b)
print("done", flush=True)
{ending}
"""
    assert run(code) == "done"


def test_threads_of_the_pool_block_all_signals():
    code = """
import os, numpy as np, lowprec, lowprec.numerics as nx
lowprec.set_num_threads(3)
nx.matmul_integer(np.ones((300, 300), np.uint8), np.ones((300, 300), np.int8))
blocked = []
for task in os.listdir("/proc/self/task"):
    status = dict(line.split(":", 1) for line in open(f"/proc/self/task/{task}/status"))
    if status["Name"].strip() == "lowprec":
        blocked.append(int(status["SigBlk"], 16))
usual = sum(1 << (n - 1) for n in range(1, 32) if n not in (9, 19))  # KILL, STOP: never blocked
print(len(blocked), all(mask & usual == usual for mask in blocked))
"""
    assert run(code) == "2 True"
