"""Products store what the next layer reads, whatever either multiplies."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from qdq_models import Builder, operators

from lowprec import graph
from lowprec.engine import compile_model

RNG = np.random.default_rng(21)
DEEP = 70_000  # products of codes whose sum could pass 2^31


def product(b: Builder, kind: str, depth: int) -> str:
    """A layer of each kind over x, its result with an activation."""
    if kind == "depthwise":
        x = b.quantized("x", 0.02, 120)
        return b.node("Tanh", b.node("Conv", x, b.weights((8, 1, 3, 3), 0), group=8, pads=[1] * 4))
    if kind == "codes":
        x, weights = b.quantized("x", 0.02, 120), b.weights((depth, 24), 1, scale=1 / depth)
        return b.node("Tanh", b.node("MatMul", x, weights))
    if kind == "gemm":
        return b.node("Tanh", b.node("Gemm", "x", b.floats((24, depth)), b.floats((24,)), transB=1))
    return b.node(
        "Tanh", b.node("Add", b.node("MatMul", "x", b.floats((depth, 24))), b.floats((24,)))
    )


@pytest.mark.parametrize("to", ["bf16", "codes"])
@pytest.mark.parametrize(
    ("kind", "depth"),
    [("codes", 40), ("codes", DEEP), ("depthwise", 9), ("floats", 40), ("gemm", 40)],
)
def test_what_is_stored_has_the_bits_of_the_steps(kind, depth, to):
    shape = (2, 8, 6, 5) if kind == "depthwise" else (3, depth)
    x = RNG.standard_normal(shape).astype("f")
    results = []
    for apart in (False, True):
        b = Builder(np.random.default_rng(5))
        y = product(b, kind, depth)
        stored = y
        if to == "bf16":
            stored = b.node("Cast", y, to=TensorProto.BFLOAT16)
            out = b.node("Cast", stored, to=TensorProto.FLOAT)
        else:
            out = b.quantized(y, 0.01, 100)
        proto = b.model(out, shape)
        if apart:  # somebody else reads the f32 result: nothing can be stored instead
            value = proto.graph.output.add()
            value.name, value.type.tensor_type.elem_type = y, TensorProto.FLOAT
        else:
            last = "Cast" if to == "bf16" else "DequantizeLinear"
            found = operators(proto)
            assert found[-1] == last
            assert len(found) == (3 if kind in ("codes", "depthwise") else 2)
        results.append(compile_model(graph.load(proto)).run({"x": x})[0])
    assert results[0].tobytes() == results[1].tobytes()
    assert len(np.unique(results[0])) > 10


def test_a_product_whose_bias_is_no_row_stores_floats():
    """Its step may be a plain loop that knows no codes."""
    b = Builder()
    y = b.node("Gemm", "x", b.floats((40, 24)), b.floats((3, 24)))
    proto = b.model(b.quantized(y, 0.01, 100), (3, 40))
    assert operators(proto) == ["Gemm", "QuantizeLinear", "DequantizeLinear"]
    compile_model(graph.load(proto)).run({"x": RNG.standard_normal((3, 40)).astype("f")})
