"""Shapes of tensors, and what changes them without moving an element: reshape, squeeze, transpose.

Sizes are computed in int64, ONNX's type for shapes; a Shape that TensorFlow has in int32 is cast
back where it is used.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.dense import dense_product
from lowprec.adapters.tensorflow.operations.numbers import axis_in, axis_of, cast, sizes, vector
from lowprec.adapters.tensorflow.operations.sequences import without_the_height
from lowprec.adapters.tensorflow.translator import Array, Translator, translates
from lowprec.errors import ModelError


@translates("Shape", "ShapeN")
def _shape(translator: Translator, node: Node) -> Any:
    made: list[Any] = []
    dtype = node.attributes.get("out_type") or np.dtype(np.int32)
    for index, tensor in enumerate(node.inputs):
        shape = translator.shape(tensor)
        if shape is not None and None not in shape:
            made.append(np.asarray(shape, dtype))
            continue
        found = translator.emit("Shape", [translator.value(node, index)], name=node.name)
        made.append(
            found if dtype == np.int64 else cast(translator, found, dtype, f"{node.name}/cast")
        )
    return made


@translates("Size", "Rank")
def _count(translator: Translator, node: Node) -> Any:
    shape = translator.shape(node.inputs[0])
    if node.op == "Rank":
        return np.asarray(translator.rank(node, 0), np.int32)
    dtype = node.attributes.get("out_type") or np.dtype(np.int32)
    if shape is not None and None not in shape:
        return np.asarray(math.prod(size or 0 for size in shape), dtype)
    found = translator.emit("Size", [translator.value(node, 0)], name=node.name)
    return cast(translator, found, dtype, f"{node.name}/cast")


@translates("BroadcastArgs")
def _broadcast_shapes(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.all_known(node)
    if known is not None:
        first, second = ([int(size) for size in array.reshape(-1)] for array in known)
        return np.asarray(np.broadcast_shapes(first, second), known[0].dtype)
    lengths = [(translator.shape(tensor) or (None,))[0] for tensor in node.inputs]
    if None in lengths:
        raise ModelError(f"node '{node.name}' (BroadcastArgs): the number of axes is unknown")
    values = [translator.value(node, index) for index in range(2)]
    counts = [length or 0 for length in lengths]
    for index in range(2):
        missing = max(counts) - counts[index]
        if missing:
            ones = translator.new_constant(np.ones(missing, node.attributes["T"]))
            values[index] = translator.emit(
                "Concat", [ones, values[index]], {"axis": 0}, name=f"{node.name}/ones"
            )
    one = translator.new_constant(np.ones((), node.attributes["T"]))
    single = translator.emit("Equal", [values[0], one], name=f"{node.name}/single")
    return translator.emit("Where", [single, values[1], values[0]], name=node.name)


@translates("Reshape")
def _reshape(translator: Translator, node: Node) -> ir.Value | Array:
    known, shape = translator.known(node, 0), translator.known(node, 1)
    if known is not None and shape is not None:
        return known.reshape([int(size) for size in shape])
    product = dense_product(translator, node)
    if product is not None:
        return product
    made = None if shape is not None else translator.shape((node.name, 0))
    if made is not None and made.count(None) <= 1 and 0 not in made:
        # What is computed is one size at most, which the others leave: no arithmetic on shapes.
        target = [-1 if size is None else size for size in made]
        inputs = [translator.value(node, 0), vector(translator, target, f"{node.name}/sizes")]
        return translator.emit("Reshape", inputs, name=node.name)
    inputs = [translator.value(node, 0), sizes(translator, node, 1)]
    return translator.emit("Reshape", inputs, {"allowzero": 1}, name=node.name)


@translates("Squeeze")
def _squeeze(translator: Translator, node: Node) -> ir.Value | Array:
    axes = node.attributes.get("squeeze_dims") or node.attributes.get("axis") or []
    known = translator.known(node, 0)
    if known is not None:
        return np.squeeze(known, tuple(axes) or None)
    found = without_the_height(translator, node)
    if found is not None:
        return found
    shape = translator.shape(node.inputs[0])
    if not axes and shape is not None:
        axes = [axis for axis, size in enumerate(shape) if size == 1]
        if not axes and None not in shape:
            return translator.value(node, 0)
        if None in shape:
            raise ModelError(f"node '{node.name}' squeezes whatever is 1, and some sizes are open")
    inputs: list[ir.Value | None] = [translator.value(node, 0)]
    if axes:
        inputs.append(vector(translator, axes, f"{node.name}/axes"))
    return translator.emit("Squeeze", inputs, name=node.name)


@translates("ExpandDims")
def _expand_dims(translator: Translator, node: Node) -> ir.Value | Array:
    axis = int(translator.constant(node, 1).reshape(()))
    known = translator.known(node, 0)
    if known is not None:
        return np.expand_dims(known, axis)
    axis = axis_in(translator, node, 0, axis, 1)
    inputs = [translator.value(node, 0), vector(translator, [axis], f"{node.name}/axis")]
    return translator.emit("Unsqueeze", inputs, name=node.name)


@translates("Transpose")
def _transpose(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.known(node, 0)
    shape, order = translator.shape(node.inputs[0]), translator.known(node, 1)
    if order is None and shape is not None and len(shape) < 2:
        return translator.value(node, 0)
    given = translator.constant(node, 1).reshape(-1)
    rank = len(given) if shape is None else len(shape)
    axes = [axis_of(node, int(axis), rank) for axis in given]
    if sorted(axes) != list(range(rank)):
        raise ModelError(f"node '{node.name}' (Transpose) has the order {axes}")
    if known is not None:
        return np.transpose(known, axes)
    return translator.emit("Transpose", [translator.value(node, 0)], {"perm": axes}, name=node.name)
