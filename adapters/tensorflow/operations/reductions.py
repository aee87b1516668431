"""Sums, means and extremes over axes; where the largest entries are."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.translator import Array, Translator, translates

_REDUCTIONS = {
    "Sum": ("ReduceSum", np.sum),
    "Mean": ("ReduceMean", np.mean),
    "Max": ("ReduceMax", np.max),
    "Min": ("ReduceMin", np.min),
    "Prod": ("ReduceProd", np.prod),
    "EuclideanNorm": ("ReduceL2", None),
}


@translates(*_REDUCTIONS)
def _reduce(translator: Translator, node: Node) -> ir.Value | Array:
    name, function = _REDUCTIONS[node.op]
    axes = translator.constant(node, 1).reshape(-1).astype(np.int64)
    keep = bool(node.attributes.get("keep_dims"))
    known = translator.known(node, 0)
    if known is not None and function is not None:
        made = function(known, axis=tuple(axes.tolist()), keepdims=keep)  # type: ignore[operator]
        return np.asarray(made, known.dtype)
    if not axes.size:
        return translator.value(node, 0)
    return translator.emit(
        name,
        [translator.value(node, 0), translator.new_constant(axes, f"{node.name}/axes")],
        {"keepdims": int(keep)},
        name=node.name,
    )


@translates("All", "Any")
def _logical(translator: Translator, node: Node) -> ir.Value:
    axes = translator.constant(node, 1).reshape(-1).astype(np.int64)
    number = translator.emit(
        "Cast", [translator.value(node, 0)], {"to": int(ir.DataType.INT32)}, name=f"{node.name}/int"
    )
    reduced = translator.emit(
        "ReduceMin" if node.op == "All" else "ReduceMax",
        [number, translator.new_constant(axes, f"{node.name}/axes")],
        {"keepdims": int(bool(node.attributes.get("keep_dims")))},
        name=f"{node.name}/reduced",
    )
    return translator.emit("Cast", [reduced], {"to": int(ir.DataType.BOOL)}, name=node.name)


@translates("ArgMax", "ArgMin")
def _where_extreme(translator: Translator, node: Node) -> ir.Value:
    axis = int(translator.constant(node, 1))
    found = translator.emit(
        node.op, [translator.value(node, 0)], {"axis": axis, "keepdims": 0}, name=node.name
    )
    dtype = node.attributes.get("output_type") or np.dtype(np.int64)
    if dtype == np.int64:
        return found
    to = int(ir.DataType.from_numpy(dtype))
    return translator.emit("Cast", [found], {"to": to}, name=f"{node.name}/cast")


@translates("TopKV2")
def _top_k(translator: Translator, node: Node) -> list[ir.Value]:
    count = translator.constant(node, 1).reshape(1).astype(np.int64)
    values = translator.emit(
        "TopK",
        [translator.value(node, 0), translator.new_constant(count, f"{node.name}/k")],
        {"axis": -1, "largest": 1, "sorted": int(bool(node.attributes.get("sorted", True)))},
        name=node.name,
        outputs=2,
    )
    producer = values.producer()
    assert producer is not None
    indices: Any = producer.outputs[1]
    to = int(ir.DataType.INT32)
    return [values, translator.emit("Cast", [indices], {"to": to}, name=f"{node.name}/indices")]


@translates("Cumsum")
def _cumulative_sum(translator: Translator, node: Node) -> ir.Value:
    axis = np.asarray(int(translator.constant(node, 1)), np.int64)
    attributes = {name: int(bool(node.attributes.get(name))) for name in ("exclusive", "reverse")}
    inputs = [translator.value(node, 0), translator.new_constant(axis, f"{node.name}/axis")]
    return translator.emit("CumSum", inputs, attributes, name=node.name)


@translates("Softmax", "LogSoftmax")
def _softmax(translator: Translator, node: Node) -> ir.Value:
    return translator.emit(node.op, [translator.value(node, 0)], {"axis": -1}, name=node.name)
