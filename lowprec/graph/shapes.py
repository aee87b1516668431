"""Forget what a model claims about its shapes, except as information about its interface.

Exporters write wrong intermediate shapes and leave them behind when a graph is edited, and a wrong
shape believed is a crash or a wrong number. Every room that needs shapes infers them from the
operators.
"""

from __future__ import annotations

import onnx_ir as ir


def forget_shapes(model: ir.Model) -> None:
    """Clear types and shapes of everything but graph inputs, outputs and constants, in place.

    Dimensions of the main graph's inputs and outputs that say nothing (zero, negative, nameless,
    '' or '?') become unknown.
    """
    for graph in model.graphs():
        kept = {*graph.initializers.values()}
        if graph is model.graph:
            kept |= {*graph.inputs, *graph.outputs}
        else:
            kept |= set(graph.inputs) | set(graph.outputs)
            for value in (*graph.inputs, *graph.outputs):
                value.shape = None
        for value in (*graph.inputs, *(out for node in graph for out in node.outputs)):
            if value not in kept:
                value.shape = None
                value.type = None
            value.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([_known_or_none(dim) for dim in value.shape])


def _known_or_none(dim: int | ir.SymbolicDim) -> int | str | None:
    if isinstance(dim, int):
        return dim if dim > 0 else None
    name = dim.value
    return name if name and name != "?" and not name.lstrip("-").isdigit() else None
