"""Exact products of integer matrices, and their quantised form.

Every function returns the bits of its namesake in `lowprec.numerics.reference`. Sums are exact:
where a product of this depth could leave int32, the result is int64; nothing wraps or saturates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowprec._ext import _core
from lowprec.errors import InputError
from lowprec.numerics import _kernels, reference
from lowprec.numerics._arguments import (
    BYTE_DTYPES,
    check_out,
    code_array,
    delivered,
    scale_array,
    typed_array,
)

# 255 * 128 * 65,793 < 2^31: deeper products are summed in parts.
MAX_DEPTH = 65_793


def matmul_integer(
    a: ArrayLike,
    b: ArrayLike,
    a_zero_point: ArrayLike | None = None,
    b_zero_point: ArrayLike | None = None,
    *,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return (a - a_zero_point) @ (b - b_zero_point), exactly.

    The dtype is int32 where no codes of this depth K can leave it (uint8 times int8 without a zero
    point of its own: K up to 65,793), else int64. It never depends on the codes.

    Args:
        a: uint8 or int8, shape (..., M, K) or (K,); batches broadcast as in numpy.matmul.
        b: uint8 or int8, shape (..., K, N) or (K,).
        a_zero_point: Of `a`'s dtype, shape () or (M,); 0 if None.
        b_zero_point: Of `b`'s dtype, shape () or (N,); 0 if None.
        out: Written to if given: the result's shape and dtype.

    Returns:
        int32 or int64, shape (..., M, N), without the axis that a one-dimensional operand lacks.

    Raises:
        InputError: wrong dtypes, shapes that do not fit together, or an unfitting `out`.

    Example:
        >>> matmul_integer(np.uint8([[1, 255]]), np.int8([[2], [-128]])).item()
        -32638
    """
    left, right = typed_array(a, "a", BYTE_DTYPES), typed_array(b, "b", BYTE_DTYPES)
    rows, columns, shape = _matrices(left, right)
    a_zero = _zero_point(a_zero_point, "a_zero_point", rows.dtype, rows.shape[-2])
    b_zero = _zero_point(b_zero_point, "b_zero_point", columns.dtype, columns.shape[-1])
    acc = _exact_product(rows, columns, a_zero, b_zero).reshape(shape)
    check_out(out, shape, acc.dtype)
    return delivered(acc, out)


