"""Convolutions, also those that older graphs write around SpaceToBatchND."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.images import Images
from lowprec.adapters.tensorflow.operations.ranges import weights_of
from lowprec.adapters.tensorflow.translator import Array, Translator, translates
from lowprec.errors import ModelError, UnsupportedError

CONVOLUTIONS = ("Conv2D", "Conv3D", "DepthwiseConv2dNative")


@translates(*CONVOLUTIONS)
def _convolution(translator: Translator, node: Node) -> ir.Value:
    rank = 5 if node.op == "Conv3D" else 4
    return convolve(translator, Images(node, rank), translator.value(node, 0))


def convolve(
    translator: Translator,
    images: Images,
    value: ir.Value,
    dilations: Sequence[int] | None = None,
    padding: dict[str, Any] | None = None,
) -> ir.Value:
    """Return what a convolution makes of `value`.

    Args:
        translator: Takes the nodes.
        images: Its axes.
        value: In the format of the node.
        dilations: In place of the node's own.
        padding: The same, as ONNX's attributes.
    """
    node = images.node
    weights = translator.constant(node, 1)  # spatial..., channels in, channels out
    rank = 5 if node.op == "Conv3D" else 4
    if weights.ndim != rank or not weights.size:
        raise ModelError(f"node '{node.name}' ({node.op}) has weights of shape {weights.shape}")
    if images.left_out is not None:
        weights = weights.take(0, images.left_out)
    spatial = images.spatial
    if node.op == "DepthwiseConv2dNative":  # height, width, channels, multiplier
        *window, group, multiplier = weights.shape
        kernel = np.moveaxis(weights.reshape(*window, 1, group * multiplier), (-1, -2), (0, 1))
    else:
        shape = translator.shape(node.inputs[0])
        channels = None if shape is None else shape[-1 if images.last else 1]
        if channels is None:
            raise UnsupportedError(f"node '{node.name}': the number of its channels is unknown")
        group, left = divmod(channels, weights.shape[-2])
        if left or not group or weights.shape[-1] % group:
            raise ModelError(
                f"node '{node.name}' ({node.op}): weights of shape {weights.shape} do not fit "
                f"{channels} channels"
            )
        kernel = np.moveaxis(weights, (-1, -2), (0, 1))
    inputs = [
        images.first(translator, value),
        weights_of(translator, node, kernel, 0),
    ]
    attributes = {
        "strides": images.sizes("strides"),
        "dilations": list(dilations or images.sizes("dilations")),
        "group": int(group),
        "kernel_shape": [int(size) for size in kernel.shape[2:]],
        **(padding or images.padding()),
    }
    if len(attributes["dilations"]) != spatial:
        raise ModelError(f"node '{node.name}' has dilations {attributes['dilations']}")
    return images.back(translator, translator.emit("Conv", inputs, attributes, name=node.name))


@translates("BiasAdd", "BiasAddV1")
def _bias(translator: Translator, node: Node) -> ir.Value:
    bias = translator.value(node, 1)
    if str(node.attributes.get("data_format") or "NHWC").startswith("NC"):
        known, rank = translator.constant(node, 1), translator.rank(node, 0)
        bias = translator.new_constant(known.reshape(1, -1, *[1] * (rank - 2)), node.inputs[1][0])
    return translator.emit("Add", [translator.value(node, 0), bias], name=node.name)


@translates("SpaceToDepth", "DepthToSpace")
def _blocks(translator: Translator, node: Node) -> ir.Value:
    images = Images(node, 4)
    block = int(node.attributes["block_size"])
    value = images.first(translator, translator.value(node, 0))
    if node.op == "DepthToSpace":
        attributes = {"blocksize": block, "mode": "DCR"}
        made = translator.emit("DepthToSpace", [value], attributes, name=node.name)
    else:
        made = translator.emit("SpaceToDepth", [value], {"blocksize": block}, name=node.name)
    return images.back(translator, made)


def flat(array: Array) -> list[int]:
    """Return the integers of an array in order."""
    return [int(number) for number in np.asarray(array).reshape(-1)]
