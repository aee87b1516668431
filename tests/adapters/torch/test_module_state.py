"""What a module is made of survives copies, pickles, state_dicts, threads and forks."""

from __future__ import annotations

import copy
import gc
import inspect
import io
import os
import pickle
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch_modules import Net, Several, seeded

import lowprec
from lowprec.adapters.torch import CompiledModule, QuantizedModule, example
from lowprec.errors import LowprecError, ModelError

STATE = "lowprec_model"


@pytest.fixture
def other() -> CompiledModule:
    """`Net` with other weights."""
    return lowprec.compile(seeded(Net, seed=5), example_inputs=torch.randn(2, 8))


def _saved(what: object) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(what, file)
    file.seek(0)
    return file


# ---- Copies ----


def test_a_copy_shares_what_is_large(quantised: QuantizedModule) -> None:
    x = torch.randn(3, 8)
    for made in (copy.deepcopy(quantised), copy.copy(quantised)):
        assert torch.equal(made(x)["y"], quantised(x)["y"])
        assert made._compiled is quantised._compiled
        assert made.lowprec_model is quantised.lowprec_model
        assert inspect.signature(made.forward) == inspect.signature(quantised.forward)
        assert isinstance(made, QuantizedModule)


def test_a_copy_is_one_of_its_own(compiled: CompiledModule, other: CompiledModule) -> None:
    x = torch.randn(3, 8)
    expected = compiled(x)["y"]
    made = copy.deepcopy(compiled)
    made.note = "mine"
    made.register_forward_hook(lambda *_: None)
    made.load_state_dict(other.state_dict())
    assert torch.equal(made(x)["y"], other(x)["y"])
    assert torch.equal(compiled(x)["y"], expected)
    assert not hasattr(compiled, "note")
    assert not compiled._forward_hooks


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(quantised: QuantizedModule, protocol: int) -> None:
    x = torch.randn(3, 8)
    made = pickle.loads(pickle.dumps(quantised, protocol))
    assert torch.equal(made(x)["y"], quantised(x)["y"])
    assert inspect.signature(made.forward) == inspect.signature(quantised.forward)
    assert isinstance(made, QuantizedModule)
    assert made.report.to_json() == quantised.report.to_json()
    assert str(made) == str(quantised)


def test_what_was_set_on_a_module_is_pickled_with_it(compiled: CompiledModule) -> None:
    noted = copy.deepcopy(compiled)
    noted.note = {"classes": ["cat", "dog"]}
    made = pickle.loads(pickle.dumps(nn.Sequential(noted)))[0]
    assert made.note == {"classes": ["cat", "dog"]}


def test_a_signature_that_no_pickle_takes() -> None:
    class Local:
        def __repr__(self) -> str:
            return "Local()"

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor, how: Local = Local()) -> torch.Tensor:  # noqa: B008
            return x + 1

    module = lowprec.compile(Odd().eval(), example_inputs=torch.randn(2, 3))
    made = pickle.loads(pickle.dumps(module))
    how = inspect.signature(made.forward).parameters["how"]
    assert (repr(how.default), type(how.default).__name__) == ("Local()", "Unstated")
    assert torch.equal(made(torch.ones(2, 3)), torch.full((2, 3), 2.0))


def test_torch_save_of_the_module(quantised: QuantizedModule) -> None:
    x = torch.randn(3, 8)
    made = torch.load(_saved(quantised), weights_only=False)
    assert torch.equal(made(x)["y"], quantised(x)["y"])


# ---- state_dict ----


def test_the_state_goes_into_a_module_of_the_same_structure(
    compiled: CompiledModule, other: CompiledModule
) -> None:
    x = torch.randn(3, 8)
    assert not torch.equal(other(x)["y"], compiled(x)["y"])
    state = torch.load(_saved(compiled.state_dict()), weights_only=True)
    assert {name: value.dtype for name, value in state.items()} == {STATE: torch.uint8}
    result = other.load_state_dict(state)
    assert not result.missing_keys
    assert not result.unexpected_keys
    assert torch.equal(other(x)["y"], compiled(x)["y"])
    assert np.array_equal(other.run({"x": x.numpy()})[0], compiled.run({"x": x.numpy()})[0])
    state[STATE].zero_()
    assert torch.equal(other(x)["y"], compiled(x)["y"])


def test_the_state_of_a_larger_module(compiled: CompiledModule, other: CompiledModule) -> None:
    x = torch.randn(3, 8)
    source, target = nn.ModuleDict({"a": compiled}), nn.ModuleDict({"a": other})
    target.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(other(x)["y"], compiled(x)["y"])


def test_a_quantised_state_brings_its_report(
    quantised: QuantizedModule, compiled: CompiledModule
) -> None:
    target = copy.deepcopy(quantised)
    target.load_state_dict(compiled.state_dict())
    x = torch.randn(3, 8)
    assert torch.equal(target(x)["y"], compiled(x)["y"])
    target.load_state_dict(quantised.state_dict())
    assert torch.equal(target(x)["y"], quantised(x)["y"])
    assert target.report.to_json() == quantised.report.to_json()


def test_a_state_is_loaded_strictly_or_not(compiled: CompiledModule) -> None:
    made = copy.deepcopy(compiled)
    with pytest.raises(RuntimeError, match=r"Missing key.*lowprec_model"):
        made.load_state_dict({})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*other"):
        made.load_state_dict({**made.state_dict(), "other": torch.ones(1)})
    made.load_state_dict({}, strict=False)
    x = torch.randn(3, 8)
    assert torch.equal(made(x)["y"], compiled(x)["y"])


