"""Products of matrices: exact ones of codes, their quantised form, and float ones in a fixed order.

Every function returns the bits of its namesake in `lowprec.numerics.reference`. Sums of codes are
exact: where a product of this depth could leave int32, the result is int64; nothing wraps or
saturates. Weights that are used more than once are packed once: `pack_weights`.

What is common (matrices, a result of their own) is one call into the compiled core, which returns
None for everything else; that is looked at here.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lowprec._ext import _core
from lowprec.errors import InputError
from lowprec.numerics import _kernels, reference
from lowprec.numerics._arguments import (
    BFLOAT16,
    BYTE_DTYPES,
    check_out,
    code_array,
    delivered,
    matrices,
    one_or_each,
    product_array,
    real_array,
    scale_array,
    typed_array,
)
from lowprec.numerics.activations import Activation, operators
from lowprec.numerics.packed import SAFE_DEPTH, PackedWeights

FLOAT32, FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)


def matmul_integer(
    a: ArrayLike,
    b: ArrayLike | PackedWeights,
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
        b: uint8 or int8, shape (..., K, N) or (K,); or packed weights of these types, which bring
            their own zero point. Their scale and bias take no part.
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
    result = _core.multiply_codes(a, b, a_zero_point, b_zero_point, out)
    if result is None:
        result = _core.multiply_code_batches(a, b, a_zero_point, b_zero_point, out)
    if result is not None:
        return result
    _kernels.chosen_isa()  # says what is wrong with LOWPREC_ISA
    left = typed_array(a, "a", BYTE_DTYPES)
    if isinstance(b, PackedWeights):
        _refuse_second(b_zero_point, "b_zero_point")
        _expect_codes(b)
    right = b if isinstance(b, PackedWeights) else typed_array(b, "b", BYTE_DTYPES)
    rows, columns, shape = matrices(left, right)
    a_zero = _zero_point(a_zero_point, "a_zero_point", rows.dtype, rows.shape[-2])
    if isinstance(columns, PackedWeights):
        b_zero = np.asarray(0 if columns.zero_point is None else columns.zero_point, columns.dtype)
    else:
        b_zero = _zero_point(b_zero_point, "b_zero_point", columns.dtype, columns.shape[-1])
    acc = _exact_product(rows, columns, a_zero, b_zero).reshape(shape)
    check_out(out, shape, acc.dtype)
    return delivered(acc, out)


def qlinear_matmul(
    a: ArrayLike,
    a_scale: ArrayLike,
    a_zero_point: ArrayLike,
    b: ArrayLike | PackedWeights,
    b_scale: ArrayLike | None,
    b_zero_point: ArrayLike | None,
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
        b: uint8 or int8, shape (..., K, N) or (K,); or weights packed with their scale, zero point
            and int32 bias, in whose place None is then given.
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
    result = _core.multiply_requantised(
        a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point, bias, out
    )
    if result is None and bias is None:
        result = _core.multiply_requantised_batches(
            a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point, out
        )
    if result is not None:
        return result
    _kernels.chosen_isa()
    left = typed_array(a, "a", BYTE_DTYPES)
    if isinstance(b, PackedWeights):
        _expect_codes(b)
        for given, name in ((b_scale, "b_scale"), (b_zero_point, "b_zero_point"), (bias, "bias")):
            _refuse_second(given, name)
        b_scale, b_zero_point, bias = b.scale, b.zero_point, b.bias
        if b_scale is None:
            raise InputError("b is packed without a scale; give pack_weights the scale=")
    right = b if isinstance(b, PackedWeights) else typed_array(b, "b", BYTE_DTYPES)
    rows, columns, shape = matrices(left, right)
    m, n = rows.shape[-2], columns.shape[-1]
    a_zero = _zero_point(a_zero_point, "a_zero_point", rows.dtype, m)
    b_zero = _zero_point(b_zero_point, "b_zero_point", columns.dtype, n)
    y_zero = code_array(y_zero_point, "y_zero_point")
    a_scales = one_or_each(scale_array(a_scale, "a_scale"), "a_scale", m)
    b_scales = one_or_each(scale_array(_given(b_scale, "b_scale"), "b_scale"), "b_scale", n)
    y_scales = one_or_each(scale_array(y_scale, "y_scale"), "y_scale", 1)
    one_or_each(y_zero, "y_zero_point", 1)
    start = np.zeros(1, np.int32)
    if bias is not None:
        start = one_or_each(typed_array(bias, "bias", [np.dtype(np.int32)]), "bias", n)

    if isinstance(columns, PackedWeights):
        parameters: tuple[Any, ...] = (columns, None, None, y_scales, y_zero)
    else:
        parameters = columns, b_scales, b_zero, y_scales, y_zero, start
    result = None
    if len(columns.shape) == 2:
        flat = rows.reshape(int(np.prod(rows.shape[:-1])), rows.shape[-1])
        result = _core.multiply_requantised(flat, a_scales, a_zero, *parameters)
    if result is None:
        acc = _exact_product(rows, columns, a_zero, b_zero).astype(np.int64) + start
        with _core.FloatState():
            multiplier = (np.atleast_1d(a_scales)[:, None] * b_scales) / y_scales
            result = reference.requantize(acc, multiplier, y_zero)
    result = result.reshape(shape)
    check_out(out, shape, result.dtype)
    return delivered(result, out)


def gemm_f32(
    a: ArrayLike,
    b: ArrayLike | PackedWeights,
    *,
    bias: ArrayLike | None = None,
    activation: Activation | None = None,
    out_dtype: DTypeLike = np.float32,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return activation(a @ b + bias): every element one chain of FMAs from +0 over K, then bias.

    Args:
        a: float32, shape (..., M, K) or (K,); batches broadcast as in numpy.matmul.
        b: float32, shape (..., K, N) or (K,); or packed float32 weights, which bring their bias.
        bias: float32, shape () or (N,); added after the sum.
        activation: A name of `activations.ACTIVATIONS`, or (name, parameters...).
        out_dtype: numpy.float32, or ml_dtypes.bfloat16: the float32 result, rounded once more.
        out: Written to if given: the result's shape and dtype.

    Returns:
        Shape (..., M, N), without the axis that a one-dimensional operand lacks.

    Raises:
        InputError: wrong dtypes, shapes that do not fit together, or an unfitting `out`.

    Example:
        >>> gemm_f32(np.float32([[1, 2]]), np.float32([[3], [4]]), bias=np.float32(1)).item()
        12.0
    """
    return _float_product(a, b, FLOAT32, bias, activation, out_dtype, out)


