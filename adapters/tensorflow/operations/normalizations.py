"""Batch normalisation and local response normalisation."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.images import Images
from lowprec.adapters.tensorflow.translator import Translator, translates
from lowprec.errors import UnsupportedError


@translates("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def _batch_norm(translator: Translator, node: Node) -> ir.Value:
    if node.attributes.get("is_training"):
        raise UnsupportedError(
            f"node '{node.name}' ({node.op}) is in training mode; freeze the model with "
            "training=False"
        )
    images = Images(node, 5 if "D" in str(node.attributes.get("data_format", "")) else 4)
    value = images.first(translator, translator.value(node, 0))
    inputs = [value, *(translator.value(node, index) for index in range(1, 5))]
    epsilon = {"epsilon": float(node.attributes.get("epsilon", 1e-4))}
    made = translator.emit("BatchNormalization", inputs, epsilon, name=node.name)
    return images.back(translator, made)


@translates("LRN")
def _local_response(translator: Translator, node: Node) -> ir.Value:
    radius = int(node.attributes.get("depth_radius", 5))
    size = 2 * radius + 1
    first = translator.emit(
        "Transpose",
        [translator.value(node, 0)],
        {"perm": [0, 3, 1, 2]},
        name=f"{node.name}/channels_first",
    )
    made = translator.emit(
        "LRN",
        [first],
        {
            "size": size,
            "alpha": float(np.float32(node.attributes.get("alpha", 1.0)) * size),
            "beta": float(node.attributes.get("beta", 0.5)),
            "bias": float(node.attributes.get("bias", 1.0)),
        },
        name=node.name,
    )
    return translator.emit(
        "Transpose", [made], {"perm": [0, 2, 3, 1]}, name=f"{node.name}/channels_last"
    )


@translates("L2Loss")
def _half_square(translator: Translator, node: Node) -> ir.Value:
    value = translator.value(node, 0)
    total = translator.emit("ReduceSumSquare", [value], {"keepdims": 0}, name=f"{node.name}/sum")
    half = translator.new_constant(np.asarray(0.5, node.attributes["T"]))
    return translator.emit("Mul", [total, half], name=node.name)
