"""Unary float operators: accuracy over the whole range of floats, the same bits everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from one_node import run_both_layouts, run_everywhere

SPECIAL = np.array(
    [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 2.0**-126, 2.0**-149, -(2.0**-149), 3.4e38,
     88.72283, 88.7229, -87.4, -103.9, -104.1, 0.625, 0.925, 0.5, 1.5, 2.5, -0.5, -2.5, 6.0, 3.0,
     -3.0],
    np.float32,
)  # fmt: skip
# Every 100,003rd float, by its bits: all signs, exponents and NaN; an odd count, for the tails.
BITS = np.arange(0, 2**32, 100_003, dtype=np.uint64).astype(np.uint32)
FLOATS = np.concatenate([SPECIAL, BITS.view(np.float32)])[:42_941]
NEAR = np.concatenate([SPECIAL, np.linspace(-20, 20, 4_003).astype(np.float32)])

erf = np.vectorize(math.erf, otypes=[np.float64])


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def ulps(result, exact):
    """Largest error in units of the last place; NaN and infinities must agree."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
    assert np.array_equal(np.isnan(result), np.isnan(rounded))
    finite = np.isfinite(rounded)
    same = result[~finite] == rounded[~finite]
    assert np.all(same | np.isnan(rounded[~finite]))
    error = np.abs(result[finite].astype(np.float64) - exact[finite])
    return (error / np.spacing(np.abs(rounded[finite])).astype(np.float64)).max()


# Operator, exact function, largest error in ulps.
ACCURATE = [
    ("Exp", np.exp, 1.0),
    ("Log", np.log, 1.0),
    ("Tanh", np.tanh, 1.5),
    ("Erf", erf, 1.5),
    ("Sqrt", np.sqrt, 0.5),
    ("Softplus", softplus, 2.0),
    ("Elu", lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x), 1.0),
    ("Reciprocal", lambda x: 1 / x, 0.5),
    ("Softsign", lambda x: x / (1 + np.abs(x)), 1.5),
]


@pytest.mark.parametrize(("op", "exact", "bound"), ACCURATE, ids=[row[0] for row in ACCURATE])
def test_is_accurate_over_all_floats(op, exact, bound):
    result = run_everywhere(op, [FLOATS])
    with np.errstate(all="ignore"):
        wanted = exact(FLOATS.astype(np.float64))
    assert ulps(result, wanted) <= bound


@pytest.mark.parametrize(("code", "is_silu"), [(11, False), (12, True)])
def test_sigmoid_and_silu_are_accurate_down_to_where_they_end(code, is_silu):
    chain = {"codes": [code], "a": [0.0], "b": [0.0]}
    result = run_everywhere("UnaryChain", [FLOATS], chain)
    with np.errstate(all="ignore"):
        x = FLOATS.astype(np.float64)
        exact = x * sigmoid(x) if is_silu else sigmoid(x)
    for least, bound in ((-10, 2.6), (-40, 3.7), (-88, 6.5)):
        inside = ~(x < least)
        assert ulps(result[inside], exact[inside]) <= bound
    below = result[(x < -88) & (x > -np.inf)]
    assert below.size > 1000
    assert (below == 0).all()


def test_silu_is_sigmoid_and_mul():
    x = np.concatenate([FLOATS, np.linspace(-100, 30, 50_001).astype(np.float32)])
    both = run_everywhere("UnaryChain", [x], {"codes": [12], "a": [0.0], "b": [0.0]})
    one_by_one = run_everywhere("Mul", [x, run_everywhere("Sigmoid", [x])])
    np.testing.assert_array_equal(both.view(np.uint32), one_by_one.view(np.uint32))


def test_gelu_ends_at_zero_and_at_x():
    x = np.concatenate([np.linspace(5.46, 9, 10_001), np.geomspace(9, 1e38, 1000)])
    x = x.astype(np.float32)
    np.testing.assert_array_equal(run_everywhere("Gelu", [x]), x)
    np.testing.assert_array_equal(run_everywhere("Gelu", [-x]), np.zeros_like(x))


def test_gelu_is_right_beside_the_size_of_x():
    x = np.linspace(-12, 12, 1_000_001).astype(np.float32)
    x = x[x != 0]
    exact = 0.5 * x.astype(np.float64) * (1 + erf(x.astype(np.float64) / np.sqrt(2)))
    error = np.abs(run_everywhere("Gelu", [x]) - exact) / np.abs(x)
    assert error.max() < 2.3e-7


