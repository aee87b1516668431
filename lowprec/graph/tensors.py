"""Check what tensors declare against what they hold, before any memory is reserved for them."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx_ir as ir

from lowprec.errors import ModelError

# A sparse tensor declares its dense size freely: ten bytes can ask for a terabyte.
DENSE_LIMIT = 2**30  # bytes

_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def declared_bytes(tensor: onnx.TensorProto) -> int:
    """Return the bytes that `tensor`'s declared shape and type need.

    Raises:
        ModelError: a dimension is negative, or the type is unknown or has no fixed size.
    """
    if any(dim < 0 for dim in tensor.dims):
        raise ModelError(
            f"tensor '{tensor.name}' declares the negative shape {list(tensor.dims)}; "
            "export the model again"
        )
    try:
        dtype = ir.DataType(tensor.data_type)
        bits: int = dtype.bitwidth
    except (ValueError, TypeError):
        raise ModelError(
            f"tensor '{tensor.name}' has the unknown data type {tensor.data_type}; "
            f"the installed onnx {onnx.__version__} knows {_known_types()}"
        ) from None
    elements: int = math.prod(tensor.dims)
    return (elements * bits + 7) // 8


def check_inline_size(tensor: onnx.TensorProto) -> None:
    """Raise ModelError unless `tensor` holds exactly as much data as its shape and type declare."""
    elements: int = math.prod(tensor.dims)
    if tensor.data_type == onnx.TensorProto.STRING:
        held, expected, unit = len(tensor.string_data), elements, "strings"
    elif tensor.HasField("raw_data"):
        held, expected, unit = len(tensor.raw_data), declared_bytes(tensor), "bytes"
    else:
        held, expected, unit = _typed_elements(tensor), _expected_fields(tensor), "numbers"
    if held != expected:
        raise ModelError(
            f"tensor '{tensor.name}' of shape {list(tensor.dims)} needs {expected} {unit} but "
            f"holds {held}; the file is damaged, export the model again"
        )


def _typed_elements(tensor: onnx.TensorProto) -> int:
    return max(len(getattr(tensor, field)) for field in _TYPED_FIELDS)


def _expected_fields(tensor: onnx.TensorProto) -> int:
    elements: int = math.prod(tensor.dims)
    total = declared_bytes(tensor)
    if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        return 2 * elements
    if ir.DataType(tensor.data_type).bitwidth < 8:
        return total  # sub-byte elements are packed, one byte of them in each int32
    return elements


def _known_types() -> str:
    return ", ".join(name for name in ir.DataType.__members__ if name != "UNDEFINED")


def to_dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """Return `sparse` as an ordinary tensor of the same name and values.

    Raises:
        ModelError: its indices do not fit its shape, or the dense form needs more than DENSE_LIMIT.
    """
    name = sparse.values.name
    shape = tuple(sparse.dims)
    values = onnx.numpy_helper.to_array(sparse.values)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    elements = math.prod(shape)
    if any(dim < 0 for dim in shape) or elements * values.dtype.itemsize > DENSE_LIMIT:
        raise ModelError(
            f"sparse tensor '{name}' of shape {list(shape)} is too large to be stored densely "
            f"(limit {DENSE_LIMIT >> 30} GiB); export the model with dense weights"
        )
    if indices.ndim == 2 and indices.shape == (values.size, len(shape)):
        within = bool((indices >= 0).all() and (indices < np.asarray(shape, np.int64)).all())
        flat = indices @ np.asarray(
            [math.prod(shape[axis + 1 :]) for axis in range(len(shape))], np.int64
        )
    else:
        flat = indices.reshape(-1)
        within = flat.size == values.size and bool(((flat >= 0) & (flat < elements)).all())
    if not within:
        raise ModelError(
            f"sparse tensor '{name}' has indices outside its shape {list(shape)}; "
            "the file is damaged, export the model again"
        )
    dense = np.zeros(elements, values.dtype)
    dense[flat] = values.reshape(-1)
    return onnx.numpy_helper.from_array(dense.reshape(shape), name)
