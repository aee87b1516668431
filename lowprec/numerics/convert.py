"""Casts and conversions between reals and codes, on the kernels of this machine.

Every function returns the bits of its namesake in `lowprec.numerics.reference`, on every
instruction set. Arrays may have any strides; floats other than float32 are rounded to float32
first. `out`, where given, must have the result's shape and dtype; it may overlap the source.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowprec.errors import QuantizationError
from lowprec.numerics import _kernels
from lowprec.numerics._arguments import (
    BFLOAT16,
    channel_rows,
    code_array,
    delivered,
    normalised_axis,
    per_channel,
    real_array,
    result_array,
    scale_array,
    typed_array,
)
from lowprec.numerics.qparams import choose_qparams


def to_bf16(
    x: ArrayLike, *, out: NDArray[ml_dtypes.bfloat16] | None = None
) -> NDArray[ml_dtypes.bfloat16]:
    """Return `x` rounded to bfloat16, half to even, as ml_dtypes does bit for bit.

    NaN becomes 0x7fc0 with its sign; denormals are kept; values beyond the largest become infinite.

    Raises:
        InputError: `x` does not hold floats, or `out` does not fit.
    """
    source = real_array(x, "x")
    result = result_array(out, source.shape, BFLOAT16, source)
    _kernels.f32_to_bf16(source.reshape(-1), result.view(np.uint16).reshape(-1))
    return delivered(result, out)


def from_bf16(x: ArrayLike, *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return bfloat16 `x` as float32, exactly.

    Raises:
        InputError: `x` is not ml_dtypes.bfloat16, or `out` does not fit.
    """
    source = typed_array(x, "x", [BFLOAT16])
    result = result_array(out, source.shape, np.float32, source)
    _kernels.bf16_to_f32(source.view(np.uint16).reshape(-1), result.reshape(-1))
    return delivered(result, out)


def to_f16(x: ArrayLike, *, out: NDArray[np.float16] | None = None) -> NDArray[np.float16]:
    """Return `x` rounded to float16, half to even.

    Numbers are NumPy's bit for bit; NaN is made quiet and keeps its sign and upper payload.

    Raises:
        InputError: `x` does not hold floats, or `out` does not fit.
    """
    source = real_array(x, "x")
    result = result_array(out, source.shape, np.float16, source)
    _kernels.f32_to_f16(source.reshape(-1), result.view(np.uint16).reshape(-1))
    return delivered(result, out)


