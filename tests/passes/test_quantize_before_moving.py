"""Rounding first and moving codes gives the bits of moving floats and rounding then."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from qdq_models import FLOAT, Builder, operators

from lowprec import graph
from lowprec.engine import compile_model

SHAPE = (2, 8, 4, 6)


def neck() -> onnx.ModelProto:
    """Two images, one of them enlarged, beside each other; codes; a convolution."""
    b = Builder(np.random.default_rng(8))
    small = b.node("MaxPool", b.node("Sigmoid", "x"), kernel_shape=[2, 2], strides=[2, 2])
    sizes = b.constant(np.array([1, 1, 2, 2], np.float32))
    large = b.node("Resize", small, "", sizes, mode="nearest")
    codes = b.quantized(b.node("Abs", "x"), 0.02, 9)
    y = b.quantized(b.node("Concat", large, "x", codes, axis=1), 0.03, 100)
    return b.model(b.node("Conv", y, b.weights((5, 24, 3, 3), 0), pads=[1] * 4), SHAPE)


def both(proto: onnx.ModelProto) -> tuple[np.ndarray, np.ndarray]:
    """Return what follows the movement, rounded early and late."""
    x = np.random.default_rng(2).standard_normal(SHAPE).astype("f") * 3
    hub = graph.load(proto)
    (early,) = compile_model(hub).run({"x": x})
    (late,) = compile_model(hub, fused=False).run({"x": x})
    return early, late


def test_a_concatenation_copies_codes():
    proto = neck()
    made = operators(proto)
    assert "Concat" not in made
    assert made.index("QConcat") > made.index("Resize")
    hub = graph.load(proto)
    # The convolution is float in the other session: compare what it reads.
    concat = next(node for node in hub.graph if node.op_type == "Concat")
    read = next(iter(concat.outputs[0].uses())).node.outputs[0].name
    proto.graph.output[0].name = read
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    early, late = both(proto)
    assert "QConcat" in operators(proto)
    assert early.dtype == np.uint8
    assert early.tobytes() == late.tobytes()


@pytest.mark.parametrize(
    ("op", "operand", "attributes"),
    [
        ("Transpose", None, {"perm": [0, 2, 3, 1]}),
        ("Reshape", np.array([2, -1], np.int64), {}),
        ("Flatten", None, {}),
        ("Unsqueeze", np.array([0], np.int64), {}),
        ("Expand", np.array([3, 2, 8, 4, 6], np.int64), {}),
        ("Tile", np.array([1, 2, 1, 3], np.int64), {}),
        ("DepthToSpace", None, {"blocksize": 2}),
        ("SpaceToDepth", None, {"blocksize": 2}),
        ("Resize", np.array([1, 1, 3, 2], np.float32), {"mode": "nearest"}),
    ],
)
def test_movement_is_of_codes(op, operand, attributes):
    b = Builder()
    moved = [b.node("Tanh", "x")]
    if operand is not None:
        moved += [""] * (op == "Resize") + [b.constant(operand)]
    y = b.node(op, *moved, **attributes)
    proto = b.model(b.quantized(y, 0.008, 120), SHAPE)
    assert operators(proto) == ["Elementwise", op, "DequantizeLinear"]
    early, late = both(proto)
    assert early.tobytes() == late.tobytes()


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_new_values_are_made_before_rounding(mode):
    b = Builder()
    sizes = b.constant(np.array([1, 1, 2, 2], np.float32))
    y = b.node("Resize", b.node("Tanh", "x"), "", sizes, mode=mode)
    made = operators(b.model(b.quantized(y, 0.01), SHAPE))
    assert made.index("Resize") < made.index("QuantizeLinear")


def test_what_is_read_in_float_too_stays():
    b = Builder()
    y = b.node("Concat", "x", b.node("Tanh", "x"), axis=1)
    proto = b.model(b.quantized(y, 0.01), SHAPE)
    proto.graph.output.append(helper.make_tensor_value_info(y, FLOAT, None))
    assert "Concat" in operators(proto)
