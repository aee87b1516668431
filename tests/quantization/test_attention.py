"""Attention in a quantised model: said in metadata, kept in the file, undone by a rule."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
from onnx_models import make_model, value

import lowprec

WIDE, HEADS = 64, 4


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
    return make_model(
        nodes,
        [value("x", ["b", "s", WIDE])],
        [value("y", ["b", "s", WIDE])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
        opset=23,
    )


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
