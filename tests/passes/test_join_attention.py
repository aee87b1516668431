"""Attention of an old opset runs as one step with the bits of its operators."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from attention_forms import FORMS, HEADS, TAIL, B, D, H, S, T, feeds, model
from small_models import build

from lowprec._ext import _core
from lowprec.engine import compile_model

ISAS = _core.available_isas()
ROOTS = "a root of the scale each"
JOINED = ("plain", "scaled", "divided", "added", ROOTS, "mask first")


def both(graph: ir.Model, given: dict[str, np.ndarray]) -> tuple[list[str], bytes, bytes]:
    """Return the operators that ran, the result and that of the operators one by one."""
    session = compile_model(graph)
    (made,) = session.run(given)
    (plain,) = compile_model(graph, fused=False).run(given)
    return [step.op for step in session.explain().steps], made.tobytes(), plain.tobytes()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", JOINED)
def test_one_step_with_the_same_bits(name: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWPREC_ISA", isa)
    graph = model(FORMS[name], opset=21)
    given = feeds(graph)
    if "mask" in given:
        given["mask"][0, :, 1] = -np.inf  # a query that sees nothing: NaN
        given["mask"][1, :, 2, ::2] = -np.inf
    operators, made, plain = both(graph, given)
    before = ["Transpose", "UnaryChain", "UnaryChain"] if name == ROOTS else []
    assert operators == [*before, "Attention"]
    assert made == plain
    assert "mask" not in given or np.isnan(np.frombuffer(made, np.float32)).any()


@pytest.mark.parametrize("mask", [f"{S},{T}", f"1,1,1,{T}", f"{B},{H},{S},{T}"])
def test_masks_are_broadcast_to_scores(mask: str) -> None:
    body = f"{HEADS} a = MatMul(q, k) m = Add(a, mask) {TAIL}"
    inputs = f"float[{B},{S},{H},{D}] x, float[{B},{T},{H},{D}] z, float[{B},{T},{H},{D}] w"
    graph = build(f"m ({inputs}, float[{mask}] mask) => (float[{B},{H},{S},{D}] y) {{ {body} }}")
    operators, made, plain = both(graph, feeds(graph))
    assert operators == ["Attention"]
    assert made == plain


@pytest.mark.parametrize(
    ("x", "z", "mask"),
    [
        ("b,5,3,4", "b,7,3,4", "2,1,5,7"),  # of one text, of which the mask makes two
        ("b,5,3,4", "c,7,3,4", "c,1,5,7"),
        ("b,5,h,4", "b,7,g,4", "b,1,5,7"),
    ],
)
def test_what_needs_broadcasting_runs_one_by_one(x: str, z: str, mask: str) -> None:
    body = f"{HEADS} a = MatMul(q, k) m = Add(a, mask) {TAIL}"
    graph = build(
        f"m (float[{x}] x, float[{z}] z, float[{z}] w, float[{mask}] mask)"
        f" => (float[d,e,5,4] y) {{ {body} }}"
    )
    sizes = {"b": 1, "c": 2, "h": 1, "g": 3}
    random = np.random.default_rng(1)
    given = {
        str(value.name): random.standard_normal(
            [sizes[str(size)] if str(size) in sizes else int(str(size)) for size in value.shape]
        ).astype(np.float32)
        for value in graph.graph.inputs
        if value.shape is not None
    }
    operators, made, plain = both(graph, given)
    assert "Softmax" in operators
    assert made == plain


def test_shared_keys_are_no_attention_of_groups() -> None:
    """Four heads by two do not multiply; the engine's Attention could."""
    graph = build(
        "m (float[1,5,a,4] x, float[1,7,b,4] z, float[1,7,b,4] w) => (float[1,c,5,4] y)"
        f" {{ {FORMS['plain']} }}"
    )
    shapes = {"x": (1, 5, 4, 4), "z": (1, 7, 2, 4), "w": (1, 7, 2, 4)}
    with pytest.raises(Exception, match=r"(?i)broadcast"):
        compile_model(graph).run({n: np.ones(s, np.float32) for n, s in shapes.items()})


