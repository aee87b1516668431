"""What lowprec.numerics accepts: arguments are checked here, once, and trusted below."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, cast

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lowprec._ext import _core
from lowprec.errors import InputError, QuantizationError

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype(np.float32)
CODE_DTYPES = tuple(np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "int32"))
CODE_NAMES = "uint8, int8, uint16, int16 or int32"
BYTE_DTYPES = CODE_DTYPES[:2]
CODE_SOURCES = frozenset(CODE_DTYPES)
# Floats that the compiled functions read as they are.
FLOAT_SOURCES = frozenset({np.dtype(name) for name in ("f4", "f2", "f8")} | {BFLOAT16})


def real_array(x: ArrayLike, name: str) -> NDArray[np.float32]:
    """Return `x` as C-contiguous float32; other float dtypes are rounded to it.

    Raises:
        InputError: `x` does not hold floats.
    """
    array = np.asarray(x)
    if array.dtype == FLOAT32:
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)
    if not (np.issubdtype(array.dtype, np.floating) or array.dtype == BFLOAT16):
        raise InputError(
            f"{name} holds {array.dtype}; expected float32 (or float16, bfloat16, float64): "
            f"convert it with {name}.astype(np.float32)"
        )
    with np.errstate(over="ignore", under="ignore"), _core.FloatState():
        return np.require(array, np.float32, "C")


def float_source(x: ArrayLike, name: str) -> NDArray[Any]:
    """Return `x` as an array of any strides that the compiled functions round to float32.

    Raises:
        InputError: `x` does not hold floats.
    """
    array = np.asarray(x)
    return array if array.dtype in FLOAT_SOURCES else real_array(array, name)


def typed_source(x: ArrayLike, name: str, dtypes: Sequence[np.dtype[Any]]) -> NDArray[Any]:
    """Return `x` as an array of any strides whose dtype is one of `dtypes`, in native byte order.

    Raises:
        InputError: another dtype.
    """
    array = np.asarray(x)
    if array.dtype in dtypes and array.dtype.isnative:
        return array
    native = array.dtype.newbyteorder("=")
    if native not in dtypes:
        accepted = " or ".join(str(dtype) for dtype in dtypes)
        raise InputError(f"{name} holds {array.dtype}; expected {accepted}")
    return array.astype(native)


def typed_array(x: ArrayLike, name: str, dtypes: Sequence[np.dtype[Any]]) -> NDArray[Any]:
    """Return `x` as a C-contiguous array whose dtype is one of `dtypes`; no conversion of values.

    Raises:
        InputError: another dtype.
    """
    array = typed_source(x, name, dtypes)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def code_array(x: ArrayLike, name: str) -> NDArray[Any]:
    """Return codes or a zero point as an array; its dtype says which kind of code.

    Raises:
        InputError: not an integer dtype that codes have.
    """
    array = code_source(x, name)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def code_source(x: ArrayLike, name: str) -> NDArray[Any]:
    """Return codes as an array of any strides, in native byte order.

    Raises:
        InputError: not an integer dtype that codes have.
    """
    array = np.asarray(x)
    if array.dtype in CODE_SOURCES:
        return array
    if array.dtype.newbyteorder("=") not in CODE_DTYPES:
        raise InputError(
            f"{name} holds {array.dtype}; expected {CODE_NAMES}, for example np.uint8(0): "
            "the dtype says which codes are meant"
        )
    return typed_source(array, name, CODE_DTYPES)


def scale_array(scale: ArrayLike, name: str = "scale") -> NDArray[np.float32]:
    """Return scales as float32.

    Raises:
        InputError: not floats.
        QuantizationError: a scale that is not finite or not above 0 (in float32).
    """
    array = real_array(scale if not isinstance(scale, int) else float(scale), name)
    if array.ndim == 0 and 0 < array.item() < math.inf:
        return array
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
    """Return memory of any strides to compute into: `out` where that is safe, else new memory.

    Safe is an `out` that shares no memory with a source, or lies exactly on it.

    Raises:
        InputError: as check_out.
    """
    check_out(out, shape, dtype)
    if out is None:
        return np.empty(shape, dtype)
    for source in sources:
        if np.may_share_memory(out, source) and not _lies_on(out, source):
            return np.empty(shape, dtype)
    return out


def product_array(
    out: NDArray[Any] | None, shape: tuple[int, ...], dtype: DTypeLike, *sources: NDArray[Any]
) -> NDArray[Any]:
    """Return C-contiguous memory to compute into that no source shares: `out`, else new memory.

    Raises:
        InputError: as check_out.
    """
    check_out(out, shape, dtype)
    if out is None or not out.flags.c_contiguous:
        return np.empty(shape, dtype)
    shared = any(np.may_share_memory(out, source) for source in sources)
    return np.empty(shape, dtype) if shared else out


def _lies_on(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Say whether each element of `a` has the memory of the same element of `b`."""
    return (
        a.ctypes.data == b.ctypes.data
        and (a.shape, a.strides, a.itemsize) == (b.shape, b.strides, b.itemsize)
        and 0 not in a.strides
    )


def delivered(result: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any]:
    """Return `out` holding `result`, or `result` where no `out` was asked for."""
    if out is None or out is result:
        return result
    out[...] = result
    return out


def per_block(
    parameter: NDArray[Any], name: str, shape: tuple[int, ...], axis: int, block_size: int
) -> NDArray[Any]:
    """Return one parameter per block: `shape`, but ceil(shape[axis] / block_size) along `axis`.

    Raises:
        InputError: the parameter's shape does not fit.
    """
    blocks = -(-shape[axis] // block_size)
    expected = (*shape[:axis], blocks, *shape[axis + 1 :])
    if parameter.ndim == 0:
        return np.broadcast_to(parameter, expected)
    if parameter.shape != expected:
        raise InputError(
            f"{name} has shape {parameter.shape}; expected {expected}, one value per {block_size} "
            f"elements along axis {axis} of an array of shape {shape}"
        )
    return parameter


class MatrixLike(Protocol):
    """Something with a shape: an array, or packed weights."""

    @property
    def shape(self) -> tuple[int, ...]: ...


Right = TypeVar("Right", bound=MatrixLike)


def matrices(a: NDArray[Any], b: Right) -> tuple[NDArray[Any], Right, tuple[int, ...]]:
    """Return both operands with at least two axes, and the shape of numpy.matmul's result.

    Raises:
        InputError: an operand without axes, or shapes that do not fit together.
    """
    if a.ndim == 0 or len(b.shape) == 0:
        raise InputError(f"a has shape {a.shape} and b {b.shape}; expected at least one axis each")
    rows = a[None, :] if a.ndim == 1 else a
    columns = cast("Right", b[:, None]) if isinstance(b, np.ndarray) and b.ndim == 1 else b
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
    kept_columns = columns.shape[-1:] if len(b.shape) > 1 else ()
    return rows, columns, (*batch, *kept_rows, *kept_columns)


def one_or_each(parameter: NDArray[Any], name: str, size: int) -> NDArray[Any]:
    """Return `parameter` if its shape is (), (1,) or (size,).

    Raises:
        InputError: another shape.
    """
    if parameter.shape in ((), (1,), (size,)):
        return parameter
    accepted = "()" if size == 1 else f"() or ({size},)"
    raise InputError(f"{name} has shape {parameter.shape}; expected {accepted}")
