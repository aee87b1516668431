"""Operators on bf16 tensors give the bits of Cast, operator, Cast, and Casts vanish."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lowprec
from lowprec.numerics import reference

BF16, F32 = TensorProto.BFLOAT16, TensorProto.FLOAT


def one_operator(
    op: str,
    shapes: list[tuple[int, ...]],
    constants: list[np.ndarray],
    *,
    cast: bool,
    after: str = "",
    **attributes: object,
) -> onnx.ModelProto:
    """Return x0, x1 .. -> op -> y; `cast`: with operands and result rounded to bf16."""
    nodes, operands = [], []
    for i in range(len(shapes)):
        name = f"x{i}"
        if cast:
            nodes.append(helper.make_node("Cast", [name], [f"n{i}"], to=BF16))
            nodes.append(helper.make_node("Cast", [f"n{i}"], [f"w{i}"], to=F32))
            name = f"w{i}"
        operands.append(name)
    names = [f"c{i}" for i in range(len(constants))]
    nodes.append(helper.make_node(op, [*operands, *names], ["made"], "node", **attributes))
    last = "made"
    if after:
        nodes.append(helper.make_node(after, ["made"], ["after"]))
        last = "after"
    if cast:
        nodes.append(helper.make_node("Cast", [last], ["narrow"], to=BF16))
        nodes.append(helper.make_node("Cast", ["narrow"], ["y"], to=F32))
    else:
        nodes.append(helper.make_node("Identity", [last], ["y"]))
    inputs = [helper.make_tensor_value_info(f"x{i}", F32, s) for i, s in enumerate(shapes)]
    tensors = [numpy_helper.from_array(c, n) for c, n in zip(constants, names, strict=True)]
    graph = helper.make_graph(
        nodes, "one", inputs, [helper.make_tensor_value_info("y", F32, None)], tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def vector(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 2, n).astype(np.float32)


LAYER_NORM = [vector(70, 1), vector(70, 2)]
BATCH_NORM = [vector(21, seed) for seed in range(4)]
IMAGE = (2, 21, 9, 14)
CASES = [
    ("HardSwish", [IMAGE], [], "", {}),
    ("Sigmoid", [(3, 2500)], [], "", {}),
    ("Add", [IMAGE, IMAGE], [], "Relu", {}),
    ("Mul", [IMAGE, (2, 21, 1, 1)], [], "", {}),
    ("Mul", [(2, 21, 1, 1), IMAGE], [], "", {}),
    ("Sub", [(4, 1, 3000), (5, 1)], [], "", {}),
    ("Div", [(7, 5), (1, 5)], [], "", {}),
    ("Add", [(6, 70), ()], [], "", {}),
    ("Add", [(6, 70)], [vector(70, 9)], "", {}),
    ("Softmax", [(3, 5, 70)], [], "", {"axis": -1}),
    ("Softmax", [(3, 5000)], [], "", {"axis": 1}),
    ("LayerNormalization", [(3, 5, 70)], LAYER_NORM, "", {"axis": -1, "epsilon": 1e-3}),
    ("LayerNormalization", [(3, 5, 70)], LAYER_NORM[:1], "", {"axis": 2}),
    ("BatchNormalization", [IMAGE], BATCH_NORM, "Relu", {"epsilon": 1e-2}),
    ("GlobalAveragePool", [IMAGE], [], "", {}),
    ("GlobalAveragePool", [(1, 130, 3, 3)], [], "", {}),
    ("AveragePool", [IMAGE], [], "", {"kernel_shape": [3, 2], "strides": [2, 1]}),
    ("MaxPool", [IMAGE], [], "", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("Transpose", [IMAGE], [], "", {"perm": [0, 2, 3, 1]}),
    ("Concat", [IMAGE, IMAGE], [], "", {"axis": 1}),
    ("Flatten", [IMAGE], [], "", {"axis": 1}),
]


@pytest.mark.parametrize(
    ("op", "shapes", "constants", "after", "attributes"),
    CASES,
    ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_bits_are_those_of_the_steps(op, shapes, constants, after, attributes, threads):
    rng = np.random.default_rng(11)
    feeds = {f"x{i}": rng.standard_normal(s).astype(np.float32) for i, s in enumerate(shapes)}
    if op in ("Div",):
        feeds["x1"] = np.abs(feeds["x1"]) + 1
    exact = {
        name: reference.from_bf16(reference.to_bf16(x)).reshape(x.shape)
        for name, x in feeds.items()
    }
    plain = one_operator(op, shapes, constants, cast=False, after=after, **attributes)
    (expected,) = lowprec.compile(plain).run(exact)
    before = lowprec.get_num_threads()
    lowprec.set_num_threads(threads)
    try:
        model = lowprec.compile(
            one_operator(op, shapes, constants, cast=True, after=after, **attributes)
        )
        (result,) = model.run(feeds)
        steps = model.explain().steps
    finally:
        lowprec.set_num_threads(before)
    assert result.tobytes() == reference.from_bf16(reference.to_bf16(expected)).tobytes()
    assert all(step.native for step in steps)
    # One Cast for each input, one for the output: none around the operator.
    assert sum(step.op == "Cast" for step in steps) == len(shapes) + 1


def test_a_float_result_is_not_rounded():
    model = one_operator("Add", [(4, 9), (4, 9)], [], cast=True)
    del model.graph.node[-2:]
    model.graph.node[-1].output[0] = "y"
    rng = np.random.default_rng(2)
    feeds = {f"x{i}": rng.standard_normal((4, 9)).astype(np.float32) for i in range(2)}
    (result,) = lowprec.compile(model).run(feeds)
    widened = [x.astype(ml_dtypes.bfloat16).astype(np.float32) for x in feeds.values()]
    np.testing.assert_array_equal(result, widened[0] + widened[1])
    assert (result != result.astype(ml_dtypes.bfloat16).astype(np.float32)).any()
