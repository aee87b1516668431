"""Shifts and bitwise operators on every integer type."""

from __future__ import annotations

import numpy as np
import pytest
from one_node import run_everywhere, run_node

from lowprec._ext import _core

KINDS = [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64]


@pytest.mark.parametrize("kind", KINDS)
def test_shifts(kind):
    limits = np.iinfo(kind)
    x = np.array([limits.min, limits.max, 1, 85, limits.max - 3], kind)[:, None]
    by = np.array([0, 1, limits.bits - 1, limits.bits, limits.bits + 1, 100], kind)
    wide = [int(v) for v in x[:, 0]]
    for direction in ("LEFT", "RIGHT"):
        got = run_everywhere("BitShift", [x, by], {"direction": direction})
        for row, value in zip(got, wide, strict=True):
            for made, count in zip(row, by, strict=True):
                if direction == "LEFT":
                    exact = (value << int(count)) & (2**limits.bits - 1)
                    exact -= 2**limits.bits if exact > limits.max else 0
                else:
                    exact = value >> int(count)  # Python's keeps the sign
                assert int(made) == exact, (kind, value, count, direction)


@pytest.mark.parametrize("kind", KINDS)
def test_bitwise(kind):
    rng = np.random.default_rng(0)
    limits = np.iinfo(kind)
    a, b = (rng.integers(limits.min, limits.max, s, kind, endpoint=True) for s in [(7, 1), (5,)])
    np.testing.assert_array_equal(run_everywhere("BitwiseAnd", [a, b]), a & b)
    np.testing.assert_array_equal(run_everywhere("BitwiseOr", [a, b]), a | b)
    np.testing.assert_array_equal(run_everywhere("BitwiseXor", [a, b]), a ^ b)
    np.testing.assert_array_equal(run_everywhere("BitwiseNot", [a]), ~a)


@pytest.mark.parametrize("kind", KINDS)
def test_arithmetic_of_every_integer_wraps(kind):
    rng = np.random.default_rng(1)
    limits = np.iinfo(kind)
    a, b = (rng.integers(limits.min, limits.max, 99, kind, endpoint=True) for _ in range(2))
    for op, f in (("Add", np.add), ("Sub", np.subtract), ("Mul", np.multiply), ("Max", np.maximum)):
        np.testing.assert_array_equal(run_everywhere(op, [a, b]), f(a, b), err_msg=op)
    np.testing.assert_array_equal(run_everywhere("Less", [a, b]), a < b)


def test_floats_and_directions_are_refused():
    x = np.ones(3, np.float32)
    with pytest.raises(_core.EngineError, match="operator of integers"):
        run_node("BitwiseAnd", [x, x])
    with pytest.raises(_core.EngineError, match="LEFT or RIGHT"):
        run_node("BitShift", [x.astype(np.uint8)] * 2, {"direction": "UP"})