def from_f16(x: ArrayLike, *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return float16 `x` as float32, exactly; NaN is made quiet.

    Raises:
        InputError: `x` is not float16, or `out` does not fit.
    """
    source = typed_array(x, "x", [np.dtype(np.float16)])
    result = result_array(out, source.shape, np.float32, source)
    _kernels.f16_to_f32(source.view(np.uint16).reshape(-1), result.reshape(-1))
    return delivered(result, out)


def to_tf32(x: ArrayLike, *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return `x` rounded to ten fraction bits, half to even, still as float32.

    Raises:
        InputError: `x` does not hold floats, or `out` does not fit.
    """
    source = real_array(x, "x")
    result = result_array(out, source.shape, np.float32, source)
    _kernels.f32_to_tf32(source.reshape(-1), result.reshape(-1))
    return delivered(result, out)


def quantize_linear(
    x: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike,
    *,
    axis: int | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return codes: saturate(rint(x / scale) + zero_point), rounding half to even.

    NaN becomes the smallest code; infinities saturate.

    Args:
        x: Reals, any shape.
        scale: Real units per code, above 0; shape () or, with `axis`, (C,).
        zero_point: The code of real 0.0, shape () or (C,); its dtype is that of the codes: uint8,
            int8, uint16, int16 or int32.
        axis: The axis of `x` that `scale` and `zero_point` run along; None for one scale.
        out: Codes are written here if given: `x`'s shape, `zero_point`'s dtype.

    Raises:
        InputError: wrong dtype, shape, axis or `out`.
        QuantizationError: a scale that is not finite or not above 0.

    Example:
        >>> quantize_linear([0.5, 1.5, 2.5], 1.0, np.uint8(10))
        array([10, 12, 12], dtype=uint8)
    """
    source = real_array(x, "x")
    zeros = code_array(zero_point, "zero_point")
    result = result_array(out, source.shape, zeros.dtype, source)
    _by_channel(_kernels.quantize, source, result, scale_array(scale), "scale", zeros, axis)
    return delivered(result, out)


def dequantize_linear(
    q: ArrayLike,
    scale: ArrayLike,
    zero_point: ArrayLike | None = None,
    *,
    axis: int | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Return reals: f32(q - zero_point) * scale.

    Args:
        q: Codes, any shape: uint8, int8, uint16, int16 or int32.
        scale: Real units per code, above 0; shape () or, with `axis`, (C,).
        zero_point: Of `q`'s dtype, shape () or (C,); 0 if None.
        axis: The axis of `q` that `scale` and `zero_point` run along; None for one scale.
        out: float32 of `q`'s shape to write into.

    Raises:
        InputError: wrong dtype, shape, axis or `out`.
        QuantizationError: a scale that is not finite or not above 0.
    """
    source = code_array(q, "q")
    zeros = source.dtype.type(0) if zero_point is None else zero_point
    zeros = typed_array(zeros, "zero_point", [source.dtype])
    result = result_array(out, source.shape, np.float32, source)
    _by_channel(_kernels.dequantize, source, result, scale_array(scale), "scale", zeros, axis)
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
    source = typed_array(acc, "acc", [np.dtype(np.int32), np.dtype(np.int64)])
    zeros = code_array(zero_point, "zero_point")
    factors = real_array(multiplier, "multiplier")
    if not np.isfinite(factors).all():
        raise QuantizationError(
            "multiplier is not finite; expected s_a * s_b / s_y of three finite scales in float32"
        )
    result = result_array(out, source.shape, zeros.dtype, source)
    _by_channel(_kernels.requantize, source, result, factors, "multiplier", zeros, axis)
    return delivered(result, out)


def dynamic_quantize_linear(
    x: ArrayLike, *, out: NDArray[np.uint8] | None = None
) -> tuple[NDArray[np.uint8], np.float32, np.uint8]:
    """Return `x` as uint8 codes with the scale and zero point of its own range.

    The range is widened to hold 0. All zeros (or nothing at all) give scale 1 and zero point 0.

    Raises:
        InputError: `x` does not hold floats, or `out` does not fit.
        QuantizationError: `x` holds NaN or infinity.
    """
    source = real_array(x, "x")
    rmin, rmax, nonfinite = _kernels.finite_range(source.reshape(-1))
    if nonfinite:
        raise QuantizationError(
            f"x holds {nonfinite} NaN or infinite values of {source.size}; only finite values have "
            "a range to quantise by: clean them, or use quantize_linear with a scale"
        )
    qparams = choose_qparams(min(rmin, 0.0), max(rmax, 0.0), qmin=0, qmax=255)
    codes = quantize_linear(source, qparams.scale, qparams.zero_point, out=out)
    return codes, np.float32(qparams.scale), np.uint8(qparams.zero_point)


def _by_channel(
    kernel: Callable[..., object],
    source: NDArray[Any],
    result: NDArray[Any],
    factors: NDArray[np.float32],
    name: str,
    zeros: NDArray[Any],
    axis: int | None,
) -> None:
    """Run `kernel(rows, out rows, factors, zero points)`, one row per channel along `axis`."""
    if axis is not None:
        axis = normalised_axis(axis, source.ndim)
    factors = per_channel(factors, name, source.shape, axis)
    zeros = per_channel(zeros, "zero_point", source.shape, axis).astype(np.int32)
    rows = channel_rows(source, axis)
    target = channel_rows(result, axis) if axis in (None, 0) else np.empty(rows.shape, result.dtype)
    kernel(rows, target, np.ascontiguousarray(factors), zeros)
    if axis not in (None, 0):
        assert axis is not None
        moved = np.moveaxis(result, axis, 0)
        moved[...] = target.reshape(moved.shape)


__all__ = [
    "dequantize_linear",
    "dynamic_quantize_linear",
    "from_bf16",
    "from_f16",
    "quantize_linear",
    "requantize",
    "to_bf16",
    "to_f16",
    "to_tf32",
]
