"""The definition itself: checked against exact fractions, other people's code and its own words."""

from __future__ import annotations

import ctypes
import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from number_strategies import EDGE_VALUES, any_float, assert_same_bits, float_arrays

from lowprec.numerics import reference


def round_to_f32(exact: Fraction) -> np.float32:
    """The f32 nearest to a fraction, ties to even, by comparing distances."""
    with np.errstate(over="ignore", under="ignore"):
        guess = np.float32(float(exact))
        around = [np.nextafter(guess, np.float32(end)) for end in (-np.inf, np.inf)]
    finite = [value for value in (*around, guess) if np.isfinite(value)]
    return min(finite, key=lambda v: (abs(Fraction(float(v)) - exact), int(v.view(np.uint32)) & 1))


@given(any_float, any_float, any_float)
def test_fma_rounds_the_exact_sum_once(a, b, c):
    assume(all(np.isfinite([a, b, c])))
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    largest = Fraction(float(np.finfo(np.float32).max))
    assume(exact != 0 and abs(exact) <= largest)
    assert reference.fma(a, b, c) == round_to_f32(exact)


def test_fma_is_not_fooled_by_double_rounding():
    # 1 + 2^-23 + (2^-24 - 2^-64): float64 sees an exact tie and rounds up; the sum is below it.
    a, b = np.float32(2.0**-12 * (1 + 2.0**-20)), np.float32(2.0**-12 * (1 - 2.0**-20))
    c = np.float32(1 + 2.0**-23)
    assert np.float32(float(a) * float(b) + float(c)) == np.float32(1 + 2.0**-22)
    assert reference.fma(a, b, c) == c


def test_fma_is_the_c_library_s():
    fmaf = ctypes.CDLL("libm.so.6").fmaf
    fmaf.restype, fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3000)).astype(np.float32)
    near = -(a * b) * (1 + rng.integers(-3, 4, a.size) * 2.0**-23)
    c = np.where(rng.random(a.size) < 0.3, rng.choice(EDGE_VALUES, a.size), near).astype(np.float32)
    c[np.isnan(c)] = 1
    expected = np.array([fmaf(*map(float, abc)) for abc in zip(a, b, c, strict=True)], np.float32)
    assert_same_bits(reference.fma(a, b, c), expected)


@given(float_arrays())
def test_bf16_is_ml_dtypes(x):
    with np.errstate(all="ignore"):
        assert_same_bits(reference.to_bf16(x), x.astype(ml_dtypes.bfloat16))


@given(float_arrays())
def test_f16_is_numpy_s_for_every_number(x):
    with np.errstate(all="ignore"):
        expected = x.astype(np.float16)
    nan = np.isnan(x)
    actual = reference.to_f16(x)
    assert_same_bits(actual[~nan], expected[~nan])
    assert np.isnan(actual[nan]).all()


@given(float_arrays())
def test_tf32_is_the_nearest_of_its_two_neighbours(x):
    # A tf32 has ten fraction bits of an f32's 23: neighbours differ by 2^13 in its bits.
    x = x[np.isfinite(x)]
    bits = x.view(np.uint32).astype(np.int64)
    below = bits - bits % 2**13
    chosen = reference.to_tf32(x).view(np.uint32).astype(np.int64)
    assert np.isin(chosen - below, [0, 2**13]).all()
    distance = np.abs(chosen - bits)
    assert (distance <= 2**12).all()
    assert (chosen[distance == 2**12] % 2**14 == 0).all()


def test_widening_is_exact_for_every_pattern():
    bits = np.arange(2**16, dtype=np.uint16)
    assert_same_bits(
        reference.from_bf16(bits.view(ml_dtypes.bfloat16)),
        bits.view(ml_dtypes.bfloat16).astype(np.float32),
    )
    half = bits.view(np.float16)
    nan = np.isnan(half)
    assert_same_bits(reference.from_f16(half)[~nan], half[~nan].astype(np.float32))
    assert np.isnan(reference.from_f16(half)[nan]).all()


@pytest.mark.parametrize("depth", [1, 65_793])
def test_products_of_extreme_codes_stay_int32_where_they_fit(depth):
    a, b = np.full((1, depth), 255, np.uint8), np.full((depth, 1), -128, np.int8)
    acc = reference.matmul_integer(a, b, np.uint8(0), np.int8(0))
    assert acc.dtype == np.int32
    assert acc.item() == 255 * -128 * depth


def test_products_too_deep_for_int32_are_int64():
    a, b = np.full((1, 65_794), 255, np.uint8), np.full((65_794, 1), -128, np.int8)
    acc = reference.matmul_integer(a, b, np.uint8(0), np.int8(0))
    assert acc.dtype == np.int64
    assert acc.item() == 255 * -128 * 65_794
    # uint8 times uint8 reaches 255 * 255 per product.
    acc = reference.matmul_integer(a, b.view(np.uint8), np.uint8(0), np.uint8(0))
    assert acc.dtype == np.int64


