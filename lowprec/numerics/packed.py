"""Weights packed once, and linear layers on them.

    y real = activation(f32(acc) * (a_scale * scale) + bias + residual)
    y code = saturate(rint(f32(acc) * ((a_scale * scale) / y_scale)) + y_zero_point)

The second form is that of a layer with nothing on top but a relu, which clamps the codes at
y_zero_point; any other gives the codes of y real: saturate(rint(y / y_scale) + y_zero_point).
"acc" is exact; an int32 bias is part of it, a float32 bias is added where "bias" stands above.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lowprec._ext import _core
from lowprec.errors import InputError, QuantizationError
from lowprec.numerics import _kernels
from lowprec.numerics._arguments import (
    BFLOAT16,
    BYTE_DTYPES,
    check_out,
    code_array,
    delivered,
    matrices,
    one_or_each,
    product_array,
    scale_array,
    typed_array,
)
from lowprec.numerics.activations import ADD_RESIDUAL, Activation, operators

FLOAT32, INT32 = np.dtype(np.float32), np.dtype(np.int32)
WEIGHT_DTYPES = (*BYTE_DTYPES, FLOAT32, BFLOAT16, np.dtype(np.float16))
REAL_DTYPES = (FLOAT32, BFLOAT16)
# 255 * 255 * 33,025 < 2^31, whatever the codes and zero points; without a zero point of the
# weights 255 * 128 * 65,793 < 2^31.
SAFE_DEPTH = 33_025
SAFE_DEPTH_SYMMETRIC = 65_793

PackedWeights = _core.PackedWeights

_core.know_bfloat16(BFLOAT16)


def pack_weights(
    b: ArrayLike,
    *,
    zero_point: ArrayLike | None = None,
    scale: ArrayLike | None = None,
    bias: ArrayLike | None = None,
) -> PackedWeights:
    """Return `b` in the layout that kernels read, for any number of products.

    matmul_integer, qlinear_matmul, gemm_f32, gemm_bf16, gemm_f16 and linear take the result in the
    place of `b`. It never changes, serves any number of threads, and does not refer to `b`.

    Args:
        b: Weights (K, N), any strides: uint8, int8, float32, ml_dtypes.bfloat16 or float16.
        zero_point: Of uint8 and int8 weights: their dtype, shape () or (N,); 0 if None.
        scale: Of uint8 and int8 weights: real units per code, shape () or (N,). Needed where the
            result is not the int32 sum.
        bias: Shape () or (N,): float32, in real units; or int32, in units of a_scale * scale.

    Raises:
        InputError: a wrong dtype or shape, or weights so deep that a sum could leave int32.
        QuantizationError: a scale that is not finite and above 0, or an int32 bias with which a sum
            could leave int32.

    Example:
        >>> weights = pack_weights(np.int8([[1], [-2]]), scale=0.5)
        >>> weights.shape
        (2, 1)
        >>> linear(np.uint8([[10, 3]]), weights, a_scale=0.1)
        array([[0.2]], dtype=float32)
    """
    array = np.asarray(b)
    if array.dtype.newbyteorder("=") not in WEIGHT_DTYPES:
        accepted = ", ".join(str(dtype) for dtype in WEIGHT_DTYPES)
        raise InputError(f"b holds {array.dtype}; expected one of: {accepted}")
    if array.ndim != 2:
        raise InputError(f"b has shape {array.shape}; expected (K, N)")
    # Strides stay: packing reads any.
    array = np.require(array, array.dtype.newbyteorder("="), "A")
    k, n = array.shape
    codes = array.dtype in BYTE_DTYPES
    zeros = scales = start = None
    if not codes and (zero_point is not None or scale is not None):
        raise InputError(f"b holds {array.dtype}; only uint8 and int8 have a zero point and scale")
    if zero_point is not None:
        zeros = one_or_each(typed_array(zero_point, "zero_point", [array.dtype]), "zero_point", n)
    if scale is not None:
        scales = one_or_each(scale_array(scale, "scale"), "scale", n)
    if bias is not None:
        start = one_or_each(typed_array(bias, "bias", _bias_dtypes(codes)), "bias", n)
    if codes:
        shifted = array.dtype == np.uint8 or (zeros is not None and bool(zeros.any()))
        deepest = SAFE_DEPTH if shifted else SAFE_DEPTH_SYMMETRIC
        if k > deepest:
            raise InputError(
                f"b is {k} deep; expected at most {deepest}, so that no sum can leave int32: "
                "pass deeper weights to the product unpacked"
            )
    packed = PackedWeights(array, array.dtype, zeros, scales, start)
    if codes and not packed.fits_s32:
        raise QuantizationError(
            "with this bias a sum could leave int32; raise the scale until the bias is smaller, or "
            "give it as float32"
        )
    return packed


def _bias_dtypes(codes: bool) -> list[np.dtype[Any]]:
    return [FLOAT32, INT32] if codes else [FLOAT32]


def linear(
    a: ArrayLike,
    weights: PackedWeights,
    *,
    a_scale: ArrayLike | None = None,
    a_zero_point: ArrayLike | None = None,
    activation: Activation | None = None,
    residual: ArrayLike | None = None,
    residual_scale: ArrayLike | None = None,
    residual_zero_point: ArrayLike | None = None,
    y_scale: ArrayLike | None = None,
    y_zero_point: ArrayLike | None = None,
    out_dtype: DTypeLike = np.float32,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return a linear layer: activation(a @ weights + bias + residual), as reals or as codes.

    Args:
        a: Shape (..., M, K) or (K,). For packed uint8 and int8 weights: uint8 or int8 codes, or
            float32, whose rows are each quantised by their own range (dynamic_quantize_linear).
            For others: the weights' dtype.
        weights: From pack_weights; of codes: with their scale.
        a_scale: Real units per code of `a`, shape (), or (rows,) for real results.
        a_zero_point: Of `a`'s dtype, shape (), or (rows,) for real results; 0 if None.
        activation: A name of `activations.ACTIVATIONS`, or (name, parameters...).
        residual: Added before the activation: the result's shape; float32, bfloat16 or codes.
        residual_scale: Real units per code of a residual of codes, shape ().
        residual_zero_point: Shape (), of the residual's dtype; 0 if None.
        y_scale: Real units per code of the result, shape (); for a result of codes.
        y_zero_point: Shape (); uint8 or int8, which is then the dtype of the result.
        out_dtype: Of real results: numpy.float32 or ml_dtypes.bfloat16.
        out: Written to if given: the result's shape and dtype.

    Returns:
        Shape (..., M, N), or (N,) for a vector `a`.

    Raises:
        InputError: wrong dtypes, shapes that do not fit together, or an unfitting `out`.
        QuantizationError: a scale that is not finite and above 0; NaN or infinity in float32 rows
            to be quantised.
    """
    y_dtype = FLOAT32 if out_dtype is np.float32 else np.dtype(out_dtype)
    ops = operators(activation)
    if (
        residual is None
        and residual_scale is None
        and residual_zero_point is None
        and y_dtype in REAL_DTYPES
    ):
        layer = _core.multiply_layer(
            a, weights, ops, a_scale, a_zero_point, y_scale, y_zero_point, out, y_dtype.num
        )
        if layer is not None:
            return layer
    if not isinstance(weights, PackedWeights):
        raise InputError(f"weights are a {type(weights).__name__}; expected pack_weights(...)")
    _kernels.chosen_isa()
    codes = weights.dtype in BYTE_DTYPES
    source = typed_array(a, "a", [*BYTE_DTYPES, FLOAT32] if codes else [weights.dtype])
    rows, _, shape = matrices(source, weights)
    count, (k, n) = int(np.prod(rows.shape[:-1])), weights.shape
    parameters: dict[str, Any] = {}
    if codes and weights.scale is None:
        raise InputError("weights are packed without a scale; give pack_weights the scale=")
    if source.dtype in BYTE_DTYPES:
        if a_scale is None:
            raise InputError("a_scale is None; codes of a need their scale")
        scales = one_or_each(scale_array(a_scale, "a_scale"), "a_scale", count)
        zeros = np.zeros((), source.dtype)
        if a_zero_point is not None:
            zeros = typed_array(a_zero_point, "a_zero_point", [source.dtype])
            zeros = one_or_each(zeros, "a_zero_point", count)
        parameters = _of_rows("a_scale", "row_scales", scales, np.float32)
        parameters |= _of_rows("a_zero_point", "row_zero_points", zeros, np.int32)
    elif a_scale is not None or a_zero_point is not None:
        raise InputError(f"a holds {source.dtype}, which has no a_scale or a_zero_point")
    if y_zero_point is not None or y_scale is not None:
        y_zero = code_array(_given(y_zero_point, "y_zero_point"), "y_zero_point")
        y_zero = one_or_each(typed_array(y_zero, "y_zero_point", BYTE_DTYPES), "y_zero_point", 1)
        step = one_or_each(scale_array(_given(y_scale, "y_scale"), "y_scale"), "y_scale", 1)
        parameters |= {"y_zero_point": y_zero.item(), "y_scale": step.item()}
        y_dtype = y_zero.dtype
        if "row_scales" in parameters or (codes and source.dtype == FLOAT32):
            raise InputError("a has one scale per row; expected none for a result of codes")
    elif y_dtype not in REAL_DTYPES:
        raise InputError(f"out_dtype is {y_dtype}; expected float32 or bfloat16")
    others = [source]
    if residual is not None:
        added = _residual(residual, residual_scale, residual_zero_point, parameters)
        if added.shape != shape:
            raise InputError(f"residual has shape {added.shape}; expected {shape}")
        parameters["residual"] = added.reshape(1, count, n)
        ops = (ADD_RESIDUAL, *ops)
        others.append(added)
    elif residual_scale is not None or residual_zero_point is not None:
        raise InputError("residual is None; a residual_scale or residual_zero_point needs one")
    check_out(out, shape, y_dtype)
    result = product_array(out, shape, y_dtype, *others)
    unfit = _core.linear(
        rows.reshape(1, count, k), weights, result.reshape(1, count, n), ops=ops, **parameters
    )
    if unfit:
        raise QuantizationError(
            f"a holds {unfit} NaN or infinite values; only rows of finite values have a range to "
            "quantise by"
        )
    return delivered(result, out)


