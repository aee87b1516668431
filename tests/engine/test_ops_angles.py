"""Trigonometric and hyperbolic functions, and the double-precision forms of the unary operators."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from one_node import run_everywhere

RNG = np.random.default_rng(4)
FUNCTIONS = {
    "Sin": mpmath.sin, "Cos": mpmath.cos, "Tan": mpmath.tan, "Asin": mpmath.asin,
    "Acos": mpmath.acos, "Atan": mpmath.atan, "Sinh": mpmath.sinh, "Cosh": mpmath.cosh,
    "Asinh": mpmath.asinh, "Acosh": mpmath.acosh, "Atanh": mpmath.atanh, "Exp": mpmath.exp,
    "Log": mpmath.log, "Tanh": mpmath.tanh, "Sigmoid": mpmath.sigmoid
    if hasattr(mpmath, "sigmoid") else lambda x: 1 / (1 + mpmath.exp(-x)),
}  # fmt: skip
UNIT = ("Asin", "Acos", "Atanh")


def points(op):
    """Doubles all over where `op` is defined and finite."""
    small = np.concatenate([RNG.uniform(-1, 1, 300), 10.0 ** RNG.uniform(-300, 0, 60), [0.0, 1e-9]])
    small = np.concatenate([small, -small])
    if op in UNIT:
        return small
    if op == "Log":
        return np.concatenate([abs(small[small != 0]), 10.0 ** RNG.uniform(-300, 300, 100), [1.0]])
    if op == "Acosh":
        return np.concatenate([1 + abs(small), 10.0 ** RNG.uniform(0, 300, 100)])
    if op in ("Sinh", "Cosh", "Exp", "Tanh", "Sigmoid"):
        return np.concatenate([small, RNG.uniform(-700, 700, 200)])
    return np.concatenate([small, RNG.uniform(-50, 50, 200), 10.0 ** RNG.uniform(0, 300, 200)])


@pytest.mark.parametrize("op", FUNCTIONS)
def test_doubles_are_right_to_a_few_units(op):
    x = points(op)
    got = run_everywhere(op, [x])
    with mpmath.workprec(1200):
        wanted = np.array([float(FUNCTIONS[op](mpmath.mpf(float(v)))) for v in x])
    units = abs(got - wanted) / np.maximum(np.spacing(abs(wanted)), 5e-324)
    assert units.max() <= 5, (op, x[units.argmax()], units.max())


@pytest.mark.parametrize("op", list(FUNCTIONS)[:11])
def test_floats_are_the_nearest(op):
    x = points(op)
    x = x[abs(x) < 3e38].astype(np.float32)
    if op in ("Sinh", "Cosh"):
        x = x[abs(x) < 88]
    got = run_everywhere(op, [x])
    with mpmath.workprec(1200):
        wanted = [np.float32(float(FUNCTIONS[op](mpmath.mpf(float(v))))) for v in x]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, wanted)


def test_the_edges():
    inf, nan = np.inf, np.nan
    edges = {
        "Sin": ([inf, nan, -0.0], [nan, nan, -0.0]), "Cos": ([-inf, 0.0], [nan, 1.0]),
        "Asin": ([1.0, -1.0, 1.5], [np.pi / 2, -np.pi / 2, nan]),
        "Acos": ([1.0, -1.0, -1.5], [0.0, np.pi, nan]),
        "Atan": ([inf, -inf], [np.pi / 2, -np.pi / 2]),
        "Sinh": ([inf, -inf, 711.0, -0.0], [inf, -inf, inf, -0.0]), "Cosh": ([-inf], [inf]),
        "Asinh": ([inf, -inf], [inf, -inf]), "Acosh": ([1.0, 0.5, inf], [0.0, nan, inf]),
        "Atanh": ([1.0, -1.0, 2.0], [inf, -inf, nan]),
        "Exp": ([-inf, inf, -800.0], [0.0, inf, 0.0]),
        "Log": ([0.0, -1.0, inf], [-inf, nan, inf]), "Tanh": ([inf, -inf], [1.0, -1.0]),
    }  # fmt: skip
    for op, (x, wanted) in edges.items():
        got = run_everywhere(op, [np.array(x)])
        np.testing.assert_array_equal(got, wanted, err_msg=op)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(wanted), err_msg=op)
