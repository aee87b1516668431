"""Fusing changes the number of steps, not the bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from qdq_models import RNG, Builder, onnxruntime_result, operators
from small_models import build

from lowprec import graph
from lowprec.engine import compile_model
from lowprec.numerics import reference


def residual_block() -> onnx.ModelProto:
    """Conv -> Relu -> Q, a 1x1 beside it -> Q, Add -> Q -> MaxPool -> Q -> Conv."""
    b = Builder()
    x = b.quantized("x", 0.02, 128)
    main = b.node("Conv", x, b.weights((16, 8, 3, 3), 0), pads=[1] * 4)
    main = b.quantized(b.node("Relu", main), 0.03)
    side = b.quantized(b.node("Conv", x, b.weights((16, 8, 1, 1), 0)), 0.02, 100)
    added = b.quantized(b.node("Add", main, side), 0.04, 60)
    pooled = b.node("MaxPool", added, kernel_shape=[2, 2], strides=[2, 2])
    pooled = b.quantized(pooled, 0.04, 60)
    last = b.node("Conv", pooled, b.weights((5, 16, 1, 1), 0))
    return b.model(last, (1, 8, 12, 14))


def test_a_residual_block_becomes_integer_steps():
    assert operators(residual_block()) == [
        "QuantizeLinear", "QConv", "QConv", "MaxPool", "QConv",
    ]  # fmt: skip


def test_a_residual_block_agrees_with_onnxruntime():
    proto = residual_block()
    x = RNG.standard_normal((1, 8, 12, 14)).astype("f")
    (ours,) = compile_model(graph.load(proto)).run({"x": x})
    theirs = onnxruntime_result(proto, x)
    # A runtime that goes through float may round one code the other way here and there.
    assert np.abs(ours - theirs).max() <= np.abs(theirs).max() * 0.02
    assert np.mean(ours == pytest.approx(theirs, abs=1e-5)) > 0.9


def chain_between_layers() -> onnx.ModelProto:
    b = Builder()
    x = b.quantized("x", 0.02, 128)
    y = b.node("Conv", x, b.weights((24, 8, 3, 3), 0), pads=[1] * 4)
    y = b.node("HardSwish", y)
    y = b.node("Mul", y, b.constant(np.float32([0.7])))
    y = b.node("Add", y, b.constant(np.float32(-0.2)))
    y = b.quantized(y, 0.03, 20)
    y = b.node("Conv", y, b.weights((24, 1, 3, 3), 0), group=24)
    y = b.node("Mul", y, b.node("Sigmoid", y))
    y = b.quantized(y, 0.01, 30)
    y = b.node("Conv", y, b.weights((4, 24, 1, 1), 0))
    return b.model(y, (1, 8, 9, 10))


def test_functions_between_layers_move_into_the_epilogue():
    assert operators(chain_between_layers()) == ["QuantizeLinear", "QConv", "QConv", "QConv"]


def test_a_fused_chain_gives_the_bits_of_its_steps():
    proto = chain_between_layers()
    x = RNG.standard_normal((1, 8, 9, 10)).astype("f")
    fused = compile_model(graph.load(proto))
    (expected,) = fused.run({"x": x})
    # Observing every float value keeps each of them: one step per operator.
    from lowprec._ext import _core

    hub = graph.load(proto)
    names = [
        node.outputs[0].name
        for node in hub.graph
        if node.op_type in ("Conv", "HardSwish", "Mul", "Add", "Sigmoid")
    ]
    split = compile_model(hub, observers={name: _core.TensorObserver() for name in names})
    (result,) = split.run({"x": x})
    assert len(split.explain().steps) > len(fused.explain().steps) + 6
    assert result.tobytes() == expected.tobytes()


def test_clip_before_quantize_acts_on_codes():
    b = Builder()
    x = b.quantized("x", 0.02, 128)
    w = RNG.integers(-127, 128, (6, 9)).astype(np.int8)
    weights = b.node("DequantizeLinear", b.constant(w.T.copy()), b.constant(np.float32(0.004)))
    y = b.node("MatMul", x, weights)
    bounds = [b.constant(np.float32(v)) for v in (-0.5, 1.25)]
    y = b.node("Clip", y, *bounds)
    y = b.quantized(y, 0.011, 90)
    proto = b.model(b.node("Identity", y), (None, 9))
    x_real = RNG.standard_normal((7, 9)).astype("f")
    (result,) = compile_model(graph.load(proto)).run({"x": x_real})
    codes = reference.quantize_linear(x_real, np.float32(0.02), np.uint8(128))
    acc = (codes.astype(np.int64) - 128) @ w.T.astype(np.int64)
    multiplier = (np.float32(0.02) * np.float32(0.004)) / np.float32(0.011)
    y_codes = reference.requantize(acc, multiplier, np.uint8(90))
    limits = reference.quantize_linear(np.float32([-0.5, 1.25]), np.float32(0.011), np.uint8(90))
    y_codes = np.clip(y_codes, *limits)
    np.testing.assert_array_equal(
        result, reference.dequantize_linear(y_codes, np.float32(0.011), np.uint8(90))
    )


def test_a_row_after_a_matrix_product_is_its_bias():
    b = Builder()
    w, row = RNG.standard_normal((9, 6)).astype("f"), RNG.standard_normal(6).astype("f")
    y = b.node("MatMul", "x", b.constant(w))
    y = b.node("Relu", b.node("Add", b.constant(row), y))
    proto = b.model(y, (2, 5, 9))
    assert operators(proto) == ["MatMul"]
    x = RNG.standard_normal((2, 5, 9)).astype("f")
    (result,) = compile_model(graph.load(proto)).run({"x": x})
    (plain,) = compile_model(graph.load(proto), fused=False).run({"x": x})
    assert result.tobytes() == plain.tobytes()


def test_functions_of_codes_become_a_table():
    b = Builder()
    x = b.quantized("x", 0.03, 120)
    y = b.quantized(b.node("Sigmoid", b.node("Mul", x, b.constant(np.float32(1.5)))), 1 / 255)
    proto = b.model(y, (1, 300))
    assert operators(proto) == ["QuantizeLinear", "QTable", "DequantizeLinear"]
    x_real = np.linspace(-5, 5, 300, dtype=np.float32).reshape(1, 300)
    (result,) = compile_model(graph.load(proto)).run({"x": x_real})
    (plain,) = compile_model(graph.load(proto), fused=False).run({"x": x_real})
    assert result.tobytes() == plain.tobytes()


@pytest.mark.parametrize("op", ["Reshape", "Transpose", "Slice", "Flatten"])
def test_data_movement_works_on_codes(op):
    b = Builder()
    x = b.quantized("x", 0.03, 120)
    arguments: dict[str, list[np.ndarray]] = {
        "Reshape": [np.array([6, 4])],
        "Slice": [np.array([1]), np.array([3]), np.array([1])],
    }
    attributes = {"perm": [2, 0, 1]} if op == "Transpose" else {}
    moved = b.node(op, x, *[b.constant(a) for a in arguments.get(op, [])], **attributes)
    proto = b.model(b.quantized(moved, 0.03, 120), (2, 3, 4))
    assert operators(proto) == ["QuantizeLinear", op, "DequantizeLinear"]
    x_real = RNG.standard_normal((2, 3, 4)).astype("f")
    (result,) = compile_model(graph.load(proto)).run({"x": x_real})
    np.testing.assert_array_equal(result, onnxruntime_result(proto, x_real))


def test_different_numbers_on_both_sides_stay():
    b = Builder()
    x = b.quantized("x", 0.03, 120)
    moved = b.node("Transpose", x, perm=[1, 0])
    proto = b.model(b.quantized(moved, 0.04, 120), (2, 3))
    # From codes to codes by way of floats, element by element.
    assert operators(proto) == ["QuantizeLinear", "Elementwise", "Transpose", "DequantizeLinear"]


def test_a_value_with_two_readers_stays_float():
    b = Builder()
    x = b.quantized("x", 0.02, 128)
    y = b.node("Relu", b.node("Conv", x, b.weights((16, 8, 1, 1), 0)))
    z = b.node("Conv", b.quantized(y, 0.03), b.weights((16, 16, 1, 1), 0))
    proto = b.model(b.node("Mul", z, b.node("GlobalAveragePool", y)), (1, 8, 4, 4))
    assert operators(proto) == [
        "QuantizeLinear", "QConv", "QuantizeLinear", "QConv", "GlobalAveragePool", "Mul",
    ]  # fmt: skip
    x_real = RNG.standard_normal((1, 8, 4, 4)).astype("f")
    (result,) = compile_model(graph.load(proto)).run({"x": x_real})
    theirs = onnxruntime_result(proto, x_real)
    np.testing.assert_allclose(result, theirs, atol=0.01 * np.abs(theirs).max())


def test_signed_activations_are_integer_layers():
    b = Builder()
    y = b.quantized("x", 0.02, -7, np.int8)
    y = b.node("Conv", y, b.weights((16, 8, 3, 3), 0), pads=[1, 1, 1, 1])
    y = b.quantized(y, 0.05, 3, np.int8)
    y = b.node("Conv", y, b.weights((16, 1, 3, 3), 0), group=16)
    proto = b.model(b.quantized(y, 0.04, -1, np.int8), (1, 8, 6, 6))
    assert operators(proto) == ["QuantizeLinear", "QConv", "QConv", "DequantizeLinear"]
    x_real = RNG.standard_normal((1, 8, 6, 6)).astype("f")
    (result,) = compile_model(graph.load(proto)).run({"x": x_real})
    steps = np.abs(result - onnxruntime_result(proto, x_real)) / np.float32(0.04)
    assert steps.max() < 1.01  # onnxruntime goes through float: a code may differ by one
    assert (steps > 0.5).mean() < 0.02


def odd_gemm(kind: str) -> onnx.ModelProto:
    b = Builder()
    scale = b.constant(np.float32(0.02))
    zero = b.constant(np.uint8(3))
    x = b.node("DequantizeLinear", b.node("QuantizeLinear", "x", scale, zero), scale, zero)
    codes = b.constant(RNG.integers(-127, 128, (9, 6)).astype(np.int8))
    if kind == "per-row scale":
        w = b.node("DequantizeLinear", codes, b.constant(np.full(9, 0.1, "f")), axis=0)
    else:
        weight_zero = b.constant(np.int8(5 if kind == "asymmetric weights" else 0))
        w = b.node("DequantizeLinear", codes, b.constant(np.float32(0.1)), weight_zero)
    operands = [x, w]
    if kind == "odd bias":
        bias = b.constant(np.arange(6, dtype=np.int32))
        operands.append(b.node("DequantizeLinear", bias, b.constant(np.float32(0.5))))
    if kind == "float bias":
        operands.append(b.constant(RNG.standard_normal((1, 6)).astype("f")))
    return b.model(b.node("Gemm", *operands), (4, 9))


@pytest.mark.parametrize("kind", ["asymmetric weights", "odd bias", "float bias"])
def test_odd_weights_and_biases_are_integer_layers_too(kind):
    proto = odd_gemm(kind)
    assert operators(proto) == ["QuantizeLinear", "QGemm"]
    x_real = RNG.standard_normal((4, 9)).astype("f")
    (result,) = compile_model(graph.load(proto)).run({"x": x_real})
    np.testing.assert_allclose(result, onnxruntime_result(proto, x_real), rtol=1e-5, atol=1e-5)


def test_what_is_not_an_integer_layer_stays_as_it_is():
    proto = odd_gemm("per-row scale")
    assert "QGemm" not in operators(proto)
    x_real = RNG.standard_normal((4, 9)).astype("f")
    (result,) = compile_model(graph.load(proto)).run({"x": x_real})
    np.testing.assert_allclose(result, onnxruntime_result(proto, x_real), rtol=1e-4, atol=1e-4)


def test_a_square_is_a_unary_operator_with_the_bits_of_pow():
    text = (
        "m (float[7] x, float[7] t) => (float[7] y, float[7] z) { y = Pow(x, two) z = Pow(t, k) }"
    )
    k = np.array([2, 2, 2, 2, 2, 2, 3], np.float32)
    hub = build(text, {"two": np.array(2, np.float32), "k": k})
    numbers = np.array([-1e30, -3e-30, -0.0, 0.1, 1.1, np.inf, np.nan], np.float32)
    feeds = {"x": numbers, "t": numbers}
    fused = compile_model(hub)
    made, cubed = fused.run(feeds)
    assert [step.op for step in fused.explain().steps if step.op != "Output"] == [
        "UnaryChain",
        "Pow",
    ]
    assert made[:6].tobytes() == cubed[:6].tobytes()
    assert np.isnan(made[6])
    assert made.tobytes() == compile_model(hub, fused=False).run(feeds)[0].tobytes()
