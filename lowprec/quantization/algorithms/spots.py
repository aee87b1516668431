"""Where the channels of a tensor can be scaled without a trace in the float results.

    Conv ──► Relu ──► v ──► Conv, Conv          divided in the first Conv's weights and bias
    Mul(constant) ──► Add(constant) ──► v ──► Conv      divided in the constants
    LayerNormalization ──► v ──► MatMul, MatMul, MatMul     divided in its scale and bias
    Gelu ──► v ──► MatMul                        divided by a Mul of its own

The layers that read v take the factor back in their weights. Another reader of v gets the old value
through a Mul of its own. Factors are powers of two, so no result changes by a bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.layers import LAYER_TYPES, Layer, find_layer, set_bias, set_weights
from lowprec.passes.matching import (
    NameSource,
    constant_floats,
    graph_of,
    is_operator,
    sole_consumer,
    split_constant,
)
from lowprec.quantization.algorithms.moments import ChannelAxis
from lowprec.quantization.algorithms.scaling import input_axis, scale_inputs

if TYPE_CHECKING:
    from lowprec.config import Config

HOMOGENEOUS_TYPES = ("Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "GlobalAveragePool")
"""Functions of each channel alone with f(s * x) = s * f(x) for s > 0."""
INTEGER_PRECISIONS = ("int8", "int8-dynamic", "auto")
"""Precisions in which a layer reads codes."""


@dataclass
class Spot:
    """A tensor that int8 layers read, and what stands before it.

    Attributes:
        value: The tensor.
        axis: Where its channels are.
        readers: Int8 layers that read it.
        others: (node, input index) of its other readers.
        source: What absorbs a factor: a Layer, a LayerNormalization or a Mul with a constant; None
            where nothing does.
        sums: Additions of a constant on the way from the source.
    """

    value: ir.Value
    axis: ChannelAxis
    readers: list[Layer]
    others: list[tuple[ir.Node, int]]
    source: Layer | ir.Node | None = None
    sums: list[ir.Node] = field(default_factory=list)

    @property
    def is_between_layers(self) -> bool:
        """Whether a layer absorbs a factor."""
        return isinstance(self.source, Layer)

    @property
    def extra_operators(self) -> bool:
        """Whether a factor costs a multiplication at run time."""
        return self.source is None or bool(self.others)


def reads_codes(layer: Layer, config: Config) -> bool:
    """Return whether `layer` may become an int8 one."""
    precision = config.layer_precision(layer.node.name or "", layer.node.op_type)
    return (precision or config.precision) in INTEGER_PRECISIONS


def is_shared(layer: Layer) -> bool:
    """Return whether another node reads the weights of `layer`, too: then they stay what they are.

    Scaled for one reader, they would be stored twice.
    """
    return layer.weights.is_graph_output() or len(layer.weights.uses()) > 1


def find_spots(model: ir.Model, config: Config) -> Iterator[Spot]:
    """Yield the tensors of the main graph whose channels can be scaled, in graph order.

    Tensors whose readers share their weights with other nodes are left out, and so is what a body
    of an If, Loop or Scan makes.
    """
    seen: set[ir.Value] = set()
    for node in model.graph:
        value = node.inputs[0] if node.inputs and is_operator(node, *LAYER_TYPES) else None
        if value is None or value in seen or value.is_graph_input():
            continue
        seen.add(value)
        producer = value.producer()
        if producer is None or producer.graph is not model.graph:
            continue
        readers, others = [], []
        for use in value.uses():
            layer = find_layer(use.node) if use.idx == 0 else "not the data"
            is_ours = isinstance(layer, Layer) and use.node.graph is model.graph
            if is_ours and isinstance(layer, Layer) and reads_codes(layer, config):
                readers.append(layer)
            else:
                others.append((use.node, use.idx))
        if not readers or any(is_shared(layer) for layer in readers):
            continue
        axes = {input_axis(layer) for layer in readers}
        if len(axes) != 1 or value.is_graph_output():
            continue
        if any(reader.graph is not model.graph for reader, _ in others):
            continue
        spot = Spot(value, axes.pop(), readers, others)
        _find_source(spot, config)
        yield spot


def _find_source(spot: Spot, config: Config) -> None:
    """Walk up from the tensor to what absorbs a factor."""
    value, sums = spot.value, list[ir.Node]()
    while True:
        node = value.producer()
        if node is None or (value is not spot.value and sole_consumer(value) is None):
            return
        if node.graph is not spot.value.producer().graph:  # type: ignore[union-attr]
            return
        layer = find_layer(node)
        if isinstance(layer, Layer):
            if reads_codes(layer, config) and not is_shared(layer) and _same_channels(layer, spot):
                spot.source, spot.sums = layer, sums
            return
        if is_operator(node, "LayerNormalization"):
            if _norm_constants(node, spot) is not None:
                spot.source, spot.sums = node, sums
            return
        if is_operator(node, "Mul", "Add"):
            split = split_constant(node)
            if split is None or _by_channel(split[1], spot.axis) is None:
                return
            if is_operator(node, "Mul"):
                spot.source, spot.sums = node, sums
                return
            sums.append(node)
            value = split[0]
        elif is_operator(node, *HOMOGENEOUS_TYPES) and node.inputs[0] is not None:
            if len(node.outputs) > 1 and any(output.uses() for output in node.outputs[1:]):
                return
            value = node.inputs[0]
        else:
            return


def _same_channels(layer: Layer, spot: Spot) -> bool:
    is_image = layer.node.op_type in ("Conv", "ConvTranspose")
    return layer.channels == spot.axis.channels and is_image == (spot.axis.rank is not None)


def _by_channel(value: ir.Value, axis: ChannelAxis) -> NDArray[np.float32] | None:
    """Return a constant as one number by channel; None when it varies along another axis."""
    array = constant_floats(value)
    if array is None or array.size not in (1, axis.channels):
        return None
    if array.size > 1:
        position = array.ndim - len(axis.broadcast)
        if position < 0 or array.shape[position] != axis.channels:
            return None
    elif axis.rank is not None and array.ndim > axis.rank:
        return None
    return np.broadcast_to(array.reshape(-1), (axis.channels,))


def _norm_constants(node: ir.Node, spot: Spot) -> list[NDArray[np.float32]] | None:
    """Return scale and, where there is one, bias of a normalisation over the channels."""
    if spot.axis.rank is not None or node.attributes.get_int("axis", -1) != -1:
        return None
    if any(output.uses() for output in node.outputs[1:]):
        return None
    found = []
    for value in node.inputs[1:]:
        array = constant_floats(value)
        if value is None:
            continue
        if array is None or array.shape != (spot.axis.channels,):
            return None
        found.append(array)
    return found or None


def divide(spot: Spot, factor: NDArray[np.float64], names: NameSource) -> None:
    """Divide channel c of the tensor by `factor[c]`, a power of two, and let its layers undo it."""
    inverse = 1 / factor
    graph = graph_of(spot.readers[0].node)
    tensor = spot.value
    if spot.source is None:
        divided = _insert_mul(tensor, inverse, spot.axis, names)
        for layer in spot.readers:
            layer.node.replace_input_with(0, divided)
    else:
        if spot.others:
            restored = _insert_mul(tensor, factor, spot.axis, names)
            for node, index in spot.others:
                node.replace_input_with(index, restored)
        for node in spot.sums:
            _scale_constant(graph, node, inverse, spot.axis, names)
        _scale_source(graph, spot, inverse, names)
    for layer in spot.readers:
        set_weights(layer, scale_inputs(layer, factor), names)


def _scale_source(
    graph: ir.Graph, spot: Spot, inverse: NDArray[np.float64], names: NameSource
) -> None:
    source = spot.source
    if isinstance(source, Layer):
        bias = (source.bias_array() * inverse).astype(np.float32)
        set_weights(source, source.scale_channels(inverse), names)
        if source.bias is not None and bias.any():
            set_bias(source, bias, names)
    elif is_operator(source, "Mul"):
        assert source is not None
        _scale_constant(graph, source, inverse, spot.axis, names)
    elif source is not None:
        for index, value in enumerate(source.inputs[1:], start=1):
            array = constant_floats(value)
            if value is not None and array is not None:
                scaled = (array * inverse).astype(np.float32)
                constant = add_constant(graph, names.fresh(f"{value.name}_divided"), scaled)
                source.replace_input_with(index, constant)


def _scale_constant(
    graph: ir.Graph,
    node: ir.Node,
    inverse: NDArray[np.float64],
    axis: ChannelAxis,
    names: NameSource,
) -> None:
    """Scale the constant operand of an Add or Mul; other readers of it keep the old one."""
    split = split_constant(node)
    assert split is not None
    old = _by_channel(split[1], axis)
    assert old is not None
    scaled = (old * inverse).astype(np.float32).reshape(axis.broadcast)
    constant = add_constant(graph, names.fresh(f"{split[1].name}_divided"), scaled)
    node.replace_input_with(1 - split[2], constant)


def _insert_mul(
    value: ir.Value, factor: NDArray[np.float64], axis: ChannelAxis, names: NameSource
) -> ir.Value:
    """Return `value` times `factor` by channel, computed right behind it."""
    producer = value.producer()
    assert producer is not None
    graph = graph_of(producer)
    array = factor.astype(np.float32).reshape(axis.broadcast)
    constant = add_constant(graph, names.fresh(f"{value.name}_factor"), array)
    node = ir.node("Mul", [value, constant])
    (output,) = node.outputs
    node.name = output.name = names.fresh(f"{value.name}_scaled")
    output.type, output.shape = value.type, value.shape
    graph.insert_after(producer, node)
    return output
