"""The definition of every number in lowprec: slow, short, NumPy only.

Each function below is what the words mean; every kernel on every instruction set equals it bit for
bit. Nothing here is tuned, and nothing validates: the public functions of `lowprec.numerics` check
their arguments and then agree with these.

    code   = saturate(rint(real / scale) + zero_point)
    real   = f32(code - zero_point) * scale
    acc    = sum((a - a_zero_point) * (b - b_zero_point)) + bias     exact integers
    code   = saturate(rint(f32(acc) * multiplier) + zero_point)      multiplier = (s_a * s_b) / s_y

"rint" rounds half to even. "Saturate" clamps to the smallest and largest code of the zero point's
dtype; a NaN becomes the smallest. All float arithmetic is IEEE f32 with denormals, one rounding per
operation, except where a name says FMA.

Sources: ONNX operators QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear, MatMulInteger,
QLinearMatMul, ConvInteger, QLinearConv; Jacob et al. 2018, arXiv:1712.05877; IEEE 754-2019; Boldo
and Melquiond 2008, "Emulation of a FMA and correctly rounded sums: proved algorithms using rounding
to odd".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
Codes = NDArray[Any]  # u8, s8, u16, s16 or s32

SMALLEST_SCALE = np.float32(2.0**-126)  # the smallest normal f32: no scale is ever denormal or zero


# --- codes and reals ------------------------------------------------------------------------------


def saturate(value: NDArray[np.float64], dtype: np.dtype[Any]) -> Codes:
    """Clamp whole numbers held in float64 to the codes of `dtype`; NaN becomes the smallest."""
    limits = np.iinfo(dtype)
    value = np.where(np.isnan(value), limits.min, np.clip(value, limits.min, limits.max))
    return value.astype(np.int64).astype(dtype)


def along_axis(parameter: NDArray[Any], ndim: int, axis: int | None) -> NDArray[Any]:
    """Shape a (C,) parameter so that it broadcasts along `axis` of an array with `ndim` axes."""
    if axis is None:
        return parameter
    shape = [1] * ndim
    shape[axis] = -1
    return parameter.reshape(shape)


def quantize_linear(x: F32, scale: F32, zero_point: Codes, axis: int | None = None) -> Codes:
    """Return saturate(rint(x / scale) + zero_point) in the zero point's dtype."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        quotient = x / along_axis(scale, x.ndim, axis)
    steps = np.rint(quotient).astype(np.float64)
    return saturate(steps + along_axis(zero_point, x.ndim, axis), zero_point.dtype)


def dequantize_linear(q: Codes, scale: F32, zero_point: Codes, axis: int | None = None) -> F32:
    """Return f32(q - zero_point) * scale; the difference is exact, the other steps round once."""
    steps = q.astype(np.int64) - along_axis(zero_point, q.ndim, axis).astype(np.int64)
    with np.errstate(over="ignore", under="ignore"):
        real: F32 = steps.astype(np.float32) * along_axis(scale, q.ndim, axis)
    return real


def blocked(parameter: NDArray[Any], shape: tuple[int, ...], axis: int, size: int) -> NDArray[Any]:
    """Repeat one parameter per `size` elements along `axis` for each element of `shape`."""
    repeated = np.repeat(parameter, size, axis)
    return repeated.take(np.arange(shape[axis]), axis)


