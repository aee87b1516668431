"""Stacks of products equal their entries one by one, whatever their strides and types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

import lowprec
from lowprec import numerics

SHAPES = [((3,), 5, 64, 70), ((2, 6), 128, 64, 128), ((12,), 7, 3, 1), ((2, 1, 2), 1, 9, 65)]
CODES = [np.uint8, np.int8]


def codes(random: np.random.Generator, dtype: type, shape: tuple[int, ...]) -> NDArray[Any]:
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def one_by_one(
    product: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]], a: NDArray[Any], b: NDArray[Any]
) -> NDArray[Any]:
    batch = a.shape[:-2]
    entries = [product(a[index], b[index]) for index in np.ndindex(batch)]
    return np.stack(entries).reshape(*batch, *entries[0].shape)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("batch", "m", "k", "n"), SHAPES)
@pytest.mark.parametrize("b_type", CODES)
@pytest.mark.parametrize("a_type", CODES)
def test_integer_stacks_are_exact(
    a_type: type, b_type: type, batch: tuple[int, ...], m: int, k: int, n: int, threads: int
) -> None:
    random = np.random.default_rng(m * n)
    a, b = codes(random, a_type, (*batch, m, k)), codes(random, b_type, (*batch, k, n))
    a_zero, b_zero = codes(random, a_type, ()), codes(random, b_type, (n,))
    expected = np.matmul(a.astype(np.int64) - a_zero, b.astype(np.int64) - b_zero)
    before = lowprec.get_num_threads()
    lowprec.set_num_threads(threads)
    try:
        result = numerics.matmul_integer(a, b, a_zero, b_zero)
        by_columns = np.ascontiguousarray(np.swapaxes(b, -1, -2))
        transposed = numerics.matmul_integer(a, np.swapaxes(by_columns, -1, -2), a_zero, b_zero)
    finally:
        lowprec.set_num_threads(before)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(transposed, expected)


@pytest.mark.parametrize(("batch", "m", "k", "n"), SHAPES)
@pytest.mark.parametrize("y_type", CODES)
def test_requantised_stacks_are_their_entries(
    y_type: type, batch: tuple[int, ...], m: int, k: int, n: int
) -> None:
    random = np.random.default_rng(m + n)
    a, b = codes(random, np.uint8, (*batch, m, k)), codes(random, np.int8, (*batch, k, n))
    scales = random.uniform(0.001, 0.1, n).astype(np.float32)
    zero = y_type(7)

    def product(x: NDArray[Any], w: NDArray[Any]) -> NDArray[Any]:
        return numerics.qlinear_matmul(
            x, np.float32(0.02), np.uint8(3), w, scales, np.int8(-2), np.float32(0.5), zero
        )

    result = product(a, b)
    assert result.dtype == y_type
    np.testing.assert_array_equal(result, one_by_one(product, a, b))


@pytest.mark.parametrize(("batch", "m", "k", "n"), SHAPES)
@pytest.mark.parametrize(
    ("product", "dtype"),
    [
        (numerics.gemm_f32, np.float32),
        (numerics.gemm_bf16, ml_dtypes.bfloat16),
        (numerics.gemm_f16, np.float16),
    ],
)
def test_float_stacks_are_their_entries(
    product: Callable[..., NDArray[Any]],
    dtype: type,
    batch: tuple[int, ...],
    m: int,
    k: int,
    n: int,
) -> None:
    random = np.random.default_rng(k)
    a = random.standard_normal((*batch, m, k)).astype(dtype)
    b = random.standard_normal((*batch, k, n)).astype(dtype)
    result = product(a, b)
    np.testing.assert_array_equal(result, one_by_one(product, a, b))
    into = np.full((*batch, m, 2 * n), np.nan, np.float32)
    np.testing.assert_array_equal(product(a, b, out=into[..., :n]), result)
    assert np.isnan(into[..., n:]).all()


def test_a_stack_cut_out_of_a_larger_one() -> None:
    random = np.random.default_rng(0)
    a, b = codes(random, np.uint8, (6, 9, 20)), codes(random, np.int8, (6, 20, 5))
    cut_a, cut_b = a[::2, 1::3, 4:17], b[1::2, 4:17, ::2]
    expected = np.matmul(cut_a.astype(np.int64), cut_b.astype(np.int64))
    np.testing.assert_array_equal(numerics.matmul_integer(cut_a, cut_b), expected)
    np.testing.assert_array_equal(
        numerics.matmul_integer(a[::-1], b[::-1])[::-1], numerics.matmul_integer(a, b)
    )


def test_one_matrix_for_a_whole_stack() -> None:
    random = np.random.default_rng(1)
    a, b = codes(random, np.int8, (4, 6, 8)), codes(random, np.uint8, (1, 8, 70))
    expected = np.matmul(a.astype(np.int64), b.astype(np.int64))
    np.testing.assert_array_equal(numerics.matmul_integer(a, b), expected)
