"""Slices by constant and by computed bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.computed_slices import computed_slice
from lowprec.adapters.tensorflow.operations.numbers import (
    FAR,
    axis_in,
    sizes,
    vector,
)
from lowprec.adapters.tensorflow.translator import Array, Translator, translates
from lowprec.errors import ModelError


@translates("Slice")
def _slice(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.known(node, 0)
    begin, size = translator.known(node, 1), translator.known(node, 2)
    if begin is None or size is None:
        starts, lengths = sizes(translator, node, 1), sizes(translator, node, 2)
        ends = translator.emit("Add", [starts, lengths], name=f"{node.name}/sum")
        none = translator.new_constant(np.zeros((), np.int64))
        rest = translator.emit("Less", [lengths, none], name=f"{node.name}/rest")
        far = translator.new_constant(np.asarray(FAR, np.int64))
        ends = translator.emit("Where", [rest, far, ends], name=f"{node.name}/ends")
        return translator.emit("Slice", [translator.value(node, 0), starts, ends], name=node.name)
    first = begin.reshape(-1).astype(np.int64)
    ends_at = np.where(size.reshape(-1) < 0, FAR, first + size.reshape(-1).astype(np.int64))
    if (first < 0).any():
        raise ModelError(f"node '{node.name}' (Slice) begins at {first.tolist()}")
    if known is not None:
        return known[tuple(slice(b, e) for b, e in zip(first, ends_at, strict=True))]
    bounds = [
        translator.new_constant(first, f"{node.name}/starts"),
        translator.new_constant(ends_at, f"{node.name}/ends"),
    ]
    return translator.emit("Slice", [translator.value(node, 0), *bounds], name=node.name)


@translates("StridedSlice")
def _strided_slice(translator: Translator, node: Node) -> ir.Value | Array:
    masks = {
        name: int(node.attributes.get(f"{name}_mask") or 0)
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    begin, end = translator.known(node, 1), translator.known(node, 2)
    strides = translator.constant(node, 3).reshape(-1)
    if (strides == 0).any():
        raise ModelError(f"node '{node.name}' (StridedSlice) has a stride of 0")
    if begin is None or end is None:
        return computed_slice(translator, node, masks, strides.tolist())
    if begin.shape != strides.shape or end.shape != strides.shape:
        raise ModelError(
            f"node '{node.name}' (StridedSlice) has {begin.size} beginnings, {end.size} ends and "
            f"{strides.size} strides"
        )
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
    known = translator.known(node, 0)
    if known is None:
        known = _fixed_sizes(translator, node, index)
    if known is not None:
        return np.asarray(known[tuple(index)])
    return _indexed(translator, node, index)


def _fixed_sizes(translator: Translator, node: Node, index: list[Any]) -> Array | None:
    """Return a shape of which `index` takes only sizes that are fixed."""
    source = translator.graph.nodes.get(node.inputs[0][0])
    if source is None or source.op != "Shape":
        return None
    shape = translator.shape(source.inputs[0])
    if shape is None or len(index) != 1 or not isinstance(index[0], (int, slice)):
        return None
    taken = shape[index[0]] if isinstance(index[0], slice) else (shape[index[0]],)
    if None in taken:
        return None
    dtype = source.attributes.get("out_type") or np.dtype(np.int32)
    return np.asarray([0 if size is None else size for size in shape], dtype)


def _expanded(translator: Translator, node: Node, index: list[Any]) -> list[Any]:
    """Return the index with slices in place of the ellipsis."""
    if Ellipsis not in index:
        return index
    at = index.index(Ellipsis)
    used = sum(part is not None and part is not Ellipsis for part in index)
    rest = translator.rank(node, 0) - used
    return [*index[:at], *[slice(None, None, 1)] * rest, *index[at + 1 :]]


def _indexed(translator: Translator, node: Node, index: list[Any]) -> ir.Value:
    """Return `value[index]` by Slice, Squeeze and Unsqueeze."""
    starts, ends, steps, axes, squeezed, new = [], [], [], [], [], []
    axis = made = 0
    for part in _expanded(translator, node, index):
        if part is None:
            new.append(made)
            made += 1
            continue
        if isinstance(part, int):
            starts.append(part)
            ends.append(part + 1 if part != -1 else FAR)
            steps.append(1)
            axes.append(axis)
            squeezed.append(axis)
        else:
            if (part.start, part.stop, part.step) != (None, None, 1):
                step = part.step
                starts.append(part.start if part.start is not None else (0 if step > 0 else FAR))
                ends.append(part.stop if part.stop is not None else (FAR if step > 0 else -FAR))
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
    return _with_axes(translator, node, value, squeezed, new)


def _with_axes(
    translator: Translator, node: Node, value: ir.Value, squeezed: list[int], new: list[int]
) -> ir.Value:
    if squeezed:
        at = vector(translator, squeezed, f"{node.name}/squeezed")
        value = translator.emit("Squeeze", [value, at], name=node.name)
    if new:
        at = vector(translator, new, f"{node.name}/new")
        value = translator.emit("Unsqueeze", [value, at], name=node.name)
    return value


@translates("ReverseV2")
def _reverse(translator: Translator, node: Node) -> ir.Value | Array:
    given = translator.constant(node, 1).reshape(-1)
    known = translator.known(node, 0)
    axes = [axis_in(translator, node, 0, int(axis)) for axis in given]
    if known is not None:
        return np.asarray(np.flip(known, tuple(axes)))
    if not axes:
        return translator.value(node, 0)
    bounds = [
        vector(translator, [number] * len(axes), f"{node.name}/{name}")
        for name, number in (("starts", -1), ("ends", -FAR))
    ]
    at = vector(translator, axes, f"{node.name}/axes")
    steps = vector(translator, [-1] * len(axes), f"{node.name}/steps")
    return translator.emit("Slice", [translator.value(node, 0), *bounds, at, steps], name=node.name)
