"""Quantise, dequantise, requantise: the reference's bits on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
from guarded import guarded
from hypothesis import given
from hypothesis import strategies as st
from number_strategies import (
    EDGE_VALUES,
    ISAS,
    assert_same_bits,
    byte_zero_points,
    float_arrays,
    float_mode,
    scales,
    wide_zero_points,
)

from lowprec import numerics
from lowprec._ext import _core
from lowprec.numerics import reference

every_isa = pytest.mark.parametrize("isa", ISAS)
zero_points = st.one_of(byte_zero_points, wide_zero_points)


def run(kernel, x, dtype, factor, zero_point, isa):
    """One row through a kernel of `isa`, with an element behind it that must survive."""
    memory = np.full(x.size + 1, 77, dtype)
    rows = memory[:-1].reshape(1, -1)
    name = kernel(
        x.reshape(1, -1), rows, np.float32([factor]), int(zero_point), isa=isa
    )  # fmt: skip
    assert name == isa
    assert memory[-1] == 77
    return rows[0]


@every_isa
@given(float_arrays(), scales, zero_points)
def test_quantize_is_the_reference(isa, x, scale, zero_point):
    actual = run(_core.quantize, x, zero_point.dtype, scale, zero_point, isa)
    assert_same_bits(actual, reference.quantize_linear(x, scale, zero_point))


@every_isa
@given(scales, byte_zero_points)
def test_quantize_decides_ties_as_the_division_does(isa, scale, zero_point):
    # Products with 1 / scale are one ulp off here and there: at these borders it shows.
    halves = np.arange(-260, 260, 0.5) * scale
    halves = halves[np.abs(halves) < np.finfo(np.float32).max].astype(np.float32)
    x = np.concatenate([np.nextafter(halves, np.float32(s)) for s in (-np.inf, np.inf)] + [halves])
    actual = run(_core.quantize, x, zero_point.dtype, scale, zero_point, isa)
    assert_same_bits(actual, reference.quantize_linear(x, scale, zero_point))


@every_isa
def test_quantize_rounds_half_to_even_and_saturates(isa):
    x = np.float32([0.5, 1.5, 2.5, -0.5, -1.5, 1e9, -1e9, np.inf, -np.inf, np.nan])
    codes = run(_core.quantize, x, np.uint8, 1, 10, isa)
    np.testing.assert_array_equal(codes, [10, 12, 12, 10, 8, 255, 0, 255, 0, 0])
    codes = run(_core.quantize, x, np.int8, 1, 10, isa)
    np.testing.assert_array_equal(codes, [10, 12, 12, 10, 8, 127, -128, 127, -128, -128])


@every_isa
@given(byte_zero_points, scales)
def test_dequantize_is_the_reference_for_every_code(isa, zero_point, scale):
    codes = np.arange(256, dtype=np.uint8).view(zero_point.dtype)
    for size in (256, 255, 17, 7, 1):
        actual = run(_core.dequantize, codes[-size:], np.float32, scale, zero_point, isa)
        assert_same_bits(actual, reference.dequantize_linear(codes[-size:], scale, zero_point))


@every_isa
@given(wide_zero_points, scales, st.integers(0, 2**32 - 1))
def test_dequantize_of_wide_codes_is_the_reference(isa, zero_point, scale, seed):
    limits = np.iinfo(zero_point.dtype)
    codes = np.random.default_rng(seed).integers(limits.min, limits.max, 33, zero_point.dtype, True)
    codes[:2] = limits.min, limits.max
    actual = run(_core.dequantize, codes, np.float32, scale, zero_point, isa)
    assert_same_bits(actual, reference.dequantize_linear(codes, scale, zero_point))


def accumulators(rng: np.random.Generator, dtype: type) -> np.ndarray:
    size = int(rng.choice([1, 7, 16, 33, 97]))
    bits = int(rng.integers(1, 31 if dtype is np.int32 else 50))
    acc = rng.integers(-(2**bits), 2**bits, size).astype(dtype)
    acc[rng.random(size) < 0.1] = np.iinfo(np.int32).max
    acc[rng.random(size) < 0.1] = np.iinfo(np.int32).min
    return acc


multipliers = st.one_of(
    st.sampled_from([0.0, 2.0**-149, 2.0**-24, 0.5, 1.0, 1.5, 3e38]), st.floats(0, 4, width=32)
).map(np.float32)


@every_isa
@given(st.integers(0, 2**32 - 1), multipliers, zero_points, st.sampled_from([np.int32, np.int64]))
def test_requantize_is_the_reference(isa, seed, multiplier, zero_point, dtype):
    acc = accumulators(np.random.default_rng(seed), dtype)
    actual = run(_core.requantize, acc, zero_point.dtype, multiplier, zero_point, isa)
    assert_same_bits(actual, reference.requantize(acc, multiplier, zero_point))


@every_isa
@given(byte_zero_points, st.integers(-7, 1))
def test_requantize_rounds_half_to_even(isa, zero_point, exponent):
    multiplier = np.float32(2.0**exponent)
    acc = np.arange(-(2**15), 2**15, dtype=np.int32)
    actual = run(_core.requantize, acc, zero_point.dtype, multiplier, zero_point, isa)
    assert_same_bits(actual, reference.requantize(acc, multiplier, zero_point))


@every_isa
@pytest.mark.parametrize("size", [1, 7, 15, 17, 33])
def test_conversions_touch_nothing_behind_their_arrays(isa, size):
    reals = guarded(np.linspace(-1, 1, size, dtype=np.float32).reshape(1, -1))
    acc = guarded(np.arange(size, dtype=np.int32).reshape(1, -1))
    scales, zero_points = np.float32([0.1]), 3
    for dtype in (np.uint8, np.int8, np.uint16, np.int32):
        codes = guarded(np.zeros((1, size), dtype))
        _core.quantize(reals, codes, scales, zero_points, isa=isa)
        _core.dequantize(codes, reals, scales, zero_points, isa=isa)
        _core.requantize(acc, codes, scales, zero_points, isa=isa)


@every_isa
def test_flush_to_zero_of_another_library_changes_nothing(isa):
    x = np.concatenate([EDGE_VALUES, np.float32([2.0**-127, -(2.0**-127)])])
    scale = np.float32(2.0**-126)
    zeros = [np.uint8(100), np.int8(-3), np.int16(5)]
    codes = np.arange(256, dtype=np.uint8)
    factor = np.float32(2.0**-140)  # only as a product of scales
    expected = [reference.quantize_linear(x, scale, zero) for zero in zeros]
    products = reference.requantize(np.int32([2**30, 7]), factor, np.uint8(1))
    reals = reference.dequantize_linear(codes, factor, np.uint8(3))
    with float_mode(0x8040 | 0x4000) as read:
        before = read()
        actual = [run(_core.quantize, x, zero.dtype, scale, zero, isa) for zero in zeros]
        actual_products = run(_core.requantize, np.int32([2**30, 7]), np.uint8, factor, 1, isa)
        actual_reals = run(_core.dequantize, codes, np.float32, factor, 3, isa)
        assert read() == before
    for a, e in zip(actual, expected, strict=True):
        assert_same_bits(a, e)
    assert_same_bits(actual_products, products)
    assert_same_bits(actual_reals, reals)
    assert np.count_nonzero(reals) == 255


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(-4, 3),
    st.integers(0, 2**32 - 1),
    zero_points,
)
def test_per_channel_is_per_tensor_channel_by_channel(shape, axis, seed, zero):
    axis = axis % len(shape) - len(shape) * (seed % 2)
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) * 50).astype(np.float32)
    channels = shape[axis]
    scale = rng.uniform(0.1, 2, channels).astype(np.float32)
    zero_point = rng.integers(0, 100, channels).astype(zero.dtype)
    q = numerics.quantize_linear(x, scale, zero_point, axis=axis)
    assert_same_bits(q, reference.quantize_linear(x, scale, zero_point, axis))
    real = numerics.dequantize_linear(q, scale, zero_point, axis=axis)
    assert_same_bits(real, reference.dequantize_linear(q, scale, zero_point, axis))
    acc = (x * 1000).astype(np.int32)
    codes = numerics.requantize(acc, scale / 500, zero_point, axis=axis)
    assert_same_bits(codes, reference.requantize(acc, scale / np.float32(500), zero_point, axis))
    for c in range(channels):
        one = numerics.quantize_linear(x.take(c, axis), scale[c], zero_point[c])
        np.testing.assert_array_equal(q.take(c, axis), one)


def test_per_channel_along_the_last_axis_of_a_strided_view():
    x = np.random.default_rng(0).standard_normal((6, 5, 8)).astype(np.float32)[::2, :, ::2]
    scale, zero_point = np.float32([0.01, 0.1, 1, 3]), np.uint8([0, 10, 128, 255])
    out = np.zeros((5, 3, 4), np.uint8).transpose(1, 0, 2)
    q = numerics.quantize_linear(x, scale, zero_point, axis=-1, out=out)
    assert q is out
    assert_same_bits(q, reference.quantize_linear(x.copy(), scale, zero_point, 2))


def test_dequantize_without_a_zero_point_uses_zero():
    q = np.int32([-(2**31), 0, 2**31 - 1])
    np.testing.assert_array_equal(
        numerics.dequantize_linear(q, 0.5), q.astype(np.float32) * np.float32(0.5)
    )


@given(byte_zero_points, scales)
def test_codes_survive_a_round_trip(zero_point, scale):
    codes = np.arange(256, dtype=np.uint8).view(zero_point.dtype)
    with np.errstate(over="ignore"):
        finite = np.isfinite(numerics.dequantize_linear(codes, scale, zero_point))
    back = numerics.quantize_linear(
        numerics.dequantize_linear(codes, scale, zero_point), scale, zero_point
    )
    np.testing.assert_array_equal(back[finite], codes[finite])


@given(float_arrays(finite=True))
def test_dynamic_quantize_is_the_reference(x):
    codes, scale, zero_point = numerics.dynamic_quantize_linear(x)
    expected = reference.dynamic_quantize_linear(x)
    assert_same_bits(codes, expected[0])
    assert_same_bits(scale, expected[1])
    assert_same_bits(zero_point, expected[2])


def test_dynamic_quantize_of_zeros_uses_scale_one():
    for x in (np.zeros((2, 3), np.float32), np.float32([-0.0]), np.zeros(0, np.float32)):
        codes, scale, zero_point = numerics.dynamic_quantize_linear(x)
        assert (scale, zero_point) == (1, 0)
        np.testing.assert_array_equal(codes, np.zeros(x.shape))
