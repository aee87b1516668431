"""Rows of weights rounded together: the reference's codes, whatever the size and the threads."""

from __future__ import annotations

import numpy as np
import pytest

import lowprec
from lowprec.errors import InputError
from lowprec.numerics import reference
from lowprec.numerics.rounding import round_rows


def typical(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return E[x x^T] of correlated inputs, and rows of weights in codes, some beyond the ends."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3 * n + 5, min(n, 6))) @ rng.standard_normal((min(n, 6), n)) + 1
    hessian = x.T @ x / len(x) + 0.02 * np.eye(n) * np.square(x).mean()
    return hessian, rng.standard_normal((17, n)) * 60


def error(w: np.ndarray, q: np.ndarray, hessian: np.ndarray) -> float:
    return float(np.einsum("rj,jk,rk->", w - q, hessian, w - q))


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 64, 97])  # around the panels of 32
def test_codes_are_those_of_the_reference(n):
    hessian, w = typical(n)
    codes = round_rows(w, hessian)
    np.testing.assert_array_equal(codes, reference.round_rows(w, hessian))
    assert codes.dtype == np.int8
    assert codes.min() >= -127
    np.testing.assert_array_equal(round_rows(w, hessian, 7), reference.round_rows(w, hessian, 7))


def test_threads_change_nothing():
    hessian, w = typical(400, 1)
    w = np.tile(w, (20, 1))
    kept = lowprec.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            lowprec.set_num_threads(threads)
            found.append(round_rows(w, hessian))
    finally:
        lowprec.set_num_threads(kept)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_the_factor_is_of_the_matrix():
    hessian, _ = typical(40, 2)
    u = reference.upper_factor(hessian)
    assert (np.tril(u, -1) == 0).all()
    assert (u.diagonal() == 1).all()
    inverse = np.linalg.inv(u)
    d = inverse @ hessian @ inverse.T
    np.testing.assert_allclose(d, np.diag(d.diagonal()), atol=1e-9 * d.max())


@pytest.mark.parametrize("n", [8, 70])
def test_sums_are_closer_than_with_the_nearest_codes(n):
    hessian, w = typical(n, 3)
    w = w / 20  # few codes: nothing at the ends
    codes = round_rows(w, hessian)
    assert error(w, codes, hessian) < 0.7 * error(w, np.rint(w), hessian)


def test_without_correlations_it_is_the_nearest_code():
    w = typical(9)[1]
    expected = np.clip(np.rint(w), -127, 127)
    np.testing.assert_array_equal(round_rows(w, np.diag(np.arange(1.0, 10.0))), expected)


@pytest.mark.parametrize("shape", [(2, 0), (0, 3), (0, 0)])
def test_nothing_to_round(shape):
    assert round_rows(np.zeros(shape), np.eye(shape[1])).shape == shape


@pytest.mark.parametrize(
    ("weights", "hessian", "limit", "message"),
    [
        (np.ones((2, 3)), np.eye(4), 127, r"\[2, 3\] and the hessian \[4, 4\]"),
        (np.ones(3), np.eye(3), 127, r"\[3\]"),
        (np.ones((2, 3)), np.eye(3), 128, "128; it must be a whole number, 1 to 127"),
        (np.full((2, 3), np.nan), np.eye(3), 127, "finite"),
        (np.ones((2, 3)), np.full((3, 3), np.inf), 127, "finite"),
        (np.ones((2, 3)), np.eye(3), 7.5, "7.5; it must be a whole number"),
        (np.ones((2, 3)), np.zeros((3, 3)), 127, "positive definite"),
        (np.ones((2, 3)), -np.eye(3), 127, "positive definite"),
        (np.ones((2, 3)) * 1j, np.eye(3), 127, "weights must be an array of real"),
        ([["a"]], np.eye(1), 127, "weights must be an array of real"),
        ([[1.0]], [[1.0], [1.0, 2.0]], 127, "the hessian must be an array of real"),
    ],
)
def test_what_does_not_fit_is_named(weights, hessian, limit, message):
    with pytest.raises(InputError, match=message):
        round_rows(weights, hessian, limit)
