"""Products of codes of every type, with zero points of rows and columns, on every instruction set.

Compared with exact integers modulo 2^32; how many outputs were compared is counted at the end.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from number_strategies import PRODUCT_ISAS

from lowprec._ext import _core

every_isa = pytest.mark.parametrize("isa", PRODUCT_ISAS)
every_type = pytest.mark.parametrize(
    ("a_type", "b_type"), list(itertools.product([np.uint8, np.int8], repeat=2))
)

# Either side of each tile of any set: rows of a microkernel and of a block, columns of a vector and
# of a panel, groups of K and what kernels prepare at a time.
ROWS = [*range(1, 18), 31, 33, 127, 128, 129, 135]
COLUMNS = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 79, 80, 81, 136]
DEPTHS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 32, 33, 64, 67]
seeds = st.integers(0, 2**32 - 1)

compared = dict.fromkeys(PRODUCT_ISAS, 0)


@pytest.fixture(scope="module", autouse=True)
def count_of_compared_outputs():
    yield
    print(f"\noutputs compared, none of them different: {compared}")


def extremes(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    limits = np.iinfo(dtype)
    return rng.choice(np.array([limits.min, limits.max], dtype), shape)


def codes(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Random codes; one array in three holds only extremes."""
    if rng.random() < 0.33:
        return extremes(rng, shape, dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def expected(a, b, row_zeros=0, column_zeros=0, bias=0) -> np.ndarray:
    centred = a.astype(np.int64) - np.reshape(row_zeros, (-1, 1))
    acc = centred @ (b.astype(np.int64) - column_zeros) + bias
    return acc.astype(np.uint32).view(np.int32)  # modulo 2^32


def check(isa, a, b, *, row_zeros=None, column_zeros=None, a_zero_point=0, bias=None):
    m, n = a.shape[0], b.shape[1]
    memory = np.full(m * n + 32, 77, np.int32)
    out = memory[16:-16].reshape(m, n)
    used = _core.matmul_int8(
        a, b, out, a_zero_point=a_zero_point, row_zero_points=row_zeros,
        column_zero_points=column_zeros, bias=bias, isa=isa,
    )  # fmt: skip
    assert used == isa
    assert (memory[:16] == 77).all()
    assert (memory[-16:] == 77).all()
    zeros = a_zero_point if row_zeros is None else row_zeros
    columns = 0 if column_zeros is None else column_zeros
    added = 0 if bias is None else bias
    np.testing.assert_array_equal(out, expected(a, b, zeros, columns, added))
    compared[isa] += out.size


def zero_points(rng: np.random.Generator, size: int, dtype: type) -> np.ndarray:
    return codes(rng, (size,), dtype).astype(np.int32)


@every_isa
@every_type
@given(
    rows=st.sampled_from(["none", "one", "each"]), columns=st.sampled_from(["none", "each"]),
    shape=st.tuples(*map(st.sampled_from, (ROWS, DEPTHS, COLUMNS))), seed=seeds,
)  # fmt: skip
def test_every_zero_point_is_subtracted(isa, a_type, b_type, rows, columns, shape, seed):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    bias = rng.integers(-(2**31), 2**31, n).astype(np.int32)
    check(
        isa, codes(rng, (m, k), a_type), codes(rng, (k, n), b_type), bias=bias,
        a_zero_point=zero_points(rng, 1, a_type).item() if rows == "one" else 0,
        row_zeros=zero_points(rng, m, a_type) if rows == "each" else None,
        column_zeros=zero_points(rng, n, b_type) if columns == "each" else None,
    )  # fmt: skip


@every_isa
@every_type
@pytest.mark.parametrize("m", ROWS)
def test_every_tile_edge(isa, a_type, b_type, m):
    for n in COLUMNS:
        rng = np.random.default_rng([m, n])
        a, b = codes(rng, (m, 13), a_type), codes(rng, (13, n), b_type)
        check(isa, a, b)
        check(
            isa, a, b, row_zeros=zero_points(rng, m, a_type),
            column_zeros=zero_points(rng, n, b_type),
        )  # fmt: skip


@every_isa
@every_type
@pytest.mark.parametrize("depth", [1, 4, 511, 3072, 9000, 20_001])
@pytest.mark.parametrize("m", [1, 2, 3, 5, 13])
def test_long_sums(isa, a_type, b_type, depth, m):
    rng = np.random.default_rng(depth)
    a, b = codes(rng, (m, depth), a_type), codes(rng, (depth, 70), b_type)
    check(isa, a, b, a_zero_point=7, column_zeros=zero_points(rng, 70, b_type))


@every_isa
@every_type
def test_extreme_codes_at_every_place(isa, a_type, b_type):
    depths = [1, 2, 4, 9]
    for a_side, b_side, depth in itertools.product((False, True), (False, True), depths):
        a = np.full((9, depth), np.iinfo(a_type).max if a_side else np.iinfo(a_type).min, a_type)
        b = np.full((depth, 33), np.iinfo(b_type).max if b_side else np.iinfo(b_type).min, b_type)
        check(isa, a, b)
        for k in range(depth):  # one other code, anywhere
            a[k % 9, k] ^= a_type(-1 if a_type is np.int8 else 255)
            check(isa, a, b, column_zeros=np.full(33, -5, np.int32))


@every_isa
@every_type
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 40), st.integers(1, 70)),
    gap=st.integers(0, 9), seed=seeds,
)  # fmt: skip
def test_rows_may_lie_apart(isa, a_type, b_type, shape, gap, seed):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a = codes(rng, (m, k + gap), a_type)[:, :k]
    check(isa, a, codes(rng, (k, n), b_type), row_zeros=zero_points(rng, m, a_type))


@every_isa
@every_type
def test_sums_wrap_where_only_the_end_must_fit(isa, a_type, b_type):
    # Every part of the sum leaves s32, the result does not: 66,000 * 255 * 255 - the same.
    depth = 66_000
    a = np.full((2, depth), np.iinfo(a_type).max, a_type)
    b = np.full((depth, 3), np.iinfo(b_type).max, b_type)
    check(
        isa, a, b, a_zero_point=int(np.iinfo(a_type).max) - 1,
        column_zeros=np.full(3, int(np.iinfo(b_type).max) - 2, np.int32),
    )  # fmt: skip
    out = np.empty((2, 3), np.int32)
    _core.matmul_int8(a, b, out, isa=isa, a_zero_point=int(np.iinfo(a_type).max))
    assert (out == 0).all()
