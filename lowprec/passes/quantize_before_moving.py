"""Quantize that follows data movement happens before it: the movement is of bytes, or vanishes.

    a ──► Resize ──┐
                   ├► Concat ──► Quantize ──► yq
    b ─────────────┘
    becomes
    a ──► Quantize ──► Resize ──┐
                                ├► QConcat ──► yq
    b ──► Quantize ─────────────┘

Rounding looks at one element at a time, so it commutes with whatever only moves or repeats
elements. A part that is Dequantize'd codes needs no Quantize: QConcat reads its codes. What makes
the parts can then choose codes itself (fuse_epilogues, fuse_elementwise). The float value must have
no other reader.
"""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from lowprec.passes.matching import (
    NameSource,
    constant_array,
    graph_of,
    is_operator,
    sole_consumer,
)
from lowprec.passes.own import (
    AttributeValue,
    Codes,
    dequantized,
    insert_own,
    quantizes,
    remove_if_unused,
)

_MOVERS = (
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Reshape",
    "Resize",
    "SpaceToDepth",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)


def quantize_before_moving(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    names = NameSource(model)
    waiting = [node for node in model.graph if quantizes(node) is not None]
    changed = False
    while waiting:
        quantize = waiting.pop()
        codes = quantizes(quantize)
        moved = quantize.inputs[0]
        mover = None if moved is None else moved.producer()
        if quantize.graph is None or codes is None or moved is None or mover is None:
            continue
        if moved.name in keep or sole_consumer(moved) is not quantize:
            continue
        if mover.graph is not quantize.graph or len(mover.outputs) != 1:
            continue
        if is_operator(mover, "Concat"):
            waiting += _before_concat(mover, quantize, codes, names)
        elif _only_moves(mover):
            waiting.append(_before_mover(mover, quantize, codes, names))
        else:
            continue
        changed = True
    return changed


def _only_moves(node: ir.Node) -> bool:
    if not is_operator(node, *_MOVERS) or node.inputs[0] is None:
        return False
    if constant_array(node.inputs[0]) is not None:
        return False
    if not is_operator(node, "Resize"):
        return True
    coordinates = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    nearest = node.attributes.get_string("mode", "nearest") == "nearest"
    return nearest and coordinates != "tf_crop_and_resize"  # that one fills with a number


def _quantized(
    value: ir.Value, anchor: ir.Node, like: ir.Node, codes: Codes, names: NameSource
) -> ir.Node:
    """Insert before `anchor` what `like` does, for `value`."""
    made = ir.Value(
        name=names.fresh(f"{value.name}_early"), type=codes.value.type, shape=value.shape
    )
    node = ir.Node(
        like.domain,
        like.op_type,
        [value, *like.inputs[1:]],
        list(like.attributes.values()),
        outputs=[made],
        name=names.fresh(f"{like.name or 'quantize'}_early"),
    )
    graph_of(anchor).insert_before(anchor, node)
    return node


def _before_mover(mover: ir.Node, quantize: ir.Node, codes: Codes, names: NameSource) -> ir.Node:
    source = mover.inputs[0]
    assert source is not None  # _only_moves
    early = _quantized(source, mover, quantize, codes, names)
    mover.replace_input_with(0, early.outputs[0])
    moved, result = mover.outputs[0], quantize.outputs[0]
    name, moved.type = result.name, result.type
    result.replace_all_uses_with(moved, replace_graph_outputs=True)
    graph_of(quantize).remove(quantize, safe=True)
    moved.name = name
    return early


def _before_concat(
    concat: ir.Node, quantize: ir.Node, codes: Codes, names: NameSource
) -> list[ir.Node]:
    """Return the new Quantize nodes."""
    early: list[ir.Node] = []
    parts: list[Codes] = []
    for value in concat.inputs:
        assert value is not None
        known = dequantized(value)
        if known is None or known.dtype != codes.dtype:
            early.append(_quantized(value, concat, quantize, codes, names))
            known = Codes(early[-1].outputs[0], codes.scale, codes.zero_point, codes.dtype)
        parts.append(known)
    attributes: dict[str, AttributeValue] = {
        "axis": concat.attributes.get_int("axis", 0),
        "x_scale": [part.scale for part in parts],
        "x_zero_point": [part.zero_point for part in parts],
        "y_scale": codes.scale,
        "y_zero_point": codes.zero_point,
        "y_dtype": int(codes.dtype),
    }
    readers = [value.producer() for value in concat.inputs if value is not None]
    insert_own(quantize, "QConcat", [part.value for part in parts], quantize.outputs, attributes)
    graph_of(concat).remove([quantize, concat], safe=True)
    for reader in readers:
        if is_operator(reader, "DequantizeLinear"):
            remove_if_unused(reader)
    return early
