"""Data movement between a Dequantize and a Quantize of the same numbers works on the codes.

    xq ──► Dequantize ──► MaxPool ──► Quantize ──► yq     becomes     xq ──► MaxPool ──► yq

Reshape and its kin, Transpose, Slice, Split's kin and Concat move codes without looking at them;
MaxPool compares them, and the order of codes is the order of reals. All must share scale and zero
point.
"""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from lowprec.passes.matching import graph_of, is_operator
from lowprec.passes.own import dequantized, next_quantize, remove_if_unused

_MOVERS = (
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "MaxPool",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)


def move_to_codes(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in list(model.graph):
        if not is_operator(node, *_MOVERS) or node.inputs[0] is None:
            continue
        if len([value for value in node.outputs if value.name]) != 1:
            continue
        source = dequantized(node.inputs[0])
        target = next_quantize(node.outputs[0], keep)
        if source is None or target is None or not source.same_numbers(target[1]):
            continue
        dequantize, (quantize, codes) = node.inputs[0].producer(), target
        node.replace_input_with(0, source.value)
        made = node.outputs[0]
        made.type = codes.value.type
        name = codes.value.name
        graph = graph_of(node)
        codes.value.replace_all_uses_with(made, replace_graph_outputs=True)
        graph.remove(quantize, safe=True)
        made.name = name
        remove_if_unused(dequantize)
        changed = True
    return changed
