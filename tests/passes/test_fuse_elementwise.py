"""A region of element-wise operators has the bits of its operators run one by one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from qdq_models import FLOAT, Builder, operators

import lowprec
from lowprec import graph
from lowprec._ext import _core
from lowprec.engine import compile_model
from lowprec.passes import fuse, simplify

ISAS = _core.available_isas()
SHAPES = [(1, 3, 5, 7), (2, 24, 3, 5), (2, 64, 9, 9), (1, 5, 70, 31), (3, 7), (2, 5, 33), (4100,)]


def with_inputs(b: Builder, y: str, inputs: dict[str, tuple[int | str, ...]]) -> onnx.ModelProto:
    proto = b.model(y, inputs["x"])
    for name, shape in inputs.items():
        if name != "x":
            proto.graph.input.append(helper.make_tensor_value_info(name, FLOAT, shape))
    return proto


@st.composite
def graphs(draw: st.DrawFn) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return some arithmetic on one shape, with operands that are broadcast to it."""
    b = Builder(np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    shape = draw(st.sampled_from(SHAPES))
    rank = len(shape)
    inputs: dict[str, tuple[int | str, ...]] = {"x": shape}
    values = ["x"]
    if rank == 4 and draw(st.booleans()):
        values = [b.node("MaxPool", "x", kernel_shape=[1, 1])]  # channels-last from here on
    dtype = draw(st.sampled_from([np.uint8, np.int8]))

    def operand() -> str:
        kind = draw(st.sampled_from(["value", "channel", "gate", "scalar", "codes", "row", "full"]))
        if kind == "value":
            return draw(st.sampled_from(values))
        if kind == "codes":
            return b.quantized(draw(st.sampled_from(values)), 0.037, 11, dtype)
        if kind == "scalar":
            return b.constant(np.float32(1.3))
        if kind == "full":
            return b.floats(shape)
        if kind == "row":
            return b.floats(shape[-1:])
        name = f"in{len(inputs)}"
        own = (*shape[:2], *[1] * (rank - 2)) if rank > 1 else shape
        if kind == "channel" and rank > 1:
            return b.floats((shape[1], *[1] * (rank - 2)))
        inputs[name] = own
        return name

    for _ in range(draw(st.integers(2, 7))):
        op = draw(st.sampled_from(["Add", "Sub", "Mul", "Div", "Max", "PRelu", "Relu", "Sigmoid",
                                   "BatchNormalization", "Quantize"]))  # fmt: skip
        source = draw(st.sampled_from(values[-2:]))
        if op == "PRelu":
            made = b.node(op, source, b.floats((shape[1], *[1] * (rank - 2)) if rank > 1 else (1,)))
        elif op in ("Relu", "Sigmoid"):
            made = b.node(op, source)
        elif op == "Quantize":
            made = b.quantized(source, 0.021, 7, dtype)
        elif op == "BatchNormalization":
            if rank < 2:
                continue
            scale, bias, mean = (b.floats((shape[1],)) for _ in range(3))
            variance = b.constant(b.rng.random(shape[1]).astype("f") + np.float32(0.1))
            made = b.node(op, source, scale, bias, mean, variance)
        else:
            pair = [source, operand()]
            if draw(st.booleans()):
                pair.reverse()
            made = b.node(op, *pair)
        values.append(made)
    last = values[-1]
    if draw(st.booleans()):
        zero = b.constant(dtype(5))
        last = b.node("QuantizeLinear", last, b.constant(np.float32(0.05)), zero)
        last = b.node("DequantizeLinear", last, b.constant(np.float32(0.05)), zero)
    else:
        last = b.node("Abs", last)
    feeds = {name: b.rng.standard_normal(size).astype("f") for name, size in inputs.items()}
    named = {"x": tuple(f"d{i}" for i in range(rank))} if draw(st.booleans()) else {}
    return with_inputs(b, last, {**inputs, **named}), feeds


@pytest.mark.parametrize("isa", ISAS)
@given(graphs(), st.integers(1, 3))
@settings(max_examples=60)
def test_a_region_has_the_bits_of_its_operators(isa, made, threads):
    proto, feeds = made
    before = lowprec.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOWPREC_ISA", isa)
        lowprec.set_num_threads(threads)
        try:
            (fused,) = compile_model(graph.load(proto)).run(feeds)
            (plain,) = compile_model(graph.load(proto), fused=False).run(feeds)
        finally:
            lowprec.set_num_threads(before)
    assert fused.dtype == plain.dtype
    np.testing.assert_array_equal(fused, plain)  # NaN: its sign is nobody's promise


def gated() -> onnx.ModelProto:
    """x * gate + x, codes added, Relu, codes."""
    b = Builder()
    y = b.node("Add", b.node("Mul", "x", "gate"), "x")
    y = b.node("Relu", b.node("Add", y, b.quantized("side", 0.02, 100)))
    y = b.quantized(y, 0.03)
    y = b.node("Conv", y, b.weights((4, 24, 1, 1), 0))
    image = ("n", 24, "h", "w")
    return with_inputs(b, y, {"x": image, "gate": ("n", 24, 1, 1), "side": image})


def test_a_region_is_one_step():
    assert operators(gated()) == ["QuantizeLinear", "Elementwise", "QConv"]


@pytest.mark.parametrize("gate", [(2, 24, 1, 1), (2, 24, 5, 6), (1, 1, 1, 1), (2, 24, 5, 1)])
@pytest.mark.parametrize("side", [(2, 24, 5, 6), (1, 24, 1, 6)])
def test_shapes_are_looked_at_again_when_a_plan_is_made(gate, side):
    proto = gated()
    for value in proto.graph.input:
        value.type.tensor_type.shape.Clear()
        for i in range(4):
            value.type.tensor_type.shape.dim.add().dim_param = f"{value.name}{i}"
    rng = np.random.default_rng(4)
    shapes = {"x": (2, 24, 5, 6), "gate": gate, "side": side}
    feeds = {name: rng.standard_normal(shape).astype("f") for name, shape in shapes.items()}
    session = compile_model(graph.load(proto))
    (made,) = session.run(feeds)
    hub = graph.load(proto)
    names = [n.outputs[0].name for n in hub.graph if n.op_type in ("Add", "Mul", "Relu")]
    observed = compile_model(hub, observers={str(n): _core.TensorObserver() for n in names})
    (expected,) = observed.run(feeds)
    assert made.tobytes() == expected.tobytes()
    assert "Elementwise" in [row.op for row in session.explain().steps]


def test_an_observed_value_stays():
    hub = graph.load(gated())
    name = next(node for node in hub.graph if node.op_type == "Add").outputs[0].name
    fuse(hub, keep={name})
    assert name in {value.name for node in hub.graph for value in node.outputs}


def test_constants_after_a_batch_normalisation_are_its_parameters():
    b = Builder()
    parameters = [b.constant(b.rng.random(6).astype("f") + 0.5) for _ in range(4)]
    y = b.node("BatchNormalization", b.node("Relu", "x"), *parameters)
    y = b.node("Mul", y, b.floats((6, 1, 1)))
    y = b.node("Sub", b.node("Add", b.floats((1, 6, 1, 1)), y), b.constant(np.float32(0.3)))
    y = b.node("Div", y, b.constant(np.float32(0.7)))
    proto = b.model(b.node("Neg", y), (2, 6, 4, 5))
    x = b.rng.standard_normal((2, 6, 4, 5)).astype("f")
    (expected,) = compile_model(graph.load(proto), fused=False).run({"x": x})
    hub = graph.load(proto)
    simplify(hub)
    assert [node.op_type for node in hub.graph] == ["Relu", "BatchNormalization", "Neg"]
    (made,) = compile_model(hub, fused=False).run({"x": x})
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("what", ["along the width", "more dimensions", "divides", "two readers"])
def test_what_is_not_one_number_a_channel_stays(what):
    b = Builder()
    parameters = [b.constant(b.rng.random(5).astype("f") + 0.5) for _ in range(4)]
    norm = b.node("BatchNormalization", "x", *parameters)
    if what == "divides":
        y = b.node("Div", b.constant(np.float32(2)), norm)
    else:
        shape = {"along the width": (5,), "more dimensions": (1, 1, 5, 1, 1)}.get(what, (5, 1, 1))
        y = b.node("Mul", norm, b.floats(shape))
    if what == "two readers":
        y = b.node("Add", y, norm)
    hub = graph.load(b.model(y, (2, 5, 5, 5)))
    simplify(hub)
    assert {"BatchNormalization", "Mul" if what != "divides" else "Div"} <= {
        node.op_type for node in hub.graph
    }
