"""Nothing in torch's hands is changed, whether the capture succeeds or fails."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import lowprec
from lowprec.errors import LowprecError, ModelError


def everything(module: nn.Module) -> dict[str, Any]:
    """Return all that a caller could see of a module, bits and versions and identities."""
    found: dict[str, Any] = {}
    for name, part in module.named_modules():
        found[f"{name} training"] = part.training
        for key, value in vars(part).items():
            if isinstance(value, dict):
                found[f"{name} {key}"] = [(k, id(v)) for k, v in value.items()]
            elif isinstance(value, (list, set)):
                found[f"{name} {key}"] = [id(item) for item in value]
            else:
                found[f"{name} {key}"] = id(value) if key != "training" else value
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        bits = tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
        gradient = None if tensor.grad is None else tensor.grad.numpy().tobytes()
        found[f"{name} tensor"] = (
            hashlib.sha256(bits).hexdigest(),
            tensor._version,
            tensor.data_ptr(),
            tensor.requires_grad,
            gradient,
        )
    found["of torch"] = (
        torch.get_rng_state().numpy().tobytes(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        [*warnings.filters],
        [(name, logging.getLogger(name).level) for name in ("torch", "torch.onnx", "onnxscript")],
    )
    return found


class Counting(nn.Module):
    """Writes to its buffer, and to an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.register_buffer("calls", torch.zeros(()))
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen.append(len(x))
        return x @ self.weight * self.calls


class Remembering(nn.Module):
    """Its state is an attribute that is a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.state = torch.zeros(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.state = self.state + (x @ self.weight).sum(0)
        return x @ self.weight + self.state


class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + torch.rand_like(x)


class Caching(nn.Module):
    """Fills a table at its first call: nothing that changes a result."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.table: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.arange(8.0)
        return self.layer(x) * self.table


class Failing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        return x if x.sum() > 0 else -x


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.add_(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(200, 16)
        self.one = nn.Linear(16, 16)
        self.other = nn.Linear(16, 16, bias=False)
        self.other.weight = self.one.weight
        self.head = nn.Linear(16, 200, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.other(self.one(self.words(ids)).relu()))


def convolutional() -> nn.Module:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), shared, nn.Dropout(0.5), nn.ReLU(), shared
    )
    module[1].eval()
    module[2].weight.requires_grad_(False)
    module(torch.randn(2, 3, 8, 8)).sum().backward()
    return module


def with_hooks() -> nn.Module:
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    module[0].register_forward_hook(lambda part, inputs, output: output * 2)
    module.register_forward_pre_hook(lambda part, inputs: (inputs[0] + 1,))
    return module


def parametrised() -> nn.Module:
    from torch.nn.utils import parametrizations

    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(8, 8)),
        parametrizations.spectral_norm(nn.Linear(8, 8)),
    )


def normed_the_old_way() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 8)), nn.ReLU())
    module(torch.randn(2, 8))
    return module


X = torch.randn(2, 8)


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported() -> None:
    """Some packages set a filter of warnings when they are imported, once in a process."""
    lowprec.compile(nn.Linear(8, 8), example_inputs=X)


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (convolutional, torch.randn(2, 3, 8, 8)),
        (with_hooks, X),
        (parametrised, X),
        (normed_the_old_way, X),
        (Caching, X),
        (Writing, X),
        (Tied, torch.arange(6).view(2, 3)),
    ],
)
def test_a_captured_module_is_as_it_was(make: Callable[[], nn.Module], x: torch.Tensor) -> None:
    torch.manual_seed(0)
    module = make()
    before, given = everything(module), x.clone()
    compiled = lowprec.compile(module, example_inputs=x)
    assert everything(module) == before
    assert torch.equal(x, given)
    other = torch.cat([x, x])
    with torch.no_grad():
        expected = module.eval()(other.clone())
    torch.testing.assert_close(compiled(other), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(other, torch.cat([given, given])), "ours never writes to what it is given"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Counting, r"writes to the buffer 'calls'.*test_untouched.py:\d+: `self.calls \+= 1`"),
        (Remembering, "keeps something in attributes"),
        (Random, r"draws random numbers.*test_untouched.py:\d+: `return .*rand_like"),
        (Failing, "decides by the value of a tensor"),
    ],
)
def test_a_refused_module_is_as_it_was(make: Callable[[], nn.Module], message: str) -> None:
    module = make()
    before = everything(module)
    with pytest.raises(LowprecError, match=message):
        lowprec.compile(module, example_inputs=X)
    assert everything(module) == before


def test_a_module_that_fails_for_the_example_is_as_it_was() -> None:
    module, x = convolutional(), torch.randn(2, 5, 8, 8)
    before = everything(module)
    with pytest.raises(ModelError, match="fails for the example: RuntimeError"):
        lowprec.compile(module, example_inputs=x)
    assert everything(module) == before


def test_tied_weights_stay_one() -> None:
    module = Tied()
    compiled = lowprec.compile(module, example_inputs=torch.arange(6).view(2, 3))
    proto = onnx.ModelProto.FromString(compiled.lowprec_model.numpy().tobytes())
    square = [tensor.name for tensor in proto.graph.initializer if list(tensor.dims) == [16, 16]]
    assert len(square) == 1