STAYS = {
    "a choice": FORMS["chosen"],
    "scores that are read twice": FORMS["scaled"].replace(
        "y = MatMul(p, v)", "y0 = MatMul(p, v) r = ReduceSum<keepdims=0>(m) y = Mul(y0, r)"
    ),
    "operands of codes": f"{HEADS} c = QuantizeLinear(q, half, middle)"
    f" r = DequantizeLinear(c, half, middle) m = MatMul(r, k) {TAIL}",
    "operands in bf16": f"{HEADS} qb = Cast<to=16>(q) qc = Cast<to=1>(qb) m = MatMul(qc, k) {TAIL}",
}


@pytest.mark.parametrize("name", STAYS)
def test_what_stays(name: str) -> None:
    assert "MatMul(p, v)" in STAYS[name]
    graph = model(STAYS[name], opset=21)
    operators, _, _ = both(graph, feeds(graph))
    assert "Attention" not in operators


@pytest.mark.parametrize("inner", ["a", "s", "m", "p"])
def test_an_observed_value_is_still_made(inner: str) -> None:
    graph = model(FORMS["added"], opset=21)
    observer = _core.TensorObserver()
    session = compile_model(graph, observers={inner: observer})
    session.run(feeds(graph))
    assert "Attention" not in [step.op for step in session.explain().steps]
    assert observer.count == B * H * S * T


@pytest.mark.parametrize("inner", ["k", "t"])
def test_observed_keys_are_still_made(inner: str) -> None:
    graph = model(FORMS[ROOTS], opset=21)
    observer = _core.TensorObserver()
    compile_model(graph, observers={inner: observer}).run(feeds(graph))
    assert observer.count == B * H * D * T


@pytest.mark.parametrize(
    "body",
    [
        "a = MatMul(q, k) p = Softmax<axis=-1>(a) y = MatMul(p, p)",
        "a = MatMul(q, k) m = Add(a, a) p = Softmax<axis=-1>(m) y = MatMul(p, x)",
        "a = MatMul(q, k) s = Mul(a, half) m = Add(s, s) p = Softmax<axis=-1>(m) y = MatMul(p, x)",
    ],
)
def test_a_value_that_stands_in_two_places_stays(body: str) -> None:
    text = (
        "m (float[2,3,4,4] x) => (float[2,3,4,4] y)"
        f" {{ q = Relu(x) k = Transpose<perm=[0,1,3,2]>(x) {body} }}"
    )
    graph = build(text, {"half": np.float32(0.5)} if "half" in body else {})
    operators, made, plain = both(graph, feeds(graph))
    assert "Attention" not in operators
    assert made == plain


def test_a_product_inside_of_a_branch_stays() -> None:
    graph = build(
        "m (float[2,3,4,4] x, bool c) => (float[2,3,4,4] y) {"
        " k = Transpose<perm=[0,1,3,2]>(x) a = MatMul(x, k) p = Softmax<axis=-1>(a)"
        " y = If (c) <then_branch = t () => (float[2,3,4,4] u) { u = MatMul(p, x) },"
        " else_branch = e () => (float[2,3,4,4] w) { w = Relu(x) }> }"
    )
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    given = {"x": x, "c": np.array(True)}
    (made,) = compile_model(graph).run(given)
    (plain,) = compile_model(graph, fused=False).run(given)
    assert made.tobytes() == plain.tobytes()


def test_one_head_of_keys_beside_open_heads_stays() -> None:
    """It may be spread over the heads of the queries, and a refusal would cost all other fusing."""
    graph = build(
        f"m (float[b,5,h,4] x, float[b,7,1,4] z, float[b,7,1,4] w) => (float[c,d,5,4] y)"
        f" {{ {FORMS['plain']} }}"
    )
    shapes = {"x": (2, 5, 3, 4), "z": (2, 7, 1, 4), "w": (2, 7, 1, 4)}
    random = np.random.default_rng(2)
    given = {n: random.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    operators, made, plain = both(graph, given)
    assert "Attention" not in operators
    assert made == plain
