"""Dense layers over more than two axes, which TensorFlow flattens and restores around a product.

    x ─► Reshape [rows, size] ─► MatMul(weights) ─► Reshape [.., units]   becomes   x ─► MatMul

As tf.tensordot writes it the sizes are computed from x's shape, by ten nodes for each layer.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node, Tensor
from lowprec.adapters.tensorflow.translator import Translator


def dense_product(translator: Translator, node: Node) -> ir.Value | None:
    """Return the product that the Reshape `node` restores the axes of, or None."""
    nodes = translator.graph.nodes
    product = nodes.get(node.inputs[0][0])
    if product is None or product.op != "MatMul" or node.inputs[0][1]:
        return None
    if product.attributes.get("transpose_a") or product.attributes.get("transpose_b"):
        return None
    weights = translator.known(product, 1)
    flat = nodes.get(product.inputs[0][0])
    if weights is None or weights.ndim != 2 or flat is None or flat.op != "Reshape":
        return None
    source = _unmoved(translator, flat.inputs[0])
    shape = translator.shape(source)
    if shape is None or len(shape) < 3 or shape[-1] != weights.shape[0]:
        return None
    if not translator.has(source) or not _restores(translator, node, source, weights.shape[1]):
        return None
    return translator.emit(
        "MatMul",
        [translator.value(_reads(source), 0), translator.value(product, 1)],
        name=node.name,
    )


def _reads(tensor: Tensor) -> Node:
    return Node("dense", "", (tensor,))


def _unmoved(translator: Translator, tensor: Tensor) -> Tensor:
    """Return what `tensor` is a Transpose of that moves nothing."""
    node = translator.graph.nodes.get(tensor[0])
    if node is not None and node.op == "Transpose":
        order = translator.known(node, 1)
        if order is not None and (order == np.arange(order.size)).all():
            return node.inputs[0]
    return tensor


def _restores(translator: Translator, node: Node, source: Tensor, units: int) -> bool:
    """Return whether a Reshape gives the axes of `source`, the last of `units` entries."""
    shape = translator.shape(source)
    assert shape is not None
    target = translator.known(node, 1)
    if target is not None:
        wanted = (*shape[:-1], units)
        if len(wanted) != target.size:
            return False
        unknown = sum(size is None for size in wanted)
        return unknown < 2 and all(
            size == given or (size is None and given == -1)
            for size, given in zip(wanted, target.tolist(), strict=True)
        )
    nodes = translator.graph.nodes
    joined = nodes.get(node.inputs[1][0])
    if joined is None:
        return False
    if joined.op == "ConcatV2" and len(joined.inputs) == 3:
        taken, last = nodes.get(joined.inputs[0][0]), translator.known(joined, 1)
        if taken is None or taken.op != "GatherV2" or last is None or last.tolist() != [units]:
            return False
        axes = translator.known(taken, 1)
        measured = nodes.get(taken.inputs[0][0])
        return (
            axes is not None
            and axes.tolist() == list(range(len(shape) - 1))
            and measured is not None
            and measured.op == "Shape"
            and measured.inputs[0] == source
        )
    return joined.op == "Pack" and _packs(translator, joined, source, units)


def _packs(translator: Translator, pack: Node, source: Tensor, units: int) -> bool:
    """Return whether a Pack lists the sizes of `source`, the last of them `units`."""
    shape = translator.shape(source)
    assert shape is not None
    if len(pack.inputs) != len(shape):
        return False
    for axis, tensor in enumerate(pack.inputs):
        known = translator.known(pack, axis)
        size = units if axis == len(shape) - 1 else shape[axis]
        if known is not None:
            if int(known) != size:
                return False
            continue
        node = translator.graph.nodes.get(tensor[0])
        if node is None or node.op != "StridedSlice" or axis == len(shape) - 1:
            return False
        measured, begin = translator.graph.nodes.get(node.inputs[0][0]), translator.known(node, 1)
        if measured is None or measured.op != "Shape" or measured.inputs[0] != source:
            return False
        if begin is None or begin.tolist() != [axis] or not node.attributes["shrink_axis_mask"]:
            return False
    return True
