"""Matrix products: exact in integers, one chain of FMAs in floats, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from number_strategies import (
    EDGE_VALUES,
    PRODUCT_ISAS,
    assert_same_bits,
    before_a_guard_page,
    float_mode,
)

from lowprec import numerics
from lowprec._ext import _core
from lowprec.errors import InputError, QuantizationError
from lowprec.numerics import reference

every_isa = pytest.mark.parametrize("isa", PRODUCT_ISAS)

# Either side of each tile: up to 8 rows of a microkernel, 128 of a block; panels of 64 columns in
# vectors of 16; K in groups of 4.
ROWS = [*range(1, 10), 11, 12, 13, 127, 128, 129, 137]
COLUMNS = [1, 2, 8, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 79, 80, 81, 127, 128, 129]
DEPTHS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 64, 65]

shapes = st.tuples(st.sampled_from(ROWS), st.sampled_from(DEPTHS), st.sampled_from(COLUMNS))
seeds = st.integers(0, 2**32 - 1)
BYTE_TYPES = [np.uint8, np.int8]


def codes(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Random codes; one array in four holds only extremes, which saturating kernels get wrong."""
    limits = np.iinfo(dtype)
    if rng.random() < 0.25:
        return rng.choice(np.array([limits.min, limits.max], dtype), shape)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.int64) @ b.astype(np.int64)


def run(kernel, a, b, dtype, isa, **epilogue):
    """The product, between elements that must survive; `isa` must have run."""
    memory = np.full(a.shape[0] * b.shape[1] + 128, 77, dtype)
    out = memory[64:-64].reshape(a.shape[0], b.shape[1])
    assert kernel(a, b, out, isa=isa, **epilogue) == isa
    assert (memory[:64] == 77).all()
    assert (memory[-64:] == 77).all()
    return out


# --- u8 x s8 -------------------------------------------------------------------------------------


@every_isa
@given(shapes, seeds, st.booleans())
def test_u8s8_is_the_exact_product(isa, shape, seed, with_bias):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a, b = codes(rng, (m, k), np.uint8), codes(rng, (k, n), np.int8)
    bias = rng.integers(-(2**30), 2**30, n).astype(np.int32) if with_bias else None
    acc = run(_core.matmul_int8, a, b, np.int32, isa, bias=bias)
    np.testing.assert_array_equal(acc, exact(a, b) + (0 if bias is None else bias))


@every_isa
@pytest.mark.parametrize("m", ROWS)
@pytest.mark.parametrize("n", COLUMNS)
def test_u8s8_is_exact_at_every_tile_edge(isa, m, n):
    rng = np.random.default_rng([m, n])
    a, b = codes(rng, (m, 9), np.uint8), codes(rng, (9, n), np.int8)
    np.testing.assert_array_equal(run(_core.matmul_int8, a, b, np.int32, isa), exact(a, b))


@every_isa
@pytest.mark.parametrize("weight", [-128, 127])
@pytest.mark.parametrize("depth", [2, 4, 8, 65_792, 65_793])
def test_extreme_codes_do_not_saturate(isa, weight, depth):
    # 255 * 127 * 2 leaves s16 (vpmaddubsw); 255 * -128 * 65,793 is the last sum inside s32.
    a, b = np.full((3, depth), 255, np.uint8), np.full((depth, 17), weight, np.int8)
    acc = run(_core.matmul_int8, a, b, np.int32, isa)
    assert (acc == 255 * weight * depth).all()


@every_isa
@given(shapes, seeds, st.sampled_from(BYTE_TYPES), st.booleans())
def test_fused_requantisation_is_the_reference_s(isa, shape, seed, dtype, proven):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a, b = codes(rng, (m, k), np.uint8), codes(rng, (k, n), np.int8)
    bias = rng.integers(-(2**16), 2**16, n).astype(np.int32)
    acc = exact(a, b) + bias
    multiplier = (rng.choice([0.5, 1, 100, 2000], n) / (np.abs(acc).max(initial=1) + 1)).astype(
        np.float32
    )
    multiplier[rng.random(n) < 0.2] = 2.0**-6  # ties
    zero_point = codes(rng, (), dtype)
    fast = proven and bool((np.abs(acc) * multiplier.astype(float) < 2.0**31 - 256).all())
    actual = run(
        _core.matmul_int8, a, b, dtype, isa,
        bias=bias, multiplier=multiplier, zero_point=zero_point.item(), fast=fast,
    )  # fmt: skip
    assert_same_bits(actual, reference.requantize(acc, multiplier, np.asarray(zero_point), axis=1))


