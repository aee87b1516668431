"""Transposes to channels last move below the nodes that read them.

A rule lets a node read from above its transposes and says how its outputs are then permuted. It
changes nothing before it is sure. Softmax, ArgMax and sums along the channels have no rule: the
engine keeps images with their channels last, so they read them in order where they are, and a layer
norm stays recognisable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.layout_edits import (
    ELEMENTWISE,
    aligned,
    channels_last,
    constant_of,
    inverse,
    is_channels_last,
    is_pixel,
    new_constant,
    perm_of,
    producer_of,
    ranked,
    shape_of,
    transpose,
)

Perm = list[int]
Rule = Callable[[ir.Graph, ir.Node, Perm], "Perm | None"]  # of every output; None: stays above

_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}
_REDUCTIONS = (*_POOLS, "ReduceSum", "ReduceMin", "ReduceProd", "ReduceL2")


def sink(graph: ir.Graph) -> None:
    """Move transposes down in one sweep from the inputs to the outputs."""
    for node in list(graph):
        if node.op_type == "Transpose":
            cancel(node)
            continue
        perms = [perm_of(producer_of(value)) for value in node.inputs]
        perm = next((found for found in perms if is_channels_last(found)), None)
        rule = _RULES.get(node.op_type)
        if perm is None or rule is None or node.domain not in ("", "ai.onnx"):
            continue
        below = rule(graph, node, perm)
        if below is None:
            continue
        for output in node.outputs:
            if below != sorted(below):
                _transpose_below(graph, node, output, below)


def cancel(node: ir.Node) -> None:
    """Let a Transpose of a Transpose be one, or none."""
    perm, first = perm_of(node), producer_of(node.inputs[0] if node.inputs else None)
    above = perm_of(first)
    if perm is None or above is None or first is None or len(perm) != len(above):
        return
    source = first.inputs[0]
    together = [above[axis] for axis in perm]
    if together != sorted(together):
        node.replace_input_with(0, source)
        node.attributes["perm"] = ir.AttrInt64s("perm", together)
    elif source is not None and not node.outputs[0].is_graph_output():
        if source.shape is None:
            source.shape = node.outputs[0].shape
        node.outputs[0].replace_all_uses_with(source)


def _transpose_below(graph: ir.Graph, node: ir.Node, output: ir.Value, perm: Perm) -> None:
    readers = list(output.uses())
    shape, output.shape = output.shape, None
    if shape is not None and len(shape) == len(perm):
        output.shape = ir.Shape([shape[axis] for axis in inverse(perm)])
    below = transpose(output, perm, f"{output.name}/moved")
    made = below.outputs[0]
    graph.insert_after(node, below)
    for reader, index in readers:
        reader.replace_input_with(index, made)
    if output.is_graph_output():
        for index, value in enumerate(graph.outputs):
            if value is output:
                graph.outputs[index] = made
        made.shape = shape
        made.name, output.name = output.name, made.name


def _read_above(node: ir.Node, *indices: int) -> None:
    for index in indices:
        above = producer_of(node.inputs[index])
        assert above is not None
        node.replace_input_with(index, above.inputs[0])


def _set_numbers(graph: ir.Graph, node: ir.Node, index: int, numbers: Sequence[int]) -> None:
    array = np.asarray(numbers, np.int64)
    node.replace_input_with(index, new_constant(graph, node.inputs[index], array))


def _numbers(node: ir.Node, index: int) -> list[int] | None:
    array = constant_of(node.inputs[index]) if len(node.inputs) > index else None
    return None if array is None else [int(number) for number in array.reshape(-1)]


def _has(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None


def _reads(node: ir.Node, index: int, perm: Perm) -> bool:
    return perm_of(producer_of(node.inputs[index])) == perm


def _elementwise(graph: ir.Graph, node: ir.Node, perm: Perm) -> Perm | None:
    rank = len(perm)
    constants: dict[int, ir.Value | None] = {}
    pixels: list[int] = []
    moved: list[int] = []
    for index, value in enumerate(node.inputs):
        if value is None:
            continue
        array, shape = constant_of(value), shape_of(value)
        if _reads(node, index, perm):
            moved.append(index)
        elif array is not None and array.ndim <= rank:
            if array.size > 1:
                constants[index] = value
        elif array is None and shape is not None and len(shape) == rank:
            if not is_pixel(shape, range(1, rank - 1)):
                return None
            pixels.append(index)
        elif array is not None or shape != []:
            return None
    if node.op_type == "Identity" and node.outputs[0].is_graph_output():
        return None
    for index, value in constants.items():
        array = constant_of(value)
        assert array is not None
        turned = aligned(array, rank, inverse(perm))
        node.replace_input_with(index, new_constant(graph, value, turned))
    for index in pixels:
        value = node.inputs[index]
        assert value is not None
        above = transpose(value, inverse(perm), f"{node.name}/turned_{index}")
        graph.insert_before(node, above)
        node.replace_input_with(index, above.outputs[0])
    _read_above(node, *moved)
    return perm


def _concat(graph: ir.Graph, node: ir.Node, perm: Perm) -> Perm | None:
    if not all(_reads(node, index, perm) for index in range(len(node.inputs))):
        return None
    return _along_axis(graph, node, perm)


def _along_axis(graph: ir.Graph, node: ir.Node, perm: Perm) -> Perm | None:
    """Concat, Split: an attribute names one axis, which stays."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    node.attributes["axis"] = ir.AttrInt64("axis", perm[axis % len(perm)])
    _read_above(node, *(index for index in range(len(node.inputs)) if _reads(node, index, perm)))
    return perm


