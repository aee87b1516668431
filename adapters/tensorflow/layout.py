"""Channels last to channels first: transposes move through the graph until they meet their inverse.

Translated convolutions stand between two transposes. One that leads to channels last (perm 0, 2 ...
n-1, 1) sinks below whatever works on each element, pads, joins, cuts or reduces
(`layout_sinking.py`); above the next convolution it meets its inverse, and both are gone. So batch
norm stands directly after its convolution, where it is folded, and precision is decided on the
graph that runs. What is left before the first convolution rises to the input
(`layout_rising.py`). Each is one sweep, so any graph ends. A transpose that stays costs no copy
where the engine keeps the image with its channels last, which it does around convolutions.
"""

from __future__ import annotations

import onnx_ir as ir

from lowprec.adapters.tensorflow.layout_edits import constant_of, shape_of
from lowprec.adapters.tensorflow.layout_rising import rise
from lowprec.adapters.tensorflow.layout_sinking import cancel, sink


def channels_first(model: ir.Model) -> None:
    """Move transposes, in place, and drop those that cancel.

    Inputs and outputs keep their names, shapes and order of axes. Shapes that are given for values
    in between are used and then forgotten.
    """
    graph = model.graph
    sink(graph)
    _drop_unused(graph)
    rise(graph)
    for node in graph:
        cancel(node)
        _skip_pixel(node)
    _drop_unused(graph)
    for node in graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


def _skip_pixel(node: ir.Node) -> None:
    """Leave out a Reshape that restores what a Squeeze took from a pooled image."""
    source = node.inputs[0] if node.inputs else None
    squeeze = None if source is None else source.producer()
    if node.op_type != "Reshape" or squeeze is None or squeeze.op_type != "Squeeze":
        return
    pooled, target = squeeze.inputs[0], constant_of(node.inputs[1])
    shape = shape_of(pooled)
    if target is None or shape is None or pooled is None or node.outputs[0].is_graph_output():
        return
    sizes = [int(size) for size in target]
    # The first axis is what is left: sizes[0] may be -1.
    if None not in shape[1:] and sizes[1:] == shape[1:] and sizes[0] in (-1, shape[0]):
        node.outputs[0].replace_all_uses_with(pooled)


def _drop_unused(graph: ir.Graph) -> None:
    for node in reversed(list(graph)):
        if node.op_type in ("Transpose", "Reshape", "Squeeze") and not any(
            value.uses() or value.is_graph_output() for value in node.outputs
        ):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
