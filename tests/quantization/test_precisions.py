"""Every precision in one graph: who gets what, what is written, what the engine makes of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from mixed_models import apply, decibels, onnxruntime_results, precisions
from onnx import TensorProto, helper, numpy_helper
from onnx_models import make_model, value
from small_networks import mobile, transformer

import lowprec
from lowprec.calibration import calibrate
from lowprec.config import Config
from lowprec.graph import load, to_proto
from lowprec.models import CompiledModel
from lowprec.passes import simplify
from lowprec.quantization import apply_precisions, tensors_to_calibrate

RULES = [
    {"match": "*_1", "precision": "bf16"},
    {"match": "*_2", "precision": "int8-weight-only"},
    {"match": "*_3", "precision": "f32"},
    {"match": "*_6", "precision": "int8"},
]


@pytest.mark.parametrize("network", [mobile, transformer])
@pytest.mark.parametrize(
    "precision", ["int8", "int8-dynamic", "int8-weight-only", "bf16", "f16-weight-only"]
)
def test_each_layer_has_what_its_rule_says(network, precision):
    proto, feeds = network()
    original, result, _ = apply(proto, feeds, {"precision": precision, "layers": RULES})
    kind = "Conv" if network is mobile else "MatMul"
    found = precisions(result)
    assert found[f"{kind}_1"] == "bf16"
    assert found[f"{kind}_2"] == "int8-weight-only"
    assert found[f"{kind}_3"] == "f32"
    assert found[f"{kind}_6"] == "int8"
    assert found[f"{kind}_7"] == precision
    made = to_proto(result.model)
    onnx.checker.check_model(made, full_check=True)
    model = CompiledModel(load(made))
    for feed in feeds[:2]:
        (expected,), (actual,) = original.run(feed), model.run(feed)
        assert 25 < decibels(expected, actual) < 80
        (other,) = onnxruntime_results(made, feed)
        assert decibels(other, actual) > 35
    kernels = {step.kernel for step in model.session.explain().steps}
    matrix = "conv" if network is mobile else "matrix"
    assert any(kernel.startswith(f"{matrix} u8s8") for kernel in kernels)
    assert any("bf16" in kernel for kernel in kernels)
    assert all(step.native for step in model.session.explain().steps)


def test_only_static_layers_need_ranges():
    proto, feeds = mobile()
    rules = [{"match": "Conv_4", "precision": "int8"}]
    _, _, names = apply(proto, feeds, {"precision": "bf16", "layers": rules})
    assert len(names) == 1
    for precision in ("bf16", "int8-dynamic", "int8-weight-only", "f16-weight-only"):
        assert apply(proto, feeds, {"precision": precision})[2] == []


LAYERS = {"a": "int8", "b": "bf16", "c": "int8-dynamic", "d": "int8-weight-only", "e": "int8"}


def chain(names: str) -> onnx.ModelProto:
    """Products with an activation after each; the input of layer n is called n."""
    rng = np.random.default_rng(3)
    weights = {
        name: (rng.standard_normal((24, 24)) / 4).astype(np.float32) for name in sorted(LAYERS)
    }
    nodes = []
    for i, name in enumerate(names):
        result = names[i + 1] if i + 1 < len(names) else "y"
        nodes.append(helper.make_node("MatMul", [name, f"w_{name}"], [f"{name}_"], f"layer_{name}"))
        nodes.append(helper.make_node("Tanh", [f"{name}_"], [result], f"tanh_{name}"))
    constants = [numpy_helper.from_array(weights[name], f"w_{name}") for name in names]
    return make_model(nodes, [value(names[0], ["N", 24])], [value("y", None)], constants)


def test_neighbours_in_other_precisions_do_not_change_a_layer():
    """The whole gives the bits of its layers run one by one, each a model of its own."""
    rng = np.random.default_rng(9)
    feeds = [{"a": rng.standard_normal((40, 24)).astype(np.float32)} for _ in range(4)]
    rules = [{"match": f"layer_{name}", "precision": kind} for name, kind in LAYERS.items()]
    config = Config.of({"layers": rules})
    hub = load(chain("abcde"))
    simplify(hub)
    ranges = calibrate(hub, tensors_to_calibrate(hub, config), feeds, config).ranges
    assert set(ranges) == {"a", "e"}
    result = apply_precisions(hub, ranges, config)
    assert {k: v for k, v in precisions(result).items() if v != "f32"} == {
        f"layer_{name}": kind for name, kind in LAYERS.items()
    }
    whole = CompiledModel(load(result.model))
    step = feeds[0]["a"]
    for name in LAYERS:
        alone = load(chain(name))
        simplify(alone)
        piece = apply_precisions(alone, ranges, config)
        assert precisions(piece)[f"layer_{name}"] == LAYERS[name]
        (step,) = CompiledModel(load(piece.model)).run({name: step})
    (y,) = whole.run(feeds[0])
    assert y.tobytes() == step.tobytes()
    # Each layer stores what the next one reads: only what has a range of its own is a step more.
    kernels = [row.kernel for row in whole.session.explain().steps]
    assert kernels == [
        "QuantizeLinear", "matrix u8s8", "matrix bf16", "DynamicQuantizeLinear", "matrix u8s8",
        "matrix f32", "matrix u8s8",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "kinds",
    [["int8", "bf16", "int8-dynamic", "f32"], ["int8", "bf16"], ["bf16", "int8-dynamic"]],
)
def test_a_tensor_that_every_precision_reads_is_there_in_every_form(kinds):
    """Codes are made of the unrounded tensor, and so is what f32 operators read."""
    rng = np.random.default_rng(2)
    constants = [
        numpy_helper.from_array(rng.standard_normal((16, 16)).astype("f"), f"w{i}")
        for i in range(len(kinds))
    ]
    nodes = [helper.make_node("Tanh", ["x"], ["h"], "start")]
    nodes += [
        helper.make_node("MatMul", ["h", f"w{i}"], [f"y{i}"], f"layer{i}")
        for i in range(len(kinds))
    ]
    nodes.append(helper.make_node("Neg", ["h"], ["minus"], "minus"))
    outputs = [value(f"y{i}", None) for i in range(len(kinds))] + [value("minus", None)]
    proto = make_model(nodes, [value("x", ["N", 16])], outputs, constants)
    rules = [{"match": f"layer{i}", "precision": kind} for i, kind in enumerate(kinds)]
    feed = {"x": rng.standard_normal((5, 16)).astype("f")}
    original, result, _ = apply(proto, [feed], {"layers": rules})
    quantizing = ("QuantizeLinear", "DynamicQuantizeLinear", "Neg")
    readers = [node for node in result.model.graph if node.op_type in quantizing]
    assert len(readers) == len(kinds) - sum(kind in ("bf16", "f32") for kind in kinds) + 1
    assert {node.inputs[0].name for node in readers} == {"h"}
    exact, mixed = original.run(feed), CompiledModel(load(result.model)).run(feed)
    least = {"int8": 30, "bf16": 40, "int8-dynamic": 30, "f32": 300}
    for i, kind in enumerate(kinds):
        assert decibels(exact[i], mixed[i]) > least[kind]
    assert mixed[-1].tobytes() == exact[-1].tobytes()


@pytest.mark.parametrize("network", [mobile, transformer])
def test_a_mixed_file_keeps_bits_and_report(network, tmp_path):
    proto, feeds = network()
    rules = [*RULES, {"match": "*_4", "precision": "int8-dynamic"}]
    model = lowprec.quantize(proto, feeds[:4], config={"layers": rules})
    model.save(tmp_path / "mixed.onnx")
    for opened in (lowprec.load(tmp_path / "mixed.onnx"), lowprec.compile(tmp_path / "mixed.onnx")):
        for feed in feeds[:2]:
            assert opened.run(feed)[0].tobytes() == model.run(feed)[0].tobytes()
    assert lowprec.load(tmp_path / "mixed.onnx").report.to_json() == model.report.to_json()


@pytest.mark.parametrize(
    "precision", ["int8-dynamic", "int8-weight-only", "bf16", "f16-weight-only"]
)
def test_layers_in_bodies_have_the_precision_too(precision):
    weights = np.random.default_rng(1).standard_normal((32, 32)).astype("f")
    w = numpy_helper.from_array(weights, "w")
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"], "inner")],
        "then",
        [],
        [value("z", None)],
        [w],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["z2"], "minus")], "else", [], [value("z2", None)]
    )
    nodes = [helper.make_node("If", ["c"], ["y"], "choice", then_branch=body, else_branch=other)]
    inputs = [value("x", [4, 32]), value("c", [], TensorProto.BOOL)]
    proto = make_model(nodes, inputs, [value("y", None)])
    x = np.random.default_rng(0).standard_normal((4, 32)).astype("f")
    feeds = [{"x": x, "c": np.array(True)}, {"x": x, "c": np.array(False)}]
    original, result, _ = apply(proto, feeds, {"precision": precision})
    assert precisions(result)["inner"] == precision
    onnx.checker.check_model(to_proto(result.model), full_check=True)
    model = CompiledModel(load(result.model))
    (exact,), (made,) = original.run(feeds[0]), model.run(feeds[0])
    assert 30 < decibels(exact, made) < 90
    assert model.run(feeds[1])[0].tobytes() == original.run(feeds[1])[0].tobytes()
