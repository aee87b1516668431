"""Weights that are quantised in the graph become codes in the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.passes.matching import add_constant

_Array = NDArray[Any]


def store_codes(graph: ir.Graph) -> None:
    """Replace quantised constants by their codes: weight ─► Quantize ─► becomes codes ─►.

    Rounds as PyTorch does, x * (1 / scale) to the nearest even code: the codes are those that the
    module computes with.
    """
    for node in [*graph]:
        found = _evaluate(node)
        if found is None:
            continue
        output = node.outputs[0]
        output.replace_all_uses_with(add_constant(graph, f"{output.name}_codes", found))
        graph.remove(node, safe=True)


def _evaluate(node: ir.Node) -> _Array | None:
    """Return the value of `node`; None where it is not constant, or no part of quantising."""
    if node.op_type not in ("QuantizeLinear", "Clip", "Cast", "Identity"):
        return None
    arrays = [_constant(value) for value in node.inputs]
    if not arrays or any(array is None for array in arrays):
        return None
    known: list[_Array] = [array for array in arrays if array is not None]
    if node.outputs[0].is_graph_output():
        return None
    if node.op_type == "QuantizeLinear" and len(known) == 3:
        return _codes(node, *known)
    if node.op_type == "Clip" and len(known) == 3:
        clipped: _Array = np.clip(known[0], known[1], known[2])
        return clipped
    if node.op_type == "Cast" and known[0].dtype.kind in "iu":
        kind = ir.DataType(node.attributes["to"].as_int())
        return known[0].astype(kind.numpy()) if kind.is_integer() else None
    return known[0] if node.op_type == "Identity" else None


def _codes(node: ir.Node, x: _Array, scale: _Array, zero_point: _Array) -> _Array | None:
    if zero_point.dtype.kind not in "iu" or x.dtype.kind != "f":
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    shape = [1] * x.ndim
    if scale.size > 1:
        shape[axis] = scale.size
    inverse = (np.float32(1) / scale.astype(np.float32)).reshape(shape if scale.size > 1 else ())
    zero = zero_point.reshape(shape if zero_point.size > 1 else ())
    limits = np.iinfo(zero_point.dtype)
    codes = np.rint(x.astype(np.float32) * inverse) + zero
    found: _Array = np.clip(codes, limits.min, limits.max).astype(zero_point.dtype)
    return found


def _constant(value: ir.Value | None) -> _Array | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()
