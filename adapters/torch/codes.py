"""Graphs of prepared modules: weights become codes, and codes go on to the layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant

_Array = NDArray[Any]

_SAME_CODES = (
    "Flatten",
    "Identity",
    "MaxPool",
    "Relu",
    "Reshape",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)


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


def extend_codes(graph: ir.Graph) -> None:
    """Let layers read codes through operators that map the codes of a tensor to themselves.

    An observed tensor is often rectified or reshaped before the layer that it is for, and torch.ao
    does that on codes without observing the result: quantising it again with the same scale is
    exact.
    """
    for node in [*graph]:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2:
            continue
        value, weight = node.inputs[0], node.inputs[1]
        if value is None or not _is_from(weight, "DequantizeLinear"):
            continue
        source = value.producer()
        while source is not None and source.op_type in _SAME_CODES:
            first = source.inputs[0]
            source = None if first is None else first.producer()
        if source is None or source.op_type != "DequantizeLinear" or source is value.producer():
            continue
        zero_point = source.inputs[2] if len(source.inputs) > 2 else None
        if zero_point is None or _constant(source.inputs[1]) is None:
            continue
        quantize = ir.node("QuantizeLinear", [value, source.inputs[1], zero_point])
        real = ir.node("DequantizeLinear", [quantize.outputs[0], source.inputs[1], zero_point])
        for made, suffix in ((quantize, "codes"), (real, "real")):
            made.metadata_props.update(node.metadata_props)
            made.outputs[0].name = f"{value.name}_{node.outputs[0].name}_{suffix}"
            graph.insert_before(node, made)
        node.replace_input_with(0, real.outputs[0])


def _is_from(value: ir.Value | None, op: str) -> bool:
    """Return whether `value` is made by `op`, transposed perhaps."""
    producer = None if value is None else value.producer()
    while producer is not None and producer.op_type in ("Transpose", "Identity"):
        first = producer.inputs[0]
        producer = None if first is None else first.producer()
    return producer is not None and producer.op_type == op


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
