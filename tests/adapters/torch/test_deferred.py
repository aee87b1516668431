"""A module that is captured when it is called for the first time."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import threading
import weakref

import pytest
import torch
from torch import nn
from torch_modules import Net, seeded

import lowprec
from lowprec.adapters.torch import CompiledModule, QuantizedModule
from lowprec.errors import LowprecError, UnsupportedError


def test_before_the_first_call_it_says_what_is_not_known_yet() -> None:
    original = seeded(Net)
    module = lowprec.compile(original)
    assert str(module) == "DeferredModule(Net; captured at the first call)"
    assert inspect.signature(module.forward) == inspect.signature(original.forward)
    x = torch.randn(2, 8)
    refused = [
        lambda: module.run({"x": x.numpy()}),
        lambda: module.report,
        lambda: module.save("m.onnx"),
        lambda: module.state_dict(),
        lambda: nn.Sequential(module).state_dict(),
        lambda: module.load_state_dict({}),
        lambda: pickle.dumps(module),
        lambda: torch.export.export(module, (x,)),
    ]
    for call in refused:
        with pytest.raises(LowprecError, match="first call"):
            call()
    with pytest.raises(UnsupportedError):
        module.train()
    assert module.eval() is module
    with pytest.raises(AttributeError):
        module.nothing  # noqa: B018
    assert not hasattr(module, "nothing")


@pytest.mark.parametrize("precision", ["float", "bf16"])
def test_the_first_call_makes_it_a_module_as_any(precision: str) -> None:
    original = seeded(Net)
    x = torch.randn(3, 8)
    with torch.no_grad():
        expected = original(x)["y"]
    if precision == "float":
        module = lowprec.compile(original)
    else:
        module = lowprec.quantize(original, precision="bf16")
    module.note = "kept"
    calls: list[int] = []
    handle = module.register_forward_hook(lambda *_: calls.append(1))
    untouched = copy.deepcopy(module)
    with torch.no_grad():
        y = module(x, mask=None)["y"]
    tolerance = 1e-5 if precision == "float" else 0.05
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)
    assert isinstance(module, CompiledModule if precision == "float" else QuantizedModule)
    assert (module.note, calls) == ("kept", [1])
    handle.remove()
    for made in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert torch.equal(made(x)["y"], y)
        assert inspect.signature(made.forward) == inspect.signature(original.forward)
    assert list(module.state_dict()) == ["lowprec_model"]
    assert not isinstance(untouched, CompiledModule)
    found = weakref.ref(original)
    del original, untouched
    gc.collect()
    assert found() is None


def test_a_failed_first_call_may_be_followed_by_another() -> None:
    module = lowprec.compile(seeded(Net))
    with pytest.raises(LowprecError):
        module("no tensor")
    x = torch.randn(3, 8)
    assert module(x)["y"].shape == (3, 4)


def test_threads_that_call_first_at_the_same_time() -> None:
    module = lowprec.compile(seeded(Net))
    x = torch.randn(3, 8)
    barrier = threading.Barrier(4)
    results: list[torch.Tensor] = []

    def work() -> None:
        barrier.wait()
        results.append(module(x)["y"])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(torch.equal(result, results[0]) for result in results)