def qlinear_matmul(
    a: ArrayLike,
    a_scale: ArrayLike,
    a_zero_point: ArrayLike,
    b: ArrayLike,
    b_scale: ArrayLike,
    b_zero_point: ArrayLike,
    y_scale: ArrayLike,
    y_zero_point: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return the codes of a @ b + bias: requantised with (a_scale * b_scale) / y_scale in float32.

    Args:
        a: uint8 or int8, shape (..., M, K) or (K,).
        a_scale: Real units per code of `a`, shape () or (M,).
        a_zero_point: Of `a`'s dtype, shape () or (M,).
        b: uint8 or int8, shape (..., K, N) or (K,).
        b_scale: Real units per code of `b`, shape () or (N,).
        b_zero_point: Of `b`'s dtype, shape () or (N,).
        y_scale: Real units per code of the result, shape ().
        y_zero_point: Shape (); its dtype is that of the result.
        bias: int32, shape () or (N,), in units of a_scale * b_scale.
        out: Written to if given: the result's shape and dtype.

    Returns:
        Codes, shape (..., M, N), without the axis that a one-dimensional operand lacks.

    Raises:
        InputError: wrong dtypes, shapes that do not fit together, or an unfitting `out`.
        QuantizationError: a scale that is not finite and above 0.
    """
    left, right = typed_array(a, "a", BYTE_DTYPES), typed_array(b, "b", BYTE_DTYPES)
    rows, columns, shape = _matrices(left, right)
    m, n = rows.shape[-2], columns.shape[-1]
    a_zero = _zero_point(a_zero_point, "a_zero_point", rows.dtype, m)
    b_zero = _zero_point(b_zero_point, "b_zero_point", columns.dtype, n)
    y_zero = code_array(y_zero_point, "y_zero_point")
    a_scales = _fitting(scale_array(a_scale, "a_scale"), "a_scale", m)
    b_scales = _fitting(scale_array(b_scale, "b_scale"), "b_scale", n)
    y_scales = _fitting(scale_array(y_scale, "y_scale"), "y_scale", 1)
    _fitting(y_zero, "y_zero_point", 1)
    start = np.zeros(1, np.int32)
    if bias is not None:
        start = _fitting(typed_array(bias, "bias", [np.dtype(np.int32)]), "bias", n)

    with _core.FloatState():
        multiplier = (np.atleast_1d(a_scales)[:, None] * b_scales) / y_scales
        result = _fused_product(rows, columns, a_zero, b_zero, start, multiplier, y_zero)
        if result is None:
            acc = _exact_product(rows, columns, a_zero, b_zero).astype(np.int64) + start
            result = reference.requantize(acc, multiplier, y_zero)
    result = result.reshape(shape)
    check_out(out, shape, result.dtype)
    return delivered(result, out)


def _matrices(
    a: NDArray[Any], b: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], tuple[int, ...]]:
    """Return both operands with at least two axes, and the shape of numpy.matmul's result."""
    if a.ndim == 0 or b.ndim == 0:
        raise InputError(f"a has shape {a.shape} and b {b.shape}; expected at least one axis each")
    rows = a[None, :] if a.ndim == 1 else a
    columns = b[:, None] if b.ndim == 1 else b
    if rows.shape[-1] != columns.shape[-2]:
        raise InputError(
            f"a has shape {a.shape} and b {b.shape}; expected (..., M, K) and (..., K, N)"
        )
    try:
        batch = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    except ValueError:
        raise InputError(
            f"a has shape {a.shape} and b {b.shape}; their batch axes do not broadcast"
        ) from None
    kept_rows = rows.shape[-2:-1] if a.ndim > 1 else ()
    kept_columns = columns.shape[-1:] if b.ndim > 1 else ()
    return rows, columns, (*batch, *kept_rows, *kept_columns)


def _fitting(parameter: NDArray[Any], name: str, size: int) -> NDArray[Any]:
    """Return `parameter` if its shape is (), (1,) or (size,)."""
    if parameter.shape in ((), (1,), (size,)):
        return parameter
    accepted = "()" if size == 1 else f"() or ({size},)"
    raise InputError(f"{name} has shape {parameter.shape}; expected {accepted}")


def _zero_point(
    zero_point: ArrayLike | None, name: str, dtype: np.dtype[Any], size: int
) -> NDArray[Any]:
    zeros = dtype.type(0) if zero_point is None else zero_point
    return _fitting(typed_array(zeros, name, [dtype]), name, size)


def _as_u8(
    a: NDArray[Any], zero_point: NDArray[Any]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return codes and zero point as uint8's: both move by 128 where they are int8."""
    zeros = zero_point.astype(np.int64)
    return (a, zeros) if a.dtype == np.uint8 else (a.view(np.uint8) ^ np.uint8(128), zeros + 128)


def _as_s8(b: NDArray[Any], zero_point: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Return codes and zero point as int8's: both move by -128 where they are uint8."""
    zeros = zero_point.astype(np.int64)
    return (b, zeros) if b.dtype == np.int8 else ((b ^ np.uint8(128)).view(np.int8), zeros - 128)


def _exact_product(
    a: NDArray[Any], b: NDArray[Any], a_zero: NDArray[Any], b_zero: NDArray[Any]
) -> NDArray[Any]:
    """Return the product of matrices (..., M, K) and (..., K, N) in matmul_integer's dtype."""
    m, depth, n = a.shape[-2], a.shape[-1], b.shape[-1]
    steps = reference.largest_step(a.dtype, a_zero), reference.largest_step(b.dtype, b_zero)
    dtype = reference.accumulator_dtype(depth, *steps)
    rows, row_zero = _as_u8(a, np.atleast_1d(a_zero))
    columns, column_zero = _as_s8(b, np.atleast_1d(b_zero))
    if columns.ndim == 2:
        row_zeros = np.broadcast_to(row_zero, a.shape[:-1]).reshape(-1)
        flat = _centred_product(
            rows.reshape(row_zeros.size, depth), columns, row_zeros, column_zero
        )
        return flat.reshape(*a.shape[:-1], n).astype(dtype, copy=False)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    result = np.empty((*batch, m, n), dtype)
    rows = np.broadcast_to(rows, (*batch, m, depth))
    columns = np.broadcast_to(columns, (*batch, depth, n))
    for index in np.ndindex(batch):
        result[index] = _centred_product(rows[index], columns[index], row_zero, column_zero)
    return result


def _centred_product(
    a: NDArray[np.uint8], b: NDArray[np.int8], a_zero: NDArray[np.int64], b_zero: NDArray[np.int64]
) -> NDArray[Any]:
    """Return (a - a_zero) (M, K) @ (b - b_zero) (K, N), int32 or int64 but exact.

    sum (a - z_a) (b - z_b) = sum a b - z_a sum b - z_b sum a + K z_a z_b
    """
    depth = a.shape[1]
    acc: NDArray[Any] = np.zeros((a.shape[0], b.shape[1]), np.int32)
    for start in range(0, depth, MAX_DEPTH):
        part = np.empty(acc.shape, np.int32)
        rows = np.ascontiguousarray(a[:, start : start + MAX_DEPTH])
        _kernels.matmul_int8(rows, np.ascontiguousarray(b[start : start + MAX_DEPTH]), part)
        acc = part if start == 0 else acc.astype(np.int64) + part
    if a_zero.any():
        acc = acc - a_zero[:, None] * b.sum(axis=0, dtype=np.int64)
    if b_zero.any():
        row_sums = a.sum(axis=1, dtype=np.int64)
        acc = acc - b_zero * (row_sums - depth * a_zero)[:, None]
    return acc


def _fused_product(
    a: NDArray[Any],
    b: NDArray[Any],
    a_zero: NDArray[Any],
    b_zero: NDArray[Any],
    bias: NDArray[np.int32],
    multiplier: NDArray[np.float32],
    y_zero: NDArray[Any],
) -> NDArray[Any] | None:
    """Return the codes from one kernel that also requantises; None where the case needs more.

    It can where one scale and zero point hold for all of `a`, `b` has none of its own, the result
    has 8 bits, and no sum can leave int32.
    """
    rows, row_zero = _as_u8(a, a_zero)
    columns, column_zero = _as_s8(b, b_zero)
    if b.ndim != 2 or row_zero.size != 1 or column_zero.any() or len(multiplier) != 1:
        return None
    if y_zero.dtype not in BYTE_DTYPES or a.shape[-1] > MAX_DEPTH:
        return None
    positive = np.maximum(columns, 0).sum(axis=0, dtype=np.int64)
    negative = np.minimum(columns, 0).sum(axis=0, dtype=np.int64)
    start = bias - row_zero * (positive + negative)
    limits = np.iinfo(np.int32)
    if (start + 255 * positive > limits.max).any() or (start + 255 * negative < limits.min).any():
        return None
    if (start > limits.max).any() or (start < limits.min).any():
        return None
    n = b.shape[1]
    codes = np.empty((*a.shape[:-1], n), y_zero.dtype)
    _kernels.matmul_int8(
        rows.reshape(codes.size // n if n else 0, a.shape[-1]),
        columns,
        codes.reshape(-1, n) if n else codes.reshape(0, 0),
        bias=np.broadcast_to(start, n).astype(np.int32),
        multiplier=np.broadcast_to(multiplier[0], n).astype(np.float32),
        zero_point=y_zero.item(),
    )
    return codes
