"""Attention in a quantised model: said in metadata, kept in the file, undone by a rule."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from onnx_models import make_model, value

import lowprec

WIDE, HEADS = 64, 4


def model_of(nodes, constants, opset):
    return make_model(
        nodes,
        [value("x", ["b", "s", WIDE])],
        [value("y", ["b", "s", WIDE])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
        opset=opset,
    )


def encoder():
    rng = np.random.default_rng(0)
    constants = {name: (rng.normal(size=(WIDE, WIDE)) / 8).astype(np.float32) for name in "abcd"}
    nodes = [
        *(
            helper.make_node("MatMul", ["x", weights], [made], f"project_{made}")
            for weights, made in zip("abc", "qkv", strict=True)
        ),
        helper.make_node(
            "Attention", ["q", "k", "v"], ["z"], "attend", q_num_heads=HEADS, kv_num_heads=HEADS
        ),
        helper.make_node("MatMul", ["z", "d"], ["y"], "project"),
    ]
    return model_of(nodes, constants, 23)


def feeds(seed):
    return {"x": np.random.default_rng(seed).normal(size=(2, 24, WIDE)).astype(np.float32)}


def kernels(model):
    model.run(feeds(9))
    return {step.kernel for step in model.explain().steps if step.op == "Attention"}


def sqnr(model):
    y = lowprec.compile(encoder()).run(feeds(9))[0]
    error = model.run(feeds(9))[0] - y
    return 10 * np.log10(np.sum(y**2) / np.sum(error**2))


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_products_of_codes(precision, tmp_path):
    data = [feeds(seed) for seed in range(4)] if precision == "int8" else None
    model = lowprec.quantize(encoder(), data, precision=precision)
    assert kernels(model) == {"attention int8"}
    (record,) = [layer for layer in model.report.layers if layer.op_type == "Attention"]
    assert record.precision == "int8-dynamic"
    assert sqnr(model) > 27
    model.save(tmp_path / "m.onnx")
    again = lowprec.load(tmp_path / "m.onnx")
    assert kernels(again) == {"attention int8"}
    np.testing.assert_array_equal(again.run(feeds(9))[0], model.run(feeds(9))[0])


def test_a_rule_keeps_it_in_floats():
    data = [feeds(seed) for seed in range(4)]
    rule = {"op_type": "Attention", "precision": "f32"}
    model = lowprec.quantize(encoder(), data, config={"layers": [rule]})
    assert kernels(model) == {"attention f32"}
    (record,) = [layer for layer in model.report.layers if layer.op_type == "Attention"]
    assert record.precision == "f32"


@pytest.mark.parametrize("precision", ["bf16", "int8-weight-only"])
def test_other_precisions_leave_it_in_floats(precision):
    model = lowprec.quantize(encoder(), precision=precision)
    assert kernels(model) == {"attention f32"}


# ---- written out, in a file of an older opset ----------------------------------------------------
def old_encoder():
    rng = np.random.default_rng(0)
    size = WIDE // HEADS
    constants = {name: (rng.normal(size=(WIDE, WIDE)) / 8).astype(np.float32) for name in "abcd"}
    constants |= {
        "apart": np.array([0, 0, HEADS, size]),
        "joined": np.array([0, 0, WIDE]),
        "root": np.float32(np.sqrt(size)),
    }
    nodes = []
    for weights, made, order in zip(
        "abc", "qkv", ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]), strict=True
    ):
        nodes += [
            helper.make_node("MatMul", ["x", weights], [f"{made}0"], f"project_{made}"),
            helper.make_node("Reshape", [f"{made}0", "apart"], [f"{made}1"], f"split_{made}"),
            helper.make_node("Transpose", [f"{made}1"], [made], f"turn_{made}", perm=order),
        ]
    nodes += [
        helper.make_node("MatMul", ["q", "k"], ["s0"], "scores"),
        helper.make_node("Div", ["s0", "root"], ["s"], "scale"),
        helper.make_node("Softmax", ["s"], ["p"], "softmax", axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["z0"], "attend"),
        helper.make_node("Transpose", ["z0"], ["z1"], "turn_back", perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["z1", "joined"], ["z"], "join"),
        helper.make_node("MatMul", ["z", "d"], ["y"], "project"),
    ]
    return model_of(nodes, constants, 14)


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_products_of_codes_where_attention_is_written_out(precision, tmp_path):
    data = [feeds(seed) for seed in range(4)] if precision == "int8" else None
    model = lowprec.quantize(old_encoder(), data, precision=precision)
    assert kernels(model) == {"attention int8"}
    records = {layer.name: layer for layer in model.report.layers}
    for name in ("scores", "attend"):
        assert records[name].precision == "int8-dynamic"
        assert "attention" in records[name].reason
    assert sqnr(model) > 27
    path = tmp_path / "m.onnx"
    model.save(path)
    saved = onnx.load(path)
    assert saved.opset_import[0].version < 23  # runtimes that know no Attention read it, too
    assert {"Softmax", "MatMul"} <= {node.op_type for node in saved.graph.node}
    again = lowprec.load(path)
    assert kernels(again) == {"attention int8"}
    np.testing.assert_array_equal(again.run(feeds(9))[0], model.run(feeds(9))[0])
    other = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (theirs,) = other.run(None, feeds(9))
    assert np.abs(theirs - model.run(feeds(9))[0]).max() < 0.1 * np.abs(theirs).max()


@pytest.mark.parametrize(
    "rule",
    [
        {"op_type": "Attention", "precision": "f32"},
        {"match": "scores", "precision": "f32"},
        {"match": "attend", "precision": "f32"},
    ],
)
def test_a_rule_keeps_written_attention_in_floats(rule):
    data = [feeds(seed) for seed in range(4)]
    model = lowprec.quantize(old_encoder(), data, config={"layers": [rule]})
    assert kernels(model) == {"attention f32"}
    records = {layer.name: layer for layer in model.report.layers}
    assert records["scores"].precision == records["attend"].precision == "f32"


def test_what_an_earlier_quantisation_said_is_forgotten(tmp_path):
    rule = {"match": "project*", "precision": "f32"}  # only attention is of codes
    data = [feeds(seed) for seed in range(4)]
    lowprec.quantize(old_encoder(), data, config={"layers": [rule]}).save(tmp_path / "m.onnx")
    assert kernels(lowprec.load(tmp_path / "m.onnx")) == {"attention int8"}
    again = lowprec.quantize(tmp_path / "m.onnx", precision="f16-weight-only")
    assert kernels(again) == {"attention f32"}
