"""Constants of each channel in an epilogue change the number of steps, not the bits."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from qdq_models import Builder, operators

import lowprec
from lowprec import graph
from lowprec._ext import _core
from lowprec.config import Config
from lowprec.engine import Session, compile_model
from lowprec.passes import fuse
from lowprec.passes.own import int_list
from lowprec.passes.unary_operators import GELU, LEAKY_RELU, MUL, MUL_CHANNEL, PRELU_CHANNEL, RELU
from lowprec.quantization import apply_precisions

ISAS = _core.available_isas()


def apart(model: onnx.ModelProto | ir.Model) -> Session:
    """Return a session with each PRelu and Mul a step of its own: its operand is observed."""
    hub = graph.load(model) if isinstance(model, onnx.ModelProto) else model
    names = [
        str(value.name)
        for node in hub.graph
        if node.op_type in ("PRelu", "Mul")
        for value in (node.inputs[0], node.outputs[0])
        if value is not None
    ]
    return compile_model(hub, observers={name: _core.TensorObserver() for name in names})


def chains(proto: onnx.ModelProto) -> list[list[int]]:
    """Return the operators in the epilogue of each product."""
    hub = graph.load(proto)
    fuse(hub)
    products = ("Conv", "QConv", "QMatMul", "QGemm")
    return [int_list(node, "chain_codes") for node in hub.graph if node.op_type in products]


@st.composite
def networks(draw: st.DrawFn) -> tuple[onnx.ModelProto, np.ndarray]:
    """Return Conv ──► PRelu [──► Quantize] [──► Conv] over codes or floats."""
    b = Builder(np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    integer, channels = draw(st.booleans()), draw(st.sampled_from([1, 3, 10, 28, 64]))
    out, size = (
        draw(st.sampled_from([1, 5, 10, 16, 40, 64, 70, 130])),
        draw(st.sampled_from([1, 3])),
    )
    signed = draw(st.booleans())

    def quantized(value: str, scale: float, zero: int) -> str:
        code = np.int8 if signed else np.uint8
        return b.quantized(value, scale, zero - 128 if signed else zero, code) if integer else value

    def convolution(value: str, inside: int, outside: int) -> str:
        kernel = (outside, inside, size, size)
        weights = b.weights(kernel, 0) if integer else b.floats(kernel)
        return b.node("Conv", value, weights, pads=[size // 2] * 4)

    y = convolution(quantized("x", 0.02, 128), channels, out)
    slopes = b.rng.standard_normal((1,) * draw(st.integers(0, 1)) + (out, 1, 1)).astype("f")
    y = b.node("PRelu", y, b.constant(slopes))
    if draw(st.booleans()):
        y = quantized(y, 0.02, draw(st.sampled_from([0, 90])))
    if draw(st.booleans()):
        y = convolution(quantized(y, 0.02, 90), out, 4)
    shape = (draw(st.integers(1, 2)), channels, 5, draw(st.integers(3, 21)))
    return b.model(y, shape), b.rng.standard_normal(shape).astype("f")


@pytest.mark.parametrize("isa", ISAS)
@given(networks())
@settings(max_examples=40)
def test_slopes_in_epilogues_have_the_bits_of_the_steps(isa, network):
    proto, x = network
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOWPREC_ISA", isa)
        fused, plain = compile_model(graph.load(proto)), apart(proto)
        (made,), (expected,) = fused.run({"x": x}), plain.run({"x": x})
    assert chains(proto)[0] in ([LEAKY_RELU], [PRELU_CHANNEL])
    assert made.tobytes() == expected.tobytes()


@pytest.mark.parametrize("op", ["PRelu", "Mul"])
def test_sums_past_32_bits_have_constants_of_channels_too(op):
    b = Builder()
    scale, signs = b.constant(np.float32(1e-9)), np.array([1, -1, -1])
    bias = b.constant((signs * (2**31 - 1)).astype(np.int32))
    codes = b.constant(np.broadcast_to(3 * signs.reshape(3, 1, 1, 1), (3, 2, 1, 1)).astype("b"))
    weights, bias = (b.node("DequantizeLinear", value, scale) for value in (codes, bias))
    y = b.node("Conv", b.quantized("x", 1.0), weights, bias)
    constants = b.constant(np.array([0.5, -2.0, 3.0], "f").reshape(3, 1, 1))
    proto = b.model(b.quantized(b.node(op, y, constants), 0.01, 5), (1, 2, 3, 4))
    x = np.random.default_rng(0).integers(0, 256, (1, 2, 3, 4)).astype("f")
    fused = compile_model(graph.load(proto))
    (made,), (expected,) = fused.run({"x": x}), apart(proto).run({"x": x})
    assert "u8s8 in 64 bits" in " ".join(row.kernel for row in fused.explain().steps)
    assert made.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("slopes", "group", "expected"),
    [
        (np.ones((1, 1, 1), "f"), 1, ["QuantizeLinear", "QConv"]),  # one slope: LeakyRelu
        (np.ones((4, 1, 1), "f"), 2, ["QuantizeLinear", "QConv", "PRelu", "QuantizeLinear"]),
        (np.ones((4, 5, 1), "f"), 1, ["QuantizeLinear", "QConv", "PRelu", "QuantizeLinear"]),
        (np.ones(6, "f"), 1, ["QuantizeLinear", "QConv", "PRelu", "QuantizeLinear"]),
    ],
)
def test_other_slopes_stay_outside(slopes, group, expected):
    b = Builder()
    y = b.node("Conv", b.quantized("x", 0.02), b.weights((4, 4 // group, 1, 1), 0), group=group)
    y = b.quantized(b.node("PRelu", y, b.constant(slopes)), 0.02)
    proto = b.model(y, (1, 4, 5, 6))
    found = operators(proto)
    assert found[:2] == expected[:2]
    assert ("PRelu" in expected) == (not {"PRelu", "Elementwise"}.isdisjoint(found))


# ---- a Mul by a constant for each channel --------------------------------------------------------
ACTIVATIONS = {"": [], "Relu": [RELU], "Gelu": [GELU]}


@st.composite
def scaled_products(draw: st.DrawFn) -> tuple[onnx.ModelProto, np.ndarray, list[int]]:
    """Return product [──► activation] ──► Mul(row) [──► + x] [──► Quantize], x and the chain."""
    b = Builder(np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    inside, out = draw(st.sampled_from([1, 5, 64])), draw(st.sampled_from([2, 17, 64, 70, 130]))
    kind, activation = (
        draw(st.sampled_from(["MatMul", "Gemm", "Conv"])),
        draw(st.sampled_from(sorted(ACTIVATIONS))),
    )
    shape = {"MatMul": (2, 7, inside), "Gemm": (9, inside), "Conv": (2, inside, 3, 5)}[kind]
    x = b.quantized("x", 0.02, 128)
    if kind == "Conv":
        y, row = b.node("Conv", x, b.weights((out, inside, 1, 1), 0)), (out, 1, 1)
    elif kind == "Gemm":
        y, row = b.node("Gemm", x, b.weights((out, inside), 0), transB=1), (out,)
    else:
        y, row = b.node("MatMul", x, b.weights((inside, out), 1)), (out,)
        if draw(st.booleans()):
            y = b.node("Add", y, b.floats((out,)))
    if activation:
        y = b.node(activation, y)
    factors = b.constant(np.exp2(b.rng.integers(-4, 5, row)).astype("f"))
    y = b.node("Mul", *draw(st.permutations([y, factors])))
    if draw(st.booleans()):
        y = b.node("Add", y, b.constant(b.rng.standard_normal((1,)).astype("f")))
    if draw(st.booleans()):
        y = b.quantized(y, 0.02, draw(st.sampled_from([0, 90])))
    chain = [*ACTIVATIONS[activation], MUL_CHANNEL]
    return b.model(y, shape), b.rng.standard_normal(shape).astype("f"), chain


@pytest.mark.parametrize("isa", ISAS)
@given(scaled_products())
@settings(max_examples=60)
def test_factors_in_epilogues_have_the_bits_of_the_steps(isa, drawn):
    proto, x, chain = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOWPREC_ISA", isa)
        fused, plain = compile_model(graph.load(proto)), apart(proto)
        (made,), (expected,) = fused.run({"x": x}), plain.run({"x": x})
    assert chains(proto) == [chain]
    assert made.tobytes() == expected.tobytes()


@pytest.mark.parametrize("rows", [7, 1])
def test_a_residual_joins_behind_the_factors(rows):
    b = Builder()
    y = b.node("Gelu", b.node("MatMul", b.quantized("x", 0.02, 128), b.weights((24, 24), 1)))
    y = b.node("Mul", y, b.constant(np.linspace(0.5, 2, 24, dtype="f")))
    proto = b.model(b.quantized(b.node("Add", y, "x"), 0.02, 100), (rows, 24))
    x = b.rng.standard_normal((rows, 24)).astype("f")
    fused = compile_model(graph.load(proto))
    (made,), (expected,) = fused.run({"x": x}), apart(proto).run({"x": x})
    assert chains(proto) == [[GELU, MUL_CHANNEL]]
    assert [step.op for step in fused.explain().steps][:2] == ["QuantizeLinear", "QMatMul"]
    assert made.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("shape", "group", "expected"),
    [
        ((1,), 1, [MUL]),  # one factor: a unary operator
        ((4, 1, 1), 2, []),
        ((4, 5, 1), 1, []),
        ((6,), 1, []),
        ((2, 4, 1, 1), 1, []),
    ],
)
def test_other_factors_stay_outside(shape, group, expected):
    b = Builder()
    y = b.node("Conv", b.quantized("x", 0.02), b.weights((4, 4 // group, 1, 1), 0), group=group)
    y = b.quantized(b.node("Mul", y, b.constant(np.full(shape, 0.5, "f"))), 0.02)
    proto = b.model(y, (2, 4, 5, 6))
    assert chains(proto) == [expected]
    x = b.rng.standard_normal((2, 4, 5, 6)).astype("f")
    (made,), (plain,) = compile_model(graph.load(proto)).run({"x": x}), apart(proto).run({"x": x})
    assert made.tobytes() == plain.tobytes()


def test_a_row_as_long_as_the_image_is_wide_is_no_factor_of_channels():
    b = Builder()
    y = b.node("Conv", b.quantized("x", 0.02), b.weights((6, 4, 1, 1), 0))
    y = b.quantized(b.node("Mul", y, b.constant(np.full(6, 0.5, "f"))), 0.02)
    assert chains(b.model(y, (2, 4, 5, 6))) == [[]]


@pytest.mark.parametrize("follower", ["Mul", "Relu"])
def test_sums_of_integers_take_nothing_of_floats(follower):
    """Ill-typed: s32 sums by an f32 row. Epilogues are of floats; sums leave as they are."""
    b = Builder()
    y = b.node("MatMulInteger", "x", b.constant(b.rng.integers(-9, 9, (4, 3)).astype(np.int8)))
    operands = [b.constant(np.array([0.5, 2, 3], "f"))] if follower == "Mul" else []
    proto = b.model(b.node(follower, y, *operands), (2, 4))
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    x = np.arange(8, dtype=np.uint8).reshape(2, 4)
    if follower == "Mul":
        with pytest.raises(lowprec.LowprecError, match="mismatch"):
            compile_model(graph.load(proto)).run({"x": x})
        return
    (made,) = compile_model(graph.load(proto)).run({"x": x})
    weights = numpy_helper.to_array(proto.graph.initializer[0]).astype(np.int64)
    np.testing.assert_array_equal(made, np.maximum(x.astype(np.int64) @ weights, 0))


@pytest.mark.parametrize("op", ["PRelu", "Mul"])
def test_bf16_convolutions_take_constants_of_channels(op):
    b = Builder()
    y = b.node("Conv", "x", b.floats((40, 16, 3, 3)), pads=[1] * 4)
    y = b.node(op, y, b.constant(b.rng.standard_normal((40, 1, 1)).astype("f")))
    y = b.node("Conv", y, b.floats((8, 40, 1, 1)))
    proto = b.model(y, (1, 16, 9, 9))
    hub = apply_precisions(graph.load(proto), {}, Config(precision="bf16")).model
    x = b.rng.standard_normal((1, 16, 9, 9)).astype("f")
    fused, plain = compile_model(hub), apart(hub)
    (made,), (expected,) = fused.run({"x": x}), plain.run({"x": x})
    assert [step.op for step in fused.explain().steps if step.op in ("PRelu", "Mul")] == []
    assert made.tobytes() == expected.tobytes()