@every_isa
@given(shapes, seeds)
def test_fused_requantisation_saturates_beyond_s32(isa, shape, seed):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a, b = codes(rng, (m, k), np.uint8), codes(rng, (k, n), np.int8)
    multiplier = rng.choice(np.float32([1e6, 3e38, 2.0**20]), n)
    actual = run(_core.matmul_int8, a, b, np.uint8, isa, multiplier=multiplier, zero_point=7)
    assert_same_bits(actual, reference.requantize(exact(a, b), multiplier, np.uint8(7), axis=1))


@every_isa
@given(shapes, seeds, st.booleans(), st.sampled_from([np.float32, np.uint8, np.int8]))
def test_float_outputs_and_addends_round_step_by_step(isa, shape, seed, with_addend, dtype):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a, b = codes(rng, (m, k), np.uint8), codes(rng, (k, n), np.int8)
    multiplier = rng.uniform(1e-4, 1e-3, n).astype(np.float32)
    addend = rng.standard_normal(n).astype(np.float32) if with_addend else None
    real = reference.dequantize_accumulator(exact(a, b), multiplier, axis=1)
    if with_addend:
        real = real + addend
    elif dtype != np.float32:
        return  # codes without an addend are requantised: tested above
    epilogue = {"multiplier": multiplier, "addend": addend, "scale": 0.037, "zero_point": 3}
    actual = run(_core.matmul_int8, a, b, dtype, isa, **epilogue)
    if dtype == np.float32:
        assert_same_bits(actual, real)
    else:
        assert_same_bits(actual, reference.quantize_linear(real, np.float32(0.037), dtype(3)))


@every_isa
@pytest.mark.parametrize("k", [1, 3, 5, 6, 7, 8])
def test_u8s8_reads_nothing_behind_its_operands(isa, k):
    rng = np.random.default_rng(k)
    for m, n in [(1, 1), (5, 17), (9, 65)]:
        a, b = codes(rng, (m, k), np.uint8), codes(rng, (k, n), np.int8)
        actual = run(
            _core.matmul_int8, before_a_guard_page(a), before_a_guard_page(b), np.int32, isa
        )
        np.testing.assert_array_equal(actual, exact(a, b))


# --- f32 -----------------------------------------------------------------------------------------


@every_isa
@given(shapes, seeds, st.booleans())
def test_f32_is_the_chain_of_fmas(isa, shape, seed, with_bias):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    a, b = a.astype(np.float32), (b * 2.0 ** rng.integers(-20, 20)).astype(np.float32)
    bias = rng.standard_normal(n).astype(np.float32) if with_bias else None
    actual = run(_core.matmul_f32, a, b, np.float32, isa, bias=bias)
    zero = np.zeros(n, np.float32)
    assert_same_bits(actual, reference.gemm_f32(a, b, zero if bias is None else bias))


@every_isa
@pytest.mark.parametrize("n", [192, 193, 256, 257, 320, 449, 512, 600])
def test_one_row_times_several_panels_is_the_same_chain(isa, n):
    rng = np.random.default_rng(n)
    for m, k in [(1, 1), (1, 6), (2, 7)]:
        a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
        a, b, bias = a.astype(np.float32), b.astype(np.float32), b[0].astype(np.float32)
        actual = run(_core.matmul_f32, a, b, np.float32, isa, bias=bias)
        assert_same_bits(actual, reference.gemm_f32(a, b, bias))


