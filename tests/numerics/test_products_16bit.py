"""bf16 and f16 products: the chains of the reference, on every instruction set."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from number_strategies import ISAS, assert_same_bits, before_a_guard_page, float_mode

from lowprec._ext import _core
from lowprec.numerics import reference

# AMX sums bf16 in another order: test_amx.py.
every_isa = pytest.mark.parametrize("isa", [isa for isa in ISAS if isa != "amx"])

BF16 = ml_dtypes.bfloat16
ROWS = [*range(1, 10), 12, 13, 127, 128, 129]
COLUMNS = [1, 2, 15, 16, 17, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129, 191, 257, 300]
DEPTHS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 17, 32, 33]

shapes = st.tuples(st.sampled_from(ROWS), st.sampled_from(DEPTHS), st.sampled_from(COLUMNS))
seeds = st.integers(0, 2**32 - 1)

# bf16 bits: zero, denormals, the normal border, 1 and its neighbour, the largest, infinity, and
# factors whose products fall around 2^-126.
EDGES = np.array(
    [
        0,
        1,
        0x7F,
        0x80,
        0x81,
        0x3F80,
        0x3F81,
        0x7F7F,
        0x7F80,
        0x0100,
        0x2000,
        0x1F80,
        0x2080,
        0x5F80,
    ],
    np.uint16,
)


def run(kernel, a, b, dtype, isa, **epilogue):
    """The product, between elements that must survive; `isa` must have run."""
    memory = np.full(a.shape[0] * b.shape[1] + 128, 77, dtype)
    out = memory[64:-64].reshape(a.shape[0], b.shape[1])
    assert kernel(a, b, out, isa=isa, **epilogue) == isa
    assert (memory[:64] == 77).all()
    assert (memory[-64:] == 77).all()
    return out


def assert_same_numbers(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal bits; a NaN equals any NaN."""
    nan = np.isnan(expected.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(actual.astype(np.float32)), nan)
    assert_same_bits(np.where(nan, actual.dtype.type(0), actual),
                     np.where(nan, expected.dtype.type(0), expected))  # fmt: skip


def normal(rng, shape, dtype, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(dtype)


@every_isa
@given(shapes, seeds, st.booleans(), st.sampled_from([-20, 0, 0, 20, -55]))
def test_bf16_is_the_chain_of_the_reference(isa, shape, seed, with_bias, exponent):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a, b = normal(rng, (m, k), BF16), normal(rng, (k, n), BF16, 2.0**exponent)
    bias = normal(rng, n, np.float32) if with_bias else None
    actual = run(_core.matmul_bf16, a, b, np.float32, isa, bias=bias)
    assert_same_bits(actual, reference.gemm_bf16(a, b, bias))


@every_isa
@given(st.sampled_from([1, 2, 3, 4, 5, 8]), seeds, st.booleans())
def test_bf16_reads_and_flushes_denormals_as_zero(isa, k, seed, edges):
    rng = np.random.default_rng(seed)

    def draw(shape):
        if edges:
            return rng.choice(EDGES, shape) | rng.choice(np.uint16([0, 0x8000]), shape)
        # Exponents whose products straddle 2^-126.
        sign, exponent = rng.integers(0, 2, shape) << 15, rng.integers(50, 76, shape) << 7
        return (sign | exponent | rng.integers(0, 128, shape)).astype(np.uint16)

    a, b = draw((5, k)).view(BF16), draw((k, 70)).view(BF16)
    bias = rng.choice(np.float32([0, 2.0**-149, -(2.0**-130), 2.0**-126]), 70)
    with np.errstate(all="ignore"):
        expected = reference.gemm_bf16(a, b, bias)
    with float_mode(0) as read:
        before = read()
        actual = run(_core.matmul_bf16, a, b, np.float32, isa, bias=bias)
        assert read() == before
    assert_same_numbers(actual, expected)


@every_isa
def test_bf16_flushes_what_is_denormal_after_rounding(isa):
    # 2^-126 less a little: kept where 24 bits round it back up to 2^-126, flushed below that.
    a = np.array([[2.0**-63, 2.0**-76]], BF16)
    b = np.array([[2.0**-63] * 4, np.float32([-1, -1.5, -2, -4]) * 2.0**-76 * 2]).astype(BF16)
    # The odd element joins first: exchange them, so that the last step is the subtraction.
    a, b = a[:, ::-1].copy(), b[::-1].copy()
    actual = run(_core.matmul_bf16, a, b, np.float32, isa)
    np.testing.assert_array_equal(actual, [[2.0**-126, 0, 0, 0]])
    assert_same_bits(actual, reference.gemm_bf16(a, b))


@pytest.mark.skipif(len(ISAS) < 2, reason="one instruction set only")
@pytest.mark.parametrize("bits", ["any", "near 1", "near the smallest"])
def test_two_million_chains_are_the_same_on_every_set(bits):
    # Among them the hardware's own vdpbf16ps and two ways of doing without it.
    rng = np.random.default_rng(len(bits))
    low, high = {"any": (0, 256), "near 1": (110, 145), "near the smallest": (40, 90)}[bits]

    def draw(shape):
        sign, exponent = rng.integers(0, 2, shape) << 15, rng.integers(low, high, shape) << 7
        return (sign | exponent | rng.integers(0, 128, shape)).astype(np.uint16)

    a, b = draw((1000, 6)), draw((6, 2000))
    results = [run(_core.matmul_bf16, a, b, np.float32, isa) for isa in ISAS]
    for result in results[1:]:
        assert_same_numbers(result, results[0])


@every_isa
@given(shapes, seeds, st.booleans())
def test_f16_is_the_chain_of_fmas(isa, shape, seed, with_bias):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a, b = normal(rng, (m, k), np.float16, 30), normal(rng, (k, n), np.float16, 2.0**-12)
    bias = normal(rng, n, np.float32) if with_bias else None
    actual = run(_core.matmul_f16, a, b, np.float32, isa, bias=bias)
    assert_same_bits(actual, reference.gemm_f16(a, b, bias))


@every_isa
@pytest.mark.parametrize("kernel", ["bf16", "f16"])
def test_nothing_behind_the_operands_is_read(isa, kernel):
    rng = np.random.default_rng(0)
    dtype = BF16 if kernel == "bf16" else np.float16
    for m, k, n in [(1, 1, 1), (2, 2, 3), (7, 3, 17), (13, 5, 65), (1, 7, 300)]:
        a, b = normal(rng, (m, k), dtype), normal(rng, (k, n), dtype)
        actual = run(
            getattr(_core, f"matmul_{kernel}"),
            before_a_guard_page(a.view(np.uint16)),
            before_a_guard_page(b.view(np.uint16)),
            np.float32,
            isa,
        )
        assert_same_bits(actual, getattr(reference, f"gemm_{kernel}")(a, b))


@every_isa
@given(shapes, seeds)
def test_float_results_round_to_bf16(isa, shape, seed):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a, b = normal(rng, (m, k), BF16), normal(rng, (k, n), BF16)
    bias = normal(rng, n, np.float32)
    actual = run(_core.matmul_bf16, a, b, BF16, isa, bias=bias)
    assert_same_bits(actual, reference.to_bf16(reference.gemm_bf16(a, b, bias)))
