"""Weights in codes or halves become f32 constants for layers that multiply floats."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from qdq_models import Builder, operators

from lowprec import graph
from lowprec.engine import compile_model

RNG = np.random.default_rng(5)
SHAPE = (3, 20)


def codes(b: Builder, dtype: type, shape: tuple[int, ...]) -> str:
    info = np.iinfo(dtype)
    return b.constant(RNG.integers(info.min, info.max, shape, endpoint=True).astype(dtype))


def steps_of(proto: onnx.ModelProto, x: np.ndarray) -> list[str]:
    """The operators of the steps, after the fused bits were compared with the plain ones."""
    session = compile_model(graph.load(proto))
    (fused,) = session.run({"x": x})
    (plain,) = compile_model(graph.load(proto), fused=False).run({"x": x})
    assert fused.tobytes() == plain.tobytes()
    assert np.abs(fused).max() > 0
    return [step.op for step in session.explain().steps]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16])
@pytest.mark.parametrize("kind", ["one scale", "scales", "zero points", "blocks"])
def test_dequantized_weights_are_one_step_with_bias_and_activation(dtype, kind):
    b = Builder()
    shape = {"one scale": (), "scales": (33,), "zero points": (33,), "blocks": (5, 33)}[kind]
    inputs = [
        codes(b, dtype, (20, 33)),
        b.constant(RNG.random(shape).astype("f") + np.float32(0.1)),
    ]
    if kind in ("zero points", "blocks"):
        inputs.append(codes(b, dtype, shape))
    attributes = {"axis": 0, "block_size": 4} if kind == "blocks" else {"axis": 1}
    w = b.node("DequantizeLinear", *inputs, **attributes)
    y = b.node("Relu", b.node("Add", b.node("MatMul", "x", w), b.floats((33,))))
    x = RNG.standard_normal(SHAPE).astype("f")
    assert steps_of(b.model(y, SHAPE), x) == ["MatMul"]


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_halves_are_widened_wherever_they_are_read(dtype):
    b = Builder()
    for name, shape in (("w", (20, 33)), ("bias", (33,))):
        array = RNG.standard_normal(shape).astype("f")
        b.constants.append(helper.make_tensor(name, dtype, shape, array))
    wide = [b.node("Cast", name, to=TensorProto.FLOAT) for name in ("w", "bias")]
    y = b.node("Add", b.node("MatMul", "x", wide[0]), wide[1])
    assert operators(b.model(y, SHAPE)) == ["MatMul"]
    assert steps_of(b.model(y, SHAPE), RNG.standard_normal(SHAPE).astype("f")) == ["MatMul"]


def test_recurrent_weights_in_codes_are_floats_to_an_lstm():
    b = Builder()
    gates = [
        b.node(
            "DequantizeLinear",
            codes(b, np.int8, shape),
            b.constant((RNG.random(24) * 0.01 + 0.001).astype("f")),
            axis=1,
        )
        for shape in ((1, 24, 5), (1, 24, 6))
    ]
    y = b.node("LSTM", "x", *gates, hidden_size=6)
    x = RNG.standard_normal((4, 2, 5)).astype("f")
    assert steps_of(b.model(y, (4, 2, 5)), x) == ["LSTM"]


@pytest.mark.parametrize(
    ("scale", "attributes"),
    [((7,), {"axis": 1}), ((20, 33), {"axis": 0}), ((5, 32), {"axis": 0, "block_size": 4})],
)
def test_scales_that_do_not_fit_stay_an_error_of_the_operator(scale, attributes):
    b = Builder()
    w = b.node(
        "DequantizeLinear",
        codes(b, np.int8, (20, 33)),
        b.constant(np.ones(scale, "f")),
        **attributes,
    )
    proto = b.model(b.node("MatMul", "x", w), SHAPE)
    assert operators(proto) == ["DequantizeLinear", "MatMul"]


def test_a_result_keeps_its_operator():
    b = Builder()
    b.constants.append(numpy_helper.from_array(np.float16([1, 2]), "half"))
    proto = b.model(b.node("Cast", "half", to=TensorProto.FLOAT), SHAPE)
    assert operators(proto) == ["Cast"]
