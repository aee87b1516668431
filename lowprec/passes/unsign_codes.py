"""Activations of signed codes become unsigned ones: the kernels of every layer read u8.

    x ──► Quantize(s, z: s8) ──► Dequantize ──► ...   becomes   Quantize(s, z + 128: u8) ──► ...

The real numbers are the same bit for bit: a code and its zero point are both 128 higher, and
saturation is at the same reals. Codes that others see (a graph output, an operator that counts
with codes) stay signed. Data movement between the two is followed.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.graph.constants import add_constant
from lowprec.passes.matching import constant_array, is_operator

# Operators that only move the codes of their first operand (all operands of a Concat).
_MOVERS = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "Identity",
        "MaxPool",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
    }
)


def unsign_codes(model: ir.Model) -> bool:
    """Rewrite the main graph of `model` in place; return whether anything changed."""
    seen: set[ir.Value] = set()
    changed = False
    made: dict[ir.Value, ir.Value] = {}  # zero points, by the signed one
    for node in list(model.graph):
        if not is_operator(node, "QuantizeLinear") or node.outputs[0] in seen:
            continue
        group = _group(node.outputs[0])
        seen |= group.values
        if group.flips:
            _flip(model.graph, group, made)
            changed = True
    return changed


class _Group:
    """The values that hold the same codes moved about, and who writes and reads them."""

    def __init__(self) -> None:
        self.values: set[ir.Value] = set()
        self.ends: set[ir.Node] = set()  # QuantizeLinear and DequantizeLinear
        self.flips = True


def _group(start: ir.Value) -> _Group:
    group = _Group()
    todo = [start]
    while todo:
        value = todo.pop()
        if value in group.values:
            continue
        group.values.add(value)
        writer = value.producer()
        if value.is_graph_output() or writer is None:
            group.flips = False
        if is_operator(writer, "QuantizeLinear") and writer is not None:
            group.ends.add(writer)
            group.flips &= _has_s8_zero_point(writer)
        elif is_operator(writer, *_MOVERS) and writer is not None:
            todo += _moved(writer)
        else:
            group.flips = False
        for use in value.uses():
            reader = use.node
            if writer is not None and reader.graph is not writer.graph:
                group.flips = False
            elif is_operator(reader, "DequantizeLinear") and use.idx == 0:
                group.ends.add(reader)
                group.flips &= _has_s8_zero_point(reader)
            elif is_operator(reader, *_MOVERS) and value in _moved(reader):
                todo += _moved(reader)
            else:
                group.flips = False
    return group


def _moved(node: ir.Node) -> list[ir.Value]:
    operands = node.inputs if node.op_type == "Concat" else node.inputs[:1]
    outputs = node.outputs[:1] if node.op_type == "MaxPool" else node.outputs
    return [value for value in (*operands, *outputs) if value is not None and value.name]


def _has_s8_zero_point(node: ir.Node) -> bool:
    """Return whether the zero point is a constant s8 number; none is u8, or s8 by an attribute."""
    if len(node.inputs) < 3 or node.attributes.get_int("block_size", 0) != 0:
        return False
    zero_point = constant_array(node.inputs[2])
    return zero_point is not None and zero_point.dtype == np.int8


def _flip(graph: ir.Graph, group: _Group, made: dict[ir.Value, ir.Value]) -> None:
    for node in group.ends:
        old = node.inputs[2]
        zero_point = constant_array(old)
        if old is None or zero_point is None:
            raise TypeError(f"{node.name!r} has no constant zero point any more")
        flipped = made.get(old)
        if flipped is None:
            name = f"{old.name}__u8"
            while name in graph.initializers:
                name += "_"
            array = (zero_point.astype(np.int16) + 128).astype(np.uint8)
            made[old] = flipped = add_constant(graph, name, array)
        node.replace_input_with(2, flipped)
        node.attributes.pop("output_dtype", None)
    for value in group.values:
        value.type = ir.TensorType(ir.DataType.UINT8)
