"""What is left of the transposes to channels first rises to the inputs.

A picture that is rescaled, normalised and padded before its first convolution, or a vector that
becomes an image of one pixel (squeeze and excitation), is then channels first throughout: padding
folds into the convolution. A transpose rises only where it arrives somewhere: at an input of the
graph, at its inverse, or at a node that makes the single pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.layout_edits import (
    ELEMENTWISE,
    aligned,
    channels_first,
    constant_of,
    inverse,
    new_constant,
    perm_of,
    producer_of,
    ranked,
    shape_of,
    transpose,
)


@dataclass(frozen=True)
class _Step:
    """A node to rise through, and which of its inputs leads up."""

    node: ir.Node
    index: int


def rise(graph: ir.Graph) -> None:
    """Move transposes up, each along its one way."""
    for node in reversed(list(graph)):
        perm = perm_of(node)
        if node.graph is None or perm is None or perm != channels_first(len(perm)):
            continue
        source = node.inputs[0]
        if source is None or not _only_read_by(source, perm):
            continue
        way = _way_up(source, perm)
        if way:
            _climb(graph, node, way, perm)


def _only_read_by(value: ir.Value, perm: list[int]) -> bool:
    """Tell whether every reader is a Transpose by `perm`."""
    readers = value.uses()
    return not value.is_graph_output() and all(
        perm_of(reader) == perm and not reader.outputs[0].is_graph_output() for reader, _ in readers
    )


def _way_up(value: ir.Value, perm: list[int]) -> list[_Step]:
    """Return the nodes to rise through, from the lowest one up; none where it leads nowhere."""
    way: list[_Step] = []
    reader: ir.Node | None = None
    while True:
        node = value.producer()
        if node is None:
            return way if value.const_value is None else []
        if perm_of(node) == inverse(perm):
            return way
        if reader is not None and (len(value.uses()) != 1 or value.is_graph_output()):
            # Others read it as it is: a picture may be turned here as well as above.
            return []
        index = _open_input(node, len(perm))
        if index is None:
            return [*way, _Step(node, 0)] if _makes_pixel(node, perm) else []
        way.append(_Step(node, index))
        found = node.inputs[index]
        assert found is not None
        value, reader = found, node


def _open_input(node: ir.Node, rank: int) -> int | None:
    """Return the one input that is an image; None where the node cannot be passed."""
    if node.op_type == "Pad":
        pads = constant_of(node.inputs[1])
        plain = len(node.inputs) < 4 or node.inputs[3] is None
        return 0 if plain and pads is not None and pads.size == 2 * rank else None
    if node.op_type not in ELEMENTWISE or len(node.outputs) != 1:
        return None
    found: list[int] = []
    for index, value in enumerate(node.inputs):
        array, shape = constant_of(value), shape_of(value)
        if value is None or (array is not None and array.ndim <= rank) or shape == []:
            continue
        if array is not None or shape is None or len(shape) != rank:
            return None
        found.append(index)
    return found[0] if len(found) == 1 else None


def _makes_pixel(node: ir.Node, perm: list[int]) -> bool:
    return _turned_shape(node, perm) is not None or _turned_axes(node, perm) is not None


def _turned_shape(node: ir.Node, perm: list[int]) -> list[int] | None:
    """Return the target of a Reshape to one pixel, channels first."""
    target = constant_of(node.inputs[1]) if node.op_type == "Reshape" else None
    if target is None or target.size != len(perm):
        return None
    sizes = [int(size) for size in target]
    if 0 in sizes or any(size != 1 for size in sizes[1:-1]):
        return None
    return [sizes[axis] for axis in perm]


def _turned_axes(node: ir.Node, perm: list[int]) -> list[int] | None:
    """Return the axes of an Unsqueeze whose result is channels first."""
    axes = constant_of(node.inputs[1]) if node.op_type == "Unsqueeze" else None
    if axes is None:
        return None
    return [perm.index(int(axis) % len(perm)) for axis in axes.reshape(-1)]


def _climb(graph: ir.Graph, node: ir.Node, way: list[_Step], perm: list[int]) -> None:
    below = node.inputs[0]
    assert below is not None
    for reader, _ in list(below.uses()):
        reader.outputs[0].replace_all_uses_with(below, replace_graph_outputs=False)
    for step in way:
        _turn_output(step.node, perm)
        if step.node.op_type == "Pad":
            pads = constant_of(step.node.inputs[1])
            assert pads is not None
            turned = pads.reshape(2, -1)[:, perm].reshape(-1)
            step.node.replace_input_with(1, new_constant(graph, step.node.inputs[1], turned))
        elif step.node.op_type == "Reshape":
            shape = np.asarray(_turned_shape(step.node, perm), np.int64)
            step.node.replace_input_with(1, new_constant(graph, step.node.inputs[1], shape))
            return
        elif step.node.op_type == "Unsqueeze":
            _turn_unsqueeze(graph, step.node, perm)
            return
        else:
            _turn_constants(graph, step, perm)
    last = way[-1]
    value = last.node.inputs[last.index]
    assert value is not None
    above = producer_of(value)
    if above is not None and perm_of(above) == inverse(perm):
        last.node.replace_input_with(last.index, above.inputs[0])
        return
    top = transpose(value, perm, f"{last.node.name}/channels_first")
    graph.insert_before(last.node, top)
    last.node.replace_input_with(last.index, top.outputs[0])


def _turn_output(node: ir.Node, perm: list[int]) -> None:
    output = node.outputs[0]
    if output.shape is not None and len(output.shape) == len(perm):
        output.shape = ir.Shape([output.shape[axis] for axis in perm])


def _turn_constants(graph: ir.Graph, step: _Step, perm: list[int]) -> None:
    for index, value in enumerate(step.node.inputs):
        array = constant_of(value)
        if index != step.index and array is not None and array.size > 1:
            turned = aligned(array, len(perm), perm)
            step.node.replace_input_with(index, new_constant(graph, value, turned))


def _turn_unsqueeze(graph: ir.Graph, node: ir.Node, perm: list[int]) -> None:
    axes = _turned_axes(node, perm)
    assert axes is not None
    old = constant_of(node.inputs[1])
    assert old is not None
    new = {int(axis) % len(perm) for axis in old.reshape(-1)}
    left = ranked([axis for axis in perm if axis not in new])
    node.replace_input_with(
        1, new_constant(graph, node.inputs[1], np.asarray(sorted(axes), np.int64))
    )
    value = node.inputs[0]
    assert value is not None
    if left != sorted(left):
        top = transpose(value, left, f"{node.name}/channels_first")
        graph.insert_before(node, top)
        node.replace_input_with(0, top.outputs[0])
