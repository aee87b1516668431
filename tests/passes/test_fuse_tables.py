"""Functions of one code become tables, with the codes of the steps that they replace."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from qdq_models import RNG, Builder, operators

from lowprec import graph
from lowprec.engine import compile_model


def hard_swish(b: Builder, x: str, dtype: type = np.uint8) -> str:
    """x * clip(x + 3, 0, 6) / 6 as onnxruntime's quantizer leaves it, on codes at every step."""

    def number(value: float) -> str:
        scale, zero = b.constant(np.float32(value / 255)), b.constant(np.uint8(0))
        return b.node("DequantizeLinear", b.constant(np.uint8(255)), scale, zero)

    zero = -100 if dtype == np.int8 else 28
    shifted = b.quantized(b.node("Add", x, number(3.0)), 0.04, zero, dtype)
    bounds = b.constant(np.float32(0)), b.constant(np.float32(6))
    clipped = b.quantized(b.node("Clip", shifted, *bounds), 6 / 255, 0, np.uint8)
    product = b.quantized(b.node("Mul", x, clipped), 0.2, zero, dtype)
    return b.quantized(b.node("Mul", product, number(1 / 6)), 0.04, zero, dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_a_function_of_codes_is_one_table(dtype):
    b = Builder()
    x = b.quantized("x", 0.03, 20, dtype)
    proto = b.model(hard_swish(b, x, dtype), (2, 500))
    assert operators(proto) == ["QuantizeLinear", "QTable", "DequantizeLinear"]
    x_real = np.linspace(-6, 6, 1000, dtype=np.float32).reshape(2, 500)
    (result,) = compile_model(graph.load(proto)).run({"x": x_real})
    (plain,) = compile_model(graph.load(proto), fused=False).run({"x": x_real})
    assert len(np.unique(result)) > 80
    assert result.tobytes() == plain.tobytes()


def layers(group: int) -> onnx.ModelProto:
    b = Builder()
    x = b.quantized("x", 0.02, 128)
    x = b.quantized(b.node("Conv", x, b.weights((72, 8, 3, 3), 0), pads=[1] * 4), 0.03, 100)
    x = hard_swish(b, x)
    weights = b.weights((72, 72 // group, 3, 3), 0)
    x = b.quantized(b.node("Conv", x, weights, group=group, pads=[1] * 4), 0.04, 110)
    x = hard_swish(b, x)
    return b.model(b.node("GlobalAveragePool", x), (2, 8, 9, 7))


@pytest.mark.parametrize("group", [1, 4, 72])
def test_a_layer_applies_the_table_that_follows(group, monkeypatch):
    proto = layers(group)
    kinds = operators(proto)
    assert kinds.count("QConv") == 2
    assert not {"QTable", "QAdd", "QMul"} & set(kinds)
    x = RNG.standard_normal((2, 8, 9, 7)).astype("f")
    (result,) = compile_model(graph.load(proto)).run({"x": x})
    monkeypatch.setattr(sys.modules["lowprec.passes.fuse"], "fuse_tables", lambda model: False)
    assert "QMul" in operators(proto)
    (separate,) = compile_model(graph.load(proto)).run({"x": x})
    assert result.tobytes() == separate.tobytes()


def test_a_code_that_others_read_stays():
    b = Builder()
    x = b.quantized("x", 0.02, 128)
    y = b.quantized(b.node("Conv", x, b.weights((8, 8, 1, 1), 0)), 0.03, 100)
    z = b.quantized(b.node("Mul", y, b.node("Sigmoid", y)), 0.02, 90)
    proto = b.model(b.node("Concat", b.node("GlobalAveragePool", z), y, axis=2), (1, 8, 5, 1))
    kinds = operators(proto)
    assert "QConv" in kinds
    assert "QTable" in kinds
    x_real = RNG.standard_normal((1, 8, 5, 1)).astype("f")
    (result,) = compile_model(graph.load(proto)).run({"x": x_real})
    (plain,) = compile_model(graph.load(proto), fused=False).run({"x": x_real})
    np.testing.assert_allclose(result, plain, atol=0.0301)


def test_a_sum_of_two_tensors_is_no_table():
    b = Builder()
    x, y = (b.quantized(b.node("Mul", "x", b.constant(np.float32(n))), 0.03, 9) for n in (1, 2))
    kinds = operators(b.model(b.quantized(b.node("Add", x, y), 0.05, 20), (3, 4)))
    assert "QAdd" in kinds