def _hostile(good: torch.Tensor) -> dict[str, Any]:
    proto = onnx.ModelProto()
    proto.ParseFromString(good.numpy().tobytes())
    binding = next(entry for entry in proto.metadata_props if entry.key == "lowprec.torch")

    def with_binding(text: str) -> torch.Tensor:
        binding.value = text
        return torch.frombuffer(bytearray(proto.SerializeToString()), dtype=torch.uint8)

    text = binding.value
    deep = '{"tuple":[' * 5000 + "]}" * 5000
    return {
        "text": "no tensor",
        "floats": good.float(),
        "matrix": good[None],
        "nothing": good[:0],
        "cut": good[: len(good) // 2],
        "noise": torch.randint(0, 256, (1000,), dtype=torch.uint8),
        "elsewhere": good.to("meta"),
        "no json": with_binding("{"),
        "another type": with_binding("[]"),
        "deep": with_binding(text.replace('"result":{', '"result":' + deep + ',"more":{')),
        "leaves": with_binding(text.replace('{"leaf":0}', '{"leaf":7}')),
        "code": with_binding(
            text.replace('"type":""', '"type":"subprocess:Popen"').replace('"dict"', '"fields"')
        ),
        "long": with_binding(" " * (2 << 20) + text),
        "names": with_binding(text.replace('["x","scale","mask"]', "[1,2,3]")),
        "signature": with_binding(text.replace('"KEYWORD_ONLY"', '"NO_KIND"')),
    }


def test_a_hostile_state_changes_nothing(compiled: CompiledModule) -> None:
    x = torch.randn(3, 8)
    expected = compiled(x)["y"]
    made = copy.deepcopy(compiled)
    for name, state in _hostile(compiled.lowprec_model).items():
        with pytest.raises(LowprecError) as caught:
            made.load_state_dict({STATE: state})
        assert len(str(caught.value)) < 600, name
        assert torch.equal(made(x)["y"], expected), name
        assert made.lowprec_model is compiled.lowprec_model, name


def test_the_state_of_a_module_that_is_called_otherwise(compiled: CompiledModule) -> None:
    ids = torch.randint(0, 50, (2, 6))
    several = lowprec.compile(seeded(Several), example_inputs=example(ids))
    wider = lowprec.compile(nn.Linear(9, 4).eval(), example_inputs=torch.randn(2, 9))
    for module in (several, wider):
        with pytest.raises(ModelError, match="load it into a module that was made like"):
            copy.deepcopy(compiled).load_state_dict(module.state_dict())


# ---- The buffer ----


def test_another_buffer_for_one_call(compiled: CompiledModule, other: CompiledModule) -> None:
    x = torch.randn(3, 8)
    expected = compiled(x)["y"]
    made = torch.func.functional_call(compiled, {STATE: other.lowprec_model}, (x,))
    assert torch.equal(made["y"], other(x)["y"])
    assert torch.equal(compiled(x)["y"], expected)


def test_a_buffer_that_is_written_into_is_noticed(compiled: CompiledModule) -> None:
    made = pickle.loads(pickle.dumps(compiled))
    made(torch.randn(3, 8))
    made.lowprec_model.zero_()
    with pytest.raises(ModelError):
        made(torch.randn(3, 8))


def _constants(module: CompiledModule) -> list[np.ndarray]:
    content = module._session.forms()
    assert content is not None
    return [array for form in content[0] for array in form.constants.values()]


def test_what_is_compiled_goes_with_the_last_module() -> None:
    module = lowprec.compile(nn.Linear(3, 3).eval(), example_inputs=torch.randn(2, 3))
    made = copy.deepcopy(module)
    seen = weakref.ref(module._session), weakref.ref(module)
    (weights,) = {
        array.ctypes.data: array for array in _constants(module) if array.ndim == 2
    }.values()
    weights = weakref.ref(weights)
    torch.export.export(module, (torch.randn(2, 3),))
    del module
    gc.collect()
    assert seen[0]() is not None
    assert seen[1]() is None
    assert made._session._model is None  # read from the bytes when it is needed
    del made
    gc.collect()
    assert seen[0]() is None
    assert weights() is None, "the exporter, or something else, still holds the weights"


# ---- Threads and processes ----


def test_many_threads_at_once(quantised: QuantizedModule) -> None:
    inputs = [torch.randn(1 + number % 7, 8) for number in range(40)]
    expected = [quantised(x)["y"] for x in inputs]
    wrong: list[int] = []

    def work() -> None:
        for number, x in enumerate(inputs * 10):
            if not torch.equal(quantised(x)["y"], expected[number % 40]):
                wrong.append(number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_child_runs(quantised: QuantizedModule, tmp_path: Path) -> None:
    x = torch.randn(3, 8)
    expected = quantised(x)["y"]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            same = torch.equal(quantised(x)["y"], expected)
            larger = torch.randn(6, 8)
            code = 0 if same and quantised(larger)["y"].shape == (6, 4) else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


class _Data(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.module(torch.full((1, 8), float(index)))["y"][0]


def test_workers_of_a_data_loader(compiled: CompiledModule) -> None:
    loader = torch.utils.data.DataLoader(_Data(compiled), batch_size=2, num_workers=2)
    rows = torch.cat(list(loader))
    numbers = torch.arange(4.0)[:, None].expand(4, 8)
    assert torch.equal(rows, compiled(numbers)["y"])
