"""The native checks: every entry of every kernel table against plain loops, without Python.

Short mode; `make isa` runs the long one, also for instruction sets that need an emulator.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "build" / "native"

pytestmark = pytest.mark.skipif(
    not (shutil.which("make") and shutil.which("g++")), reason="needs make and g++"
)


@pytest.fixture(scope="module")
def program() -> Path:
    done = subprocess.run(
        ["make", "-C", HERE, "-j2", f"OUT={OUT}", f"CXX={os.environ.get('CXX', 'g++')}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return OUT / "check_kernels"


def run(program: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "LOWPREC_ISA"}
    return subprocess.run([program, *options], capture_output=True, text=True, env=environment)


def test_every_table_equals_plain_loops(program):
    done = run(program)
    assert done.returncode == 0, done.stderr
    compared = {
        isa: int(n) for isa, n in re.findall(r"^([\w-]+) +\d+ cases +(\d+) ", done.stdout, re.M)
    }
    assert compared.keys() == set(run(program, "--list").stdout.split())
    assert min(compared.values()) > 1_000_000


def test_a_case_can_be_repeated(program):
    done = run(program, "--only", "product_u8s8", "--case", "17", "--isa", "scalar")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^scalar +1 cases", done.stdout, re.M)


@pytest.mark.parametrize("options", [["--only", "nothing"], ["--isa", "z80"], ["--seed"]])
def test_what_it_does_not_know_is_refused(program, options):
    assert run(program, *options).returncode == 2