def choose_qparams(
    rmin: F32, rmax: F32, qmin: int, qmax: int, symmetric: bool = False
) -> tuple[F32, I64]:
    """Return the scale and zero point that map [rmin, rmax], widened to hold 0, onto [qmin, qmax].

    scale = (rmax - rmin) / (qmax - qmin), dividing first where the difference overflows; 1 for an
    empty range. A symmetric range is +-max(|rmin|, |rmax|), its zero point the middle code (0, or
    128 for u8).
    """
    rmin, rmax = np.minimum(rmin, np.float32(0)), np.maximum(rmax, np.float32(0))
    if symmetric:
        rmax = np.maximum(-rmin, rmax)
        rmin = -rmax
    levels = np.float32(qmax - qmin)
    with np.errstate(over="ignore", under="ignore"):
        width = rmax - rmin
        scale = np.where(np.isfinite(width), width / levels, rmax / levels - rmin / levels)
        scale = np.where(width == 0, np.float32(1), np.maximum(scale, SMALLEST_SCALE))
        scale = scale.astype(np.float32)
        zero_point = np.rint(np.clip(np.float32(qmin) - rmin / scale, qmin, qmax)).astype(np.int64)
    if symmetric:
        zero_point = np.full_like(zero_point, (qmin + qmax + 1) // 2)
    return scale, zero_point


def dynamic_quantize_linear(x: F32) -> tuple[Codes, F32, Codes]:
    """Return u8 codes, scale, zero point by x's own range; all zeros get scale 1, zero point 0."""
    rmin = x.min(initial=0).astype(np.float32)
    rmax = x.max(initial=0).astype(np.float32)
    scale, zero = choose_qparams(rmin, rmax, 0, 255)
    zero_point = zero.astype(np.uint8)
    return quantize_linear(x, scale, zero_point), scale, zero_point


def requantize(
    acc: NDArray[Any], multiplier: F32, zero_point: Codes, axis: int | None = None
) -> Codes:
    """Return saturate(rint(f32(acc) * multiplier) + zero_point) in the zero point's dtype."""
    with np.errstate(over="ignore", under="ignore"):
        product = acc.astype(np.float32) * along_axis(multiplier, acc.ndim, axis)
    steps = np.rint(product).astype(np.float64)
    return saturate(steps + along_axis(zero_point, acc.ndim, axis), zero_point.dtype)


def dequantize_accumulator(acc: NDArray[Any], scale: F32, axis: int | None = None) -> F32:
    """Return f32(acc) * scale: a quantised layer with a float output; scale = s_a * s_b in f32."""
    with np.errstate(over="ignore", under="ignore"):
        real: F32 = acc.astype(np.float32) * along_axis(scale, acc.ndim, axis)
    return real


# --- what follows a product: steps of an epilogue, each as if it ran by itself --------------------


def dequantize_rows(acc: NDArray[Any], row_scale: F32, scale: F32) -> F32:
    """Return f32(acc) * (row_scale[m] * scale[n]) for acc (M, N): rows quantised one by one."""
    with np.errstate(over="ignore", under="ignore"):
        real: F32 = acc.astype(np.float32) * (row_scale[:, None] * scale)
    return real


def add_residual(x: F32, residual: NDArray[Any], scale: F32, zero_point: Codes) -> F32:
    """Return x + residual: codes (u8, s8) are dequantised, bf16 is widened, f32 taken as it is."""
    if residual.dtype.kind in "iu":
        return x + dequantize_linear(residual, scale, zero_point)
    return x + (residual if residual.dtype == np.float32 else from_bf16(residual))


def through_codes(x: F32, scale: F32, zero_point: Codes) -> F32:
    """Return dequantize(quantize(x)): what QuantizeLinear and DequantizeLinear leave of x."""
    return dequantize_linear(quantize_linear(x, scale, zero_point), scale, zero_point)


# --- casts, on the bits ---------------------------------------------------------------------------


def to_bf16(x: F32) -> NDArray[ml_dtypes.bfloat16]:
    """Round to the nearest bfloat16, ties to even; overflow to infinity; NaN -> 0x7fc0 | sign."""
    bits = x.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    nan = 0x7FC0 | (bits >> 16 & 0x8000)
    return np.where(np.isnan(x), nan, rounded).astype(np.uint16).view(ml_dtypes.bfloat16)


def from_bf16(x: NDArray[ml_dtypes.bfloat16]) -> F32:
    """Widen exactly: a bfloat16 is the upper half of a float32, NaN payloads included."""
    return (x.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def to_f16(x: F32) -> NDArray[np.float16]:
    """Round to the nearest float16, ties to even; NaN becomes quiet, keeps sign and top payload."""
    bits = x.view(np.uint32).astype(np.int64)
    magnitude, sign = bits & 0x7FFFFFFF, bits >> 16 & 0x8000
    # Normal result: drop 13 bits, move the exponent's bias from 127 to 15; a carry makes infinity.
    normal = (magnitude - (112 << 23) + 0xFFF + (magnitude >> 13 & 1)) >> 13
    # Below 2^-14 the result counts steps of 2^-24; 1024 steps are the smallest normal number.
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        steps = np.rint(np.minimum(np.abs(x), np.float32(1)).astype(np.float64) * 2.0**24)
    subnormal = np.where(np.isnan(x), 0, steps).astype(np.int64)
    finite = np.minimum(np.where(magnitude < 113 << 23, subnormal, normal), 0x7C00)
    nan = 0x7E00 | (magnitude >> 13 & 0x1FF)
    return (sign | np.where(np.isnan(x), nan, finite)).astype(np.uint16).view(np.float16)


def from_f16(x: NDArray[np.float16]) -> F32:
    """Widen exactly; NaN is made quiet and keeps its sign and payload."""
    bits = x.view(np.uint16).astype(np.int64)
    sign, exponent, fraction = bits >> 15, bits >> 10 & 31, bits & 0x3FF
    subnormal = (fraction * 2.0**-24).astype(np.float32).view(np.uint32)
    normal = (exponent + 112) << 23 | fraction << 13
    special = 0x7F800000 | fraction << 13 | np.where(fraction != 0, 0x400000, 0)
    magnitude = np.where(exponent == 0, subnormal, np.where(exponent == 31, special, normal))
    return (sign << 31 | magnitude).astype(np.uint32).view(np.float32)


def to_tf32(x: F32) -> F32:
    """Round to 10 fraction bits, ties to even, still float32; NaN becomes quiet, denormals stay."""
    bits = x.view(np.uint32).astype(np.int64)
    rounded = bits + 0xFFF + (bits >> 13 & 1)
    nan = bits | 0x400000
    kept = np.where(np.isnan(x), nan, rounded) & ~0x1FFF
    return kept.astype(np.uint32).view(np.float32)


def to_f8(x: F32, fraction: int, bias: int, largest: int, beyond: int, nan: int) -> NDArray[Any]:
    """Return the bits of the nearest 8-bit float, ties to even.

    `fraction` bits below an exponent of bias `bias`; codes above `largest` become `beyond`.
    """
    smallest = 2.0 ** (1 - bias)  # normal number
    with np.errstate(invalid="ignore"):
        magnitude = np.abs(x).astype(np.float64)
        exponent = np.frexp(np.where(np.isfinite(magnitude), magnitude, 1))[1] - 1
        step = np.ldexp(1.0, np.maximum(exponent, 1 - bias) - fraction)
        rounded = np.rint(magnitude / step) * step  # exact but for the rounding
    # The code of a number: steps of the smallest exponent, then 2^fraction codes per exponent.
    power = np.frexp(np.where((rounded >= smallest) & np.isfinite(rounded), rounded, smallest))[1]
    finite = np.where(np.isfinite(rounded), rounded, 0)
    code = np.rint(finite / 2.0 ** (power - 1 - fraction)) + ((power - 2 + bias) << fraction)
    code = np.where((code > largest) | np.isinf(x), beyond, code)
    code = np.where(np.isnan(x), nan, code).astype(np.uint8)
    return code | (x.view(np.uint32) >> 24 & 0x80).astype(np.uint8)


def to_e4m3(x: F32, saturate: bool = True) -> NDArray[ml_dtypes.float8_e4m3fn]:
    """Round to float8_e4m3fn; too large: 448 or, unless `saturate`, NaN; NaN -> 0x7f | sign."""
    beyond = 0x7E if saturate else 0x7F
    return to_f8(x, 3, 7, 0x7E, beyond, 0x7F).view(ml_dtypes.float8_e4m3fn)


def to_e5m2(x: F32, saturate: bool = True) -> NDArray[ml_dtypes.float8_e5m2]:
    """Round to float8_e5m2; too large: 57344 or, unless `saturate`, infinity; NaN: 0x7e | sign."""
    beyond = 0x7B if saturate else 0x7C
    return to_f8(x, 2, 15, 0x7B, beyond, 0x7E).view(ml_dtypes.float8_e5m2)


def from_f8(code: NDArray[np.uint8], fraction: int, bias: int) -> NDArray[np.float64]:
    """Return what the bits of a finite 8-bit float stand for, without its sign."""
    exponent, rest = (code >> fraction & (0x7F >> fraction)).astype(int), code % (1 << fraction)
    hidden = np.where(exponent > 0, 1 << fraction, 0)
    magnitude: NDArray[np.float64] = (hidden + rest) * 2.0 ** (
        np.maximum(exponent, 1) - bias - fraction
    )
    return magnitude


def from_e4m3(x: NDArray[ml_dtypes.float8_e4m3fn]) -> F32:
    """Widen exactly; 0x7f is NaN."""
    code = x.view(np.uint8)
    value = np.where(code & 0x7F == 0x7F, np.nan, from_f8(code, 3, 7))
    return np.copysign(value, np.where(code & 0x80, -1, 1)).astype(np.float32)


def from_e5m2(x: NDArray[ml_dtypes.float8_e5m2]) -> F32:
    """Widen exactly; 0x7c is infinity, what lies above NaN."""
    code = x.view(np.uint8)
    value = np.where(code & 0x7F > 0x7C, np.nan, from_f8(code, 2, 15))
    value = np.where(code & 0x7F == 0x7C, np.inf, value)
    return np.copysign(value, np.where(code & 0x80, -1, 1)).astype(np.float32)


# --- weights, so that sums keep their values ------------------------------------------------------


def upper_factor(h: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return U, unit upper triangular, with U D U^T = h for a diagonal D; h is (n, n)."""
    rest, u = h.copy(), np.eye(len(h))
    for k in reversed(range(len(h))):
        column = rest[:k, k].copy()
        u[:k, k] = column / rest[k, k]
        rest[:k, :k] -= u[:k, k, None] * column
    return u


def round_rows(w: NDArray[np.float64], h: NDArray[np.float64], limit: int = 127) -> Codes:
    """Return s8 codes q of w (rows, n), in codes, whose (w - q) h (w - q)^T is small.

    Each column's error goes on to the columns after it, by the factor of h. Chee et al. 2023,
    arXiv:2307.13304, "LDLQ"; the same codes as GPTQ's, arXiv:2210.17323.
    """
    u, wanted, codes = upper_factor(h), w.copy(), np.empty(w.shape, np.int8)
    for k in range(len(h)):
        code = np.rint(np.clip(wanted[:, k], -limit, limit))
        wanted[:, k + 1 :] += (w[:, k] - code)[:, None] * u[k, k + 1 :]
        codes[:, k] = code
    return codes


# --- statistics -----------------------------------------------------------------------------------


def growing_counts(x: F32, bins: int) -> tuple[dict[int, int], float]:
    """Return {bin: count} and the width: bin = floor(x / width), for the finite values of x.

    The width is the smallest power of two, at least 2**-126, for which the bins of all values and
    of 0 are no more than `bins`.
    """
    finite = [Fraction(float(v)) for v in x.reshape(-1) if np.isfinite(v)]
    low, high = min([*finite, Fraction(0)]), max([*finite, Fraction(0)])
    width = Fraction(1, 2**126)
    while math.floor(high / width) - math.floor(low / width) >= bins:
        width *= 2
    return dict(Counter(math.floor(value / width) for value in finite)), float(width)


def edge_counts(x: F32, low: float, high: float, bins: int) -> tuple[I64, int, int]:
    """Return counts per bin, and of what is below and above: numpy.histogram's bins for float32.

    A value is in the bin whose edges it lies between, the left one included, in the last bin the
    right one too. NaN and infinity are nowhere.
    """
    edges = np.linspace(low, high, bins + 1).astype(np.float32)
    x = x[np.isfinite(x)]
    inside = x[(x >= edges[0]) & (x <= edges[-1])]
    bin_ = np.minimum(np.searchsorted(edges, inside, side="right") - 1, bins - 1)
    counts = np.bincount(bin_, minlength=bins).astype(np.int64)
    return counts, int((x < edges[0]).sum()), int((x > edges[-1]).sum())


def exact_sums(x: F32) -> tuple[Fraction, Fraction]:
    """Return the sums of the finite values of x and of their squares, without any rounding."""
    finite = [Fraction(float(v)) for v in x.reshape(-1) if np.isfinite(v)]
    return sum(finite, Fraction(0)), sum((v * v for v in finite), Fraction(0))


# --- integer products -----------------------------------------------------------------------------


def largest_step(dtype: np.dtype[Any], zero_point: Codes) -> int:
    """Return a bound on |code - zero_point|, by the dtype and whether a zero point is used."""
    return 128 if dtype == np.int8 and not zero_point.any() else 255


def accumulator_dtype(depth: int, a_step: int, b_step: int) -> type[np.int32 | np.int64]:
    """int32 where no sum of `depth` products can leave it, else int64; u8 * s8 fits to 65,793."""
    return np.int32 if a_step * b_step * depth < 2**31 else np.int64


def matmul_integer(a: Codes, b: Codes, a_zero_point: Codes, b_zero_point: Codes) -> NDArray[Any]:
    """Return (a - a_zero_point) @ (b - b_zero_point) exactly: int32, or int64 where it could wrap.

    Shapes follow numpy.matmul: (..., M, K) @ (..., K, N). a_zero_point is () or (M,), b_zero_point
    () or (N,).
    """
    rows = a.astype(np.int64) - np.atleast_1d(a_zero_point).astype(np.int64)[:, None]
    columns = b.astype(np.int64) - b_zero_point.astype(np.int64)
    steps = largest_step(a.dtype, a_zero_point), largest_step(b.dtype, b_zero_point)
    acc: I64 = np.matmul(rows, columns)
    return acc.astype(accumulator_dtype(a.shape[-1], *steps))


def qlinear_matmul(
    a: Codes,
    a_scale: F32,
    a_zero_point: Codes,
    b: Codes,
    b_scale: F32,
    b_zero_point: Codes,
    y_scale: F32,
    y_zero_point: Codes,
    bias: NDArray[np.int32] | None = None,
) -> Codes:
    """Return the codes of a @ b + bias, whose scale is s_a * s_b.

    a's parameters are () or (M,), b's () or (N,).
    """
    acc = matmul_integer(a, b, a_zero_point, b_zero_point).astype(np.int64)
    if bias is not None:
        acc = acc + bias
    multiplier = (np.atleast_1d(a_scale)[:, None] * b_scale) / y_scale
    return requantize(acc, multiplier, y_zero_point)


def windows(
    x: NDArray[Any],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> list[NDArray[Any]]:
    """Return, for each tap of a kernel in row-major order, what every output position sees there.

    x is (N, C, *spatial); pads are ONNX's (begins, then ends) and are filled with zeros.
    """
    axes = len(kernel)
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:axes], pads[axes:], strict=True)])
    taps = []
    for tap in np.ndindex(*kernel):
        starts = [t * d for t, d in zip(tap, dilations, strict=True)]
        spans = [
            size - (k - 1) * d
            for size, k, d in zip(padded.shape[2:], kernel, dilations, strict=True)
        ]
        where = [slice(a, a + span, s) for a, span, s in zip(starts, spans, strides, strict=True)]
        seen = (slice(None), slice(None), *where)
        taps.append(padded[seen])
    return taps


def products(
    x: NDArray[Any],
    w: NDArray[Any],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int,
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Yield the factors of each product of a convolution, ready to be multiplied.

    Taps come in row-major order, the channels of a tap inside it. The factors broadcast to
    (N, group, O / group, *output).
    """
    taps = windows(x, w.shape[2:], strides, pads, dilations)
    axes = [1] * (x.ndim - 2)
    weights = w.reshape(group, w.shape[0] // group, w.shape[1], len(taps), *axes)
    for t, window in enumerate(taps):
        source = window.reshape(x.shape[0], group, 1, w.shape[1], *window.shape[2:])
        for c in range(w.shape[1]):
            yield source[:, :, :, c], weights[:, :, c, t]


def conv_integer(
    x: Codes,
    w: Codes,
    x_zero_point: Codes,
    w_zero_point: Codes,
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int = 1,
) -> NDArray[Any]:
    """Return the exact convolution of x (N, C, *spatial) with w (O, C / group, *kernel).

    The dtype is as matmul_integer's for the depth C / group * taps. Padding is the real 0, that is
    x_zero_point. w_zero_point is () or (O,).
    """
    x_steps = x.astype(np.int64) - x_zero_point.astype(np.int64)
    w_steps = w.astype(np.int64) - along_axis(np.atleast_1d(w_zero_point), w.ndim, 0).astype(
        np.int64
    )
    acc: I64 = np.array(0)
    for source, weights in products(x_steps, w_steps, strides, pads, dilations, group):
        acc = acc + source * weights
    acc = acc.reshape(x.shape[0], w.shape[0], *acc.shape[3:])
    steps = largest_step(x.dtype, x_zero_point), largest_step(w.dtype, w_zero_point)
    return acc.astype(accumulator_dtype(int(np.prod(w.shape[1:])), *steps))


def qlinear_conv(
    x: Codes,
    x_scale: F32,
    x_zero_point: Codes,
    w: Codes,
    w_scale: F32,
    w_zero_point: Codes,
    y_scale: F32,
    y_zero_point: Codes,
    bias: NDArray[np.int32] | None = None,
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int = 1,
) -> Codes:
    """Return the codes of a convolution; w's parameters and the bias (scale s_x * s_w) are (O,)."""
    acc = conv_integer(
        x, w, x_zero_point, w_zero_point,
        strides=strides, pads=pads, dilations=dilations, group=group,
    ).astype(np.int64)  # fmt: skip
    if bias is not None:
        acc = acc + along_axis(bias, acc.ndim, 1)
    return requantize(acc, np.atleast_1d((x_scale * w_scale) / y_scale), y_zero_point, axis=1)


# --- element-wise operators on codes: dequantise, operate in f32, quantise ------------------------


def qadd(
    a: Codes, a_scale: F32, a_zero_point: Codes,
    b: Codes, b_scale: F32, b_zero_point: Codes,
    y_scale: F32, y_zero_point: Codes,
) -> Codes:  # fmt: skip
    """Return the codes of a + b (broadcast), each operand dequantised first; no FMA."""
    real = dequantize_linear(a, a_scale, a_zero_point) + dequantize_linear(b, b_scale, b_zero_point)
    return quantize_linear(real, y_scale, y_zero_point)


def qmul(
    a: Codes, a_scale: F32, a_zero_point: Codes,
    b: Codes, b_scale: F32, b_zero_point: Codes,
    y_scale: F32, y_zero_point: Codes,
) -> Codes:  # fmt: skip
    """Return the codes of a * b (broadcast), each operand dequantised first."""
    real = dequantize_linear(a, a_scale, a_zero_point) * dequantize_linear(b, b_scale, b_zero_point)
    return quantize_linear(real, y_scale, y_zero_point)


def qconcat(
    parts: Sequence[tuple[Codes, F32, Codes]], y_scale: F32, y_zero_point: Codes, axis: int
) -> Codes:
    """Return the codes of (q, scale, zero_point) parts joined along `axis` under one scale.

    A part that already has the output's scale, zero point and dtype passes unchanged.
    """
    real = np.concatenate([dequantize_linear(*part) for part in parts], axis)
    return quantize_linear(real, y_scale, y_zero_point)


def average_pool(
    x: F32,
    kernel: Sequence[int],
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    count_include_pad: bool = False,
) -> F32:
    """Return window means of x (N, C, *spatial): taps added to +0 in row-major order, divided."""
    ones = [1] * len(kernel)
    total: F32 = np.array(0, np.float32)
    for window in windows(x, kernel, strides, pads, ones):
        total = total + window
    inside = windows(np.ones((1, 1, *x.shape[2:]), np.float32), kernel, strides, pads, ones)
    count: F32 = np.sum(inside, axis=0, dtype=np.float32)
    if count_include_pad:
        count = np.full_like(count, np.prod(kernel))
    mean: F32 = total / count
    return mean


def qaverage_pool(
    x: Codes, x_scale: F32, x_zero_point: Codes, y_scale: F32, y_zero_point: Codes,
    kernel: Sequence[int], *, strides: Sequence[int], pads: Sequence[int],
    count_include_pad: bool = False,
) -> Codes:  # fmt: skip
    """Return the codes of the f32 average pool of the dequantised codes."""
    real = dequantize_linear(x, x_scale, x_zero_point)
    mean = average_pool(
        real, kernel, strides=strides, pads=pads, count_include_pad=count_include_pad
    )
    return quantize_linear(mean, y_scale, y_zero_point)


def qglobal_average_pool(
    x: Codes, x_scale: F32, x_zero_point: Codes, y_scale: F32, y_zero_point: Codes
) -> Codes:
    """Return the codes of the f32 global average pool of the dequantised codes."""
    real = dequantize_linear(x, x_scale, x_zero_point)
    return quantize_linear(global_average_pool(real), y_scale, y_zero_point)


def make_qtable(
    function: Callable[[F32], F32],
    x_scale: F32,
    x_zero_point: Codes,
    y_scale: F32,
    y_zero_point: Codes,
) -> Codes:
    """Return the 256 output codes of a unary f32 function, indexed by the input code as u8 bits."""
    codes = np.arange(256, dtype=np.uint8).view(x_zero_point.dtype)
    return quantize_linear(
        function(dequantize_linear(codes, x_scale, x_zero_point)), y_scale, y_zero_point
    )


def qtable(q: Codes, table: Codes) -> Codes:
    """Return table[bits of q]: a unary operator on 8-bit codes."""
    return table[q.view(np.uint8)]


# --- f32 in a fixed order -------------------------------------------------------------------------


def fma_to_odd(a: F32, b: F32, c: F32) -> NDArray[np.float64]:
    """Return a * b + c in float64, rounded to odd: rounding that to f32 rounds the exact sum once.

    The product of two f32 is exact in float64. Rounding to odd takes the neighbour whose last bit
    is odd, if inexact, so that no later rounding sees a tie that is none.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        product = np.asarray(a, np.float64) * np.asarray(b, np.float64)
        addend = np.asarray(c, np.float64)
        total = np.asarray(product + addend)
        rest = total - product  # Knuth's TwoSum: error = what rounding took from the sum, exactly
        error = (product - (total - rest)) + (addend - rest)
        even = total.view(np.int64) & 1 == 0
        inexact = np.isfinite(error) & (error != 0) & even
        outwards = np.where((error > 0) == (total > 0), 1, -1)
        odd = np.where(inexact, total.view(np.int64) + outwards, total.view(np.int64))
        return odd.view(np.float64)


def fma(a: F32, b: F32, c: F32) -> F32:
    """Return a * b + c rounded once to f32."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        return fma_to_odd(a, b, c).astype(np.float32)


def flush(x: F32) -> F32:
    """Return x, a denormal as the zero of its sign."""
    return np.where(np.abs(x) < SMALLEST_SCALE, np.copysign(np.float32(0), x), x)


def fma_flushed(a: F32, b: F32, c: F32) -> F32:
    """Return a * b + c with denormals read as zero and flushed to zero, as x86 does it (DAZ, FTZ).

    What counts as denormal is decided after rounding to 24 bits with an unbounded exponent: that
    rounding is done a factor of 2^64 up, where there are no denormals.
    """
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        odd = fma_to_odd(flush(a), flush(b), flush(c))
        tiny = np.abs((odd * 2.0**64).astype(np.float32)) < np.float32(2.0**-62)
        return np.where(tiny, np.copysign(0, odd), odd).astype(np.float32)


def gemm_f32(a: F32, b: F32, bias: F32 | None = None) -> F32:
    """Return a (M, K) @ b (K, N) + bias: one chain of FMAs from +0 over k in order, bias last."""
    acc = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for k in range(a.shape[1]):
        acc = fma(a[:, k, None], b[None, k, :], acc)
    return acc if bias is None else acc + bias


def gemm_bf16(
    a: NDArray[ml_dtypes.bfloat16], b: NDArray[ml_dtypes.bfloat16], bias: F32 | None = None
) -> F32:
    """Return f32 a (M, K) @ b (K, N) + bias in the order and rounding of AVX-512's vdpbf16ps.

    K is filled up to an even number with +0. From +0, for each pair (even, odd) of k: first the
    product of the odd ones joins the sum, then that of the even ones, each by one fma_flushed. The
    bias (N,), +0 if None, is added last, without flushing. The payload of a NaN is not defined.
    """
    odd_rest = a.shape[1] % 2
    rows = np.pad(from_bf16(a), [(0, 0), (0, odd_rest)])
    columns = np.pad(from_bf16(b), [(0, odd_rest), (0, 0)])
    acc = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for even in range(0, rows.shape[1], 2):
        for k in (even + 1, even):
            acc = fma_flushed(rows[:, k, None], columns[None, k, :], acc)
    return acc + (np.float32(0) if bias is None else bias)


def gemm_bf16_amx(
    a: NDArray[ml_dtypes.bfloat16], b: NDArray[ml_dtypes.bfloat16], bias: F32 | None = None
) -> F32:
    """Return f32 a (M, K) @ b (K, N) + bias in the order and rounding of AMX's tdpbf16ps.

    K is filled up to a multiple of 32 with +0. For each 32 of k, two chains of fma_flushed from
    +0: one over the even ones, one over the odd ones; even + odd is added to the sum so far, which
    is +0 at first, and both additions flush, too. The bias (N,), +0 if None, is added last,
    without flushing. The payload of a NaN is not defined. (Intel SDM, volume 2, TDPBF16PS.)
    """
    rest = -a.shape[1] % 32
    rows = np.pad(from_bf16(a), [(0, 0), (0, rest)])
    columns = np.pad(from_bf16(b), [(0, rest), (0, 0)])
    one = np.ones((), np.float32)
    acc = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for chunk in range(0, rows.shape[1], 32):
        even, odd = np.zeros_like(acc), np.zeros_like(acc)
        for k in range(chunk, chunk + 32, 2):
            even = fma_flushed(rows[:, k, None], columns[None, k, :], even)
            odd = fma_flushed(rows[:, k + 1, None], columns[None, k + 1, :], odd)
        acc = fma_flushed(one, fma_flushed(one, even, odd), acc)
    return acc + (np.float32(0) if bias is None else bias)


def gemm_f16(a: NDArray[np.float16], b: NDArray[np.float16], bias: F32 | None = None) -> F32:
    """Return f32 a (M, K) @ b (K, N) + bias: both sides widened exactly, then gemm_f32.

    The bias (N,), +0 if None, is added last. The payload of a NaN is not defined.
    """
    zero = np.zeros(b.shape[1], np.float32)
    return gemm_f32(from_f16(a), from_f16(b), zero if bias is None else bias)


def conv_f32(
    x: F32,
    w: F32,
    bias: F32 | None = None,
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int = 1,
) -> F32:
    """Return the convolution of x (N, C, *spatial) with w (O, C / group, *kernel) by FMAs from +0.

    Each chain runs over the taps in row-major order (kh, kw) and inside a tap over the channels,
    whatever the layout. Padded positions take part as +0. The bias (O,) is added last.
    """
    acc: F32 = np.array(0, np.float32)
    for source, weights in products(x, w, strides, pads, dilations, group):
        acc = fma(source, weights, acc)
    acc = acc.reshape(x.shape[0], w.shape[0], *acc.shape[3:])
    return acc if bias is None else acc + along_axis(bias, acc.ndim, 1)


def conv_bf16(
    x: NDArray[ml_dtypes.bfloat16],
    w: NDArray[ml_dtypes.bfloat16],
    bias: F32 | None = None,
    *,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    group: int = 1,
) -> F32:
    """Return the f32 convolution of x (N, C, *spatial) with w (O, C / group, *kernel).

    A run is a row of the kernel (kw, c) where group and the dilation along it are 1, else the
    channels of one tap. A run is filled up to an even number of elements with +0; the pairs follow
    each other as in gemm_bf16. Where every channel has one filter of its own there are no pairs: it
    is conv_f32 of the widened numbers.
    """
    wide_x, wide_w = from_bf16(x), from_bf16(w)
    if group > 1 and group == x.shape[1] == w.shape[0]:
        return conv_f32(
            wide_x, wide_w, bias, strides=strides, pads=pads, dilations=dilations, group=group
        )
    chain = list(products(wide_x, wide_w, strides, pads, dilations, group))
    run = w.shape[1] * (w.shape[-1] if group == 1 and dilations[-1] == 1 else 1)
    zero = np.zeros((), np.float32)
    acc: F32 = np.zeros((), np.float32)
    for begin in range(0, len(chain), run):
        part = chain[begin : begin + run]
        for even in range(0, run, 2):
            odd = part[even + 1] if even + 1 < run else (zero, zero)
            for source, weights in (odd, part[even]):
                acc = fma_flushed(source, weights, acc)
    acc = acc.reshape(x.shape[0], w.shape[0], *acc.shape[3:])
    return acc if bias is None else acc + along_axis(bias, acc.ndim, 1)


def sum_rows_f32(x: F32) -> F32:
    """Return sums over the last axis: 16 sums p[i % 16] += x[i] in order, then a fixed tree.

    The tree halves: p[j] + p[j + 8], then + 4, + 2, + 1.
    """
    partial = np.zeros((*x.shape[:-1], 16), np.float32)
    for i in range(x.shape[-1]):
        partial[..., i % 16] += x[..., i]
    for half in (8, 4, 2, 1):
        partial = partial[..., :half] + partial[..., half : 2 * half]
    return partial[..., 0]


def global_average_pool(x: F32) -> F32:
    """Return means of x (N, C, *spatial) over all positions: sum_rows_f32, then one division."""
    positions = int(np.prod(x.shape[2:]))
    total = sum_rows_f32(x.reshape(*x.shape[:2], positions))
    mean: F32 = total / np.float32(positions)
    return mean.reshape(*x.shape[:2], *[1] * (x.ndim - 2))


# --- recurrent layers: one direction, ONNX's order of gates ---------------------------------------

Unary = Callable[[F32], F32]
HiddenProduct = Callable[[F32, slice], F32]  # h (N, H) times the gate rows `slice` of R: (N, rows)
H_ZERO_POINT = np.uint8(128)


def x_gates(x: F32, w: F32, bias: F32) -> F32:
    """Return gemm_f32 of every step of x (T, N, I) with w (G, I), plus `bias` (G,): (T, N, G)."""
    return gemm_f32(x.reshape(-1, x.shape[-1]), w.T, bias).reshape(*x.shape[:2], -1)


def x_gates_of_codes(
    x: Codes, x_scale: np.float32, x_zero_point: Codes, w: Codes, w_scale: F32, bias: F32
) -> F32:
    """Return f32(acc) * (x_scale * w_scale) + bias for codes x (T, N, I), w (G, I); s8, no zero."""
    rows = x.reshape(-1, x.shape[-1])
    acc = matmul_integer(rows, w.T, x_zero_point, np.int8(0))
    return (dequantize_accumulator(acc, x_scale * w_scale, 1) + bias).reshape(*x.shape[:2], -1)


def h_product(r: F32) -> HiddenProduct:
    """Return the product of floats with r (G, H)."""
    return lambda h, rows: gemm_f32(h, r[rows].T)


def h_product_of_codes(r: Codes, r_scale: F32, h_scale: np.float32) -> HiddenProduct:
    """Return the product of h, quantised to u8 around 128, with s8 codes r (G, H)."""

    def product(h: F32, rows: slice) -> F32:
        codes = quantize_linear(h, np.asarray(h_scale), np.asarray(H_ZERO_POINT))
        acc = matmul_integer(codes, r[rows].T, H_ZERO_POINT, np.int8(0))
        return dequantize_accumulator(acc, h_scale * r_scale[rows], 1)

    return product


def rnn(gates: F32, product: HiddenProduct, h: F32, *, f: Unary) -> F32:
    """Return the states (T, N, H) of h = f(h * R + gates); gates hold both biases."""
    states = []
    for step in gates:
        h = f(product(h, slice(None)) + step)
        states.append(h)
    return np.stack(states)


def gru(
    gates: F32, product: HiddenProduct, h: F32, *, f: Unary, g: Unary, last_bias: F32 | None = None
) -> F32:
    """Return the states (T, N, H) of ONNX's GRU: (1 - z) * n + z * h, rounded at each step.

    Gates hold both biases; with linear_before_reset, all but the last gate's part of Rb, which is
    `last_bias` (H,) then: n = g(r * (h * R + last_bias) + gates), else g((r * h) * R + gates).
    """
    size = h.shape[1]
    first, last = slice(0, 2 * size), slice(2 * size, None)
    states = []
    for step in gates:
        z, reset = np.split(f(product(h, first) + step[:, first]), 2, axis=1)
        if last_bias is not None:
            new = reset * (product(h, last) + last_bias)
        else:
            new = product(reset * h, last)
        h = (np.float32(1) - z) * g(new + step[:, last]) + z * h
        states.append(h)
    return np.stack(states)


def lstm(
    gates: F32, product: HiddenProduct, h: F32, c: F32, p: F32 | None = None,
    *, f: Unary, g: Unary, k: Unary, input_forget: bool = False,
) -> tuple[F32, F32]:  # fmt: skip
    """Return the states (T, N, H) and the last cell (N, H) of ONNX's LSTM.

    Gates hold both biases. Peepholes p (3H,): i, o, f. c = f * c + i * g, every operation rounded,
    then h = o * k(c).
    """
    peep_i, peep_o, peep_f = np.split(np.zeros(3 * h.shape[1], np.float32) if p is None else p, 3)
    states = []
    for step in gates:
        i, o, forget, new = np.split(product(h, slice(None)) + step, 4, axis=1)
        i = f(i if p is None else i + peep_i * c)
        forget = f(forget if p is None else forget + peep_f * c)
        c = (np.float32(1) - i if input_forget else forget) * c + i * g(new)
        h = f(o if p is None else o + peep_o * c) * k(c)
        states.append(h)
    return np.stack(states), c


# --- attention in codes: one head -----------------------------------------------------------------


def codes_of_run(x: F32) -> tuple[Codes, np.float32]:
    """Return s8 codes of x and their scale: the largest magnitude / 127; 1 where all is tiny."""
    largest = np.abs(x).max()
    scale = np.float32(largest / np.float32(127)) if largest > 1e-30 else np.float32(1)
    return np.clip(np.rint(x / scale), -127, 127).astype(np.int8), scale


def weight_codes(d: F32) -> NDArray[np.uint8]:
    """Return 255 * exp(d) of d <= 0 as codes, within 0.52 of it.

    exp(d) = 2^n 2^f with n = rint(d / ln 2): a polynomial of degree 3 in f. Codes below -8 are 0.
    """
    magic, to_binary = np.float32(12582912), np.float32(1.44269504)  # 1.5 * 2^23, 1 / ln 2
    near = np.maximum(d, np.float32(-8))
    n = fma(near, to_binary, magic) - magic
    f = fma(near, to_binary, -n)
    p = np.full_like(f, float.fromhex("0x1.c23368p+3"))
    for coefficient in ("0x1.eeed3ep+5", "0x1.619028p+7", "0x1.fdf69cp+7"):
        p = fma(p, f, np.full_like(f, float.fromhex(coefficient)))
    codes: NDArray[np.uint8] = np.rint(np.ldexp(p, n.astype(np.int32))).astype(np.uint8)
    return codes


def attention_of_codes(q: F32, k: F32, v: F32, scale: np.float32, bias: F32 | None = None) -> F32:
    """Return attention (S, W) of finite q (S, D), k (T, D), v (T, W), all products of codes.

    Scores f32(acc) * ((s_q * s_k) * scale) + bias; u8 weights 255 * exp(score - largest);
    f32(acc) * ((1 / sum of the row's weights) * s_v). A row whose scores are all minus infinity
    gives zeros, one with NaN or infinity NaN.
    """
    (q_codes, q_scale), (k_codes, k_scale), (v_codes, v_scale) = map(codes_of_run, (q, k, v))
    zero = np.int8(0)
    acc = matmul_integer(q_codes, k_codes.T, zero, zero)
    scores = acc.astype(np.float32) * (q_scale * k_scale * np.float32(scale))
    if bias is not None:
        scores = scores + bias
    most = scores.max(axis=1, keepdims=True)
    seen = np.isfinite(most)
    below = np.where(seen, scores - np.where(seen, most, np.float32(0)), np.float32(-np.inf))
    weights = weight_codes(below)
    sums = weights.sum(axis=1, keepdims=True, dtype=np.int64).astype(np.float32)
    nothing = np.where(most < 0, np.float32(0), np.float32(np.nan))
    inverse = np.divide(np.float32(1), sums, out=nothing, where=sums > 0)
    acc = matmul_integer(weights, v_codes, np.uint8(0), zero)
    result: F32 = acc.astype(np.float32) * (inverse * v_scale)
    return result
