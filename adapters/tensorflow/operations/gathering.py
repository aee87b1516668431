"""Reading and writing entries by their indices, and counting them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.numbers import (
    affordable,
    as_int64,
    axis_in,
    cast,
    sizes,
    vector,
)
from lowprec.adapters.tensorflow.translator import Array, Translator, translates
from lowprec.errors import ModelError, UnsupportedError


@translates("GatherV2", "Gather", "ResourceGather")
def _gather(translator: Translator, node: Node) -> ir.Value | Array:
    known, indices = translator.known(node, 0), translator.known(node, 1)
    axis = int(translator.constant(node, 2).reshape(())) if node.op == "GatherV2" else 0
    axis = axis_in(translator, node, 0, axis)
    batch = int(node.attributes.get("batch_dims") or 0)
    if batch < 0:
        batch += translator.rank(node, 1)
    if batch:
        return _gather_in_batches(translator, node, axis, batch, translator.rank(node, 0))
    if known is not None and indices is not None:
        affordable(node, [*indices.shape, *(n for i, n in enumerate(known.shape) if i != axis)])
        return np.asarray(np.take(known, indices, axis))
    inputs = [translator.value(node, 0), translator.value(node, 1)]
    return translator.emit("Gather", inputs, {"axis": axis}, name=node.name)


def _gather_in_batches(
    translator: Translator, node: Node, axis: int, batch: int, rank: int
) -> ir.Value:
    if not batch <= axis:
        raise ModelError(f"node '{node.name}' (GatherV2) has {batch} batch axes and axis {axis}")
    value = translator.value(node, 0)
    indices = as_int64(translator, node, 1)
    last = vector(translator, [translator.rank(node, 1)], f"{node.name}/last")
    at = translator.emit("Unsqueeze", [indices, last], name=f"{node.name}/indices")
    between = list(range(batch, axis))
    if between:
        perm = [*range(batch), axis, *between, *range(axis + 1, rank)]
        value = translator.emit("Transpose", [value], {"perm": perm}, name=f"{node.name}/turned")
    made = translator.emit("GatherND", [value, at], {"batch_dims": batch}, name=node.name)
    if between:
        count = translator.rank(node, 1) - batch  # axes of the indices, now before `between`
        after = batch + count
        moved = list(range(after, after + len(between)))
        rest = range(after + len(between), rank - 1 + count)
        perm = [*range(batch), *moved, *range(batch, after), *rest]
        made = translator.emit("Transpose", [made], {"perm": perm}, name=f"{node.name}/back")
    return made


@translates("GatherNd", "ResourceGatherNd")
def _gather_nd(translator: Translator, node: Node) -> ir.Value:
    indices = as_int64(translator, node, 1)
    return translator.emit("GatherND", [translator.value(node, 0), indices], name=node.name)


@translates("ScatterNd")
def _scatter(translator: Translator, node: Node) -> ir.Value:
    dtype = np.dtype(node.attributes["T"])
    shape = translator.known(node, 2)
    if shape is not None:
        zeros = translator.new_constant(np.zeros(affordable(node, shape.reshape(-1)), dtype))
    else:
        zero = translator.new_constant(np.zeros((), dtype))
        zeros = translator.emit(
            "Expand", [zero, sizes(translator, node, 2)], name=f"{node.name}/zeros"
        )
    inputs = [zeros, as_int64(translator, node, 0), translator.value(node, 1)]
    return translator.emit("ScatterND", inputs, {"reduction": "add"}, name=node.name)


_SCATTERS = {
    "TensorScatterUpdate": "none",
    "TensorScatterAdd": "add",
    "TensorScatterSub": "add",
    "TensorScatterMax": "max",
    "TensorScatterMin": "min",
}


@translates(*_SCATTERS)
def _scatter_into(translator: Translator, node: Node) -> ir.Value:
    updates = translator.value(node, 2)
    if node.op == "TensorScatterSub":
        updates = translator.emit("Neg", [updates], name=f"{node.name}/negative")
    inputs = [translator.value(node, 0), as_int64(translator, node, 1), updates]
    reduction = {"reduction": _SCATTERS[node.op]}
    return translator.emit("ScatterND", inputs, reduction, name=node.name)


@translates("OneHot")
def _one_hot(translator: Translator, node: Node) -> ir.Value | Array:
    on, off = translator.constant(node, 2).reshape(()), translator.constant(node, 3).reshape(())
    values = translator.new_constant(np.stack([off, on]), f"{node.name}/values")
    indices, depth = translator.value(node, 0), sizes(translator, node, 1)
    flat = translator.emit(
        "Reshape", [depth, vector(translator, [1], "one")], name=f"{node.name}/depth"
    )
    # ONNX counts negative indices from the end, TensorFlow leaves their rows off.
    none = translator.new_constant(np.zeros((), node.attributes["TI"]))
    negative = translator.emit("Less", [indices, none], name=f"{node.name}/negative")
    depth = translator.value(node, 1)  # a scalar: the indices keep their axes
    beyond = cast(translator, depth, node.attributes["TI"], f"{node.name}/beyond")
    indices = translator.emit("Where", [negative, beyond, indices], name=f"{node.name}/indices")
    axis = {"axis": int(node.attributes.get("axis", -1))}
    return translator.emit("OneHot", [indices, flat, values], axis, name=node.name)


@translates("DenseBincount")
def _count(translator: Translator, node: Node) -> ir.Value:
    """How often each number below `size` occurs, in each row."""
    size = sizes(translator, node, 1)
    depth = translator.emit(
        "Reshape", [size, vector(translator, [1], "one")], name=f"{node.name}/size"
    )
    dtype = np.dtype(node.attributes["T"])
    weights = translator.shape(node.inputs[2])
    values = translator.new_constant(np.asarray([0, 1], dtype), f"{node.name}/values")
    hot = translator.emit(
        "OneHot", [translator.value(node, 0), depth, values], {"axis": -1}, name=f"{node.name}/hot"
    )
    axes = vector(translator, [-2], f"{node.name}/axis")
    if node.attributes.get("binary_output"):
        return translator.emit("ReduceMax", [hot, axes], {"keepdims": 0}, name=node.name)
    if weights is None or 0 not in weights:
        last = vector(translator, [-1], f"{node.name}/last")
        by = translator.emit(
            "Unsqueeze", [translator.value(node, 2), last], name=f"{node.name}/weights"
        )
        hot = translator.emit("Mul", [hot, by], name=f"{node.name}/weighted")
    return translator.emit("ReduceSum", [hot, axes], {"keepdims": 0}, name=node.name)


@translates("Bucketize")
def _bucketize(translator: Translator, node: Node) -> ir.Value:
    """How many boundaries are not above each number: all of them for NaN."""
    boundaries = np.asarray(node.attributes.get("boundaries") or [], np.float32)
    dtype = np.dtype(node.attributes["T"])
    if dtype.kind == "i":  # a whole number reaches a boundary where it reaches the next whole one
        boundaries = np.ceil(boundaries)
    boundaries = boundaries.astype(dtype)
    last = vector(translator, [-1], f"{node.name}/last")
    value = translator.emit(
        "Unsqueeze", [translator.value(node, 0), last], name=f"{node.name}/each"
    )
    at = translator.new_constant(boundaries, f"{node.name}/boundaries")
    below = translator.emit("Less", [value, at], name=f"{node.name}/below")
    above = translator.emit("Not", [below], name=f"{node.name}/above")
    number = cast(translator, above, np.int32, f"{node.name}/number")
    return translator.emit("ReduceSum", [number, last], {"keepdims": 0}, name=node.name)


@translates("LowerBound", "UpperBound")
def _bound(translator: Translator, node: Node) -> ir.Value:
    """How many of each row of sorted numbers are below (or not above) each value."""
    rows = translator.emit(
        "Unsqueeze",
        [translator.value(node, 0), vector(translator, [1], "axis")],
        name=f"{node.name}/rows",
    )
    values = translator.emit(
        "Unsqueeze",
        [translator.value(node, 1), vector(translator, [2], "axis")],
        name=f"{node.name}/values",
    )
    kind = "Less" if node.op == "LowerBound" else "LessOrEqual"
    below = translator.emit(kind, [rows, values], name=f"{node.name}/below")
    dtype = node.attributes.get("out_type") or np.dtype(np.int32)
    number = cast(translator, below, dtype, f"{node.name}/number")
    last = vector(translator, [-1], f"{node.name}/last")
    return translator.emit("ReduceSum", [number, last], {"keepdims": 0}, name=node.name)


@translates("Where")
def _where(translator: Translator, node: Node) -> ir.Value:
    value = translator.value(node, 0)
    if np.dtype(node.attributes.get("T") or np.bool_) != np.bool_:
        value = cast(translator, value, np.bool_, f"{node.name}/true")
    found = translator.emit("NonZero", [value], name=f"{node.name}/found")
    return translator.emit("Transpose", [found], {"perm": [1, 0]}, name=node.name)


@translates("TopKV2")
def _top_k(translator: Translator, node: Node) -> list[ir.Value]:
    count = sizes(translator, node, 1)
    flat = translator.emit(
        "Reshape", [count, vector(translator, [1], "one")], name=f"{node.name}/k"
    )
    attributes = {"axis": -1, "largest": 1, "sorted": 1}
    inputs = [translator.value(node, 0), flat]
    values, indices = translator.emit_all("TopK", inputs, attributes, name=node.name, outputs=2)
    dtype = node.attributes.get("index_type") or np.dtype(np.int32)
    return [values, cast(translator, indices, dtype, f"{node.name}/indices")]


@translates("InvertPermutation")
def _inverted(translator: Translator, node: Node) -> Array:
    return np.argsort(translator.constant(node, 0)).astype(node.attributes["T"])


@translates("Unique", "UniqueV2")
def _unique(translator: Translator, node: Node) -> ir.Value:
    raise UnsupportedError(
        f"node '{node.name}' ({node.op}): how many numbers differ depends on data"
    )
