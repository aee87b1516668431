"""Composite operators are recognised in every ordering that exporters write, and only there."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from small_models import assert_same_outputs, build, operators

from lowprec.passes import simplify
from lowprec.passes.recover_gelu import recover_gelu
from lowprec.passes.recover_hard_swish import recover_hard_swish
from lowprec.passes.recover_layer_norm import recover_layer_norm

SCALARS = {
    "zero": np.float32(0),
    "one": np.float32(1),
    "three": np.float32(3),
    "six": np.float32(6),
    "sixth": np.float32(1 / 6),
    "fifth": np.float32(0.2),
    "half": np.float32(0.5),
    "two": np.float32(2),
    "root": np.float32(2**0.5),
    "unroot": np.float32(0.5**0.5),
    "eps": np.float32(1e-5),
}
X = np.linspace(-8, 8, 4 * 96, dtype=np.float32).reshape(4, 96)


def graph(body: str) -> ir.Model:
    constants = {name: a for name, a in SCALARS.items() if name in body.replace(",", " ")}
    constants["g"] = np.linspace(0.5, 2, 96, dtype=np.float32)
    constants["b"] = np.linspace(-1, 1, 96, dtype=np.float32)
    used = {k: v for k, v in constants.items() if f"({k}," in body or f", {k}" in body}
    return build(f"m (float[4,96] x) => (float[4,96] y) {{ {body} }}", used)


HARD_SWISH = [
    "a = Add(x, three) c = Clip(a, zero, six) p = Mul(x, c) y = Div(p, six)",
    "a = Add(three, x) c = Clip(a, zero, six) p = Mul(c, x) y = Mul(sixth, p)",
    "a = Add(x, three) c = Clip(a, zero, six) d = Div(c, six) y = Mul(x, d)",
    "a = Add(x, three) c = Clip(a, zero, six) d = Mul(c, sixth) y = Mul(d, x)",
    "h = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, h)",
]


@pytest.mark.parametrize("body", HARD_SWISH)
def test_hard_swish(body: str) -> None:
    model = graph(body)
    before = ir.to_proto(model)
    simplify(model)
    assert operators(model) == ["HardSwish"]
    assert_same_outputs(before, model, {"x": X})


HARD_SIGMOID = [
    "m = Mul(x, fifth) a = Add(m, half) y = Clip(a, zero, one)",
    "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, six)",
    "m = Mul(fifth, x) y = Clip(m, zero, one)",
    "m = Mul(two, x) a = Sub(m, three) c = Clip(a, zero, six) y = Mul(c, sixth)",
]


@pytest.mark.parametrize("body", HARD_SIGMOID)
def test_hard_sigmoid(body: str) -> None:
    model = graph(body)
    before = ir.to_proto(model)
    simplify(model)
    assert operators(model) == ["HardSigmoid"]
    assert_same_outputs(before, model, {"x": X})


@pytest.mark.parametrize(
    "body",
    [
        "c = Clip(x, zero, six) y = Div(c, six)",  # no ramp
        "a = Add(x, three) c = Clip(a, zero, six) y = Div(c, two)",  # another divisor
        "a = Add(x, three) y = Clip(a, zero, six)",  # no divisor
        "a = Add(x, three) c = Clip(a, one, six) y = Div(c, six)",  # another lower bound
        "a = Add(x, three) c = Clip(a, zero, six) y = Div(six, c)",  # divided into
        "a = Add(x, two) c = Clip(a, zero, six) p = Mul(x, c) y = Div(p, six)",  # another offset
        "a = Add(x, three) c = Clip(a, zero, six) p = Mul(a, c) y = Div(p, six)",  # not x
    ],
)
def test_near_misses_stay(body: str) -> None:
    model = graph(body)
    before = operators(model)
    simplify(model)
    assert operators(model) == before


def test_an_intermediate_value_with_a_reader_stays() -> None:
    text = (
        "m (float[4,96] x) => (float[4,96] y, float[4,96] z) {"
        " a = Add(x, three) c = Clip(a, zero, six) p = Mul(x, c) y = Div(p, six) z = Relu(p) }"
    )
    model = build(text, {k: SCALARS[k] for k in ("three", "zero", "six")})
    assert not recover_hard_swish(model)


def test_hard_swish_needs_opset_14() -> None:
    text = f"m (float[4,96] x) => (float[4,96] y) {{ {HARD_SWISH[0]} }}"
    constants = {k: SCALARS[k] for k in ("three", "zero", "six")}
    assert not recover_hard_swish(build(text, constants, opset=13))
    assert recover_hard_swish(build(text, constants, opset=14))


def layer_norms() -> list[str]:
    squares = ["s = Pow(d, two)", "s = Mul(d, d)"]
    divisions = ["n = Div(d, r)", "i = Reciprocal(r) n = Mul(i, d)"]
    tails = ["k = Mul(n, g) y = Add(k, b)", "k = Mul(g, n) y = Add(b, k)"]
    twice = "d2 = Sub(x, u)"
    return [
        f"u = ReduceMean<keepdims=1>(x, last) d = Sub(x, u) {s} v = ReduceMean(s, last)"
        f" e = Add(v, eps) r = Sqrt(e) {q} {t}"
        for s, q, t in itertools.product(squares, divisions, tails)
    ] + [
        f"u = ReduceMean(x, last) d = Sub(x, u) {twice} s = Pow(d, two) v = ReduceMean(s, last)"
        " e = Add(eps, v) r = Sqrt(e) n = Div(d2, r) k = Mul(n, g) y = Add(k, b)",
        # As Keras 3 writes it, and as tf.nn.batch_normalization does.
        *(
            "u = ReduceMean(x, last) d = Sub(x, u) s = Mul(d, d) v = ReduceMean(s, last)"
            f" e = Add(v, eps) r = Sqrt(e) i = Reciprocal(r) f = Mul(i, g) k = Mul(x, f) {rest}"
            for rest in (
                "m = Neg(u) o = Mul(m, f) t = Add(o, b) y = Add(k, t)",
                "o = Mul(f, u) t = Sub(b, o) y = Add(t, k)",
            )
        ),
    ]


def layer_norm_model(body: str, axis: int = -1) -> ir.Model:
    constants = {
        "last": np.array([axis], np.int64),
        "eps": SCALARS["eps"],
        "g": np.linspace(0.5, 2, 96, dtype=np.float32),
        "b": np.linspace(-1, 1, 96, dtype=np.float32),
    }
    if "two" in body:
        constants["two"] = SCALARS["two"]
    return build(f"m (float[4,96] x) => (float[4,96] y) {{ {body} }}", constants)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("body", layer_norms())
def test_layer_norm(body: str, axis: int) -> None:
    model = layer_norm_model(body, axis)
    before = ir.to_proto(model)
    simplify(model)
    assert operators(model) == ["LayerNormalization"]
    assert_same_outputs(before, model, {"x": X})


def test_a_mean_over_another_axis_is_not_a_layer_norm() -> None:
    model = layer_norm_model(layer_norms()[0], axis=0)
    assert not recover_layer_norm(model)


def test_an_offset_of_another_sign_is_not_a_layer_norm() -> None:
    body = layer_norms()[-1].replace("Sub(b, o)", "Sub(o, b)")
    assert not recover_layer_norm(layer_norm_model(body))
    body = layer_norms()[-1].replace("Sub(b, o)", "Add(b, o)")
    assert not recover_layer_norm(layer_norm_model(body))


GELU = [
    "d = Div(x, root) e = Erf(d) a = Add(e, one) p = Mul(x, a) y = Mul(p, half)",
    "d = Mul(x, unroot) e = Erf(d) a = Add(one, e) p = Mul(a, x) y = Div(p, two)",
    "d = Div(x, root) e = Erf(d) a = Add(e, one) h = Mul(half, x) y = Mul(h, a)",
    "d = Div(x, root) e = Erf(d) a = Add(e, one) h = Mul(a, half) y = Mul(x, h)",
    "w = Neg(x) d = Mul(w, unroot) e = Erf(d) a = Sub(one, e) h = Mul(half, x) y = Mul(h, a)",
]
TANH = "t = Tanh(k) a = Add(t, one) h = Mul(half, x) y = Mul(h, a)"
GELU_TANH = [
    f"c = Pow(x, three) f = Mul(c, small) s = Add(x, f) k = Mul(s, slope) {TANH}",
    f"q = Mul(x, x) c = Mul(q, x) f = Mul(small, c) s = Add(f, x) k = Mul(slope, s) {TANH}",
    f"e = Mul(small, x) q = Mul(x, x) f = Mul(e, q) s = Add(x, f) k = Mul(s, slope) {TANH}",
]
SCALARS["small"] = np.float32(0.044715)
SCALARS["slope"] = np.float32((2 / np.pi) ** 0.5)


@pytest.mark.parametrize("body", GELU)
def test_gelu(body: str) -> None:
    model = graph(body)
    before = ir.to_proto(model)
    simplify(model)
    assert operators(model) == ["Gelu"]
    assert_same_outputs(before, model, {"x": X})


@pytest.mark.parametrize("body", [GELU[0], GELU_TANH[0], layer_norms()[0]])
def test_numbers_that_add_an_axis_stay(body: str) -> None:
    """A number of shape [1, 1, 1] makes three axes of two."""
    added = {name: np.reshape(SCALARS[name], (1, 1, 1)) for name in ("half", "eps")}
    scalars = {**SCALARS, **added}
    vectors = {"g": np.full(96, 2, np.float32), "b": np.ones(96, np.float32)}
    vectors["last"] = np.array([-1])
    model = build(f"m (float[4,96] x) => (float[1,4,96] y) {{ {body} }}", {**scalars, **vectors})
    before = ir.to_proto(model)
    simplify(model)
    assert not {"Gelu", "LayerNormalization"} & set(operators(model))
    assert_same_outputs(before, model, {"x": X})


@pytest.mark.parametrize("body", GELU_TANH)
def test_gelu_by_tanh(body: str) -> None:
    model = graph(body)
    before = ir.to_proto(model)
    simplify(model)
    assert operators(model) == ["Gelu"]
    assert model.graph[0].attributes["approximate"].as_string() == "tanh"
    assert_same_outputs(before, model, {"x": X})


@pytest.mark.parametrize("wrong", [("three)", "two)"), ("small", "fifth"), ("slope", "root")])
def test_what_is_nearly_a_gelu_stays(wrong: tuple[str, str]) -> None:
    assert not recover_gelu(graph(GELU_TANH[0].replace(*wrong)))
    assert not recover_gelu(graph(GELU[-1].replace("Sub(one, e)", "Add(one, e)")))


def test_gelu_with_another_root_stays() -> None:
    model = graph("d = Div(x, two) e = Erf(d) a = Add(e, one) p = Mul(x, a) y = Mul(p, half)")
    assert not recover_gelu(model)


def images(body: str, shape: str = "n,3,4,5", axes: tuple[int, ...] = (2, 3)) -> ir.Model:
    constants = {"axes": np.array(axes, np.int64)} if "axes)" in body else {}
    rank = len(shape.split(",")) if "keepdims=0" not in body else 2
    made = ",".join("abcde"[:rank])
    return build(f"m (float[{shape}] x) => (float[{made}] y) {{ {body} }}", constants)


POOLS = [
    ("y = ReduceMean(x, axes)", "n,3,4,5", (2, 3), ["GlobalAveragePool"]),
    ("y = ReduceMean(x, axes)", "n,3,4,5", (-1, -2), ["GlobalAveragePool"]),
    ("y = ReduceMean<keepdims=1>(x, axes)", "n,3,2,4,5", (4, 2, 3), ["GlobalAveragePool"]),
    ("y = ReduceMean<keepdims=0>(x, axes)", "n,3,4,5", (2, 3), ["GlobalAveragePool", "Flatten"]),
]


@pytest.mark.parametrize(("body", "shape", "axes", "expected"), POOLS)
def test_global_pool(body: str, shape: str, axes: tuple[int, ...], expected: list[str]) -> None:
    model = images(body, shape, axes)
    model.graph[-1].name = "pool"
    before = ir.to_proto(model)
    simplify(model)
    assert operators(model) == expected
    assert model.graph[0].name == "pool"
    sizes = (2, *map(int, shape.split(",")[1:]))
    x = np.random.default_rng(5).standard_normal(sizes)
    assert_same_outputs(before, model, {"x": x.astype(np.float32)})


@pytest.mark.parametrize(
    ("body", "shape", "axes"),
    [
        ("y = ReduceMean(x, axes)", "n,3,4,5", (1, 2, 3)),
        ("y = ReduceMean(x, axes)", "n,3,4,5", (3,)),
        ("y = ReduceMean(x, axes)", "n,3,4", (2,)),
        ("m = ReduceMean(x, axes) y = Sub(x, m)", "n,3,4,5", (2, 3)),
        ("y = ReduceMean(x)", "n,3,4,5", ()),
    ],
)
def test_other_means_are_no_global_pools(body: str, shape: str, axes: tuple[int, ...]) -> None:
    model = images(body, shape, axes)
    simplify(model)
    assert "ReduceMean" in operators(model)


def test_a_mean_of_doubles_is_no_global_pool() -> None:
    text = "m (double[2,3,4,5] x) => (double[2,3,1,1] y) { y = ReduceMean(x, axes) }"
    model = build(text, {"axes": np.array([2, 3], np.int64)})
    simplify(model)
    assert operators(model) == ["ReduceMean"]
