"""Let a convolution pad with zeros itself.

    x ──► Pad(pads, 0) ──► Conv(pads=p) ──► y        becomes        x ──► Conv(pads=p + pads) ──► y

Only spatial axes may be padded, by constants that are not negative. The same products are added up
in the same order, so the bits stay. Exporters write such pairs for "same" padding that depends on
the stride.
"""

from __future__ import annotations

import onnx_ir as ir

from lowprec.passes.matching import (
    constant_array,
    is_operator,
    is_scalar,
    rank_of,
    sole_consumer,
    walk_nodes,
)
from lowprec.passes.own import int_list


def fold_padding(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for conv in walk_nodes(model):
        if not is_operator(conv, "Conv") or conv.inputs[0] is None:
            continue
        if conv.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            continue
        pad = conv.inputs[0].producer()
        rank = rank_of(conv.inputs[1])
        if pad is None or rank is None or sole_consumer(pad.outputs[0]) is not conv:
            continue
        added = spatial_zeros(pad, rank)
        if added is None:
            continue
        spatial = rank - 2
        own = int_list(conv, "pads") or [0] * (2 * spatial)
        conv.attributes["pads"] = ir.AttrInt64s(
            "pads", [a + b for a, b in zip(own, added, strict=True)]
        )
        conv.attributes.pop("auto_pad", None)
        conv.replace_input_with(0, pad.inputs[0])
        changed = True
    return changed


def spatial_zeros(pad: ir.Node, rank: int) -> list[int] | None:
    """Return how many zeros `pad` adds: beginnings of the spatial axes, then their ends."""
    if not is_operator(pad, "Pad") or pad.attributes.get_string("mode", "constant") != "constant":
        return None
    value = pad.inputs[2] if len(pad.inputs) > 2 else None
    if value is not None and not is_scalar(value, 0.0, tolerance=0.0):
        return None
    pads = constant_array(pad.inputs[1]) if len(pad.inputs) > 1 else None
    axes = list(range(rank))
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        chosen = constant_array(pad.inputs[3])
        if chosen is None:
            return None
        axes = [int(axis) % rank for axis in chosen.reshape(-1)]
    if pads is None or pads.size != 2 * len(axes):
        return None
    begin, end = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        begin[axis], end[axis] = int(pads[position]), int(pads[len(axes) + position])
    if min(*begin, *end) < 0 or any(begin[:2]) or any(end[:2]):
        return None
    return begin[2:] + end[2:]
