"""Modules that several tests only read: a capture takes seconds."""

from __future__ import annotations

import pytest
import torch
from torch_modules import Net, seeded

import lowprec
from lowprec.adapters.torch import CompiledModule, QuantizedModule


@pytest.fixture(scope="session")
def compiled() -> CompiledModule:
    """`Net`, of seed 0, compiled."""
    return lowprec.compile(seeded(Net), example_inputs=torch.randn(2, 8))


@pytest.fixture(scope="session")
def quantised() -> QuantizedModule:
    """`Net`, of seed 0, in int8."""
    torch.manual_seed(1)
    return lowprec.quantize(seeded(Net), [torch.randn(4, 8) for _ in range(4)])
