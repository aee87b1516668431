"""Data movement between bf16 tensors happens in bf16; a cast there and back disappears.

    xb ──► Cast(f32) ──► MaxPool ──► Cast(bf16) ──► yb     becomes     xb ──► MaxPool ──► yb
    xb ──► Cast(f32) ──► Cast(bf16) ──► yb                 becomes     xb

Widening bf16 is exact and monotonic, so it may as well come after operators that move or compare
elements: half the bytes move. Each such operator hands its Cast(f32) on to its readers, until
somebody computes.
"""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from lowprec.passes.matching import NameSource, graph_of, is_operator
from lowprec.passes.own import is_own, remove_if_unused

MOVERS = (
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
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
)


def widened(value: ir.Value | None) -> ir.Value | None:
    """Return the bf16 value that `value` is, seen as f32; None where it is something else."""
    node = None if value is None else value.producer()
    if value is None or not is_operator(node, "Cast") or node is None or node.inputs[0] is None:
        return None
    if node.attributes.get_int("to", 0) != ir.DataType.FLOAT:
        return None
    return node.inputs[0] if node.inputs[0].dtype == ir.DataType.BFLOAT16 else None


def narrows(node: ir.Node | None) -> bool:
    """Return whether `node` rounds f32 to bf16."""
    if not is_operator(node, "Cast") or node is None or node.inputs[0] is None:
        return False
    if node.inputs[0].dtype not in (None, ir.DataType.FLOAT):
        return False
    return node.attributes.get_int("to", 0) == ir.DataType.BFLOAT16


def moved_inputs(node: ir.Node) -> list[int] | None:
    """Return which inputs' elements `node` moves to its outputs unchanged; None: it is no mover."""
    if is_operator(node, "Concat"):
        return list(range(len(node.inputs)))
    if is_operator(node, "MaxPool") and len(node.outputs) > 1:
        return None
    if is_operator(node, "Resize", "Upsample"):
        return [0] if _takes_nearest(node) else None
    return [0] if is_operator(node, *MOVERS) or is_own(node, "ChannelShuffle") else None


def move_casts(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    names: NameSource | None = None
    changed = False
    for node in list(model.graph):
        if node.graph is None:
            continue
        if narrows(node):
            source = widened(node.inputs[0])
            if source is not None:
                changed |= _cancel(node, source, keep)
            continue
        positions = moved_inputs(node)
        if not positions:
            continue
        sources = [widened(node.inputs[position]) for position in positions]
        if any(source is None for source in sources):
            continue
        names = names or NameSource(model)
        _move(node, positions, sources, names)
        changed = True
    return changed


def _takes_nearest(node: ir.Node) -> bool:
    return node.attributes.get_string("mode", "nearest") == "nearest"


def _cancel(node: ir.Node, source: ir.Value, keep: Container[str]) -> bool:
    made = node.outputs[0]
    if made.is_graph_output() or made.name in keep:
        return False
    wide = node.inputs[0]
    made.replace_all_uses_with(source)
    graph_of(node).remove(node, safe=True)
    remove_if_unused(None if wide is None else wide.producer())
    return True


def _move(
    node: ir.Node, positions: list[int], sources: list[ir.Value | None], names: NameSource
) -> None:
    casts = [node.inputs[position].producer() for position in positions]  # type: ignore[union-attr]
    for position, source in zip(positions, sources, strict=True):
        node.replace_input_with(position, source)
    for cast in casts:
        remove_if_unused(cast)
    anchor = node
    for made in node.outputs:
        if not made.name:
            continue
        wide = ir.Value(name=made.name, type=made.type, shape=made.shape)
        widen = ir.Node(
            "",
            "Cast",
            inputs=[made],
            attributes=[ir.AttrInt64("to", int(ir.DataType.FLOAT))],
            outputs=[wide],
            name=names.fresh(f"{made.name}_widened"),
        )
        made.replace_all_uses_with(wide, replace_graph_outputs=True)
        widen.replace_input_with(0, made)
        made.name = names.fresh(f"{made.name}_bf16")
        made.type = ir.TensorType(ir.DataType.BFLOAT16)
        graph_of(node).insert_after(anchor, widen)
        anchor = widen
