"""What a module of lowprec costs beside the engine itself, and what it holds in memory.

    python benchmarks/torch_overhead.py            microseconds of a call over the engine's own
    python benchmarks/torch_overhead.py --memory   MB of MiniLM: torch eager, float, int8

Each line of the first table: a network so small that nothing else is left, called in turns with
`plan.run` on the same arrays. Exit code 1 when a call costs more than ALLOWED.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from turns import take_turns

import lowprec
from lowprec.adapters.torch import CompiledModule, example

ALLOWED = 10.0  # microseconds
ROUNDS = 60
KINDS = ("torch eager", "float", "int8")


@dataclass
class Answer:
    """As transformers' ModelOutput."""

    first: torch.Tensor
    second: torch.Tensor


class One(nn.Module):
    """A tensor in, a tensor out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return [batch, 8] for [batch, 8]."""
        return torch.relu(x)


class Several(nn.Module):
    """Three tensors in, two in a dataclass out."""

    def forward(
        self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, scale: float = 1.0
    ) -> Answer:
        """Return two sums, [batch, 8] each."""
        return Answer(x + y, (y + z) * scale)


def _engine(module: CompiledModule, *inputs: torch.Tensor) -> Callable[[], object]:
    """Return what runs the plan for these inputs, and nothing else."""
    arrays = {info.name: tensor.numpy() for info, tensor in zip(module.inputs, inputs, strict=True)}
    module(*inputs)
    sole = module._session._sole
    assert sole is not None
    ordered = [arrays[name] for name, _ in sole.takes]
    plan = sole.runner.plan(ordered)
    return lambda: plan.run(ordered)


def overheads(rounds: int = ROUNDS) -> dict[str, float]:
    """Return the microseconds that a call takes longer than its plan, by kind of call."""
    x, y, z = (torch.randn(2, 8) for _ in range(3))
    one = lowprec.compile(One().eval(), example_inputs=x)
    several = lowprec.compile(Several().eval(), example_inputs=example(x, y, z))
    wrapped = nn.Sequential(one).eval()
    plan_of_one, plan_of_several = _engine(one, x), _engine(several, x, y, z)
    strided = torch.randn(8, 2).t()
    calls: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "one tensor": (lambda: one(x), plan_of_one),
        "by keyword": (lambda: one(x=x), plan_of_one),
        "in a Sequential": (lambda: wrapped(x), plan_of_one),
        "three tensors, a dataclass": (lambda: several(x, y, z), plan_of_several),
        "three by keyword": (lambda: several(z=z, y=y, x=x), plan_of_several),
        "with an option": (lambda: several(x, y, z, scale=1.0), plan_of_several),
        "not contiguous": (lambda: one(strided), plan_of_one),
    }
    timed = {
        f"{name} {part}": call
        for name, pair in calls.items()
        for part, call in zip(("module", "plan"), pair, strict=True)
    }
    with torch.inference_mode():
        seconds = take_turns(timed, rounds, threads=1, middle=min)
    return {name: 1e6 * (seconds[f"{name} module"] - seconds[f"{name} plan"]) for name in calls}


def resident() -> float:
    """Return the MB of memory that this process holds."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory_of(kind: str) -> float:
    """Return the MB that MiniLM takes beyond what the libraries take, after a call."""
    from torch_sequences import minilm

    before = resident()
    network = minilm()
    words = {
        "input_ids": torch.randint(1000, 2000, (2, 64)),
        "attention_mask": torch.ones(2, 64, dtype=torch.int64),
    }
    made: nn.Module = network
    if kind == "float":
        made = lowprec.compile(network, example_inputs=words)
    elif kind == "int8":
        made = lowprec.quantize(network, [words] * 2)
    if kind != "torch eager":
        del network
    with torch.inference_mode():
        made(**words)
    return resident() - before


def main() -> int:
    if sys.argv[1:2] == ["--memory-of"]:
        print(json.dumps(memory_of(sys.argv[2])))
        return 0
    if sys.argv[1:2] == ["--memory"]:
        for kind in KINDS:
            command = [sys.executable, __file__, "--memory-of", kind]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(f"{kind:12} {json.loads(text):8.0f} MB")
        return 0
    found = overheads()
    for name, microseconds in found.items():
        print(f"{name:28} {microseconds:6.2f} us")
    return int(max(found.values()) > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
