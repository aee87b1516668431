"""Convolutions and pooling, whose images have their channels last: transposed to ONNX's order.

The transposes of neighbours cancel in `layout.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.translator import Translator, translates
from lowprec.errors import UnsupportedError

_PADDING = {"SAME": "SAME_UPPER", "VALID": "VALID"}


class Images:
    """The spatial axes of one node's images."""

    def __init__(self, node: Node, rank: int) -> None:
        """Read the data format."""
        self.format = str(node.attributes.get("data_format") or "NHWC")
        self.last = not self.format.startswith("NC")
        self.spatial = rank - 2
        self._node = node
        first = 1 if self.last else 2
        self.axes = slice(first, first + self.spatial)

    def sizes(self, name: str) -> list[int]:
        """Return the spatial part of an attribute with one number for each axis."""
        values = self._node.attributes.get(name) or [1] * (self.spatial + 2)
        return [int(value) for value in values[self.axes]]

    def first(self, translator: Translator, value: ir.Value) -> ir.Value:
        """Return `value` with its channels first."""
        if not self.last:
            return value
        axes = [0, self.spatial + 1, *range(1, self.spatial + 1)]
        return translator.emit(
            "Transpose", [value], {"perm": axes}, name=f"{self._node.name}/channels_first"
        )

    def back(self, translator: Translator, value: ir.Value) -> ir.Value:
        """Return a result, whose channels are first, in the node's own format."""
        if not self.last:
            return value
        axes = [0, *range(2, self.spatial + 2), 1]
        return translator.emit(
            "Transpose", [value], {"perm": axes}, name=f"{self._node.name}/channels_last"
        )

    def padding(self) -> dict[str, Any]:
        """Return ONNX's attributes for the node's padding."""
        kind = str(self._node.attributes["padding"])
        if kind != "EXPLICIT":
            return {"auto_pad": _PADDING[kind]}
        pairs = np.asarray(self._node.attributes["explicit_paddings"]).reshape(-1, 2)[self.axes]
        return {"pads": [int(size) for size in pairs.T.reshape(-1)]}


@translates("Conv2D", "Conv3D")
def _convolution(translator: Translator, node: Node) -> ir.Value:
    weights = translator.constant(node, 1)  # spatial..., channels in / groups, channels out
    images = Images(node, weights.ndim)
    kernel = weights.transpose(weights.ndim - 1, weights.ndim - 2, *range(images.spatial))
    shape = translator.shape(node.inputs[0])
    channels = None if shape is None else shape[-1 if images.last else 1]
    if channels is None:
        raise UnsupportedError(f"node '{node.name}': the number of its channels is unknown")
    made = translator.emit(
        "Conv",
        [
            images.first(translator, translator.value(node, 0)),
            translator.new_constant(kernel, f"{node.name}/weights"),
        ],
        {
            "strides": images.sizes("strides"),
            "dilations": images.sizes("dilations"),
            "group": channels // weights.shape[-2],
            "kernel_shape": list(kernel.shape[2:]),
            **images.padding(),
        },
        name=node.name,
    )
    return images.back(translator, made)


@translates("DepthwiseConv2dNative")
def _depthwise(translator: Translator, node: Node) -> ir.Value:
    weights = translator.constant(node, 1)  # height, width, channels, multiplier
    images = Images(node, 4)
    height, width, channels, multiplier = weights.shape
    kernel = weights.reshape(height, width, 1, channels * multiplier).transpose(3, 2, 0, 1)
    made = translator.emit(
        "Conv",
        [
            images.first(translator, translator.value(node, 0)),
            translator.new_constant(kernel, f"{node.name}/weights"),
        ],
        {
            "strides": images.sizes("strides"),
            "dilations": images.sizes("dilations"),
            "group": channels,
            "kernel_shape": [height, width],
            **images.padding(),
        },
        name=node.name,
    )
    return images.back(translator, made)


@translates("Conv2DBackpropInput", "Conv3DBackpropInputV2")
def _transposed(translator: Translator, node: Node) -> ir.Value:
    """A transposed convolution: TensorFlow names the output's size, of which ONNX takes pads.

    The pads are those of the forward convolution from that size: for SAME, ceil(size / stride)
    positions, what is over shared out with the larger half at the end.
    """
    weights = translator.constant(node, 1)  # spatial..., channels out, channels in
    images = Images(node, weights.ndim)
    kernel = weights.transpose(weights.ndim - 1, weights.ndim - 2, *range(images.spatial))
    strides, dilations = images.sizes("strides"), images.sizes("dilations")
    pads: list[tuple[int, int]] = []
    over: list[int] = []
    for axis in range(images.spatial):
        reach = (weights.shape[axis] - 1) * dilations[axis] + 1
        if node.attributes["padding"] == "SAME":
            # For sizes that are multiples of the stride, as Keras asks for them.
            total = max(reach - strides[axis], 0)
            pads.append((total // 2, total - total // 2))
            over.append(max(strides[axis] - reach, 0))
        else:
            pads.append((0, 0))
            over.append(max(strides[axis] - reach, 0))
    made = translator.emit(
        "ConvTranspose",
        [
            images.first(translator, translator.value(node, 2)),
            translator.new_constant(kernel, f"{node.name}/weights"),
        ],
        {
            "strides": strides,
            "dilations": dilations,
            "kernel_shape": list(kernel.shape[2:]),
            "pads": [before for before, _ in pads] + [after for _, after in pads],
            "output_padding": over,
        },
        name=node.name,
    )
    return images.back(translator, made)


@translates("MaxPool", "AvgPool", "MaxPool3D", "AvgPool3D")
def _pool(translator: Translator, node: Node) -> ir.Value:
    images = Images(node, len(node.attributes["ksize"]))
    made = translator.emit(
        "MaxPool" if node.op.startswith("Max") else "AveragePool",
        [images.first(translator, translator.value(node, 0))],
        {
            "kernel_shape": images.sizes("ksize"),
            "strides": images.sizes("strides"),
            **images.padding(),
        },
        name=node.name,
    )
    return images.back(translator, made)


@translates("BiasAdd")
def _bias(translator: Translator, node: Node) -> ir.Value:
    bias = translator.value(node, 1)
    if str(node.attributes.get("data_format") or "NHWC").startswith("NC"):
        known, rank = translator.constant(node, 1), translator.rank(node, 0)
        bias = translator.new_constant(known.reshape(1, -1, *[1] * (rank - 2)), node.inputs[1][0])
    return translator.emit("Add", [translator.value(node, 0), bias], name=node.name)


@translates("SpaceToDepth", "DepthToSpace")
def _blocks(translator: Translator, node: Node) -> ir.Value:
    images = Images(node, 4)
    attributes: dict[str, Any] = {"blocksize": int(node.attributes["block_size"])}
    if node.op == "DepthToSpace":
        attributes["mode"] = "DCR"
    value = images.first(translator, translator.value(node, 0))
    return images.back(translator, translator.emit(node.op, [value], attributes, name=node.name))
