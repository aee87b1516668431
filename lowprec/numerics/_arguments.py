"""What lowprec.numerics accepts: arguments are checked here, once, and trusted below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lowprec._ext import _core
from lowprec.errors import InputError, QuantizationError

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
CODE_DTYPES = tuple(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "int32"))
CODE_NAMES = "uint8, int8, uint16, int16 or int32"
BYTE_DTYPES = CODE_DTYPES[:2]


def real_array(x: ArrayLike, name: str) -> NDArray[np.float32]:
    """Return `x` as C-contiguous float32; other float dtypes are rounded to it.

    Raises:
        InputError: `x` does not hold floats.
    """
    array = np.asarray(x)
    if not (np.issubdtype(array.dtype, np.floating) or array.dtype == BFLOAT16):
        raise InputError(
            f"{name} holds {array.dtype}; expected float32 (or float16, bfloat16, float64): "
            f"convert it with {name}.astype(np.float32)"
        )
    with np.errstate(over="ignore", under="ignore"), _core.FloatState():
        return np.require(array, np.float32, "C")


def typed_array(x: ArrayLike, name: str, dtypes: Sequence[np.dtype[Any]]) -> NDArray[Any]:
    """Return `x` as a C-contiguous array whose dtype is one of `dtypes`; no conversion of values.

    Raises:
        InputError: another dtype.
    """
    array = np.asarray(x)
    native = array.dtype.newbyteorder("=")
    if native not in dtypes:
        accepted = " or ".join(str(dtype) for dtype in dtypes)
        raise InputError(f"{name} holds {array.dtype}; expected {accepted}")
    return np.require(array, native, "C")


def code_array(x: ArrayLike, name: str) -> NDArray[Any]:
    """Return codes or a zero point as an array; its dtype says which kind of code.

    Raises:
        InputError: not an integer dtype that codes have.
    """
    array = np.asarray(x)
    if array.dtype.newbyteorder("=") not in CODE_DTYPES:
        raise InputError(
            f"{name} holds {array.dtype}; expected {CODE_NAMES}, for example np.uint8(0): "
            "the dtype says which codes are meant"
        )
    return typed_array(array, name, CODE_DTYPES)


def scale_array(scale: ArrayLike, name: str = "scale") -> NDArray[np.float32]:
    """Return scales as float32.

    Raises:
        InputError: not floats.
        QuantizationError: a scale that is not finite or not above 0 (in float32).
    """
    array = real_array(scale if not isinstance(scale, int) else float(scale), name)
    bad = ~(np.isfinite(array) & (array > 0))
    if bad.any():
        raise QuantizationError(
            f"{name} holds {array[bad].flat[0]!s}; a scale must be a finite number above 0: "
            "choose_qparams returns one for every finite range"
        )
    return array


def normalised_axis(axis: int, ndim: int) -> int:
    """Return `axis` counted from the front.

    Raises:
        InputError: no such axis.
    """
    if not -ndim <= axis < ndim:
        raise InputError(f"axis is {axis}; expected {-ndim} to {ndim - 1} for {ndim} dimensions")
    return axis % ndim


def per_channel(
    parameter: NDArray[Any], name: str, shape: tuple[int, ...], axis: int | None
) -> NDArray[Any]:
    """Return one parameter per channel: (1,) for the whole tensor, else (C,) along `axis`.

    Raises:
        InputError: the parameter's shape does not fit.
    """
    if parameter.size == 1 and parameter.ndim <= 1:
        channels = 1 if axis is None else shape[axis]
        return np.broadcast_to(parameter.reshape(1), channels)
    if axis is None:
        raise InputError(
            f"{name} has shape {parameter.shape}; expected one value, or axis= with one per channel"
        )
    if parameter.shape != (shape[axis],):
        raise InputError(
            f"{name} has shape {parameter.shape}; expected () or ({shape[axis]},), "
            f"one value per index of axis {axis} of an array of shape {shape}"
        )
    return parameter


def check_out(out: NDArray[Any] | None, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Refuse an `out` that cannot hold a result of this shape and dtype.

    Raises:
        InputError: `out` is given and is not a writable array of this shape and dtype.
    """
    if out is None:
        return
    dtype = np.dtype(dtype)
    if not isinstance(out, np.ndarray):
        raise InputError(f"out is a {type(out).__name__}; expected a numpy array")
    if out.shape != shape or out.dtype != dtype:
        raise InputError(
            f"out is {out.dtype}{list(out.shape)}; expected {dtype}{list(shape)} to fit the result"
        )
    if not out.flags.writeable:
        raise InputError("out is read-only; pass a writable array, or none to get a new one")


def result_array(
    out: NDArray[Any] | None, shape: tuple[int, ...], dtype: DTypeLike, *sources: NDArray[Any]
) -> NDArray[Any]:
    """Return C-contiguous memory to compute into: `out` itself where that is safe, else new memory.

    Raises:
        InputError: as check_out.
    """
    check_out(out, shape, dtype)
    if out is None or not out.flags.c_contiguous:
        return np.empty(shape, dtype)
    overlaps = any(np.may_share_memory(out, source) for source in sources)
    return np.empty(shape, dtype) if overlaps else out


def delivered(result: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any]:
    """Return `out` holding `result`, or `result` where no `out` was asked for."""
    if out is None or out is result:
        return result
    out[...] = result
    return out


def channel_rows(x: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """Return `x` as a C-contiguous (channels, elements) matrix; copied unless `axis` is 0."""
    if axis is None:
        return x.reshape(1, -1)
    channels = x.shape[axis]
    rest = x.size // channels if channels else 0
    return np.ascontiguousarray(np.moveaxis(x, axis, 0)).reshape(channels, rest)
