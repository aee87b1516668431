"""Attention written out becomes one operator with the same numbers, and only where it is."""

from __future__ import annotations

import numpy as np
import pytest
from attention_forms import FORMS, TAIL, B, D, H, S, T, feeds, model
from small_models import build, operators

from lowprec.engine import compile_model
from lowprec.passes import simplify
from lowprec.passes.recover_attention import recover_attention


@pytest.mark.parametrize("name", FORMS)
def test_attention(name: str) -> None:
    graph = model(FORMS[name])
    given = feeds(graph)
    (expected,) = compile_model(model(FORMS[name], opset=22)).run(given)  # written out
    simplify(graph)
    assert operators(graph).count("Attention") == 1
    assert not {"MatMul", "Softmax", "And"} & set(operators(graph))
    (found,) = compile_model(graph).run(given)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=1e-5)


NOT = {
    "softmax of another axis": FORMS["plain"].replace("<axis=-1>", "<axis=2>"),
    "scores that are read twice": FORMS["plain"].replace("y = MatMul(p, v)",
        "y0 = MatMul(p, v) r = ReduceSum<keepdims=0>(m) y = Mul(y0, r)"),
    "queries that are not transposed keys": f"q = Transpose<perm=[0,2,1,3]>(x) "
        f"k0 = Transpose<perm=[0,2,3,1]>(z) k = Identity(k0) m0 = MatMul(q, k) m = Tanh(m0) {TAIL}",
    "a number that a score changes": FORMS["chosen"].replace("low", "three"),
    "scores divided into a number": FORMS["divided"].replace("Div(a, three)", "Div(three, a)"),
    "a scale below 0, which has no root": FORMS["scaled"].replace("half", "minus"),
    "a choice for all": FORMS["chosen"].replace("chosen", "yes_all"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT)
def test_what_is_no_attention_stays(name: str) -> None:
    graph = model(NOT[name])
    simplify(graph)
    assert "Attention" not in operators(graph)


def test_values_that_are_spread_over_heads_stay() -> None:
    graph = model(FORMS["plain"], heads=1)
    simplify(graph)
    assert "Attention" not in operators(graph)


@pytest.mark.parametrize("mask", [f"{B},1,{S},{T}", f"1,1,{S},{T}", f"1,{H},{S},1", f"{S},{T}"])
def test_a_mask_that_spreads_scores_stays(mask: str) -> None:
    """Of one image and one query, which the mask makes several of."""
    inputs = f"float[1,1,{H},{D}] x, float[1,{T},{H},{D}] z, float[1,{T},{H},{D}] w"
    body = FORMS["mask first"]
    graph = build(
        f"m ({inputs}, float[{mask}] mask) => (float[a,{H},b,{D}] y) {{ {body} }}", {}, opset=23
    )
    simplify(graph)
    assert "Attention" not in operators(graph)


def test_an_older_opset_keeps_its_operators() -> None:
    assert not recover_attention(model(FORMS["plain"], opset=22))


def test_a_bias_of_heads_is_added_before_they_are_apart() -> None:
    text = (
        "m (float[2,5,6] x) => (float[2,5,3,4] y)"
        " { p = MatMul(x, weights) r = Reshape(p, parts) y = Add(r, bias) }"
    )
    random = np.random.default_rng(0)
    constants = {
        "weights": random.standard_normal((6, 12)).astype(np.float32),
        "parts": np.array([0, 0, 3, 4], np.int64),
        "bias": random.standard_normal((1, 3, 4)).astype(np.float32),
    }
    given = {"x": random.standard_normal((2, 5, 6)).astype(np.float32)}
    graph = build(text, constants)
    (expected,) = compile_model(build(text, constants)).run(given)
    simplify(graph)
    assert operators(graph) == ["MatMul", "Add", "Reshape"]
    np.testing.assert_allclose(compile_model(graph).run(given)[0], expected, rtol=1e-6)
    constants["bias"] = constants["bias"][:, :1]  # one for all heads
    other = build(text, constants)
    simplify(other)
    assert operators(other) == ["MatMul", "Reshape", "Add"]
    constants["bias"] = random.standard_normal((1, 1, 1, 3, 4)).astype(np.float32)  # an axis more
    other = build(text.replace("[2,5,3,4]", "[1,2,5,3,4]"), constants)
    simplify(other)
    assert operators(other) == ["MatMul", "Reshape", "Add"]