def _of_rows(
    one: str, each: str, values: NDArray[Any], dtype: DTypeLike
) -> dict[str, float | int | NDArray[Any]]:
    """Return the argument for one value of all rows, or one value each."""
    if values.size == 1:
        return {one: values.item()}
    return {each: np.ascontiguousarray(values, dtype)}


def _residual(
    residual: ArrayLike,
    scale: ArrayLike | None,
    zero_point: ArrayLike | None,
    parameters: dict[str, Any],
) -> NDArray[Any]:
    added = typed_array(residual, "residual", [FLOAT32, BFLOAT16, *BYTE_DTYPES])
    if added.dtype not in BYTE_DTYPES:
        if scale is not None or zero_point is not None:
            raise InputError(f"residual holds {added.dtype}, which has no scale or zero point")
        return added
    name = "residual_scale"
    steps = one_or_each(scale_array(_given(scale, name), name), name, 1)
    parameters["residual_scale"] = steps.item()
    if zero_point is not None:
        zeros = typed_array(zero_point, "residual_zero_point", [added.dtype])
        parameters["residual_zero_point"] = one_or_each(zeros, "residual_zero_point", 1).item()
    return added


def _given(value: ArrayLike | None, name: str) -> ArrayLike:
    if value is None:
        raise InputError(f"{name} is None; expected a value: codes need a scale and a zero point")
    return value


__all__ = ["PackedWeights", "linear", "pack_weights"]