def test_gelu_is_never_above_zero_below_zero():
    x = -np.linspace(5, 5.5, 500_001).astype(np.float32)
    assert run_everywhere("Gelu", [x]).max() <= 0


# Formulas in f32: cancellation is part of their definition, so the error is absolute.
FORMULAS = [
    ("Sigmoid", {}, sigmoid),
    ("Gelu", {}, lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2)))),
    ("Gelu", {"approximate": "tanh"},
     lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))),
    ("Mish", {}, lambda x: x * np.tanh(softplus(x))),
    ("Elu", {"alpha": 0.3}, lambda x: np.where(x < 0, np.float32(0.3) * np.expm1(x), x)),
    ("Selu", {}, lambda x: 1.0507009873554805
     * np.where(x < 0, 1.6732632423543772 * np.expm1(x), x)),
    ("HardSigmoid", {}, lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    ("HardSigmoid", {"alpha": 0.5, "beta": 0.25}, lambda x: np.clip(0.5 * x + 0.25, 0, 1)),
    ("HardSwish", {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("op", "attributes", "formula"), FORMULAS)
def test_follows_its_formula(op, attributes, formula):
    x = NEAR[np.abs(NEAR) < 100]
    result = run_everywhere(op, [x], attributes)
    np.testing.assert_allclose(result, formula(x.astype(np.float64)), rtol=2e-6, atol=3e-6)


EXACT = [
    ("Relu", {}, lambda x: np.where(x < 0, np.float32(0), x)),
    ("LeakyRelu", {"alpha": 0.125}, lambda x: np.where(x < 0, x * np.float32(0.125), x)),
    ("Neg", {}, np.negative),
    ("Abs", {}, np.abs),
    ("Floor", {}, np.floor),
    ("Ceil", {}, np.ceil),
    ("Round", {}, np.rint),
    ("Sign", {}, np.sign),
    ("Clip", {"min": -1.5, "max": 2.0}, lambda x: np.clip(x, np.float32(-1.5), np.float32(2))),
]


@pytest.mark.parametrize(("op", "attributes", "function"), EXACT, ids=[row[0] for row in EXACT])
def test_is_exact_over_all_floats(op, attributes, function):
    with np.errstate(all="ignore"):
        wanted = function(FLOATS)
    np.testing.assert_array_equal(run_everywhere(op, [FLOATS], attributes), wanted)


@pytest.mark.parametrize("code", range(1, 33))
def test_nan_stays(code):
    chain = {"codes": [code], "a": [0.5], "b": [0.5]}
    assert np.isnan(run_everywhere("UnaryChain", [np.full(3, np.nan, np.float32)], chain)).all()


def test_signed_zero_and_denormals_survive_relu():
    x = np.array([-0.0, 2.0**-149, -(2.0**-149)], np.float32)
    assert (
        run_everywhere("Relu", [x]).tobytes()
        == np.array([-0.0, 2.0**-149, 0], np.float32).tobytes()
    )


@pytest.mark.parametrize("count", [1, 7, 8, 9, 15, 16, 17, 1023, 1024, 1025, 2049])
def test_a_chain_is_its_operators_one_by_one(count):
    x = np.linspace(-4, 4, count).astype(np.float32)
    chain = {
        "codes": [4, 3, 10, 5, 20, 6],  # * a, + a, hard swish, / a, erf, a - x
        "a": [1.25, 0.5, 0.0, 3.0, 0.0, 0.75],
        "b": [0.0] * 6,
    }
    step = x * np.float32(1.25)
    step = step + np.float32(0.5)
    step = run_everywhere("HardSwish", [step])
    step = step / np.float32(3)
    step = run_everywhere("Erf", [step])
    step = np.float32(0.75) - step
    assert run_everywhere("UnaryChain", [x], chain).tobytes() == step.tobytes()


def test_a_chain_keeps_the_layout():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    result = run_both_layouts("UnaryChain", [x], {"codes": [12], "a": [0.0], "b": [0.0]})
    np.testing.assert_allclose(result, x * sigmoid(x), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8, np.float64])
def test_whole_numbers(dtype):
    x = np.array([-128, -3, 0, 5, 127], dtype)
    np.testing.assert_array_equal(run_everywhere("Neg", [x]), np.negative(x))
    np.testing.assert_array_equal(run_everywhere("Abs", [x]), np.abs(x))
    np.testing.assert_array_equal(run_everywhere("Sign", [x]), np.sign(x))
    np.testing.assert_array_equal(run_everywhere("Relu", [x]), np.maximum(x, 0))
