"""Transposed convolutions: the gradient of a convolution by its input."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.images import Images
from lowprec.adapters.tensorflow.operations.trials import TRIED, with_sizes
from lowprec.adapters.tensorflow.translator import Translator, translates
from lowprec.errors import ModelError, UnsupportedError

TRANSPOSED = (
    "Conv2DBackpropInput",
    "Conv3DBackpropInputV2",
    "DepthwiseConv2dNativeBackpropInput",
)


@translates(*TRANSPOSED)
def _transposed(translator: Translator, node: Node) -> ir.Value:
    rank = 5 if node.op == "Conv3DBackpropInputV2" else 4
    return spread(translator, Images(node, rank), translator.value(node, 2))


def spread(translator: Translator, images: Images, value: ir.Value) -> ir.Value:
    """Return what a transposed convolution makes of `value`.

    TensorFlow names the size of the result, o, and pads the convolution that it undoes: for SAME,
    t = (i - 1) s + r - o in all, with i positions, stride s and reach r = (kernel - 1) dilation
    + 1, the larger half at the end. ONNX takes these as pads; where t is negative, positions that
    nothing reaches are added at the end.
    """
    node = images.node
    weights = translator.constant(node, 1)  # spatial..., channels out, channels in
    if images.left_out is not None:
        weights = weights.take(0, images.left_out)
    depthwise = node.op == "DepthwiseConv2dNativeBackpropInput"
    if depthwise:  # height, width, channels, multiplier
        *window, group, multiplier = weights.shape
        weights = weights.reshape(*window, 1, group * multiplier)
    else:
        group = _groups(translator, images, weights.shape[-1])
    kernel = np.moveaxis(weights, (-1, -2), (0, 1))
    strides, dilations = images.sizes("strides"), images.sizes("dilations")
    before, after, over = [], [], []
    for axis in range(images.spatial):
        reach = (kernel.shape[2 + axis] - 1) * dilations[axis] + 1
        low, high, extra = _edges(translator, images, axis, reach, strides[axis])
        before.append(low)
        after.append(high)
        over.append(extra)
    attributes = {
        "strides": strides,
        "dilations": dilations,
        "group": int(group),
        "kernel_shape": [int(size) for size in kernel.shape[2:]],
        "pads": before + after,
    }
    end = [max(extra - stride + 1, 0) for extra, stride in zip(over, strides, strict=True)]
    if any(over):
        # ONNX has output_padding below the stride; what is more than that is zeros.
        attributes["output_padding"] = [extra - more for extra, more in zip(over, end, strict=True)]
    inputs = [
        images.first(translator, value),
        translator.new_constant(kernel, f"{node.name}/weights"),
    ]
    made = translator.emit("ConvTranspose", inputs, attributes, name=node.name)
    if any(end):
        ends = np.asarray([0, 0, *[0] * len(end), 0, 0, *end], np.int64)
        at = translator.new_constant(ends, f"{node.name}/ends")
        made = translator.emit("Pad", [made, at], name=f"{node.name}/longer")
    return images.back(translator, made)


def _groups(translator: Translator, images: Images, channels: int) -> int:
    shape = translator.shape(images.node.inputs[2])
    given = None if shape is None else shape[-1 if images.last else 1]
    if given is not None and given != channels:
        raise UnsupportedError(
            f"node '{images.node.name}' is a transposed convolution in groups, which TensorFlow "
            "cannot run on CPUs either"
        )
    return 1


def _edges(
    translator: Translator, images: Images, axis: int, reach: int, stride: int
) -> tuple[int, int, int]:
    """Return pads before and after, and how many positions are added at the end."""
    node, kind = images.node, str(images.node.attributes["padding"])
    position = images.positions[axis]
    asked, given = _size(translator, node, position), _given(translator, node, position)
    if asked is None or given is None:
        pairs = _tried(translator, node, position, given)
    else:
        pairs = [(asked, given)]
    found = set()
    for wanted, size in pairs:
        total = (size - 1) * stride + reach - wanted
        low, high = 0, 0
        if kind == "EXPLICIT":
            low, high = images.explicit()[axis]
        elif kind == "SAME":
            low = max(total, 0) // 2
            high = max(total, 0) - low
        extra = low + high - total
        if extra < 0 or wanted > 2**24:
            raise ModelError(f"node '{node.name}' asks for a size of {wanted} from {size}")
        found.add((low, high, extra))
    if len(found) != 1:
        raise UnsupportedError(
            f"node '{node.name}' ({node.op}) asks for a size that is computed, and no fixed number "
            f"away from {stride} times its input's; fix the size of the model's input"
        )
    return found.pop()


def _tried(
    translator: Translator, node: Node, position: int, given: int | None
) -> list[tuple[int, int]]:
    """Return what is asked for and from what, for some sizes of what is open."""
    source, at = translator.graph.nodes.get(node.inputs[2][0]), position
    if source is not None and source.op == "ExpandDims":  # the shape is that of a sequence
        added = translator.known(source, 1)
        at -= added is not None and int(added.reshape(())) % 4 < position
    pairs: list[tuple[int, int]] = []
    for sizes in TRIED:
        found = with_sizes(translator, sizes, [node.inputs[0]])
        if found is None:
            return []
        pairs.append((int(found[0].reshape(-1)[position]), given or sizes[at % 3]))
    return pairs


def _size(translator: Translator, node: Node, position: int) -> int | None:
    """Return the size that is asked for, where it is known."""
    known = translator.known(node, 0)
    if known is not None:
        return int(known.reshape(-1)[position])
    shape = translator.shape((node.name, 0))
    return None if shape is None else shape[position]


def _given(translator: Translator, node: Node, position: int) -> int | None:
    shape = translator.shape(node.inputs[2])
    return None if shape is None else shape[position]