@every_isa
@given(seeds, st.sampled_from(BYTE_TYPES))
def test_f32_products_quantise_as_the_reference(isa, seed, dtype):
    rng = np.random.default_rng(seed)
    a, b = (
        rng.standard_normal((7, 9)).astype(np.float32),
        rng.standard_normal((9, 33)).astype(np.float32),
    )
    bias, zero_point = rng.standard_normal(33).astype(np.float32), codes(rng, (), dtype)
    actual = run(
        _core.matmul_f32, a, b, dtype, isa, bias=bias, scale=0.05, zero_point=zero_point.item()
    )
    real = reference.gemm_f32(a, b, bias)
    assert_same_bits(
        actual, reference.quantize_linear(real, np.float32(0.05), np.asarray(zero_point))
    )


@every_isa
def test_f32_keeps_denormals_and_infinities(isa):
    values = EDGE_VALUES[~np.isnan(EDGE_VALUES)]
    a, b = values[:, None], np.float32([[1, 2.0**-20, -0.5]])
    with np.errstate(over="ignore"):
        expected = reference.gemm_f32(a, b, np.zeros(3, np.float32))
    with float_mode(0x8040 | 0x4000) as read:
        before = read()
        actual = run(_core.matmul_f32, a.copy(), b, np.float32, isa)
        assert read() == before
    assert_same_bits(actual, expected)


@every_isa
def test_f32_reads_nothing_behind_its_operands(isa):
    rng = np.random.default_rng(0)
    for m, k, n in [(1, 1, 1), (7, 3, 17), (13, 5, 65)]:
        a, b = (
            rng.standard_normal((m, k)).astype(np.float32),
            rng.standard_normal((k, n)).astype(np.float32),
        )
        actual = run(
            _core.matmul_f32, before_a_guard_page(a), before_a_guard_page(b), np.float32, isa
        )
        assert_same_bits(actual, reference.gemm_f32(a, b, np.zeros(n, np.float32)))


# --- the public functions ------------------------------------------------------------------------

batches = st.sampled_from(
    [((), ()), ((2,), ()), ((3,), (3,)), ((2, 1), (3,)), ((), (2,)), ((0,), ())]
)


@st.composite
def integer_operands(draw):
    rng = np.random.default_rng(draw(seeds))
    m, k, n = draw(shapes.map(lambda mkn: tuple(min(size, 20) for size in mkn)))
    a_batch, b_batch = draw(batches)
    a_type, b_type = draw(st.sampled_from(BYTE_TYPES)), draw(st.sampled_from(BYTE_TYPES))
    a, b = codes(rng, (*a_batch, m, k), a_type), codes(rng, (*b_batch, k, n), b_type)
    zeros = [
        codes(rng, draw(st.sampled_from([(), (size,)])), dtype) * dtype(draw(st.booleans()))
        for size, dtype in ((m, a_type), (n, b_type))
    ]
    return rng, a, b, np.asarray(zeros[0]), np.asarray(zeros[1])


@given(integer_operands())
def test_matmul_integer_is_the_reference(operands):
    _, a, b, a_zero, b_zero = operands
    actual = numerics.matmul_integer(a, b, a_zero, b_zero)
    assert_same_bits(actual, reference.matmul_integer(a, b, a_zero, b_zero))


@given(integer_operands(), st.booleans(), st.booleans(), st.sampled_from(["u1", "i1", "u2", "i4"]))
def test_qlinear_matmul_is_the_reference(operands, per_channel, with_bias, y_dtype):
    rng, a, b, a_zero, b_zero = operands
    a_scale = rng.uniform(0.001, 0.1, a_zero.shape if per_channel else ()).astype(np.float32)
    b_scale = rng.uniform(0.001, 0.1, b_zero.shape if per_channel else ()).astype(np.float32)
    y_scale = np.float32(rng.uniform(0.001, 1))
    y_zero = codes(rng, (), np.dtype(y_dtype).type)
    bias = rng.integers(-(2**31), 2**31, b.shape[-1]).astype(np.int32) if with_bias else None
    args = a, a_scale, a_zero, b, b_scale, b_zero, y_scale, np.asarray(y_zero)
    assert_same_bits(
        numerics.qlinear_matmul(*args, bias=bias), reference.qlinear_matmul(*args, bias=bias)
    )


