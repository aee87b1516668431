"""Einsum becomes products and moves."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lowprec.engine import compile_model
from lowprec.graph import load
from lowprec.passes import simplify

SIZES = {"b": 2, "h": 3, "q": 4, "k": 5, "d": 6, "i": 4, "j": 5, "m": 7, "n": 2}
EQUATIONS = (
    "bij,bjk->bik",
    "bij,bkj->bik",
    "ij,jk",
    "bqhd,bkhd->bhqk",
    "bhqk,bkhd->bqhd",
    "bhqk,bkhd->bq",
    "bi,bj->bij",
    "bi,bj->jbi",
    "i,i->",
    "i,i->i",
    "i,j->ij",
    "bij,m->bm",
    "bijm,jmk->bik",
    "bij,jmn->bimn",
    "bijm,bjmdh->ihbd",
    "ijk->kji",
    "ijk->k",
    "ij->",
    "ijk->ijk",
    "bhi,dhj->bhdij",
    "...ij,...jk->...ik",
    "...i,...i->...",
)


def _model(equation: str, shapes: list[list[int | str]]) -> onnx.ModelProto:
    names = ["a", "b"][: len(shapes)]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip(names, shapes, strict=True)
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node("Einsum", names, ["y"], name="product", equation=equation)
    graph = helper.make_graph([node], "g", infos, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_an_einsum_becomes_native_operators(equation: str) -> None:
    terms = equation.partition("->")[0].replace("...", "bh").split(",")
    # Symbolic sizes: nothing may rely on those of the example.
    model = load(_model(equation, [[f"size_{c}" for c in term] for term in terms]))
    simplify(model)
    assert "Einsum" not in {node.op_type for node in model.graph}
    rng = np.random.default_rng(0)
    session = compile_model(model, fallback=False)
    for extra in (0, 1):
        arrays = [
            rng.standard_normal([SIZES[c] + extra for c in term]).astype(np.float32)
            for term in terms
        ]
        (actual,) = session.run(dict(zip(["a", "b"], arrays, strict=False)))
        expected = np.einsum(equation, *arrays)
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("equation", ["ii->i", "ij,jk,kb->ib", "...i,i->..."])
def test_what_is_not_understood_stays(equation: str) -> None:
    terms = equation.partition("->")[0].split(",")
    shapes: list[list[int | str]] = [[4] * len(term.replace("...", "bh")) for term in terms[:2]]
    proto = _model(equation, shapes)
    if len(terms) == 3:
        proto.graph.node[0].input.append("a")
    model = load(proto)
    simplify(model)
    assert [node.op_type for node in model.graph] == ["Einsum"]
