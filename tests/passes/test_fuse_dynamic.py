"""Layers of weights as other tools store them, and of activations quantised by their own range."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from qdq_models import Builder, onnxruntime_result, operators

from lowprec import graph
from lowprec.engine import compile_model

RNG = np.random.default_rng(11)


def dynamic_model(
    op: str,
    codes: np.ndarray,
    zero_point: np.ndarray,
    scale: np.ndarray,
    shape: tuple[int, ...],
    *,
    row: np.ndarray | None = None,
    **attributes: object,
) -> onnx.ModelProto:
    """DynamicQuantizeLinear -> op -> Cast -> Mul -> Add -> Relu, as quantize_dynamic writes it."""
    b = Builder()
    quantize = onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"])
    b.nodes.append(quantize)
    acc = b.node(op, "xq", b.constant(codes), "xz", b.constant(zero_point), **attributes)
    real = b.node("Cast", acc, to=TensorProto.FLOAT)
    y = b.node("Mul", real, b.node("Mul", "xs", b.constant(scale)))
    if row is not None:
        y = b.node("Relu", b.node("Add", y, b.constant(row)))
    return b.model(y, shape)


def assert_same_bits(proto: onnx.ModelProto, x: np.ndarray, expected: list[str]) -> np.ndarray:
    assert operators(proto) == expected
    (fused,) = compile_model(graph.load(proto)).run({"x": x})
    (plain,) = compile_model(graph.load(proto), fused=False).run({"x": x})
    assert fused.shape == plain.shape
    assert fused.tobytes() == plain.tobytes()
    np.testing.assert_allclose(fused, onnxruntime_result(proto, x), rtol=1e-5, atol=1e-5)
    return fused


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("zero", ["none", "middle", "far"])
def test_a_dynamic_matrix_product_is_one_step(dtype, per_channel, zero):
    info = np.iinfo(dtype)
    codes = RNG.integers(info.min, info.max, (37, 70), endpoint=True).astype(dtype)
    channels = 70 if per_channel else 1
    offset = {"none": 0, "middle": 3, "far": 77}[zero]
    zero_point = (info.min + info.max + 1) // 2 + offset - RNG.integers(0, 2, channels)
    shape = (channels,) if per_channel else ()
    proto = dynamic_model(
        "MatMulInteger",
        codes,
        zero_point.astype(dtype).reshape(shape),
        (RNG.random(channels) * 0.1 + 0.01).astype("f").reshape(shape),
        (2, 5, 37),
        row=RNG.standard_normal(70).astype("f"),
    )
    x = RNG.standard_normal((2, 5, 37)).astype("f") * 3 + 1
    assert_same_bits(proto, x, ["DynamicQuantizeLinear", "QMatMul"])


@pytest.mark.parametrize("groups", [1, 2, 12])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_dynamic_convolution_is_one_step(dtype, groups):
    info = np.iinfo(dtype)
    codes = RNG.integers(info.min, info.max, (24 if groups < 12 else 12, 12 // groups, 3, 3))
    codes.reshape(-1)[:2] = info.min, info.max
    channels = codes.shape[0]
    proto = dynamic_model(
        "ConvInteger",
        codes.astype(dtype),
        np.array(info.min + 100 if dtype == np.uint8 else 0, dtype),
        np.float32(0.03),
        (2, 12, 9, 10),
        row=RNG.standard_normal((1, channels, 1, 1)).astype("f"),
        pads=[1, 2, 0, 1],
        strides=[2, 1],
        group=groups,
    )
    for shift in (-2, 0, 3):  # the border is the zero point, which follows from the data
        x = RNG.standard_normal((2, 12, 9, 10)).astype("f") + shift
        assert_same_bits(proto, x, ["DynamicQuantizeLinear", "QConv"])


@pytest.mark.parametrize("zero_point", [0, 255])
def test_depthwise_weights_that_need_nine_bits(zero_point):
    codes = np.array([0, 255, 128, 1, 254, 127, 3, 99, 255], np.uint8).reshape(1, 1, 3, 3)
    proto = dynamic_model(
        "ConvInteger",
        np.repeat(codes, 5, axis=0),
        np.array(zero_point, np.uint8),
        np.float32(0.03),
        (1, 5, 6, 6),
        group=5,
    )
    x = RNG.standard_normal((1, 5, 6, 6)).astype("f")
    assert_same_bits(proto, x, ["DynamicQuantizeLinear", "QConv"])


@pytest.mark.parametrize("groups", [1, 12])
def test_sums_of_signed_activations(groups):
    b = Builder()
    scale, zero = b.constant(np.float32(0.03)), b.constant(np.int8(-7))
    xq = b.node("QuantizeLinear", "x", scale, zero)
    codes = b.constant(RNG.integers(-128, 128, (12, 12 // groups, 3, 3)).astype(np.int8))
    sums = b.node("ConvInteger", xq, codes, zero, group=groups, pads=[1, 1, 1, 1])
    proto = b.model(b.node("Cast", sums, to=TensorProto.FLOAT), (2, 12, 9, 10))
    x = RNG.standard_normal((2, 12, 9, 10)).astype("f")
    assert_same_bits(proto, x, ["QuantizeLinear", "QConv", "Cast"])


def test_an_integer_product_without_its_usual_tail_gives_sums():
    b = Builder()
    b.nodes.append(onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]))
    codes = b.constant(RNG.integers(0, 256, (9, 6)).astype(np.uint8))
    acc = b.node("MatMulInteger", "xq", codes, "xz", b.constant(np.uint8(3)))
    proto = b.model(b.node("Cast", b.node("Add", acc, acc), to=TensorProto.FLOAT), (4, 9))
    x = RNG.standard_normal((4, 9)).astype("f")
    assert_same_bits(proto, x, ["DynamicQuantizeLinear", "QMatMul", "Add", "Cast"])


@pytest.mark.parametrize("a_type", [np.uint8, np.int8])
@pytest.mark.parametrize("b_type", [np.uint8, np.int8])
@pytest.mark.parametrize("b_shape", [(2, 3, 17, 11), (1, 1, 17, 11), (2, 1, 17, 11)])
def test_a_product_of_two_activations_is_an_integer_product(a_type, b_type, b_shape):
    b = Builder()
    a = b.quantized("x", 0.02, 5, a_type)
    size = int(np.prod(b_shape))
    flat = b.node("Reshape", "x", b.constant(np.array([-1])))
    flat = b.node("Slice", flat, *(b.constant(np.array([n])) for n in (0, size)))
    other = b.node("Reshape", flat, b.constant(np.array(b_shape)))
    y = b.node("MatMul", a, b.quantized(other, 0.03, -4 if b_type == np.int8 else 130, b_type))
    proto = b.model(b.quantized(y, 0.1, 128), (2, 3, 13, 17))
    assert "QMatMul" in operators(proto)
    x = RNG.standard_normal((2, 3, 13, 17)).astype("f")
    (result,) = compile_model(graph.load(proto)).run({"x": x})
    steps = np.abs(result - onnxruntime_result(proto, x)) / np.float32(0.1)
    assert steps.max() < 1.01
    assert (steps > 0.5).mean() < 0.02


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("one_zero_point", [True, False])
def test_a_depthwise_layer_with_a_scale_for_each_channel_it_reads(dtype, one_zero_point):
    b = Builder()
    scales = b.constant((RNG.random(20) * 0.02 + 0.01).astype("f"))
    middle = 128 if dtype == np.uint8 else 0
    zeros = np.full(20, middle + 3) - (0 if one_zero_point else np.arange(20))
    numbers = scales, b.constant(zeros.astype(dtype))
    x = b.node("QuantizeLinear", "x", *numbers, axis=1)
    x = b.node("DequantizeLinear", x, *numbers, axis=1)
    y = b.node("Conv", x, b.weights((20, 1, 3, 3), 0), group=20, pads=[1] * 4)
    proto = b.model(y, (2, 20, 7, 6))
    assert ("QConv" in operators(proto)) == one_zero_point
    x_real = RNG.standard_normal((2, 20, 7, 6)).astype("f")
    (result,) = compile_model(graph.load(proto)).run({"x": x_real})
    np.testing.assert_allclose(result, onnxruntime_result(proto, x_real), rtol=1e-5, atol=1e-5)


def layer_model(kind: str, *, quantized: bool, residual: bool) -> onnx.ModelProto:
    """A dynamic layer, its bias, perhaps a tensor that is added, and a static Quantize."""
    b = Builder()
    b.nodes.append(onnx.helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"]))
    shape = (2, 8, 6, 7) if kind != "matrix" else (3, 5, 8)
    if kind == "matrix":
        codes = RNG.integers(-127, 128, (8, 8)).astype(np.int8)
        acc = b.node("MatMulInteger", "xq", b.constant(codes), "xz")
        channels: tuple[int, ...] = (8,)
    else:
        groups = 8 if kind == "depthwise" else 1
        codes = RNG.integers(-127, 128, (8, 8 // groups, 3, 3)).astype(np.int8)
        attributes = {"group": groups, "pads": [1] * 4}
        acc = b.node("ConvInteger", "xq", b.constant(codes), "xz", **attributes)
        channels = (8, 1, 1)
    scale = b.constant((RNG.random(channels) * 0.1 + 0.01).astype("f"))
    y = b.node("Mul", b.node("Cast", acc, to=TensorProto.FLOAT), b.node("Mul", "xs", scale))
    if residual:
        y = b.node("Add", y, b.floats(channels))
        y = b.node("Relu", b.node("Add", y, "x"))
    if quantized:
        y = b.quantized(y, 0.5, 100)
    return b.model(y, shape)


@pytest.mark.parametrize("kind", ["matrix", "conv", "depthwise"])
@pytest.mark.parametrize("quantized", [False, True])
def test_a_dynamic_layer_adds_another_tensor_in_its_epilogue(kind, quantized):
    proto = layer_model(kind, quantized=quantized, residual=True)
    own = "QMatMul" if kind == "matrix" else "QConv"
    rest = ["DequantizeLinear"] if quantized else []
    assert operators(proto) == ["DynamicQuantizeLinear", own, *rest]
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    x = RNG.standard_normal(shape).astype("f") * 7 + 1
    (fused,) = compile_model(graph.load(proto)).run({"x": x})
    (plain,) = compile_model(graph.load(proto), fused=False).run({"x": x})
    assert fused.tobytes() == plain.tobytes()


@pytest.mark.parametrize("kind", ["matrix", "conv", "depthwise"])
@pytest.mark.parametrize("residual", [False, True])
def test_a_scale_of_the_run_may_send_sums_beyond_the_codes(kind, residual):
    """The multiplier is not known when the proof is made that rounding cannot wrap."""
    proto = layer_model(kind, quantized=True, residual=residual)
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    for size in (1e6, 1e12, 1e30):
        x = (RNG.standard_normal(shape) * size).astype("f")
        (fused,) = compile_model(graph.load(proto)).run({"x": x})
        (plain,) = compile_model(graph.load(proto), fused=False).run({"x": x})
        assert fused.tobytes() == plain.tobytes()
        low = 0.0 if residual else -50.0  # Relu
        assert {float(fused.min()), float(fused.max())} == {low, 77.5}
