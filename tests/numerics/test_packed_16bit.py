"""bf16 and f16 weights, packed or not; residuals; bf16 results."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from number_strategies import ISAS, assert_same_bits, before_a_guard_page, bf16_definition
from refusals import refused

from lowprec import numerics
from lowprec._ext import _core
from lowprec.errors import InputError
from lowprec.numerics import reference

seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(
    st.sampled_from([1, 2, 3, 5, 9]),
    st.sampled_from([0, 1, 2, 3, 8, 31, 64]),
    st.sampled_from([1, 15, 16, 33, 64, 65]),
)


def gemm_bf16(a, b, bias):
    return bf16_definition(_core.chosen_isa())(a, b, bias)


KINDS = {
    "bf16": (ml_dtypes.bfloat16, numerics.gemm_bf16, gemm_bf16),
    "f16": (np.float16, numerics.gemm_f16, reference.gemm_f16),
    "f32": (np.float32, numerics.gemm_f32, reference.gemm_f32),
}


def reals(rng: np.random.Generator, shape, dtype) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32).astype(dtype)


@given(st.sampled_from(list(KINDS)), shapes, seeds, st.booleans())
def test_products_are_the_reference_packed_or_not(kind, shape, seed, with_bias):
    dtype, product, definition = KINDS[kind]
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a, b = reals(rng, (m, k), dtype), reals(rng, (k, n), dtype)
    bias = reals(rng, n, np.float32) if with_bias else None
    expected = definition(a, b, np.zeros(n, np.float32) if bias is None else bias)
    packed = numerics.pack_weights(b, bias=bias)
    assert_same_bits(product(a, b, bias=bias), expected)
    assert_same_bits(product(a, packed), expected)
    assert_same_bits(numerics.linear(a, packed), expected)
    rounded = numerics.linear(a, packed, out_dtype=ml_dtypes.bfloat16)
    assert_same_bits(rounded, reference.to_bf16(expected))
    assert_same_bits(product(a, packed, out_dtype=ml_dtypes.bfloat16), rounded)
    y = numerics.linear(a, packed, y_scale=0.05, y_zero_point=np.int8(-7))
    assert_same_bits(y, reference.quantize_linear(expected, np.float32(0.05), np.int8(-7)))
    batch = np.stack([a, a[::-1]])
    assert_same_bits(product(batch, packed)[1], expected[::-1])
    assert_same_bits(product(batch, np.stack([b, b]), bias=bias)[0], expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_nothing_is_read_behind_any_operand(isa, kind, k, monkeypatch):
    monkeypatch.setenv("LOWPREC_ISA", isa)
    dtype, product, definition = KINDS[kind]
    rng = np.random.default_rng(k)
    for m, n in [(1, 1), (3, 17), (9, 65)]:
        a, b = reals(rng, (m, k), dtype), reals(rng, (k, n), dtype)
        expected = definition(a, b, np.zeros(n, np.float32))
        # What stands behind a row must not matter either.
        wide = np.full((m, 2 * k + 1), np.nan, dtype)
        wide[:, :k] = a
        packed = numerics.pack_weights(before_a_guard_page(b))
        assert_same_bits(product(before_a_guard_page(a), packed), expected)
        assert_same_bits(product(wide[:, :k], packed), expected)
        assert_same_bits(product(before_a_guard_page(a), before_a_guard_page(b)), expected)


def test_bits_are_bfloat16():
    rng = np.random.default_rng(0)
    a, b = (reals(rng, shape, ml_dtypes.bfloat16) for shape in ((3, 5), (5, 7)))
    expected = numerics.gemm_bf16(a, b)
    assert_same_bits(numerics.gemm_bf16(a.view(np.uint16), b.view(np.uint16)), expected)
    out = np.zeros((3, 7), ml_dtypes.bfloat16)
    assert numerics.gemm_bf16(a, b, out=out, out_dtype=ml_dtypes.bfloat16) is out
    assert_same_bits(out, reference.to_bf16(expected))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bias_type", [None, np.int32, np.float32])
@pytest.mark.parametrize("residual_type", [np.float32, ml_dtypes.bfloat16, np.uint8, np.int8])
def test_a_residual_is_added_before_the_activation(isa, bias_type, residual_type, monkeypatch):
    monkeypatch.setenv("LOWPREC_ISA", isa)
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (9, 33), np.uint8)
    b = rng.integers(-128, 128, (33, 65)).astype(np.int8)
    scale = rng.uniform(0.001, 0.01, 65).astype(np.float32)
    bias = None if bias_type is None else (rng.standard_normal(65) * 9).astype(bias_type)
    acc = reference.matmul_integer(a, b, np.uint8(100), np.int8(0)).astype(np.int64)
    x = (acc + (bias if bias_type is np.int32 else 0)).astype(np.float32)
    x = x * (np.float32(0.02) * scale)
    if bias_type is np.float32:
        x = x + bias
    if np.dtype(residual_type).kind in "ui":
        residual = rng.integers(0, 100, (9, 65)).astype(residual_type)
        added = {"residual_scale": 0.03, "residual_zero_point": residual_type(50)}
        real = reference.dequantize_linear(residual, np.float32(0.03), residual_type(50))
    else:
        residual, added = reals(rng, (9, 65), residual_type), {}
        real = residual.astype(np.float32)
    expected = np.maximum(x + real, np.float32(0))
    packed = numerics.pack_weights(b, scale=scale, bias=bias)
    given = {"a_scale": 0.02, "a_zero_point": np.uint8(100), "activation": "relu"}
    given |= {"residual": residual, **added}
    assert_same_bits(numerics.linear(a, packed, **given), expected)
    assert_same_bits(
        numerics.linear(a, packed, out_dtype=ml_dtypes.bfloat16, **given),
        reference.to_bf16(expected),
    )
    y = numerics.linear(a, packed, y_scale=0.04, y_zero_point=np.uint8(3), **given)
    assert_same_bits(y, reference.quantize_linear(expected, np.float32(0.04), np.uint8(3)))


def test_batches_lie_where_they_lie():
    """Rows of A, Y and the residual may lie apart, batches too."""
    rng = np.random.default_rng(0)
    room = reals(rng, (3, 4, 2, 20), np.float32)
    a = room[:, :, 1, 3:10]
    packed = numerics.pack_weights(reals(rng, (7, 5), np.float32))
    out = np.zeros((3, 4, 10), np.float32)[:, :, ::2]
    assert numerics.linear(a, packed, out=out) is out
    assert_same_bits(out, numerics.linear(np.ascontiguousarray(a), packed))


A, B = np.ones((2, 3), np.float32), np.ones((3, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: numerics.gemm_bf16(A, B), ["a holds float32", "to_bf16"]),
        (lambda: numerics.gemm_f16(A, B.astype(np.float16)), ["a holds float32", "float16"]),
        (lambda: numerics.gemm_f32(A, B, out_dtype=np.float64), ["float64", "bfloat16"]),
        (lambda: numerics.gemm_f32(A, B, bias=np.ones(3, np.float32)), ["(3,)", "(4,)"]),
        (lambda: numerics.gemm_f32(A, numerics.pack_weights(B), bias=B[0]), ["bring their own"]),
        (
            lambda: numerics.gemm_bf16(A.astype(ml_dtypes.bfloat16), numerics.pack_weights(B)),
            ["packed float32", "bfloat16"],
        ),
        (lambda: numerics.gemm_f32(A, B, out=np.zeros((2, 3), np.float32)), ["out is", "[2, 4]"]),
        (lambda: numerics.gemm_f32(A, B, activation="swoosh"), ["swoosh", "relu"]),
        (
            lambda: numerics.linear(A, numerics.pack_weights(B), residual=A),
            ["residual has shape (2, 3)", "(2, 4)"],
        ),
        (
            lambda: numerics.linear(A, numerics.pack_weights(B), residual_scale=1.0),
            ["residual is None"],
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with refused(InputError, *words):
        call()
