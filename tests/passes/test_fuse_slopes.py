"""PRelu in a convolution's epilogue changes the number of steps, not the bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdq_models import Builder, operators

from lowprec import graph
from lowprec._ext import _core
from lowprec.engine import Session, compile_model
from lowprec.passes import fuse
from lowprec.passes.own import int_list
from lowprec.passes.unary_operators import LEAKY_RELU, PRELU_CHANNEL

ISAS = _core.available_isas()


def apart(proto: onnx.ModelProto) -> Session:
    """Return a session in which every PRelu is a step of its own: its operand is observed."""
    hub = graph.load(proto)
    names = [
        str(value.name)
        for node in hub.graph
        if node.op_type == "PRelu"
        for value in (node.inputs[0], node.outputs[0])
        if value is not None
    ]
    return compile_model(hub, observers={name: _core.TensorObserver() for name in names})


def chains(proto: onnx.ModelProto) -> list[list[int]]:
    """Return the operators in the epilogue of each convolution."""
    hub = graph.load(proto)
    fuse(hub)
    return [int_list(node, "chain_codes") for node in hub.graph if "Conv" in node.op_type]


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


def test_sums_past_32_bits_have_slopes_too():
    b = Builder()
    scale, signs = b.constant(np.float32(1e-9)), np.array([1, -1, -1])
    bias = b.constant((signs * (2**31 - 1)).astype(np.int32))
    codes = b.constant(np.broadcast_to(3 * signs.reshape(3, 1, 1, 1), (3, 2, 1, 1)).astype("b"))
    weights, bias = (b.node("DequantizeLinear", value, scale) for value in (codes, bias))
    y = b.node("Conv", b.quantized("x", 1.0), weights, bias)
    slopes = b.constant(np.array([0.5, -2.0, 3.0], "f").reshape(3, 1, 1))
    proto = b.model(b.quantized(b.node("PRelu", y, slopes), 0.01, 5), (1, 2, 3, 4))
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
