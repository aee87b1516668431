"""Casts and conversions between reals and codes, on the kernels of this machine.

Every function returns the bits of its namesake in `lowprec.numerics.reference`, on every
instruction set and with any number of threads. Arrays may have any strides and are not copied;
floats other than float32 are rounded to float32 first. `out`, where given, must have the result's
shape and dtype; it may have any strides and may overlap the source.
"""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowprec._ext import _core
from lowprec.errors import InputError, QuantizationError
from lowprec.numerics import _kernels
from lowprec.numerics._arguments import (
    BFLOAT16,
    code_array,
    code_source,
    delivered,
    float_source,
    normalised_axis,
    per_block,
    per_channel,
    real_array,
    result_array,
    scale_array,
    typed_array,
    typed_source,
)

FLOAT16 = np.dtype(np.float16)
FLOAT32 = np.dtype(np.float32)
E4M3 = np.dtype(ml_dtypes.float8_e4m3fn)
E5M2 = np.dtype(ml_dtypes.float8_e5m2)
ACCUMULATORS = (np.dtype(np.int32), np.dtype(np.int64))


def to_bf16(
    x: ArrayLike, *, out: NDArray[ml_dtypes.bfloat16] | None = None
) -> NDArray[ml_dtypes.bfloat16]:
    """Return `x` rounded to bfloat16, half to even, as ml_dtypes does bit for bit.

    NaN becomes 0x7fc0 with its sign; denormals are kept; values beyond the largest become infinite.

    Args:
        x: float32, float16, bfloat16 or float64, any shape.
        out: bfloat16 of `x`'s shape to write into.

    Raises:
        InputError: `x` does not hold floats, or `out` does not fit.
    """
    return _narrow(_core.F32_TO_BF16, x, BFLOAT16, out)