def _gather(graph: ir.Graph, node: ir.Node, perm: Perm) -> Perm | None:
    indices = shape_of(node.inputs[1])
    if not _reads(node, 0, perm) or indices is None or len(indices) > 1:
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    axis %= len(perm)
    _along_axis(graph, node, perm)
    return perm if indices else ranked([source for at, source in enumerate(perm) if at != axis])


def _pad(graph: ir.Graph, node: ir.Node, perm: Perm) -> Perm | None:
    pads = _numbers(node, 1)
    if not _reads(node, 0, perm) or pads is None or _has(node, 3) or len(pads) != 2 * len(perm):
        return None
    order = inverse(perm)
    begin, end = pads[: len(perm)], pads[len(perm) :]
    _set_numbers(graph, node, 1, [begin[axis] for axis in order] + [end[axis] for axis in order])
    _read_above(node, 0)
    return perm


def _tile(graph: ir.Graph, node: ir.Node, perm: Perm) -> Perm | None:
    repeats = _numbers(node, 1)
    if not _reads(node, 0, perm) or repeats is None:
        return None
    _set_numbers(graph, node, 1, [repeats[axis] for axis in inverse(perm)])
    _read_above(node, 0)
    return perm


def _slice(graph: ir.Graph, node: ir.Node, perm: Perm) -> Perm | None:
    if not _reads(node, 0, perm):
        return None
    axes, starts = _numbers(node, 3), _numbers(node, 1)
    if axes is None:
        if _has(node, 3) or starts is None:
            return None
        axes = list(range(len(starts)))
    moved = new_constant(
        graph, node.inputs[1], np.asarray([perm[axis % len(perm)] for axis in axes], np.int64)
    )
    if len(node.inputs) < 4:
        node.resize_inputs(4)
    node.replace_input_with(3, moved)
    _read_above(node, 0)
    return perm


def _squeeze(graph: ir.Graph, node: ir.Node, perm: Perm) -> Perm | None:
    axes = _numbers(node, 1)
    if not _reads(node, 0, perm) or axes is None:
        return None
    gone = {axis % len(perm) for axis in axes}
    _set_numbers(graph, node, 1, sorted(perm[axis] for axis in gone))
    _read_above(node, 0)
    return ranked([source for axis, source in enumerate(perm) if axis not in gone])


def _unsqueeze(graph: ir.Graph, node: ir.Node, perm: Perm) -> Perm | None:
    axes = _numbers(node, 1)
    if not _reads(node, 0, perm) or axes is None:
        return None
    wide = channels_last(len(perm) + len(axes))
    new = {axis % len(wide) for axis in axes}
    if ranked([source for axis, source in enumerate(wide) if axis not in new]) != perm:
        return None
    _set_numbers(graph, node, 1, sorted(wide[axis] for axis in new))
    _read_above(node, 0)
    return wide


def _reshape(graph: ir.Graph, node: ir.Node, perm: Perm) -> Perm | None:
    """One pixel has the same order both ways."""
    if not _reads(node, 0, perm) or not is_pixel(shape_of(node.inputs[0]), range(1, len(perm) - 1)):
        return None
    numbers = _numbers(node, 1)
    if numbers is None or 0 in numbers:  # 0 copies a size, which stands elsewhere above
        return None
    _read_above(node, 0)
    return [0]


def _reduction(graph: ir.Graph, node: ir.Node, perm: Perm) -> Perm | None:
    rank, axes = len(perm), _numbers(node, 1)
    if not _reads(node, 0, perm) or not axes:
        return None
    gone = {axis % rank for axis in axes}
    if gone == {rank - 1}:
        return None
    keep = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    _set_numbers(graph, node, 1, sorted(perm[axis] for axis in gone))
    _read_above(node, 0)
    if gone == set(range(1, rank - 1)) and node.op_type in _POOLS:
        _pool(graph, node, keep=bool(keep))
    return perm if keep else ranked([perm[axis] for axis in range(rank) if axis not in gone])


def _pool(graph: ir.Graph, node: ir.Node, *, keep: bool) -> None:
    """Write a mean or maximum of whole images as the pooling that it is."""
    source, axes = node.inputs[0], node.inputs[1]
    name = _POOLS[node.op_type]
    node.attributes.clear()
    if keep:
        node.op_type = name
        node.resize_inputs(1)
        return
    pool = ir.node(name, [source], name=f"{node.name}/pool")
    made, shape = pool.outputs[0], shape_of(node.outputs[0])
    made.name, made.type = f"{node.outputs[0].name}/pooled", node.outputs[0].type
    assert axes is not None
    if shape is not None:
        made.shape = ir.Shape([*shape, *[1] * len(_numbers(node, 1) or [])])
    graph.insert_before(node, pool)
    node.op_type = "Squeeze"
    node.replace_input_with(0, made)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(_REDUCTIONS, _reduction),
    "Concat": _concat,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _along_axis,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Unsqueeze": _unsqueeze,
}
