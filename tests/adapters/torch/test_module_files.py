"""A module in an .onnx file: with lowprec alone, and as a module again."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
import torch
from torch_modules import Answer, Several, seeded

import lowprec
from lowprec.adapters.torch import CompiledModule, QuantizedModule, example, load
from lowprec.errors import ModelError, OutputError

KEY = "lowprec.torch"


@pytest.mark.parametrize("which", ["compiled", "quantised"])
def test_a_saved_module_comes_back(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    module: CompiledModule = request.getfixturevalue(which)
    path = tmp_path / "m.onnx"
    module.save(path)
    again = load(path)
    x = torch.randn(3, 8)
    assert torch.equal(again(x, mask=None)["y"], module(x)["y"])
    assert str(again) == str(module)
    assert isinstance(again, QuantizedModule) == isinstance(module, QuantizedModule)
    found, wanted = (inspect.signature(m.forward) for m in (again, module))
    assert [(p.name, p.kind, p.default) for p in found.parameters.values()] == [
        (p.name, p.kind, p.default) for p in wanted.parameters.values()
    ]
    module.save(tmp_path / "n.onnx")
    assert path.read_bytes() == (tmp_path / "n.onnx").read_bytes()
    again.save(tmp_path / "o.onnx")
    assert path.read_bytes() == (tmp_path / "o.onnx").read_bytes()
    assert again.to_onnx() == module.to_onnx() == onnx.load(path)


def test_a_quantised_file_holds_its_report(quantised: QuantizedModule, tmp_path: Path) -> None:
    quantised.save(tmp_path / "m.onnx")
    again = load(tmp_path / "m.onnx")
    assert isinstance(again, QuantizedModule)
    assert again.report.to_json() == quantised.report.to_json()
    assert again.config == quantised.config
    operators = {node.op_type for node in quantised.to_onnx().graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators


def test_structured_results_come_back(tmp_path: Path) -> None:
    ids, mask = torch.randint(0, 50, (2, 6)), torch.ones(2, 6)
    module = lowprec.compile(seeded(Several), example_inputs=example(ids, mask))
    module.save(tmp_path / "m.onnx")
    answer = load(tmp_path / "m.onnx")(ids, mask=mask)
    assert type(answer) is Answer
    assert torch.equal(answer.logits, module(ids, mask).logits)


def test_no_torch_is_needed_to_run_the_file(quantised: QuantizedModule, tmp_path: Path) -> None:
    quantised.save(tmp_path / "m.onnx")
    x = torch.randn(3, 8)
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "y.npy", quantised(x)["y"].numpy())
    code = (
        "import sys, numpy as np, lowprec\n"
        "q = lowprec.load('m.onnx')\n"
        "assert np.array_equal(q(np.load('x.npy')), np.load('y.npy'))\n"
        "assert q.report.layers\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_any_onnx_file_is_a_module(tmp_path: Path) -> None:
    path = tmp_path / "linear.onnx"
    onnx.save(onnx_models.linear(), path)
    module = load(path)
    assert str(inspect.signature(module.forward)) == "(x)"
    x = torch.randn(5, 4)
    (expected,) = onnx_models.run_reference(onnx_models.linear(), {"x": x.numpy()})
    np.testing.assert_allclose(module(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(module(x=x), module(x))


def test_inputs_whose_names_are_none_in_python(tmp_path: Path) -> None:
    names = ["input.1", "input 1", "class", "1", "self"]
    value = onnx_models.value
    model = onnx_models.make_model(
        [onnx.helper.make_node("Sum", names, ["y"])],
        [value(name, ["n"]) for name in names],
        [value("y", ["n"])],
    )
    onnx.save(model, tmp_path / "m.onnx")
    module = load(tmp_path / "m.onnx")
    parameters = list(inspect.signature(module.forward).parameters)
    assert parameters == ["input_1", "input_1_", "input_class", "input_1__", "input_self"]
    assert torch.equal(module(*[torch.ones(2)] * 5), torch.full((2,), 5.0))
    module.save(tmp_path / "n.onnx")
    assert str(load(tmp_path / "n.onnx")) == str(load(tmp_path / "m.onnx")).replace("(m;", "(n;")


def test_weights_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(
        onnx_models.linear(), path, save_as_external_data=True, location="w", size_threshold=0
    )
    module = load(path)
    (tmp_path / "w").unlink()
    x = torch.randn(5, 4)
    (expected,) = onnx_models.run_reference(onnx_models.linear(), {"x": x.numpy()})
    np.testing.assert_allclose(module(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert len(module.to_onnx().graph.initializer) > 0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"leaf":0', '"leaf":1', "each input once"),
        ('"inputs":["x"]', '"inputs":["z"]', "does not fit its graph"),
        ('{"dict":[["y",{"leaf":0}]],"type":""}', '{"tuple":[]}', "does not fit its graph"),
        (
            '{"dict":[["y",{"leaf":0}]],"type":""}',
            '{"fields":[["args",{"leaf":0}]],"type":"subprocess:Popen"}',
            "'subprocess:Popen' is no dict",
        ),
        (
            '{"dict":[["y",{"leaf":0}]],"type":""}',
            '{"fields":[["y",{"leaf":0}]],"type":"antigravity:Thing"}',
            "which is not imported",
        ),
        ('"positional":2', '"positional":9', "'positional'"),
        ('"name":"mask"', '"name":"x"', "signature in the file is damaged"),
        ('"default":1.0', '"default":[]', "is not a number or text"),
        ('"ranges":{}', '"ranges":{"x":{"0":["a",1,1]}}', "a bound is no number"),
    ],
)
def test_a_file_that_lies_about_the_call(
    compiled: CompiledModule, tmp_path: Path, old: str, new: str, says: str
) -> None:
    model = compiled.to_onnx()
    entry = next(entry for entry in model.metadata_props if entry.key == KEY)
    assert old in entry.value
    entry.value = entry.value.replace(old, new)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=says):
        load(tmp_path / "m.onnx")
    assert "antigravity" not in sys.modules
    x = np.zeros((2, 8), np.float32)
    assert lowprec.load(tmp_path / "m.onnx")(x).shape == (2, 4)


def test_a_file_that_is_none(tmp_path: Path, compiled: CompiledModule) -> None:
    with pytest.raises(ModelError):
        load(tmp_path / "missing.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"\x08\xff\xff")
    with pytest.raises(ModelError):
        load(tmp_path / "bad.onnx")
    with pytest.raises(OutputError):
        compiled.save(tmp_path / "nowhere" / "m.onnx")


def test_more_than_one_file_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    from lowprec.adapters.torch import state

    monkeypatch.setattr(state, "EXTERNAL_LIMIT", 100)
    with pytest.raises(lowprec.errors.UnsupportedError, match="one ONNX file, which ends at 2 GiB"):
        lowprec.compile(torch.nn.Linear(9, 9).eval(), example_inputs=torch.randn(2, 9))