def from_bf16(x: ArrayLike, *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return bfloat16 `x` as float32, exactly.

    Raises:
        InputError: `x` is not ml_dtypes.bfloat16, or `out` does not fit.
    """
    return _widen(_core.BF16_TO_F32, x, BFLOAT16, out)


def to_f16(x: ArrayLike, *, out: NDArray[np.float16] | None = None) -> NDArray[np.float16]:
    """Return `x` rounded to float16, half to even.

    Numbers are NumPy's bit for bit; NaN is made quiet and keeps its sign and upper payload.

    Raises:
        InputError: `x` does not hold floats, or `out` does not fit.
    """
    return _narrow(_core.F32_TO_F16, x, FLOAT16, out)


def from_f16(x: ArrayLike, *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return float16 `x` as float32, exactly; NaN is made quiet.

    Raises:
        InputError: `x` is not float16, or `out` does not fit.
    """
    return _widen(_core.F16_TO_F32, x, FLOAT16, out)


def to_tf32(x: ArrayLike, *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return `x` rounded to ten fraction bits, half to even, still as float32.

    Raises:
        InputError: `x` does not hold floats, or `out` does not fit.
    """
    return _narrow(_core.F32_TO_TF32, x, FLOAT32, out)


def to_e4m3(
    x: ArrayLike, *, saturate: bool = True, out: NDArray[ml_dtypes.float8_e4m3fn] | None = None
) -> NDArray[ml_dtypes.float8_e4m3fn]:
    """Return `x` rounded to ml_dtypes.float8_e4m3fn (largest number 448, no infinity).

    Half to even, denormals kept; NaN becomes 0x7f with its sign.

    Args:
        x: float32, float16, bfloat16 or float64, any shape.
        saturate: As in ONNX's Cast. True: what would round beyond 448, infinity too, becomes 448
            with its sign. False: it becomes NaN, as ml_dtypes does bit for bit.
        out: float8_e4m3fn of `x`'s shape to write into.

    Raises:
        InputError: `x` does not hold floats, or `out` does not fit.

    Example:
        >>> to_e4m3([0.3, 1000.0]).tolist(), to_e4m3([1000.0], saturate=False).tolist()
        ([0.3125, 448.0], [nan])
    """
    return _narrow(_core.F32_TO_E4M3, x, E4M3, out, saturate)


def from_e4m3(x: ArrayLike, *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return float8_e4m3fn `x` as float32, exactly.

    Raises:
        InputError: `x` is not ml_dtypes.float8_e4m3fn, or `out` does not fit.
    """
    return _widen(_core.E4M3_TO_F32, x, E4M3, out)


def to_e5m2(
    x: ArrayLike, *, saturate: bool = True, out: NDArray[ml_dtypes.float8_e5m2] | None = None
) -> NDArray[ml_dtypes.float8_e5m2]:
    """Return `x` rounded to ml_dtypes.float8_e5m2 (largest number 57344, with infinity).

    Half to even, denormals kept; NaN becomes 0x7e with its sign.

    Args:
        x: float32, float16, bfloat16 or float64, any shape.
        saturate: As in ONNX's Cast. True: what would round beyond 57344, infinity too, becomes
            57344 with its sign. False: it becomes infinite, as ml_dtypes does bit for bit.
        out: float8_e5m2 of `x`'s shape to write into.

    Raises:
        InputError: `x` does not hold floats, or `out` does not fit.
    """
    return _narrow(_core.F32_TO_E5M2, x, E5M2, out, saturate)


def from_e5m2(x: ArrayLike, *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return float8_e5m2 `x` as float32, exactly; NaN becomes the quiet one with its sign.

    Raises:
        InputError: `x` is not ml_dtypes.float8_e5m2, or `out` does not fit.
    """
    return _widen(_core.E5M2_TO_F32, x, E5M2, out)


def quantize_linear(
    x: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike,
    *,
    axis: int | None = None,
    block_size: int | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return codes: saturate(rint(x / scale) + zero_point), rounding half to even.

    NaN becomes the smallest code; infinities saturate.

    Args:
        x: Reals, any shape: float32, float16, bfloat16 or float64.
        scale: Real units per code, above 0; shape () or, with `axis`, (C,), or, with `block_size`,
            `x`'s with ceil(C / block_size) along `axis`.
        zero_point: The code of real 0.0, of `scale`'s shape or (); its dtype is that of the codes:
            uint8, int8, uint16, int16 or int32.
        axis: The axis of `x` that `scale` and `zero_point` run along; None for one scale.
        block_size: So many elements along `axis` share a scale (ONNX's blocked quantisation).
        out: Codes are written here if given: `x`'s shape, `zero_point`'s dtype.

    Raises:
        InputError: wrong dtype, shape, axis, block size or `out`.
        QuantizationError: a scale that is not finite or not above 0.

    Example:
        >>> quantize_linear([0.5, 1.5, 2.5], 1.0, np.uint8(10))
        array([10, 12, 12], dtype=uint8)
    """
    source = float_source(x, "x")
    zeros = code_array(zero_point, "zero_point")
    grid = _grid(source.shape, scale_array(scale), "scale", zeros, axis, block_size)
    result = result_array(out, source.shape, zeros.dtype, source)
    _kernels.quantize(source, result, *grid)
    return delivered(result, out)


def dequantize_linear(
    q: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike | None = None,
    *,
    axis: int | None = None,
    block_size: int | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return reals: f32(q - zero_point) * scale.

    Args:
        q: Codes, any shape: uint8, int8, uint16, int16 or int32.
        scale: Real units per code, above 0; shape () or, with `axis`, (C,), or, with `block_size`,
            `q`'s with ceil(C / block_size) along `axis`.
        zero_point: Of `q`'s dtype, of `scale`'s shape or (); 0 if None.
        axis: The axis of `q` that `scale` and `zero_point` run along; None for one scale.
        block_size: So many elements along `axis` share a scale (ONNX's blocked quantisation).
        out: float32 of `q`'s shape to write into.

    Raises:
        InputError: wrong dtype, shape, axis, block size or `out`.
        QuantizationError: a scale that is not finite or not above 0.
    """
    source = code_source(q, "q")
    zeros = source.dtype.type(0) if zero_point is None else zero_point
    zeros = typed_array(zeros, "zero_point", [source.dtype])
    grid = _grid(source.shape, scale_array(scale), "scale", zeros, axis, block_size)
    result = result_array(out, source.shape, FLOAT32, source)
    _kernels.dequantize(source, result, *grid)
    return delivered(result, out)


def requantize(
    acc: ArrayLike,
    multiplier: ArrayLike,
    zero_point: ArrayLike,
    *,
    axis: int | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the codes of accumulators: saturate(rint(f32(acc) * multiplier) + zero_point).

    Args:
        acc: int32 or int64, any shape.
        multiplier: s_a * s_b / s_y, in this order in float32; finite, shape () or, with `axis`,
            (C,).
        zero_point: The output's, shape () or (C,); its dtype is that of the codes.
        axis: The axis of `acc` that `multiplier` and `zero_point` run along.
        out: Codes are written here if given.

    Raises:
        InputError: wrong dtype, shape, axis or `out`.
        QuantizationError: a multiplier that is not finite.
    """
    source = typed_source(acc, "acc", ACCUMULATORS)
    zeros = code_array(zero_point, "zero_point")
    factors = real_array(multiplier, "multiplier")
    if not np.isfinite(factors).all():
        raise QuantizationError(
            "multiplier is not finite; expected s_a * s_b / s_y of three finite scales in float32"
        )
    grid = _grid(source.shape, factors, "multiplier", zeros, axis, None)
    result = result_array(out, source.shape, zeros.dtype, source)
    _kernels.requantize(source, result, *grid)
    return delivered(result, out)


def dynamic_quantize_linear(
    x: ArrayLike, *, per_row: bool = False, out: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], Any, Any]:
    """Return `x` as uint8 codes with the scale and zero point of its own range.

    The range is widened to hold 0. All zeros (or nothing at all) give scale 1 and zero point 0.

    Args:
        x: Reals, any shape: float32, float16, bfloat16 or float64.
        per_row: Give each vector along the last axis a range of its own.
        out: uint8 of `x`'s shape to write into.

    Returns:
        The codes, a float32 scale and a uint8 zero point: numbers or, per row, arrays of shape
        x.shape[:-1].

    Raises:
        InputError: `x` does not hold floats, or, per row, has no axis; `out` does not fit.
        QuantizationError: `x` holds NaN or infinity.
    """
    source = float_source(x, "x")
    if per_row and source.ndim == 0:
        raise InputError("x is a single number; per_row needs an axis: pass an array of rows")
    shape = source.shape[:-1] if per_row else ()
    scale, zero_point = np.empty(shape, np.float32), np.empty(shape, np.uint8)
    result = result_array(out, source.shape, np.uint8, source)
    nonfinite = _kernels.dynamic_quantize(source, result, scale, zero_point)
    if nonfinite:
        raise QuantizationError(
            f"x holds {nonfinite} NaN or infinite values of {source.size}; only finite values have "
            "a range to quantise by: clean them, or use quantize_linear with a scale"
        )
    return delivered(result, out), scale[()], zero_point[()]


def _narrow(
    code: int, x: ArrayLike, dtype: np.dtype[Any], out: NDArray[Any] | None, saturate: bool = False
) -> NDArray[Any]:
    source = float_source(x, "x")
    result = result_array(out, source.shape, dtype, source)
    _kernels.cast(code, source, result, saturate=saturate)
    return delivered(result, out)


def _widen(
    code: int, x: ArrayLike, dtype: np.dtype[Any], out: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    source = typed_source(x, "x", (dtype,))
    result = result_array(out, source.shape, FLOAT32, source)
    _kernels.cast(code, source, result)
    return delivered(result, out)


def _grid(
    shape: tuple[int, ...],
    factors: NDArray[np.float32],
    name: str,
    zeros: NDArray[Any],
    axis: int | None,
    block_size: int | None,
) -> tuple[Any, Any, tuple[int, ...] | None]:
    """Return factors, zero points and how they lie on an array, as the compiled functions ask."""
    if axis is None:
        if block_size is not None:
            raise InputError("block_size is given without axis; expected axis=, the blocks' axis")
        if factors.ndim > 0:
            factors = per_channel(factors, name, shape, None)
        if zeros.ndim > 0:
            zeros = per_channel(zeros, "zero_point", shape, None)
        return factors, zeros.item(), None
    axis = normalised_axis(axis, len(shape))
    if block_size is None:
        kind, block = 1, 1
        factors = per_channel(factors, name, shape, axis)
        zeros = per_channel(zeros, "zero_point", shape, axis)
    else:
        if block_size < 1:
            raise InputError(f"block_size is {block_size}; expected 1 or more")
        kind, block = 2, block_size
        factors = per_block(factors, name, shape, axis, block_size)
        zeros = per_block(zeros, "zero_point", shape, axis, block_size)
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    return (
        np.ascontiguousarray(factors),
        np.ascontiguousarray(zeros, np.int32),
        (kind, outer, shape[axis], inner, block),
    )


__all__ = [
    "dequantize_linear",
    "dynamic_quantize_linear",
    "from_bf16",
    "from_e4m3",
    "from_e5m2",
    "from_f16",
    "quantize_linear",
    "requantize",
    "to_bf16",
    "to_e4m3",
    "to_e5m2",
    "to_f16",
    "to_tf32",
]
