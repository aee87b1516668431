"""What counts as a layer: an operator with constant weights and output channels.

Convolutions, transposed convolutions, Gemm and MatMul compute `y = W * x + b` with one row of W per
output channel. The passes scale and shift channels (batch norm, affine chains); quantisation gives
each channel its own scale. Both ask this module where the channels are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.matching import (
    NameSource,
    constant_array,
    constant_floats,
    graph_of,
    is_operator,
)

LAYER_TYPES = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Layer:
    """A node with constant f32 weights, and where its output channels live.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        weights: Constant input 1, f32.
        bias: Constant input 2, or None. Of shape (channels,) except for Gemm, where it broadcasts.
        channels: Number of output channels.
        weight_axis: Axis of `weights` that runs over output channels (of one group).
        groups: Convolution groups; for a ConvTranspose `weights.shape[1] * groups == channels`,
            elsewhere the channel axis of the weights already runs over all groups.
    """

    node: ir.Node
    weights: ir.Value
    bias: ir.Value | None
    channels: int
    weight_axis: int
    groups: int

    @property
    def weight_array(self) -> NDArray[np.float32]:
        """The weights, as stored."""
        array = constant_floats(self.weights)
        if array is None:
            raise TypeError(f"the weights of {self.node.name!r} are no longer constant")
        return array

    def bias_array(self) -> NDArray[np.float32]:
        """Return the bias as a vector of shape (channels,); zeros when there is none."""
        array = constant_floats(self.bias)
        if array is None:
            return np.zeros(self.channels, np.float32)
        bias: NDArray[np.float32] = np.broadcast_to(array.reshape(-1), (self.channels,)).copy()
        return bias

    @property
    def has_bias_input(self) -> bool:
        """Whether the operator has an input for a bias (MatMul has none)."""
        return self.node.op_type != "MatMul"

    def scale_channels(self, factor: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the weights with output channel c multiplied by `factor[c]`, in f64, rounded once.

        Args:
            factor: Shape (channels,).
        """
        weights = self.weight_array.astype(np.float64)
        if self.node.op_type == "ConvTranspose" and self.groups > 1:
            per_group = weights.reshape(self.groups, -1, *weights.shape[1:])
            shape = (self.groups, 1, -1) + (1,) * (weights.ndim - 2)
            return (per_group * factor.reshape(shape)).reshape(weights.shape).astype(np.float32)
        shape = tuple(-1 if axis == self.weight_axis else 1 for axis in range(weights.ndim))
        return (weights * factor.reshape(shape)).astype(np.float32)

    def output_channels_of(self, array: NDArray[np.float32]) -> NDArray[np.float64] | None:
        """Return by channel a constant that meets this layer's output in a binary operator.

        Returns:
            Shape (channels,); None when the constant varies along anything but the channels, or
            would change the rank of the output.
        """
        if array.size == 1 and array.ndim <= 1:
            return np.full(self.channels, array.reshape(-1)[0], np.float64)
        if self.node.op_type == "MatMul":
            rank: int | None = None if self._output.shape is None else len(self._output.shape)
            axis_from_end = 1
        elif self.node.op_type == "Gemm":
            rank, axis_from_end = 2, 1
        else:
            rank = self.weight_array.ndim
            axis_from_end = rank - 1
        if array.ndim > (1 if rank is None else rank):
            return None
        if array.size == 1:
            return np.full(self.channels, array.reshape(-1)[0], np.float64)
        axis = array.ndim - axis_from_end
        if axis < 0 or array.size != self.channels or array.shape[axis] != self.channels:
            return None
        return array.reshape(-1).astype(np.float64)

    @property
    def _output(self) -> ir.Value:
        return self.node.outputs[0]


def find_layer(node: ir.Node) -> Layer | str:
    """Return `node` as a Layer, or the reason why it is none."""
    if not is_operator(node, *LAYER_TYPES):
        return f"{node.op_type} is not a layer"
    weights = node.inputs[1] if len(node.inputs) > 1 else None
    array = constant_array(weights)
    if weights is None or array is None:
        if constant_array(node.inputs[0]) is not None:
            return "the weights are the first operand"
        return "no constant weights"
    if array.dtype != np.float32:
        return f"the weights are {array.dtype}, not float32"
    groups = node.attributes.get_int("group", 1)
    if node.op_type == "Conv":
        weight_axis, channels, rank = 0, array.shape[0], max(array.ndim, 3)
    elif node.op_type == "ConvTranspose":
        weight_axis, channels, rank = 1, array.shape[1] * groups, max(array.ndim, 3)
    else:
        if node.op_type == "Gemm" and node.attributes.get_int("transA", 0) != 0:
            return "Gemm with transA"
        transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0
        weight_axis, rank = (0 if transposed else 1), 2
        channels = array.shape[weight_axis] if array.ndim == 2 else 0
    if array.ndim != rank or array.size == 0:
        return f"the weights have shape {list(array.shape)}"

    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        bias_array = constant_floats(bias)
        if bias_array is None:
            return "the bias is not a float32 constant"
        if bias_array.size not in (1, channels) or bias_array.shape[-1:] not in (
            (),
            (1,),
            (channels,),
        ):
            return f"the bias has shape {list(bias_array.shape)}"
    return Layer(node, weights, bias, channels, weight_axis, groups)


def set_weights(layer: Layer, array: NDArray[np.float32], names: NameSource) -> None:
    """Give `layer` the weights `array`; others that read the old ones keep them."""
    set_constant(layer.node, 1, array, layer.weights.name or "weights", names)


def set_bias(layer: Layer, array: NDArray[np.float32], names: NameSource) -> None:
    """Give `layer` (not a MatMul) the bias `array`, shape (channels,)."""
    name = layer.bias.name if layer.bias is not None else None
    set_constant(layer.node, 2, array, name or f"{layer.weights.name}_bias", names)


def set_constant(
    node: ir.Node, index: int, array: NDArray[np.generic], name: str, names: NameSource
) -> None:
    """Give `node` a constant: in the old one's place where nobody else reads it, else as `name`."""
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    graph = graph_of(node)
    mine = old is not None and old.graph is graph and not old.is_graph_output()
    if old is not None and mine and len(old.uses()) == 1:
        # Nobody else reads it: the constant keeps its name, reports and configs may mention it.
        old.const_value = ir.Tensor(np.ascontiguousarray(array), name=old.name)
        old.shape = ir.Shape(array.shape)
        return
    node.replace_input_with(index, add_constant(graph, names.fresh(name), array))