@pytest.mark.parametrize("group", [1, 2, 4])
def test_integer_convolution_is_the_sum_over_taps(group):
    rng = np.random.default_rng(group)
    x = rng.integers(0, 256, (2, 4, 7, 6)).astype(np.uint8)
    w = rng.integers(-128, 128, (8, 4 // group, 3, 2)).astype(np.int8)
    strides, pads, dilations = [2, 1], [1, 2, 0, 1], [1, 2]
    actual = reference.conv_integer(
        x, w, np.uint8(7), np.int8(-3), strides=strides, pads=pads, dilations=dilations, group=group
    )
    expected = np.zeros_like(actual)
    for n, o, i, j in np.ndindex(*actual.shape):
        for c, ki, kj in np.ndindex(*w.shape[1:]):
            y = i * strides[0] + ki * dilations[0] - pads[0]
            z = j * strides[1] + kj * dilations[1] - pads[1]
            if 0 <= y < x.shape[2] and 0 <= z < x.shape[3]:
                channel = o // (8 // group) * w.shape[1] + c
                expected[n, o, i, j] += (int(x[n, channel, y, z]) - 7) * (int(w[o, c, ki, kj]) + 3)
    np.testing.assert_array_equal(actual, expected)


def test_f32_convolution_runs_over_taps_then_channels():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1, 4, 5, 5)).astype(np.float32)
    w = rng.standard_normal((6, 2, 2, 3)).astype(np.float32)
    bias = rng.standard_normal(6).astype(np.float32)
    y = reference.conv_f32(x, w, bias, strides=[1, 1], pads=[0, 0, 0, 0], dilations=[1, 1], group=2)
    for o, i, j in [(0, 0, 0), (2, 3, 1), (3, 1, 2), (5, 3, 2)]:
        acc = np.float32(0)
        for ki, kj, c in np.ndindex(2, 3, 2):  # kh, kw, c: not the weights' own order
            acc = reference.fma(x[0, o // 3 * 2 + c, i + ki, j + kj], w[o, c, ki, kj], acc)
        assert y[0, o, i, j] == acc + bias[o]


def test_f32_product_is_a_chain_of_fmas():
    rng = np.random.default_rng(2)
    a, b = (
        rng.standard_normal((3, 9)).astype(np.float32),
        rng.standard_normal((9, 5)).astype(np.float32),
    )
    acc = np.float32(0)
    for k in range(9):
        acc = reference.fma(a[2, k], b[k, 4], acc)
    assert reference.gemm_f32(a, b)[2, 4] == acc
    np.testing.assert_allclose(reference.gemm_f32(a, b), a.astype(np.float64) @ b, atol=1e-5)


@given(float_arrays(finite=True))
def test_row_sums_follow_the_tree(x):
    x = np.clip(x, -1e30, 1e30)
    p = [np.float32(0)] * 16
    for i, value in enumerate(x):
        p[i % 16] = p[i % 16] + value
    for half in (8, 4, 2, 1):
        p = [p[j] + p[j + half] for j in range(half)]
    assert_same_bits(reference.sum_rows_f32(x), p[0])
    assert math.isclose(p[0], math.fsum(x), rel_tol=1e-4, abs_tol=1e-4 * np.abs(x).sum(dtype=float))


def test_global_average_pool_sums_positions_in_their_order():
    x = np.random.default_rng(3).standard_normal((2, 3, 5, 7)).astype(np.float32)
    means = reference.global_average_pool(x)
    assert means.shape == (2, 3, 1, 1)
    total = reference.sum_rows_f32(x[1, 2].reshape(-1))
    assert_same_bits(means[1, 2, 0, 0], total / np.float32(35))
    q, scale, zero_point = np.full((1, 1, 2, 2), 9, np.uint8), np.float32(0.5), np.uint8(1)
    codes = reference.qglobal_average_pool(q, scale, zero_point, scale, zero_point)
    assert codes.item() == 9


def test_average_pool_ignores_padding_unless_it_counts():
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    window = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    assert reference.average_pool(x, [3, 3], **window)[0, 0, 0, 0] == np.float32(10 / 4)
    counted = reference.average_pool(x, [3, 3], **window, count_include_pad=True)
    assert counted[0, 0, 0, 0] == np.float32(10) / np.float32(9)


def test_quantised_addition_is_float_addition_between_codes():
    a, b = np.uint8([0, 200, 255]), np.int8([-128, 5, 127])
    y = reference.qadd(
        a,
        np.float32(0.1),
        np.uint8(3),
        b,
        np.float32(0.02),
        np.int8(0),
        np.float32(0.11),
        np.uint8(9),
    )
    real = (a.astype(np.float32) - 3) * np.float32(0.1) + b.astype(np.float32) * np.float32(0.02)
    np.testing.assert_array_equal(y, np.clip(np.rint(real / np.float32(0.11)) + 9, 0, 255))


def test_a_table_is_the_function_between_codes():
    args = np.float32(0.05), np.int8(-7), np.float32(1 / 255), np.uint8(0)
    table = reference.make_qtable(lambda x: 1 / (1 + np.exp(-x)), *args)
    q = np.arange(-128, 128).astype(np.int8)
    real = 1 / (1 + np.exp(-reference.dequantize_linear(q, *args[:2])))
    np.testing.assert_array_equal(
        reference.qtable(q, table), reference.quantize_linear(real, *args[2:])
    )


@given(st.integers(0, 255), st.integers(0, 255))
def test_concatenation_under_the_same_scale_keeps_codes(code, zero):
    q, scale, zero_point = np.uint8([code]), np.float32(0.1), np.uint8(zero)
    part = (q, scale, zero_point)
    np.testing.assert_array_equal(reference.qconcat([part, part], scale, zero_point, 0), [code] * 2)
