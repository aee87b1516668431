"""What lowprec.numerics refuses, and in which words."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from lowprec import numerics
from lowprec.errors import InputError, IsaError, QuantizationError

X = np.ones((2, 3), np.float32)
ONE, ZERO = np.float32(1), np.uint8(0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: numerics.to_bf16(np.int32([1])),
        lambda: numerics.to_f16(np.array(["a"])),
        lambda: numerics.to_tf32(np.complex64([1])),
        lambda: numerics.quantize_linear([True], ONE, ZERO),
        lambda: numerics.from_bf16(X),
        lambda: numerics.from_f16(X.astype(ml_dtypes.bfloat16)),
        lambda: numerics.dequantize_linear(X, ONE),
        lambda: numerics.dequantize_linear(np.int64([1]), ONE),
        lambda: numerics.requantize(X, ONE, ZERO),
        lambda: numerics.dynamic_quantize_linear(np.int8([1])),
    ],
)
def test_a_wrong_dtype_is_refused(call):
    with pytest.raises(InputError, match="expected"):
        call()


@pytest.mark.parametrize("zero_point", [0, np.int64(0), np.float32(0), np.uint32(0)])
def test_a_zero_point_must_say_which_codes_are_meant(zero_point):
    with pytest.raises(InputError, match=r"zero_point holds .*np\.uint8\(0\)"):
        numerics.quantize_linear(X, ONE, zero_point)


def test_codes_and_zero_point_must_agree():
    with pytest.raises(InputError, match="zero_point holds int8; expected uint8"):
        numerics.dequantize_linear(np.uint8([1]), ONE, np.int8(0))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, 1e-50, 1e50])
def test_a_scale_must_be_finite_and_positive(scale):
    for call in (numerics.quantize_linear, numerics.dequantize_linear):
        x = X if call is numerics.quantize_linear else X.astype(np.uint8)
        with pytest.raises(QuantizationError, match="scale"):
            call(x, scale, ZERO)


def test_a_multiplier_must_be_finite():
    with pytest.raises(QuantizationError, match="multiplier"):
        numerics.requantize(np.int32([1]), np.inf, ZERO)


@pytest.mark.parametrize("axis", [2, -3])
def test_an_axis_must_exist(axis):
    with pytest.raises(InputError, match="axis"):
        numerics.quantize_linear(X, np.ones(3, np.float32), np.zeros(3, np.uint8), axis=axis)


def test_there_is_one_scale_per_channel():
    with pytest.raises(InputError, match=r"\(2,\).*\(3,\)"):
        numerics.quantize_linear(X, np.ones(2, np.float32), np.zeros(2, np.uint8), axis=1)
    with pytest.raises(InputError, match="axis="):
        numerics.quantize_linear(X, np.ones(3, np.float32), np.zeros(3, np.uint8))
    with pytest.raises(InputError, match="zero_point"):
        numerics.quantize_linear(X, np.ones(3, np.float32), np.zeros(2, np.uint8), axis=1)


@pytest.mark.parametrize(
    "out", [np.zeros((3, 2), np.uint8), np.zeros((2, 3), np.int8), [[0] * 3] * 2, "read-only"]
)
def test_out_must_fit(out):
    if isinstance(out, str):
        out = np.zeros((2, 3), np.uint8)
        out.flags.writeable = False
    with pytest.raises(InputError, match="out is"):
        numerics.quantize_linear(X, ONE, ZERO, out=out)


def test_dynamic_quantize_refuses_what_has_no_range():
    with pytest.raises(QuantizationError, match="2 NaN or infinite values of 3"):
        numerics.dynamic_quantize_linear([1.0, np.nan, np.inf])


def test_python_numbers_are_scales_and_values():
    np.testing.assert_array_equal(numerics.quantize_linear([1.0, 2.0], 1, ZERO), [1, 2])
    assert numerics.quantize_linear(2.0, 0.5, ZERO) == 4


@pytest.mark.parametrize(
    "call",
    [
        lambda: numerics.to_bf16(X),
        lambda: numerics.quantize_linear(X, ONE, ZERO),
        lambda: numerics.matmul_integer(np.ones((1, 1), np.uint8), np.ones((1, 1), np.int8)),
        lambda: numerics.dynamic_quantize_linear(X),
        lambda: numerics.Histogram(),
    ],
)
def test_an_unknown_instruction_set_is_named(call, monkeypatch):
    monkeypatch.setenv("LOWPREC_ISA", "sse9")
    with pytest.raises(IsaError, match=r"LOWPREC_ISA=sse9 is not one of: scalar"):
        call()
