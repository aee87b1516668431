"""16-bit operators become 32-bit ones between casts; Pow gets operands of one type."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper

from lowprec import graph, passes
from lowprec.engine import compile_model

RNG = np.random.default_rng(2)
HALVES = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}


def hub_of(nodes, inputs, outputs, initializers=()):
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, d, s) for n, d, s in inputs],
        [helper.make_tensor_value_info(n, d, None) for n, d in outputs],
        [helper.make_tensor(n, d, v.shape, v.tobytes(), raw=True) for n, d, v in initializers],
    )
    return graph.load(helper.make_model(made, opset_imports=[helper.make_opsetid("", 22)]))


@pytest.mark.parametrize("code", HALVES)
def test_every_operator_rounds_once_to_16_bits(code):
    kind = HALVES[code]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Transpose", ["m"], ["t"], perm=[1, 0]),
        helper.make_node("Add", ["t", "t"], ["y"]),
        helper.make_node("Greater", ["y", "m0"], ["above"]),
    ]
    w = RNG.standard_normal((5, 4)).astype(kind)
    hub = hub_of(
        nodes,
        [("x", code, [3, 5]), ("m0", code, [])],
        [("y", code), ("above", TensorProto.BOOL)],
        [("w", code, w)],
    )
    x = RNG.standard_normal((3, 5)).astype(kind)
    session = compile_model(hub, fallback=False)
    y, above = session.run({"x": x, "m0": np.zeros((), kind)})
    product = (x.astype(np.float64) @ w.astype(np.float64)).astype(np.float32).astype(kind)
    wanted = (product.T.astype(np.float32) * 2).astype(kind)
    assert y.dtype == kind
    # The product's own rounding to f32 may go the other way of the exact one's.
    np.testing.assert_allclose(
        y.astype(np.float32),
        wanted.astype(np.float32),
        rtol=1e-2 if code == 16 else 2e-3,
        atol=1e-2,
    )
    np.testing.assert_array_equal(above, y.astype(np.float32) > 0)
    assert session.explain().fallbacks == ()
    assert {node.op_type for node in hub.graph} == {"MatMul", "Transpose", "Add", "Greater"}


def test_a_chain_is_the_chain_of_its_rounded_steps():
    nodes = [helper.make_node("Mul", ["x", "x"], ["a"]), helper.make_node("Exp", ["a"], ["y"])]
    hub = hub_of(
        nodes, [("x", TensorProto.FLOAT16, ["n"])], [("a", 10), ("y", TensorProto.FLOAT16)]
    )
    assert passes.widen_operands(hub)
    assert [value.name for value in hub.graph.outputs] == ["a", "y"]
    x = np.linspace(-2, 2, 99).astype(np.float16)
    a, y = compile_model(hub, fallback=False).run({"x": x})
    np.testing.assert_array_equal(a, x * x)
    np.testing.assert_array_equal(y, np.exp(a.astype(np.float64)).astype(np.float16))
    assert not passes.widen_operands(hub)


def test_other_types_are_left_alone():
    nodes = [helper.make_node("Mul", ["x", "x"], ["y"])]
    for code in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64):
        hub = hub_of(nodes, [("x", code, [3])], [("y", code)])
        assert not passes.widen_operands(hub)


POWERS = [("f4", "i4"), ("f4", "i8"), ("i4", "f4"), ("i8", "f4"), ("i4", "i8"), ("f2", "f2"),
          ("f4", "u8"), ("f8", "i4"), ("f2", "f4"), ("i8", "i8")]  # fmt: skip


@pytest.mark.parametrize(("base", "exponent"), POWERS)
def test_powers_of_two_types(base, exponent):
    codes = [helper.np_dtype_to_tensor_dtype(np.dtype(kind)) for kind in (base, exponent)]
    nodes = [helper.make_node("Pow", ["x", "p"], ["y"])]
    hub = hub_of(nodes, [("x", codes[0], [4]), ("p", codes[1], [4])], [("y", codes[0])])
    x, p = np.array([1, 2, 3, 5], base), np.array([3, 5, 2, 0], exponent)
    session = compile_model(hub, fallback=base == "f8")
    (y,) = session.run({"x": x, "p": p})
    assert y.dtype == base
    assert y.tolist() == [1, 32, 9, 1]
