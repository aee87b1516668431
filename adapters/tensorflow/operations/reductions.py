"""Sums, means and extremes over axes; where the largest entries are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.numbers import axis_in, cast, sizes
from lowprec.adapters.tensorflow.translator import Array, Translator, translates

_REDUCTIONS: dict[str, tuple[str, Callable[..., Any]]] = {
    "Sum": ("ReduceSum", np.sum),
    "Mean": ("ReduceMean", np.mean),
    "Max": ("ReduceMax", np.max),
    "Min": ("ReduceMin", np.min),
    "Prod": ("ReduceProd", np.prod),
    "EuclideanNorm": ("ReduceL2", np.linalg.norm),
    "All": ("", np.all),
    "Any": ("", np.any),
}


@translates(*_REDUCTIONS)
def _reduce(translator: Translator, node: Node) -> ir.Value | Array:
    name, function = _REDUCTIONS[node.op]
    keep = bool(node.attributes.get("keep_dims"))
    known, given = translator.known(node, 0), translator.known(node, 1)
    if given is None:  # computed axes: all of them, where the rank is open
        inputs = [translator.value(node, 0), sizes(translator, node, 1)]
        return translator.emit(name, inputs, {"keepdims": int(keep)}, name=node.name)
    axes = np.asarray(
        sorted({axis_in(translator, node, 0, int(axis)) for axis in given.reshape(-1)}), np.int64
    )
    if known is not None and node.op != "EuclideanNorm":
        made = function(known, axis=tuple(axes.tolist()), keepdims=keep)
        return np.asarray(made, known.dtype)
    value = translator.value(node, 0)
    if not axes.size:
        return value
    at = translator.new_constant(axes, f"{node.name}/axes")
    attributes = {"keepdims": int(keep)}
    dtype = np.dtype(node.attributes.get("T") or np.bool_)
    if node.op == "Mean" and dtype.kind in "iu" and dtype != np.int64:
        # TensorFlow sums small integers in a wider type.
        wide = cast(translator, value, np.int64, f"{node.name}/wide")
        mean = translator.emit(name, [wide, at], attributes, name=f"{node.name}/mean")
        return cast(translator, mean, dtype, node.name)
    if name:
        return translator.emit(name, [value, at], attributes, name=node.name)
    # Counted, as nothing at all has no extreme: any is some that are true, all is none that is not.
    if node.op == "All":
        value = translator.emit("Not", [value], name=f"{node.name}/not")
    number = cast(translator, value, np.int32, f"{node.name}/int")
    count = translator.emit("ReduceSum", [number, at], attributes, name=f"{node.name}/count")
    if node.op == "Any":
        return cast(translator, count, np.bool_, node.name)
    some = cast(translator, count, np.bool_, f"{node.name}/some")
    return translator.emit("Not", [some], name=node.name)


@translates("ArgMax", "ArgMin")
def _where_extreme(translator: Translator, node: Node) -> ir.Value:
    axis = int(translator.constant(node, 1).reshape(())) if len(node.inputs) > 1 else 0
    axis = axis_in(translator, node, 0, axis)
    found = translator.emit(
        node.op, [translator.value(node, 0)], {"axis": axis, "keepdims": 0}, name=node.name
    )
    dtype = node.attributes.get("output_type") or np.dtype(np.int64)
    return found if dtype == np.int64 else cast(translator, found, dtype, f"{node.name}/cast")


@translates("Cumsum")
def _cumulative_sum(translator: Translator, node: Node) -> ir.Value | Array:
    given, known = translator.constant(node, 1), translator.known(node, 0)
    axis = axis_in(translator, node, 0, int(given.reshape(())))
    attributes = {name: int(bool(node.attributes.get(name))) for name in ("exclusive", "reverse")}
    if known is not None and not any(attributes.values()):
        return np.cumsum(known, axis, dtype=known.dtype)
    at = translator.new_constant(np.asarray(axis, np.int64), f"{node.name}/axis")
    return translator.emit("CumSum", [translator.value(node, 0), at], attributes, name=node.name)


@translates("Softmax", "LogSoftmax")
def _softmax(translator: Translator, node: Node) -> ir.Value:
    return translator.emit(node.op, [translator.value(node, 0)], {"axis": -1}, name=node.name)
