"""Pooling; an average leaves out what is padded, in TensorFlow as in ONNX."""

from __future__ import annotations

import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.images import Images
from lowprec.adapters.tensorflow.translator import Translator, translates
from lowprec.errors import UnsupportedError

POOLINGS = ("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D")


@translates(*POOLINGS)
def _pool(translator: Translator, node: Node) -> ir.Value:
    images = Images(node, len(node.attributes["ksize"]))
    return pool(translator, images, translator.value(node, 0))


@translates("MaxPoolV2")
def _pool_by_inputs(translator: Translator, node: Node) -> ir.Value:
    sizes = {
        name: [int(size) for size in translator.constant(node, index).reshape(-1)]
        for name, index in (("ksize", 1), ("strides", 2))
    }
    given = Node(node.name, node.op, node.inputs, {**node.attributes, **sizes})
    return pool(translator, Images(given, 4), translator.value(node, 0))


def pool(translator: Translator, images: Images, value: ir.Value) -> ir.Value:
    """Return what a pooling makes of `value`."""
    node = images.node
    outside = {0, 1 if not images.last else len(node.attributes["ksize"]) - 1}
    if any(node.attributes[name][axis] != 1 for name in ("ksize", "strides") for axis in outside):
        raise UnsupportedError(
            f"node '{node.name}' ({node.op}) pools over the batch or the channels"
        )
    made = translator.emit(
        "MaxPool" if node.op.startswith("Max") else "AveragePool",
        [images.first(translator, value)],
        {
            "kernel_shape": images.sizes("ksize"),
            "strides": images.sizes("strides"),
            **images.padding(),
        },
        name=node.name,
    )
    return images.back(translator, made)
