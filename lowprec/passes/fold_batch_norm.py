"""Fold an inference BatchNormalization into the layer before it.

    x ──► Conv(W, b) ──► BatchNormalization(g, s, m, v) ──► y
    becomes    x ──► Conv(W * f, (b - m) * f + s) ──► y        with  f = g / sqrt(v + epsilon)

The layer may be a Conv, ConvTranspose, Gemm, or a MatMul of rank 2 (whose shift becomes an Add: it
has no bias). Sums are taken in f64 and rounded once. The layer's output must have no other reader.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.layers import Layer, find_layer, set_bias, set_weights
from lowprec.passes.matching import (
    NameSource,
    constant_floats,
    graph_of,
    insert_operator,
    is_operator,
    rank_of,
    replace_output,
    sole_consumer,
    walk_nodes,
)


def fold_batch_norm(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    names = NameSource(model)
    changed = False
    for node in walk_nodes(model):
        affine = _inference_affine(node)
        if affine is None or node.inputs[0] is None:
            continue
        producer = node.inputs[0].producer()
        if producer is None or sole_consumer(node.inputs[0]) is not node:
            continue
        layer = find_layer(producer)
        if isinstance(layer, str) or layer.channels != affine[0].size:
            continue
        if producer.op_type == "MatMul" and rank_of(producer.outputs[0]) != 2:
            continue
        changed |= apply_affine(layer, *affine, after=node, names=names)
    return changed


def apply_affine(
    layer: Layer,
    factor: NDArray[np.float64],
    shift: NDArray[np.float64],
    *,
    after: ir.Node,
    names: NameSource,
) -> bool:
    """Let `layer` compute `factor * y + shift` itself, and remove `after`, which did.

    Args:
        layer: Its output's only reader is `after`.
        factor: Shape (channels,).
        shift: Shape (channels,).
        after: The node whose only live output equals `factor * y + shift`.
        names: Names for new constants.

    Returns:
        False, with nothing changed, when the new numbers would not be finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        weights = layer.scale_channels(factor)
        bias = (layer.bias_array() * factor + shift).astype(np.float32)
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        return False
    output = layer.node.outputs[0]
    if after.outputs[0].is_graph_output() and after.graph is not layer.node.graph:
        return False
    set_weights(layer, weights, names)
    if layer.has_bias_input:
        set_bias(layer, bias, names)
        return replace_output(after, output)
    if not bias.any():
        return replace_output(after, output)
    constant = add_constant(graph_of(after), names.fresh(f"{layer.weights.name}_shift"), bias)
    shifted = insert_operator(
        after, "Add", [output, constant], like=output, name=names.fresh(f"{output.name}_shifted")
    )
    return replace_output(after, shifted)


def _inference_affine(
    node: ir.Node,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return (factor, shift) per channel of a BatchNormalization that uses stored statistics."""
    if (
        not is_operator(node, "BatchNormalization")
        or node.attributes.get_int("training_mode", 0) != 0
    ):
        return None
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return None
    if len(node.inputs) != 5:
        return None
    arrays = [constant_floats(value) for value in node.inputs[1:]]
    gamma, beta, mean, variance = (
        None if array is None else array.astype(np.float64) for array in arrays
    )
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    # The attribute is stored as f32; a runtime adds exactly that number.
    epsilon = float(np.float32(node.attributes.get_float("epsilon", 1e-5)))
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = gamma / np.sqrt(variance + epsilon)
    return factor, beta - mean * factor
