"""Slices whose bounds are computed when the model runs, as `x[i]` in a loop is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.translator import Translator

_FAR = np.iinfo(np.int64).max


class _Bounds:
    """The numbers of a vector of bounds, known or not."""

    def __init__(self, translator: Translator, node: Node, index: int) -> None:
        self._translator, self._name = translator, node.name
        self._known = translator.known(node, index)
        self._value: ir.Value | None = None
        if self._known is None:
            to = {"to": int(ir.DataType.INT64)}
            self._value = translator.emit(
                "Cast", [translator.value(node, index)], to, name=f"{node.name}/bounds"
            )

    def at(self, position: int) -> int | ir.Value:
        """Return one number; a value of one element where it is computed."""
        if self._known is not None:
            return int(self._known[position])
        assert self._value is not None
        return self._translator.emit(
            "Gather",
            [self._value, _vector(self._translator, [position], self._name)],
            {"axis": 0},
            name=f"{self._name}/bound",
        )


def computed_slice(
    translator: Translator, node: Node, masks: Mapping[str, int], strides: Sequence[int]
) -> ir.Value:
    """Return a StridedSlice by Slice, Gather and Unsqueeze.

    Args:
        translator: Takes the nodes.
        node: The StridedSlice.
        masks: begin, end, ellipsis, new_axis and shrink_axis.
        strides: The steps, by position.
    """
    name = node.name
    begin, end = _Bounds(translator, node, 1), _Bounds(translator, node, 2)
    parts: dict[str, list[int | ir.Value]] = {"starts": [], "ends": []}
    axes: list[int] = []
    steps: list[int] = []
    single: list[tuple[int, int | ir.Value]] = []
    added: list[int] = []
    positions = _axes(translator, node, masks, len(strides))
    made = 0
    for position, axis in positions:
        bit = 1 << max(position, 0)
        if position < 0:
            made += 1
        elif masks["new_axis"] & bit:
            added.append(made)
            made += 1
        elif masks["shrink_axis"] & bit:
            single.append((axis, begin.at(position)))
        else:
            step = int(strides[position])
            far = (0, _FAR) if step > 0 else (_FAR, -_FAR)
            parts["starts"].append(far[0] if masks["begin"] & bit else begin.at(position))
            parts["ends"].append(far[1] if masks["end"] & bit else end.at(position))
            axes.append(axis)
            steps.append(step)
            made += 1
    value = translator.value(node, 0)
    if axes:
        bounds = [_joined(translator, found, f"{name}/{what}") for what, found in parts.items()]
        ends = [_vector(translator, numbers, f"{name}/axes") for numbers in (axes, steps)]
        value = translator.emit("Slice", [value, *bounds, *ends], name=name)
    for axis, place in reversed(single):
        if isinstance(place, ir.Value):
            at = translator.emit("Squeeze", [place], name=f"{name}/index")
        else:
            at = translator.new_constant(np.asarray(place, np.int64), f"{name}/index")
        value = translator.emit("Gather", [value, at], {"axis": axis}, name=name)
    if added:
        at = _vector(translator, added, f"{name}/new")
        value = translator.emit("Unsqueeze", [value, at], name=name)
    return value


def _axes(
    translator: Translator, node: Node, masks: Mapping[str, int], count: int
) -> list[tuple[int, int]]:
    """Return (position, axis) in order; position -1: an axis that an ellipsis stands for."""
    used = sum(
        not (masks["new_axis"] | masks["ellipsis"]) & (1 << position) for position in range(count)
    )
    found: list[tuple[int, int]] = []
    axis = 0
    for position in range(count):
        bit = 1 << position
        if masks["ellipsis"] & bit:
            for _ in range(translator.rank(node, 0) - used):
                found.append((-1, axis))
                axis += 1
            continue
        found.append((position, axis))
        axis += not masks["new_axis"] & bit
    return found


def _joined(translator: Translator, numbers: Sequence[int | ir.Value], name: str) -> ir.Value:
    if not any(isinstance(number, ir.Value) for number in numbers):
        return _vector(translator, [int(n) for n in numbers if not isinstance(n, ir.Value)], name)
    parts = [
        number if isinstance(number, ir.Value) else _vector(translator, [number], name)
        for number in numbers
    ]
    return parts[0] if len(parts) == 1 else translator.emit("Concat", parts, {"axis": 0}, name=name)


def _vector(translator: Translator, numbers: Sequence[int], name: str) -> ir.Value:
    return translator.new_constant(np.asarray(numbers, np.int64), name)
