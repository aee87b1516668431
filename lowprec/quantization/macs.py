"""Concrete shapes of every value, and the multiply-adds of every operator.

Declared shapes are not believed: the shapes of the inputs as fed are propagated through the graph
by ONNX's shape inference, with shape arithmetic evaluated on the way.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from lowprec.graph.constants import add_constant
from lowprec.graph.silence import silent_onnx_ir
from lowprec.passes.fold_constants import fold_constants
from lowprec.passes.layers import find_layer
from lowprec.passes.matching import is_operator

Shape = tuple[int, ...]

_MAX_ROUNDS = 8  # each settles the shapes behind one more Reshape whose target was computed


def concrete_shapes(
    model: ir.Model, input_shapes: Mapping[str, Iterable[int]] | None = None
) -> dict[str, Shape]:
    """Return the shape of every value, also of bodies, whose dimensions are all known.

    Args:
        model: Not changed.
        input_shapes: Shapes as fed, by input name. An input that is not named keeps its declared
            dimensions; unknown ones count as 1.
    """
    clone = model.clone()
    for value in clone.graph.inputs:
        fed = None if input_shapes is None else input_shapes.get(value.name or "")
        if fed is not None:
            value.shape = ir.Shape([int(dim) for dim in fed])
        elif value.shape is not None:
            value.shape = ir.Shape([d if isinstance(d, int) and d > 0 else 1 for d in value.shape])
    for node in clone.graph.all_nodes():
        for output in node.outputs:
            output.shape = None
    infer = ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)
    with silent_onnx_ir():
        for _ in range(_MAX_ROUNDS):
            infer(clone)
            if not _evaluate_shapes(clone):
                break
    shapes = {}
    for graph in clone.graphs():
        for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
            shape = _static(value)
            if shape is not None and value.name:
                shapes[value.name] = shape
        for name, value in graph.initializers.items():
            if value.shape is not None:
                shapes[name] = tuple(int(dim) for dim in value.shape.numpy())
    return shapes


def _evaluate_shapes(model: ir.Model) -> bool:
    """Turn Shape of a value of known shape into a constant, and fold what follows from it."""
    changed = False
    for node in model.graph:
        if not is_operator(node, "Shape") or node.outputs[0].is_graph_output():
            continue
        shape = _static(node.inputs[0])
        name = node.outputs[0].name
        if shape is None or name is None:
            continue
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
        node.outputs[0].name = None
        constant = add_constant(model.graph, name, np.array(shape[start:end], np.int64))
        node.outputs[0].replace_all_uses_with(constant)
        model.graph.remove(node, safe=True)
        changed = True
    return fold_constants(model) or changed


def _static(value: ir.Value | None) -> Shape | None:
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(int(dim) for dim in value.shape.numpy())


def count_macs(node: ir.Node, shapes: Mapping[str, Shape]) -> int | None:
    """Return the multiply-adds of `node` for `shapes`: 0 for an operator without products.

    Returns:
        None when the operator multiplies matrices and a shape that is needed is not known.
    """
    if is_operator(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        return _count_product(node, shapes)
    if is_operator(node, "LSTM", "GRU", "RNN"):
        gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[node.op_type]
        sequence, weights, recurrence = (_shape_of(value, shapes) for value in node.inputs[:3])
        if sequence is None or weights is None or recurrence is None:
            return None
        directions, width, hidden = weights[0], weights[2], recurrence[2]
        return sequence[0] * sequence[1] * directions * gates * hidden * (width + hidden)
    return 0


def _count_product(node: ir.Node, shapes: Mapping[str, Shape]) -> int | None:
    layer = find_layer(node)
    if node.op_type == "ConvTranspose":
        source, weights = _shape_of(node.inputs[0], shapes), _shape_of(node.inputs[1], shapes)
        if source is None or weights is None:
            return None
        return math.prod(source) * math.prod(weights[1:])
    output = _shape_of(node.outputs[0], shapes)
    if output is None:
        return None
    if not isinstance(layer, str):
        return math.prod(output) * (layer.weight_array.size // layer.channels)
    source = _shape_of(node.inputs[0], shapes)
    if node.op_type == "Conv":
        weights = _shape_of(node.inputs[1], shapes)
        return None if weights is None else math.prod(output) * math.prod(weights[1:])
    if source is None or not source:
        return None
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transA", 0) != 0
    return math.prod(output) * source[0 if transposed else -1]


def _shape_of(value: ir.Value | None, shapes: Mapping[str, Shape]) -> Shape | None:
    return None if value is None or value.name is None else shapes.get(value.name)
