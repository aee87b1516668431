"""Weights packed once: the products and layers on them are the unpacked ones and the reference."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from number_strategies import ISAS, assert_same_bits, before_a_guard_page
from refusals import refused

from lowprec import numerics
from lowprec.errors import InputError, QuantizationError
from lowprec.numerics import reference

BYTE_TYPES = [np.uint8, np.int8]
ROWS, COLUMNS, DEPTHS = [1, 2, 3, 5, 9], [1, 15, 16, 33, 64, 65], [0, 1, 2, 3, 4, 5, 8, 31, 64]

shapes = st.tuples(st.sampled_from(ROWS), st.sampled_from(DEPTHS), st.sampled_from(COLUMNS))
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch) -> str:
    monkeypatch.setenv("LOWPREC_ISA", request.param)
    return request.param


def codes(rng: np.random.Generator, shape, dtype) -> np.ndarray:
    limits = np.iinfo(dtype)
    if rng.random() < 0.25:
        return np.asarray(rng.choice(np.array([limits.min, limits.max], dtype), shape))
    return np.asarray(rng.integers(limits.min, limits.max, shape, dtype, endpoint=True))


@st.composite
def layers(draw):
    """(rng, a, its zero point, b, its zero point): any types, zero points of one or each."""
    rng = np.random.default_rng(draw(seeds))
    m, k, n = draw(shapes)
    a_type, b_type = draw(st.sampled_from(BYTE_TYPES)), draw(st.sampled_from(BYTE_TYPES))
    zero = codes(rng, draw(st.sampled_from([(), (n,)])), b_type) * b_type(draw(st.booleans()))
    a_zero = codes(rng, (), a_type)
    return rng, codes(rng, (m, k), a_type), a_zero, codes(rng, (k, n), b_type), np.asarray(zero)


# --- sums ----------------------------------------------------------------------------------------


@given(layers(), st.booleans())
def test_products_of_packed_codes_are_the_reference(layer, zero_per_row):
    rng, a, a_zero, b, zero = layer
    if zero_per_row:
        a_zero = codes(rng, len(a), a.dtype)
    packed = numerics.pack_weights(b, zero_point=zero)
    expected = reference.matmul_integer(a, b, a_zero, zero)
    assert_same_bits(numerics.matmul_integer(a, packed, a_zero), expected)
    assert_same_bits(numerics.matmul_integer(a, b, a_zero, zero), expected)
    batch = np.stack([a, a[::-1]])
    if not zero_per_row:
        doubled = numerics.matmul_integer(batch, packed, a_zero)
        assert_same_bits(doubled, np.stack([expected, expected[::-1]]))


@given(layers(), st.booleans(), st.booleans(), st.sampled_from(BYTE_TYPES))
def test_requantised_products_of_packed_codes_are_the_reference(layer, with_bias, each, y_type):
    rng, a, a_zero, b, zero = layer
    n = b.shape[1]
    scale = rng.uniform(0.001, 0.1, n if each else ()).astype(np.float32)
    bias = rng.integers(-(2**20), 2**20, n).astype(np.int32) if with_bias else None
    y_scale, y_zero = np.float32(rng.uniform(0.01, 50)), codes(rng, (), y_type)
    packed = numerics.pack_weights(b, zero_point=zero, scale=scale, bias=bias)
    expected = reference.qlinear_matmul(
        a, np.float32(0.02), a_zero, b, scale, zero, y_scale, y_zero, bias
    )
    actual = numerics.qlinear_matmul(a, 0.02, a_zero, packed, None, None, y_scale, y_zero)
    assert_same_bits(actual, expected)
    layer_codes = numerics.linear(
        a, packed, a_scale=0.02, a_zero_point=a_zero, y_scale=y_scale, y_zero_point=y_zero
    )
    assert_same_bits(layer_codes, expected)
    clamped = numerics.linear(
        a, packed, a_scale=0.02, a_zero_point=a_zero, y_scale=y_scale, y_zero_point=y_zero,
        activation="relu",
    )  # fmt: skip
    assert_same_bits(clamped, np.maximum(expected, y_zero))


# --- real results --------------------------------------------------------------------------------


def real_layer(acc, a_scale, scale, bias):
    """The definition of a layer with real results: see lowprec/numerics/packed.py."""
    if bias is not None and bias.dtype == np.int32:
        acc = acc + bias
    multiplier = np.atleast_1d(np.float32(a_scale))[:, None] * np.atleast_1d(scale)
    real = acc.astype(np.float32) * multiplier
    return real + bias if bias is not None and bias.dtype == np.float32 else real


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("bias_type", [None, np.int32, np.float32])
@pytest.mark.parametrize("activation", [None, "relu", "leaky_relu", "hard_swish", ("clip", -1, 2)])
@pytest.mark.parametrize("shape", [(1, 3, 5), (4, 16, 64), (9, 33, 65)])
def test_layers_of_codes_are_their_definition(bias_type, activation, shape):
    rng = np.random.default_rng([*shape, len(str(activation))])
    m, k, n = shape
    a, b = codes(rng, (m, k), np.int8), codes(rng, (k, n), np.int8)
    scale = rng.uniform(0.001, 0.01, n).astype(np.float32)
    bias = None if bias_type is None else (rng.uniform(-9, 9, n) * 10).astype(bias_type)
    packed = numerics.pack_weights(b, scale=scale, bias=bias)
    acc = reference.matmul_integer(a, b, np.int8(-3), np.int8(0)).astype(np.int64)
    x = real_layer(acc, 0.02, scale, bias)
    one_sixth = np.float32(1) / np.float32(6)
    expected = {
        None: lambda: x,
        "relu": lambda: np.maximum(x, np.float32(0)),
        "leaky_relu": lambda: np.where(x < 0, np.float32(0.01) * x, x),
        "hard_swish": lambda: x * np.clip(x * one_sixth + np.float32(0.5), 0, 1),
        ("clip", -1, 2): lambda: np.clip(x, -1, 2),
    }[activation]()
    given = {"a_scale": 0.02, "a_zero_point": np.int8(-3), "activation": activation}
    assert_same_bits(numerics.linear(a, packed, **given), expected.astype(np.float32))
    y = numerics.linear(a, packed, y_scale=0.05, y_zero_point=np.uint8(100), **given)
    if bias_type is np.float32 or activation not in (None, "relu"):
        quantised = reference.quantize_linear(expected, np.float32(0.05), np.uint8(100))
    else:
        multiplier = (np.float32(0.02) * scale) / np.float32(0.05)
        total = acc + (0 if bias is None else bias)
        quantised = reference.requantize(total, multiplier, np.uint8(100), axis=1)
        quantised = np.maximum(quantised, 100 if activation else 0).astype(np.uint8)
    assert_same_bits(y, quantised)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("activation", ["sigmoid", "silu", "tanh", "gelu", "gelu_tanh", "elu"])
def test_activations_by_name_are_what_their_name_says(activation):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 40)), rng.standard_normal((40, 33))
    a, b = a.astype(np.float32), b.astype(np.float32) / 4
    x = a.astype(float) @ b
    erf = np.vectorize(__import__("math").erf)
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    expected = {
        "sigmoid": 1 / (1 + np.exp(-x)),
        "silu": x / (1 + np.exp(-x)),
        "tanh": np.tanh(x),
        "gelu": 0.5 * x * (1 + erf(x / np.sqrt(2))),
        "gelu_tanh": 0.5 * x * (1 + np.tanh(inner)),
        "elu": np.where(x < 0, np.expm1(x), x),
    }[activation]
    for result in (
        numerics.gemm_f32(a, b, activation=activation),
        numerics.linear(a, numerics.pack_weights(b), activation=activation),
    ):
        np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 16, 64), (3, 7, 33), (4, 65, 65)])
@pytest.mark.parametrize("b_type", BYTE_TYPES)
def test_float_rows_are_quantised_by_their_own_range(shape, b_type):
    rng = np.random.default_rng(shape)
    m, k, n = shape
    a = (rng.standard_normal((m, k)) * 2.0 ** np.arange(m)[:, None]).astype(np.float32)
    a[0] = np.abs(a[0])
    b, zero = codes(rng, (k, n), b_type), codes(rng, (), b_type)
    scale = rng.uniform(0.001, 0.01, n).astype(np.float32)
    bias = rng.standard_normal(n).astype(np.float32)
    rows = [reference.dynamic_quantize_linear(row) for row in a]
    acc = np.stack(
        [reference.matmul_integer(q[None], b, z, zero)[0].astype(np.int64) for q, _, z in rows]
    )
    expected = real_layer(acc, [s for _, s, _ in rows], scale, bias)
    packed = numerics.pack_weights(b, zero_point=zero, scale=scale, bias=bias)
    assert_same_bits(numerics.linear(a, packed), expected)


@given(shapes, seeds, st.booleans())
def test_products_of_packed_floats_are_the_reference(shape, seed, with_bias):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    a, b = a.astype(np.float32), b.astype(np.float32)
    bias = rng.standard_normal(n).astype(np.float32) if with_bias else None
    expected = reference.gemm_f32(a, b, bias) + np.float32(0)
    packed = numerics.pack_weights(b, bias=bias)
    assert_same_bits(numerics.gemm_f32(a, packed), expected)
    assert_same_bits(numerics.gemm_f32(a, b, bias=bias), expected)
    assert_same_bits(numerics.gemm_f32(np.stack([a, a]), packed)[1], expected)
    batches = np.stack([b, 2 * b])
    doubled = numerics.gemm_f32(a, batches)
    assert_same_bits(doubled[0], reference.gemm_f32(a, b) + np.float32(0))
    assert_same_bits(doubled[1], reference.gemm_f32(a, 2 * b) + np.float32(0))


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("m", [1, 2, 7])
def test_nothing_is_read_behind_any_operand(m, k):
    rng = np.random.default_rng([m, k])
    a, b = codes(rng, (m, k), np.uint8), codes(rng, (k, 17), np.int8)
    expected = reference.matmul_integer(a, b, np.uint8(0), np.int8(0))
    guarded = before_a_guard_page(a)
    packed = numerics.pack_weights(before_a_guard_page(b))
    assert_same_bits(numerics.matmul_integer(guarded, packed), expected)
    assert_same_bits(numerics.matmul_integer(guarded, before_a_guard_page(b)), expected)
    if k < 5:  # rows that lie apart, or across each other, in guarded memory
        wide = before_a_guard_page(codes(rng, (m, 2 * k), np.uint8))
        part = wide[:, k:]
        assert_same_bits(
            numerics.matmul_integer(part, packed), (part.astype(int) @ b).astype(np.int32)
        )
        turned = guarded[::-1]
        assert_same_bits(numerics.matmul_integer(turned, packed), expected[::-1])


def test_results_go_where_out_says():
    rng = np.random.default_rng(0)
    a, b = codes(rng, (6, 8), np.uint8), codes(rng, (8, 5), np.int8)
    packed = numerics.pack_weights(b, scale=0.1)
    expected = numerics.matmul_integer(a, b)
    room = np.full((6, 9), 77, np.int32)
    assert numerics.matmul_integer(a, packed, out=room[:, 2:7]) is not None
    np.testing.assert_array_equal(room[:, 2:7], expected)
    assert (room[:, :2] == 77).all()
    assert (room[:, 7:] == 77).all()
    turned = np.zeros((5, 6), np.int32).T
    assert numerics.matmul_integer(a, packed, out=turned) is turned
    np.testing.assert_array_equal(turned, expected)
    # Memory of an operand.
    memory = np.zeros(6 * 8 + 6 * 5 * 4, np.uint8)
    memory[: a.size] = a.ravel()
    overlapping = memory[: 6 * 5 * 4].view(np.int32).reshape(6, 5)
    source = memory[: a.size].reshape(a.shape)
    np.testing.assert_array_equal(numerics.matmul_integer(source, b, out=overlapping), expected)
    square = np.float32([[1, 2], [3, 4]])
    assert numerics.gemm_f32(square, numerics.pack_weights(square), out=square) is square
    np.testing.assert_array_equal(square, [[7, 10], [15, 22]])
    real = np.zeros((6, 5), np.float32)
    assert numerics.linear(a, packed, a_scale=1.0, out=real) is real
    np.testing.assert_array_equal(real, expected.astype(np.float32) * np.float32(0.1))


def test_packed_weights_keep_nothing_of_the_array_and_never_change():
    b = np.int8([[1, 2], [3, 4]])
    packed = numerics.pack_weights(b, scale=np.float32([1, 2]), zero_point=np.int8(1))
    assert (packed.shape, packed.dtype) == ((2, 2), np.int8)
    assert packed.nbytes == 64 * 4
    b[:] = 100
    np.testing.assert_array_equal(numerics.matmul_integer(np.uint8([[1, 1]]), packed), [[2, 4]])
    assert not packed.scale.flags.writeable
    with pytest.raises(TypeError, match="never saved"):
        pickle.dumps(packed)


# --- refusals ------------------------------------------------------------------------------------

A, B = np.ones((2, 3), np.uint8), np.ones((3, 4), np.int8)


def packed_codes(**given):
    return numerics.pack_weights(B, **given)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: numerics.pack_weights(B.astype(np.int16)), ["int16", "uint8, int8, float32"]),
        (lambda: numerics.pack_weights(B[0]), ["(4,)", "(K, N)"]),
        (lambda: packed_codes(zero_point=np.uint8(1)), ["zero_point holds uint8", "int8"]),
        (lambda: packed_codes(scale=np.ones(3, np.float32)), ["scale", "(3,)", "(4,)"]),
        (lambda: packed_codes(bias=np.zeros(4)), ["bias holds float64"]),
        (lambda: numerics.pack_weights(B.astype(np.float32), scale=1.0), ["only uint8 and int8"]),
        (lambda: numerics.pack_weights(np.ones((65_794, 1), np.int8)), ["65794", "65793"]),
        (lambda: numerics.pack_weights(np.ones((33_026, 1), np.uint8)), ["33026", "33025"]),
        (
            lambda: numerics.matmul_integer(A, packed_codes(), None, np.int8(0)),
            ["b_zero_point", "bring their own"],
        ),
        (
            lambda: numerics.matmul_integer(A, numerics.pack_weights(B.astype(np.float32))),
            ["packed float32"],
        ),
        (lambda: numerics.matmul_integer(A[:, :2], packed_codes()), ["(2, 2)", "(3, 4)"]),
        (
            lambda: numerics.qlinear_matmul(
                A, 1.0, np.uint8(0), packed_codes(), None, None, 1.0, np.uint8(0)
            ),
            ["without a scale"],
        ),
        (
            lambda: numerics.qlinear_matmul(
                A, 1.0, np.uint8(0), packed_codes(scale=1.0), 1.0, None, 1.0, np.uint8(0)
            ),
            ["b_scale", "bring their own"],
        ),
        (
            lambda: numerics.qlinear_matmul(A, 1.0, np.uint8(0), B, None, None, 1.0, np.uint8(0)),
            ["b_scale is None"],
        ),
        (lambda: numerics.linear(A, B), ["ndarray", "pack_weights"]),
        (lambda: numerics.linear(A, packed_codes(scale=1.0)), ["a_scale is None"]),
        (
            lambda: numerics.linear(A.astype(np.float32), packed_codes(scale=1.0), a_scale=1.0),
            ["float32", "a_scale"],
        ),
        (
            lambda: numerics.linear(A, packed_codes(scale=1.0), a_scale=1.0, activation="swish"),
            ["swish", "hard_swish"],
        ),
        (
            lambda: numerics.linear(
                A, packed_codes(scale=1.0), a_scale=1.0, activation=("clip", 1.0)
            ),
            ["clip", "2 parameters"],
        ),
        (
            lambda: numerics.linear(A, packed_codes(scale=1.0), a_scale=1.0, y_scale=1.0),
            ["y_zero_point is None"],
        ),
        (
            lambda: numerics.linear(A, packed_codes(scale=1.0), a_scale=1.0, out_dtype=np.float64),
            ["float64", "bfloat16"],
        ),
        (
            lambda: numerics.gemm_f32(A, B.astype(np.float32)),
            ["a holds uint8", "float32"],
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with refused(InputError, *words):
        call()


def test_a_bias_with_which_a_sum_could_leave_int32_is_refused():
    with refused(QuantizationError, "bias", "int32"):
        packed_codes(bias=np.int32(2**31 - 1))
    packed_codes(bias=np.int32(2**31 - 1 - 3 * 255 * 128))


def test_rows_without_a_range_are_refused():
    a = np.float32([[1, np.nan, np.inf]])
    with refused(QuantizationError, "2 NaN or infinite"):
        numerics.linear(a, packed_codes(scale=1.0))