def gemm_bf16(
    a: ArrayLike,
    b: ArrayLike | PackedWeights,
    *,
    bias: ArrayLike | None = None,
    activation: Activation | None = None,
    out_dtype: DTypeLike = np.float32,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return activation(a @ b + bias) of bfloat16 matrices, summed in float32.

    Pairs along K are summed as the instruction vdpbf16ps does it: the odd element first, each step
    one FMA, denormals taken and left as zero. (AMX has its own order: docs/instruction_sets.md.)

    Args:
        a: ml_dtypes.bfloat16, or its bits as uint16; shape (..., M, K) or (K,).
        b: Likewise, shape (..., K, N) or (K,); or packed bfloat16 weights, which bring their bias.
        bias: float32, shape () or (N,); added after the sum.
        activation: A name of `activations.ACTIVATIONS`, or (name, parameters...).
        out_dtype: numpy.float32, or ml_dtypes.bfloat16: the float32 result, rounded once more.
        out: Written to if given: the result's shape and dtype.

    Returns:
        Shape (..., M, N), without the axis that a one-dimensional operand lacks.

    Raises:
        InputError: wrong dtypes, shapes that do not fit together, or an unfitting `out`.
    """
    left = _bfloat16_bits(a, "a")
    right = b if isinstance(b, PackedWeights) else _bfloat16_bits(b, "b")
    return _float_product(left, right, BFLOAT16, bias, activation, out_dtype, out)


def gemm_f16(
    a: ArrayLike,
    b: ArrayLike | PackedWeights,
    *,
    bias: ArrayLike | None = None,
    activation: Activation | None = None,
    out_dtype: DTypeLike = np.float32,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return activation(a @ b + bias) of float16 matrices: gemm_f32 of the widened operands.

    Args:
        a: float16, shape (..., M, K) or (K,); batches broadcast as in numpy.matmul.
        b: float16, shape (..., K, N) or (K,); or packed float16 weights, which bring their bias.
        bias: float32, shape () or (N,); added after the sum.
        activation: A name of `activations.ACTIVATIONS`, or (name, parameters...).
        out_dtype: numpy.float32, or ml_dtypes.bfloat16: the float32 result, rounded once more.
        out: Written to if given: the result's shape and dtype.

    Returns:
        Shape (..., M, N), without the axis that a one-dimensional operand lacks.

    Raises:
        InputError: wrong dtypes, shapes that do not fit together, or an unfitting `out`.
    """
    return _float_product(a, b, FLOAT16, bias, activation, out_dtype, out)


def _bfloat16_bits(x: ArrayLike, name: str) -> NDArray[ml_dtypes.bfloat16]:
    """Return bfloat16, or bits of it, as bfloat16."""
    array = np.asarray(x)
    if array.dtype == BFLOAT16:
        return array
    if array.dtype == np.uint16:
        return array.view(BFLOAT16)
    raise InputError(
        f"{name} holds {array.dtype}; expected bfloat16, or its bits as uint16: "
        f"convert it with lowprec.numerics.to_bf16({name})"
    )


def _zero_point(
    zero_point: ArrayLike | None, name: str, dtype: np.dtype[Any], size: int
) -> NDArray[Any]:
    zeros = dtype.type(0) if zero_point is None else zero_point
    return one_or_each(typed_array(zeros, name, [dtype]), name, size)


def _given(value: ArrayLike | None, name: str) -> ArrayLike:
    if value is None:
        raise InputError(f"{name} is None; only packed weights bring their own")
    return value


def _refuse_second(value: ArrayLike | None, name: str) -> None:
    if value is not None:
        raise InputError(f"{name} is given, but packed weights bring their own: leave it None")


def _expect_codes(weights: PackedWeights) -> None:
    if weights.dtype not in BYTE_DTYPES:
        raise InputError(f"b is packed {weights.dtype}; expected packed uint8 or int8")


def _exact_product(
    a: NDArray[Any],
    b: NDArray[Any] | PackedWeights,
    a_zero: NDArray[Any],
    b_zero: NDArray[Any],
) -> NDArray[Any]:
    """Return the product of matrices (..., M, K) and (..., K, N) in matmul_integer's dtype."""
    depth, n = a.shape[-1], b.shape[-1]
    steps = reference.largest_step(a.dtype, a_zero), reference.largest_step(b.dtype, b_zero)
    dtype = reference.accumulator_dtype(depth, *steps)
    if isinstance(b, PackedWeights) or b.ndim == 2:
        row_zeros = np.broadcast_to(a_zero, a.shape[:-1]).reshape(-1) if a_zero.size > 1 else a_zero
        rows = a.reshape(int(np.prod(a.shape[:-1])), depth)
        return _one_product(rows, b, row_zeros, b_zero, dtype).reshape(*a.shape[:-1], n)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    result = np.empty((*batch, a.shape[-2], n), dtype)
    a = np.broadcast_to(a, (*batch, *a.shape[-2:]))
    b = np.broadcast_to(b, (*batch, *b.shape[-2:]))
    for index in np.ndindex(batch):
        result[index] = _one_product(a[index], b[index], a_zero, b_zero, dtype)
    return result


def _one_product(
    a: NDArray[Any],
    b: NDArray[Any] | PackedWeights,
    a_zero: NDArray[Any],
    b_zero: NDArray[Any],
    dtype: type[np.int32 | np.int64],
) -> NDArray[Any]:
    """Return the product of two matrices, summed over parts of K where int32 is too narrow."""
    if isinstance(b, PackedWeights):
        if dtype is np.int32:
            result = _core.multiply_codes(a, b, a_zero)
            if result is not None:
                return result
        raise InputError(
            f"b is packed and {b.shape[0]} deep: a product that int32 cannot hold for every code; "
            "pass the matrix itself"
        )
    acc = np.zeros((a.shape[0], b.shape[1]), dtype)
    for start in range(0, a.shape[1], SAFE_DEPTH):
        part = slice(start, start + SAFE_DEPTH)
        sums = _core.multiply_codes(a[:, part], b[part], a_zero, b_zero)
        assert sums is not None  # what the short way refuses has been made to fit
        acc += sums
    return acc


def _float_product(
    a: ArrayLike,
    b: ArrayLike | PackedWeights,
    dtype: np.dtype[Any],
    bias: ArrayLike | None,
    activation: Activation | None,
    out_dtype: DTypeLike,
    out: NDArray[Any] | None,
) -> NDArray[Any]:
    wanted = FLOAT32 if out_dtype is np.float32 else np.dtype(out_dtype)
    if activation is None and (wanted is FLOAT32 or wanted == BFLOAT16):
        result = _core.multiply_floats(a, b, bias, out, wanted.num, dtype.num)
        if result is None and bias is None:
            result = _core.multiply_float_batches(a, b, out, wanted.num, dtype.num)
        if result is not None:
            return result
    if wanted not in (FLOAT32, BFLOAT16):
        raise InputError(f"out_dtype is {wanted}; expected float32 or bfloat16")
    ops = operators(activation)
    _kernels.chosen_isa()
    left = typed_array(a, "a", [dtype])
    if isinstance(b, PackedWeights):
        _refuse_second(bias, "bias")
        if b.dtype != dtype:
            raise InputError(f"b is packed {b.dtype}; expected packed {dtype}")
    right = b if isinstance(b, PackedWeights) else typed_array(b, "b", [dtype])
    rows, columns, shape = matrices(left, right)
    m, k, n = rows.shape[-2], rows.shape[-1], columns.shape[-1]
    start = None
    if bias is not None:
        start = one_or_each(real_array(bias, "bias"), "bias", n)
    result = product_array(out, shape, wanted, left, *([] if right is b else [np.asarray(right)]))
    if isinstance(columns, PackedWeights) or columns.ndim == 2:
        if isinstance(columns, PackedWeights):
            packed = columns
        else:
            packed = PackedWeights(columns, dtype, bias=start)
        flat = result.reshape(1, int(np.prod(rows.shape[:-1])), n)
        _core.linear(rows.reshape(1, flat.shape[1], k), packed, flat, ops=ops)
        return delivered(result, out)
    batch = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
    rows = np.broadcast_to(rows, (*batch, m, k))
    columns = np.broadcast_to(columns, (*batch, k, n))
    parts = result.reshape(*batch, m, n)
    for index in np.ndindex(batch):
        packed = PackedWeights(columns[index], dtype, bias=start)
        _core.linear(rows[index][None], packed, parts[index][None], ops=ops)
    return delivered(result, out)
