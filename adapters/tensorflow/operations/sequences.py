"""Layers on sequences, which TensorFlow runs on images that are one pixel high."""

from __future__ import annotations

import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.convolutions import convolve
from lowprec.adapters.tensorflow.operations.images import Images
from lowprec.adapters.tensorflow.operations.pooling import pool
from lowprec.adapters.tensorflow.operations.transposed import spread
from lowprec.adapters.tensorflow.translator import Translator

_MAKES = {
    "Conv2D": (convolve, 0),
    "DepthwiseConv2dNative": (convolve, 0),
    "Conv2DBackpropInput": (spread, 2),
    "DepthwiseConv2dNativeBackpropInput": (spread, 2),
    "MaxPool": (pool, 0),
    "AvgPool": (pool, 0),
}


def without_the_height(translator: Translator, node: Node) -> ir.Value | None:
    """Return what `node`, a Squeeze, makes, as a layer on sequences; None where it is not one.

    ExpandDims, layer, Squeeze of the same axis: the layer works along the other one only.
    """
    layer = translator.graph.nodes.get(node.inputs[0][0])
    if layer is None or layer.op not in _MAKES:
        return None
    make, index = _MAKES[layer.op]
    images = Images(layer, 4)
    axes = [axis % 4 for axis in node.attributes.get("squeeze_dims") or []]
    if len(axes) != 1 or axes[0] not in images.positions:
        return None
    found = expanded(translator, layer.inputs[index], axes[0])
    spatial = images.positions.index(axes[0])
    if found is None or not _is_one(translator, layer, spatial):
        return None
    return make(translator, Images(layer, 4, spatial), found)


def expanded(
    translator: Translator, tensor: tuple[str, int], axis: int, rank: int = 4
) -> ir.Value | None:
    """Return what ExpandDims made `tensor` of, where it inserted `axis`."""
    node = translator.graph.nodes.get(tensor[0])
    if node is None or node.op != "ExpandDims":
        return None
    at, known = translator.known(node, 1), translator.known(node, 0)
    if at is None or known is not None or int(at.reshape(())) % rank != axis:
        return None
    return translator.value(node, 0)


def _is_one(translator: Translator, layer: Node, spatial: int) -> bool:
    """Whether the layer does nothing along a spatial axis."""
    images = Images(layer, 4)
    if layer.attributes.get("padding") == "EXPLICIT" and any(images.explicit()[spatial]):
        return False
    if layer.op in ("MaxPool", "AvgPool"):
        return images.sizes("ksize")[spatial] == 1
    weights = translator.known(layer, 1)
    if weights is None or weights.ndim != 4 or weights.shape[spatial] != 1:
        return False
    if layer.op.endswith("BackpropInput"):
        asked = translator.shape((layer.name, 0))
        return asked is not None and asked[images.positions[spatial]] == 1
    return True