@pytest.mark.parametrize("depth", [65_792, 65_793, 65_794, 131_586, 131_590])
@pytest.mark.parametrize("weight", [-128, 127])
def test_no_depth_wraps(depth, weight):
    a, b = np.full((2, depth), 255, np.uint8), np.full((depth, 3), weight, np.int8)
    acc = numerics.matmul_integer(a, b)
    assert acc.dtype == (np.int32 if depth <= 65_793 else np.int64)
    assert (acc == 255 * weight * depth).all()
    # Both operands moved as far as a zero point can move them.
    acc = numerics.matmul_integer(a, b, np.uint8(0), np.int8(-128 if weight == 127 else 127))
    assert (acc == 255 * (255 if weight == 127 else -255) * depth).all()
    args = a, 1e-3, np.uint8(0), b, 1e-3, np.int8(0), 100.0, np.int16(5)
    codes = numerics.qlinear_matmul(*args)
    multiplier = np.float32(1e-3) * np.float32(1e-3) / np.float32(100)
    assert (codes == np.rint(np.float32(255 * weight * depth) * multiplier) + 5).all()


@given(st.sampled_from([((5,), (5,)), ((5,), (5, 3)), ((2, 4, 5), (5,)), ((5,), (2, 5, 3))]))
def test_vectors_multiply_as_in_numpy(shapes):
    rng = np.random.default_rng(0)
    a, b = codes(rng, shapes[0], np.int8), codes(rng, shapes[1], np.uint8)
    actual = numerics.matmul_integer(a, b, np.int8(3), np.uint8(200))
    expected = (a.astype(int) - 3) @ (b.astype(int) - 200)
    np.testing.assert_array_equal(actual, expected)
    assert actual.shape == np.shape(expected)


def test_strided_operands_and_out():
    rng = np.random.default_rng(0)
    a, b = codes(rng, (12, 10), np.uint8)[::2, ::-1], codes(rng, (9, 10), np.int8).T
    out = np.zeros((9, 6), np.int32).T
    assert numerics.matmul_integer(a, b, out=out) is out
    np.testing.assert_array_equal(out, exact(a, b))
    y = np.zeros((6, 18), np.uint8)[:, ::2]
    args = a, 0.1, np.uint8(7), b, 0.2, np.int8(0), 9.0, np.uint8(128)
    assert numerics.qlinear_matmul(*args, out=y) is y
    np.testing.assert_array_equal(y, numerics.qlinear_matmul(*args))


A, B, ZERO = np.ones((2, 3), np.uint8), np.ones((3, 4), np.int8), np.uint8(0)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: numerics.matmul_integer(A, B.T), r"\(2, 3\).*\(4, 3\)"),
        (lambda: numerics.matmul_integer(A.astype(np.int16), B), "a holds int16"),
        (lambda: numerics.matmul_integer(A, B.astype(np.float32)), "b holds float32"),
        (lambda: numerics.matmul_integer(A, B, np.int8(0)), "a_zero_point holds int8"),
        (lambda: numerics.matmul_integer(A, B, np.zeros(3, np.uint8)), r"\(3,\).*\(2,\)"),
        (lambda: numerics.matmul_integer(A, B, None, np.zeros(3, np.int8)), r"\(3,\).*\(4,\)"),
        (lambda: numerics.matmul_integer(np.uint8(1), B), "at least one axis"),
        (
            lambda: numerics.matmul_integer(np.ones((2, 1, 3), "u1"), np.ones((3, 3, 4), "i1")),
            "batch",
        ),
        (lambda: numerics.matmul_integer(A, B, out=np.zeros((2, 4), np.int64)), "int32"),
        (
            lambda: numerics.qlinear_matmul(
                A, 1.0, ZERO, B, np.ones(3, np.float32), np.int8(0), 1.0, ZERO
            ),
            "b_scale",
        ),
        (
            lambda: numerics.qlinear_matmul(
                A, 1.0, ZERO, B, 1.0, np.int8(0), 1.0, ZERO, bias=np.int64([0])
            ),
            "bias holds int64",
        ),
    ],
)
def test_operands_that_do_not_fit_are_refused(call, match):
    with pytest.raises(InputError, match=match):
        call()


def test_a_scale_of_a_product_must_be_positive():
    with pytest.raises(QuantizationError, match="y_scale"):
        numerics.qlinear_matmul(A, 1.0, ZERO, B, 1.0, np.int8(0), 0.0, ZERO)
