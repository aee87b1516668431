"""Adding a tensor in a product's epilogue changes the number of steps, not the bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qdq_models import Builder, operators

import lowprec
from lowprec import graph
from lowprec._ext import _core
from lowprec.engine import compile_model

ISAS = _core.available_isas()
CHANNELS = [1, 3, 8, 17, 64, 70, 130]


def apart(proto: onnx.ModelProto) -> lowprec.engine.Session:
    """Return a session in which every sum is a step of its own: its operands are observed."""
    hub = graph.load(proto)
    names = [
        value.name
        for node in hub.graph
        if node.op_type == "Add"
        for value in (*node.inputs, *node.outputs)
        if value is not None and not value.is_initializer() and not value.is_graph_input()
    ]
    return compile_model(hub, observers={str(name): _core.TensorObserver() for name in names})


def steps(session: lowprec.engine.Session) -> list[str]:
    return [row.op for row in session.explain().steps]


@st.composite
def blocks(draw: st.DrawFn) -> tuple[onnx.ModelProto, np.ndarray]:
    """Return two convolutions or products of codes, or of floats, and what their sum becomes."""
    b = Builder(np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    image, integer = draw(st.booleans()), draw(st.booleans())
    channels = draw(st.sampled_from(CHANNELS))
    out = channels if draw(st.booleans()) else draw(st.sampled_from(CHANNELS))
    batch = draw(st.integers(1, 2))
    shape = (batch, channels, 5, 6) if image else (batch, 7, channels)
    signed = draw(st.booleans())
    code = np.int8 if signed else np.uint8

    def quantized(value: str, scale: float, zero: int) -> str:
        return b.quantized(value, scale, zero - 128 if signed else zero, code) if integer else value

    def product(value: str, inside: int, outside: int, size: int) -> str:
        if image and inside == outside and inside > 1 and draw(st.booleans()):
            kernel = (outside, 1, 3, 3)  # depthwise
            weights = b.weights(kernel, 0) if integer else b.floats(kernel)
            return b.node("Conv", value, weights, pads=[1] * 4, group=inside)
        if not image:
            weights = b.weights((inside, outside), 1)
            return b.node("MatMul", value, weights if integer else b.floats((inside, outside)))
        kernel = (outside, inside, size, size)
        weights = b.weights(kernel, 0) if integer else b.floats(kernel)
        return b.node("Conv", value, weights, pads=[size // 2] * 4)

    x = quantized("x", 0.02, 128)
    main = product(x, channels, out, draw(st.sampled_from([1, 3])))
    if draw(st.booleans()):
        main = b.node("Relu", main)
    if draw(st.booleans()):
        main = quantized(main, 0.013, 90)
    kind = draw(st.sampled_from(["input", "product", "codes"]))
    if kind == "input" and out == channels:
        side = x  # its halo, if any, is for the convolution that reads it
    else:
        side = product(x, channels, out, 1)
        if kind == "codes":
            side = quantized(side, 0.017, 101)
    operands = [main, side]
    if draw(st.booleans()):
        operands.reverse()
    y = b.node("Add", *operands)
    for function in draw(st.sampled_from([[], ["Relu"], ["HardSwish"], ["Tanh", "Neg"]])):
        y = b.node(function, y)
    after = draw(st.sampled_from(["float", "codes", "layer"]))
    if after != "float":
        y = quantized(y, 0.031, 77)
    if after == "layer":
        y = product(y, out, 4, 3)
    return b.model(y, shape), b.rng.standard_normal(shape).astype("f")


@pytest.mark.parametrize("isa", ISAS)
@given(blocks(), st.integers(1, 3))
@settings(max_examples=40)
def test_sums_in_epilogues_have_the_bits_of_the_steps(isa, block, threads):
    proto, x = block
    before = lowprec.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOWPREC_ISA", isa)
        lowprec.set_num_threads(threads)
        try:
            fused, plain = compile_model(graph.load(proto)), apart(proto)
            (made,), (expected,) = fused.run({"x": x}), plain.run({"x": x})
        finally:
            lowprec.set_num_threads(before)
    assert "Add" in steps(plain)
    assert "Add" not in steps(fused)
    assert "QAdd" not in steps(fused)
    assert made.tobytes() == expected.tobytes()


def two_branches(side_shape: tuple[int, ...]) -> onnx.ModelProto:
    """x through a 1x1 convolution, plus a tensor that is an input of its own."""
    b = Builder()
    x = b.quantized("x", 0.02, 128)
    main = b.quantized(b.node("Conv", x, b.weights((16, 8, 1, 1), 0)), 0.02, 100)
    y = b.node("Relu", b.node("Add", main, "side"))
    last = b.node("Conv", b.quantized(y, 0.03), b.weights((5, 16, 1, 1), 0))
    proto = b.model(last, ("n", 8, "h", "w"))
    side = proto.graph.input.add()
    side.CopyFrom(onnx.helper.make_tensor_value_info("side", 1, side_shape))
    return proto


def test_a_float_tensor_from_outside_is_added():
    proto = two_branches(("n", 16, "h", "w"))
    assert operators(proto) == ["QuantizeLinear", "QConv", "QConv"]
    rng = np.random.default_rng(5)
    feeds = {
        "x": rng.standard_normal((2, 8, 3, 7)).astype("f"),
        "side": rng.standard_normal((2, 16, 3, 7)).astype("f"),
    }
    feeds["side"][0, 0, 0, :3] = [np.nan, np.inf, -np.inf]
    (made,), (expected,) = (s.run(feeds) for s in (compile_model(graph.load(proto)), apart(proto)))
    assert made.tobytes() == expected.tobytes()


@pytest.mark.parametrize("side", [(1, 16, 1, 1), (2, 16, 1, 7), (1, 16, 3, 1), (1, 1, 1, 1)])
def test_what_turns_out_to_be_broadcast_is_added_by_steps_of_its_own(side):
    proto = two_branches(("m", "c", "k", "l"))
    session = compile_model(graph.load(proto))
    rng = np.random.default_rng(6)
    feeds = {
        "x": rng.standard_normal((2, 8, 3, 7)).astype("f"),
        "side": rng.standard_normal(side).astype("f"),
    }
    (made,), (expected,) = session.run(feeds), apart(proto).run(feeds)
    assert made.tobytes() == expected.tobytes()
    assert all(row.op in ("QuantizeLinear", "QConv", "Output") for row in session.explain().steps)


def test_the_product_may_be_what_is_broadcast():
    proto = two_branches(("m", "c", "k", "l"))
    rng = np.random.default_rng(7)
    feeds = {
        "x": rng.standard_normal((1, 8, 1, 1)).astype("f"),
        "side": rng.standard_normal((2, 16, 3, 7)).astype("f"),
    }
    (made,), (expected,) = (s.run(feeds) for s in (compile_model(graph.load(proto)), apart(proto)))
    assert made.shape == (2, 5, 3, 7)
    assert made.tobytes() == expected.tobytes()


@pytest.mark.parametrize("side", [(2, 16, 3, 7), (1, 16, 3, 1)])
def test_a_table_follows_the_sum(side):
    b = Builder()
    x = b.quantized("x", 0.02, 128)
    main = b.quantized(b.node("Conv", x, b.weights((16, 8, 1, 1), 0)), 0.02, 100)
    y = b.quantized(b.node("Add", main, "side"), 0.03, 90)
    y = b.quantized(b.node("HardSwish", y), 0.02, 20)
    proto = b.model(b.node("Conv", y, b.weights((5, 16, 1, 1), 0)), ("n", 8, "h", "w"))
    added = proto.graph.input.add()
    added.CopyFrom(onnx.helper.make_tensor_value_info("side", 1, ("m", "c", "k", "l")))
    assert operators(proto) == ["QuantizeLinear", "QConv", "QConv"]
    rng = np.random.default_rng(9)
    feeds = {
        "x": rng.standard_normal((2, 8, 3, 7)).astype("f"),
        "side": rng.standard_normal(side).astype("f"),
    }
    (made,), (expected,) = (s.run(feeds) for s in (compile_model(graph.load(proto)), apart(proto)))
    assert made.tobytes() == expected.tobytes()


def test_a_known_broadcast_stays_outside_of_the_product():
    assert operators(two_branches((1, 16, 1, 1))) == [
        "QuantizeLinear", "QConv", "Elementwise", "QConv",
    ]  # fmt: skip


def test_sums_past_32_bits_are_added_to_as_well():
    b = Builder()
    x = b.quantized("x", 0.02, 0)
    weights = b.node(
        "DequantizeLinear",
        b.constant(np.full((70000, 3), 127, np.int8)),
        b.constant(np.float32(0.01)),
        b.constant(np.int8(0)),
    )
    main = b.quantized(b.node("MatMul", x, weights), 3000.0, 4)
    y = b.node("Relu", b.node("Add", main, b.node("MatMul", x, weights)))
    proto = b.model(b.quantized(y, 5000.0), (2, 70000))
    x = np.full((2, 70000), 5.1, "f")
    (made,), (expected,) = (
        s.run({"x": x}) for s in (compile_model(graph.load(proto)), apart(proto))
    )
    assert np.any(made > 0)
    assert made.tobytes() == expected.tobytes()


def test_a_value_that_somebody_else_reads_is_added_the_old_way():
    b = Builder()
    x = b.quantized("x", 0.02, 128)
    main = b.node("Conv", x, b.weights((8, 8, 1, 1), 0))
    y = b.node("Mul", b.node("Add", main, x), main)
    assert operators(b.model(y, (1, 8, 4, 4))) == ["QuantizeLinear", "QConv", "Elementwise"]
