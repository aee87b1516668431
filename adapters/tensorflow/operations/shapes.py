"""What moves values about without computing: reshape, slice, gather, concatenate, pad.

Sizes are computed in int64, ONNX's type for shapes; a Shape that TensorFlow casts to int32 is cast
back where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.computed_slices import computed_slice
from lowprec.adapters.tensorflow.translator import Array, Translator, translates
from lowprec.errors import UnsupportedError

_INT64 = int(ir.DataType.INT64)
_FAR = np.iinfo(np.int64).max


def sizes(translator: Translator, node: Node, index: int) -> ir.Value:
    """Return input `index`, a vector of sizes or axes, as int64."""
    known = translator.known(node, index)
    if known is not None:
        return translator.new_constant(known.reshape(-1).astype(np.int64), node.inputs[index][0])
    return translator.emit(
        "Cast", [translator.value(node, index)], {"to": _INT64}, name=f"{node.name}/int64"
    )


def vector(translator: Translator, values: Sequence[int], name: str) -> ir.Value:
    """Return numbers as an int64 vector."""
    return translator.new_constant(np.asarray(values, np.int64), name)


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
        to = {"to": int(ir.DataType.from_numpy(dtype))}
        made.append(
            found
            if dtype == np.int64
            else translator.emit("Cast", [found], to, name=f"{node.name}/cast")
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
    to = {"to": int(ir.DataType.from_numpy(dtype))}
    return translator.emit("Cast", [found], to, name=f"{node.name}/cast")


@translates("Reshape")
def _reshape(translator: Translator, node: Node) -> ir.Value | Array:
    known, shape = translator.known(node, 0), translator.known(node, 1)
    if known is not None and shape is not None:
        return known.reshape(shape)
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
        squeezed: Array = known.squeeze(tuple(axes) or None)
        return squeezed
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
    inputs = [translator.value(node, 0), vector(translator, [axis], f"{node.name}/axis")]
    return translator.emit("Unsqueeze", inputs, name=node.name)


@translates("Transpose")
def _transpose(translator: Translator, node: Node) -> ir.Value | Array:
    axes = [int(axis) for axis in translator.constant(node, 1)]
    known = translator.known(node, 0)
    if known is not None:
        return np.transpose(known, axes)
    return translator.emit("Transpose", [translator.value(node, 0)], {"perm": axes}, name=node.name)


@translates("ConcatV2")
def _concat(translator: Translator, node: Node) -> ir.Value | Array:
    last = len(node.inputs) - 1
    axis = int(translator.constant(node, last))
    known = [translator.known(node, index) for index in range(last)]
    if all(array is not None for array in known):
        joined: Array = np.concatenate([np.asarray(array) for array in known], axis)
        return joined
    inputs = [translator.value(node, index) for index in range(last)]
    return translator.emit("Concat", inputs, {"axis": axis}, name=node.name)


@translates("Pack")
def _pack(translator: Translator, node: Node) -> ir.Value | Array:
    axis = int(node.attributes.get("axis") or 0)
    known = [translator.known(node, index) for index in range(len(node.inputs))]
    if all(array is not None for array in known):
        return np.stack([np.asarray(array) for array in known], axis)
    at = vector(translator, [axis], f"{node.name}/axis")
    parts = [
        translator.emit("Unsqueeze", [translator.value(node, index), at], name=f"{node.name}/part")
        for index in range(len(node.inputs))
    ]
    return translator.emit("Concat", parts, {"axis": axis}, name=node.name)


@translates("Unpack")
def _unpack(translator: Translator, node: Node) -> list[Any]:
    axis, count = int(node.attributes.get("axis") or 0), int(node.attributes["num"])
    known = translator.known(node, 0)
    if known is not None:
        return [np.take(known, number, axis) for number in range(count)]
    first = translator.emit(
        "Split",
        [translator.value(node, 0)],
        {"axis": axis, "num_outputs": count},
        name=f"{node.name}/parts",
        outputs=count,
    )
    at = vector(translator, [axis], f"{node.name}/axis")
    return [translator.emit("Squeeze", [part, at], name=node.name) for part in _outputs_of(first)]


@translates("Split", "SplitV")
def _split(translator: Translator, node: Node) -> list[Any]:
    data, at = (1, 0) if node.op == "Split" else (0, 2)
    axis = int(translator.constant(node, at).reshape(()))
    known = translator.known(node, data)
    if known is not None and node.op == "Split":
        return np.split(known, int(node.attributes["num_split"]), axis)
    inputs: list[ir.Value | None] = [translator.value(node, data)]
    attributes = {"axis": axis}
    count = int(node.attributes["num_split"])
    if node.op == "SplitV":
        lengths = translator.constant(node, 1).astype(np.int64)
        if (lengths < 0).any():
            shape = translator.shape(node.inputs[data])
            total = None if shape is None else shape[axis]
            if total is None:
                raise UnsupportedError(f"node '{node.name}': the size that it splits is unknown")
            lengths = np.where(lengths < 0, total - lengths[lengths >= 0].sum(), lengths)
        inputs.append(translator.new_constant(lengths, f"{node.name}/lengths"))
    else:
        attributes["num_outputs"] = count
    return _outputs_of(translator.emit("Split", inputs, attributes, name=node.name, outputs=count))


@translates("Slice")
def _slice(translator: Translator, node: Node) -> ir.Value | Array:
    begin = translator.constant(node, 1).astype(np.int64)
    size = translator.constant(node, 2).astype(np.int64)
    known = translator.known(node, 0)
    ends = np.where(size < 0, _FAR, begin + size)
    if known is not None:
        return known[tuple(slice(b, e) for b, e in zip(begin, ends, strict=True))]
    bounds = [
        translator.new_constant(begin, f"{node.name}/starts"),
        translator.new_constant(ends, f"{node.name}/ends"),
    ]
    return translator.emit("Slice", [translator.value(node, 0), *bounds], name=node.name)


@translates("StridedSlice")
def _strided_slice(translator: Translator, node: Node) -> ir.Value | Array:
    masks = {
        name: int(node.attributes.get(f"{name}_mask") or 0)
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    known = translator.known(node, 0)
    begin, end = translator.known(node, 1), translator.known(node, 2)
    strides = translator.constant(node, 3)
    if begin is None or end is None:
        return computed_slice(translator, node, masks, strides.tolist())
    index: list[Any] = []
    for position in range(len(strides)):
        bit = 1 << position
        if masks["ellipsis"] & bit:
            index.append(Ellipsis)
        elif masks["new_axis"] & bit:
            index.append(None)
        elif masks["shrink_axis"] & bit:
            index.append(int(begin[position]))
        else:
            index.append(
                slice(
                    None if masks["begin"] & bit else int(begin[position]),
                    None if masks["end"] & bit else int(end[position]),
                    int(strides[position]),
                )
            )
    if known is not None:
        return np.asarray(known[tuple(index)])
    size = _known_size(translator, node, index)
    return _indexed(translator, node, index) if size is None else size


def _known_size(translator: Translator, node: Node, index: list[Any]) -> Array | None:
    """Return `tf.shape(x)[axis]` where that axis is known, although others are not."""
    source = translator.graph.nodes.get(node.inputs[0][0])
    if source is None or source.op != "Shape" or len(index) != 1 or not isinstance(index[0], int):
        return None
    shape = translator.shape(source.inputs[0])
    size = None if shape is None else shape[index[0]]
    return None if size is None else np.asarray(size, node.attributes["T"])


def _indexed(translator: Translator, node: Node, index: list[Any]) -> ir.Value:
    """Return `value[index]` by Slice, Squeeze and Unsqueeze."""
    if Ellipsis in index:
        at = index.index(Ellipsis)
        used = sum(part is not None and part is not Ellipsis for part in index)
        index[at : at + 1] = [slice(None)] * (translator.rank(node, 0) - used)
    starts, ends, steps, axes, squeezed, new = [], [], [], [], [], []
    axis = made = 0
    for part in index:
        if part is None:
            new.append(made)
            made += 1
            continue
        if isinstance(part, int):
            starts.append(part)
            ends.append(part + 1 if part != -1 else _FAR)
            steps.append(1)
            axes.append(axis)
            squeezed.append(axis)
        else:
            if (part.start, part.stop, part.step) != (None, None, 1):
                step = part.step
                starts.append(part.start if part.start is not None else (0 if step > 0 else _FAR))
                ends.append(part.stop if part.stop is not None else (_FAR if step > 0 else -_FAR))
                steps.append(step)
                axes.append(axis)
            made += 1
        axis += 1
    value = translator.value(node, 0)
    if axes:
        bounds = [
            vector(translator, numbers, f"{node.name}/{what}")
            for what, numbers in (
                ("starts", starts),
                ("ends", ends),
                ("axes", axes),
                ("steps", steps),
            )
        ]
        value = translator.emit("Slice", [value, *bounds], name=node.name)
    if squeezed:
        where = vector(translator, squeezed, f"{node.name}/squeezed")
        value = translator.emit("Squeeze", [value, where], name=node.name)
    if new:
        where = vector(translator, new, f"{node.name}/new")
        value = translator.emit("Unsqueeze", [value, where], name=node.name)
    return value


@translates("GatherV2", "Gather", "ResourceGather")
def _gather(translator: Translator, node: Node) -> ir.Value | Array:
    if int(node.attributes.get("batch_dims") or 0):
        raise UnsupportedError(f"node '{node.name}' (GatherV2) has batch_dims")
    axis = int(translator.constant(node, 2)) if node.op == "GatherV2" else 0
    known, indices = translator.known(node, 0), translator.known(node, 1)
    if known is not None and indices is not None:
        return np.take(known, indices, axis)
    inputs = [translator.value(node, 0), translator.value(node, 1)]
    return translator.emit("Gather", inputs, {"axis": axis}, name=node.name)


@translates("GatherNd")
def _gather_nd(translator: Translator, node: Node) -> ir.Value:
    indices = translator.emit(
        "Cast", [translator.value(node, 1)], {"to": _INT64}, name=f"{node.name}/int64"
    )
    return translator.emit("GatherND", [translator.value(node, 0), indices], name=node.name)


@translates("Pad", "PadV2", "MirrorPad")
def _pad(translator: Translator, node: Node) -> ir.Value:
    amounts = translator.constant(node, 1).astype(np.int64)
    pads = translator.new_constant(amounts.T.reshape(-1), f"{node.name}/pads")
    inputs: list[ir.Value | None] = [translator.value(node, 0), pads]
    mode = "constant"
    if node.op == "PadV2":
        inputs.append(translator.value(node, 2))
    elif node.op == "MirrorPad":
        mode = "reflect"
        if str(node.attributes["mode"]) == "SYMMETRIC":
            raise UnsupportedError(f"node '{node.name}' pads symmetrically, which ONNX cannot")
    return translator.emit("Pad", inputs, {"mode": mode}, name=node.name)


@translates("Tile")
def _tile(translator: Translator, node: Node) -> ir.Value:
    inputs = [translator.value(node, 0), sizes(translator, node, 1)]
    return translator.emit("Tile", inputs, name=node.name)


@translates("Fill")
def _fill(translator: Translator, node: Node) -> ir.Value | Array:
    shape, number = translator.known(node, 0), translator.known(node, 1)
    if shape is not None and number is not None:
        return np.full(shape, number)
    inputs = [translator.value(node, 1), sizes(translator, node, 0)]
    return translator.emit("Expand", inputs, name=node.name)


@translates("BroadcastTo")
def _broadcast(translator: Translator, node: Node) -> ir.Value:
    inputs = [translator.value(node, 0), sizes(translator, node, 1)]
    return translator.emit("Expand", inputs, name=node.name)


@translates("ZerosLike", "OnesLike")
def _like(translator: Translator, node: Node) -> ir.Value | Array:
    known, dtype = translator.known(node, 0), node.attributes["T"]
    one = np.full((1,), 0 if node.op == "ZerosLike" else 1, dtype)
    if known is not None:
        return np.full_like(known, one[0])
    shape = translator.emit("Shape", [translator.value(node, 0)], name=f"{node.name}/shape")
    return translator.emit("Expand", [translator.new_constant(one), shape], name=node.name)


@translates("Range")
def _range(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.all_known(node)
    if known is not None:
        start, stop, step = (array.item() for array in known)
        return np.asarray(np.arange(start, stop, step), known[0].dtype)
    return translator.emit(
        "Range", [translator.value(node, index) for index in range(3)], name=node.name
    )


@translates("ReverseV2")
def _reverse(translator: Translator, node: Node) -> ir.Value:
    axes = [int(axis) for axis in translator.constant(node, 1).reshape(-1)]
    bounds = [
        vector(translator, [number] * len(axes), f"{node.name}/{name}")
        for name, number in (("starts", -1), ("ends", -_FAR))
    ]
    at = vector(translator, axes, f"{node.name}/axes")
    steps = vector(translator, [-1] * len(axes), f"{node.name}/steps")
    return translator.emit("Slice", [translator.value(node, 0), *bounds, at, steps], name=node.name)


@translates("OneHot")
def _one_hot(translator: Translator, node: Node) -> ir.Value:
    on, off = translator.constant(node, 2), translator.constant(node, 3)
    depth = translator.constant(node, 1).reshape(1).astype(np.int64)
    values = translator.new_constant(np.stack([off, on]), f"{node.name}/values")
    axis = {"axis": int(node.attributes.get("axis", -1))}
    inputs = [
        translator.value(node, 0),
        translator.new_constant(depth, f"{node.name}/depth"),
        values,
    ]
    return translator.emit("OneHot", inputs, axis, name=node.name)


@translates("SpaceToBatchND", "BatchToSpaceND")
def _space_batch(translator: Translator, node: Node) -> ir.Value:
    raise UnsupportedError(
        f"node '{node.name}' ({node.op}): write the dilation as dilation_rate of the convolution"
    )


def _outputs_of(first: ir.Value) -> list[ir.Value]:
    producer = first.producer()
    assert producer is not None
    return list(producer.outputs)
