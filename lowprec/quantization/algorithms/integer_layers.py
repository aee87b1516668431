"""The int8 layers of a quantised hub beside the float layers that they were made of.

w_quantized (s8) ──► DequantizeLinear(s_w) ──► Conv.W
b_quantized (s32) ──► DequantizeLinear(s_x * s_w) ──► Conv.B        or, of a MatMul, Add(b)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.layers import Layer, find_layer, set_constant
from lowprec.passes.matching import (
    NameSource,
    constant_array,
    constant_floats,
    graph_of,
    is_operator,
    sole_consumer,
    split_constant,
)
from lowprec.quantization.algorithms.moments import ChannelAxis

_LARGEST_BIAS = 2**30
"""Codes that a corrected bias may have: half of s32 stays for the sum beside it."""


@dataclass(frozen=True)
class IntegerLayer:
    """A layer of the main graph in both models.

    Attributes:
        layer: In float.
        node: In the quantised hub.
        dequantize: What makes its weights of s8 codes.
    """

    layer: Layer
    node: ir.Node
    dequantize: ir.Node

    @property
    def output(self) -> ChannelAxis:
        """Where the channels of its sums are; both models call the value the same."""
        is_image = self.layer.node.op_type in ("Conv", "ConvTranspose")
        rank = self.layer.weight_array.ndim if is_image else None
        return ChannelAxis(self.node.outputs[0].name or "", self.layer.channels, rank)

    @property
    def codes(self) -> NDArray[np.int8]:
        """Weight codes, as stored."""
        array = constant_array(self.dequantize.inputs[0])
        assert array is not None
        return array.view(np.int8)

    @property
    def scale(self) -> NDArray[np.float32]:
        """Scale of the weights, broadcast along `layer.weight_axis`."""
        array = constant_floats(self.dequantize.inputs[1])
        assert array is not None
        if array.ndim == 0:
            return array
        weights = self.layer.weight_array
        axis = self.layer.weight_axis
        return array.reshape(tuple(-1 if i == axis else 1 for i in range(weights.ndim)))

    @property
    def is_shared(self) -> bool:
        """Whether another layer reads the same codes."""
        codes = self.dequantize.inputs[0]
        return codes is None or len(codes.uses()) > 1 or len(self.dequantize.outputs[0].uses()) > 1


def find_integer_layers(float_model: ir.Model, quantized: ir.Model) -> list[IntegerLayer]:
    """Return the int8 layers of the main graph, in graph order.

    Layers that read static codes, and whose weights are codes of the weights of the float layer
    that makes the value of the same name.
    """
    floats = {node.outputs[0].name: node for node in float_model.graph}
    found = []
    for node in quantized.graph:
        original = floats.get(node.outputs[0].name)
        layer = find_layer(original) if original is not None else "made for the codes"
        if not isinstance(layer, Layer) or node.op_type != layer.node.op_type:
            continue
        dequantize = node.inputs[1].producer() if node.inputs[1] is not None else None
        source = node.inputs[0].producer() if node.inputs[0] is not None else None
        if not is_operator(dequantize, "DequantizeLinear") or dequantize is None:
            continue
        if not is_operator(source, "DequantizeLinear"):
            continue
        codes = constant_array(dequantize.inputs[0])
        scale = constant_floats(dequantize.inputs[1])
        if codes is None or codes.dtype != np.int8 or codes.shape != layer.weight_array.shape:
            continue
        if scale is None or scale.size not in (1, codes.shape[layer.weight_axis]):
            continue
        found.append(IntegerLayer(layer, node, dequantize))
    return found


def add_to_bias(target: IntegerLayer, shift: NDArray[np.float64], names: NameSource) -> bool:
    """Add `shift`, real units by output channel, to what the layer computes.

    A bias in codes is rounded to its scale, and a layer without any gets one; behind a MatMul it
    goes into the Add with a constant that follows, or into a new one.

    Returns:
        Whether anything changed: less than half a step of every bias does not.
    """
    if not np.isfinite(shift).all():
        return False
    if target.node.op_type == "MatMul":
        return add_behind(target.node, shift, names)
    bias = target.node.inputs[2] if len(target.node.inputs) > 2 else None
    if bias is None:
        return _add_codes(target, shift, names)
    dequantize = bias.producer()
    if dequantize is None:
        return _add_float(target, bias, shift, names)
    codes = constant_array(dequantize.inputs[0])
    scale = constant_floats(dequantize.inputs[1])
    if codes is None or scale is None or codes.dtype != np.int32:
        return False
    steps = np.rint(shift / scale.astype(np.float64))
    sums = codes.astype(np.float64) + steps
    fits = np.abs(sums) <= np.maximum(_LARGEST_BIAS, np.abs(codes.astype(np.float64)))
    steps = np.where(fits, steps, 0)
    if not steps.any():
        return False
    changed = (codes.astype(np.int64) + steps.astype(np.int64)).astype(np.int32)
    replace_constant(dequantize, 0, changed, names)
    return True


def _add_float(
    target: IntegerLayer, bias: ir.Value, shift: NDArray[np.float64], names: NameSource
) -> bool:
    array = constant_floats(bias)
    if array is None:
        return False
    total = np.broadcast_to(array.astype(np.float64).reshape(-1), shift.shape) + shift
    replace_constant(target.node, 2, total.astype(np.float32), names)
    return True


def _add_codes(target: IntegerLayer, shift: NDArray[np.float64], names: NameSource) -> bool:
    """Give the layer a bias in codes: its scale is that of the accumulator."""
    source = target.node.inputs[0]
    reader = source.producer() if source is not None else None
    step = constant_floats(reader.inputs[1]) if reader is not None else None
    if step is None or step.size != 1:
        return False
    weights = target.scale.reshape(-1)
    scale = (step.reshape(()) * weights).astype(np.float32)
    scale = np.resize(scale, len(shift)) if target.scale.ndim else scale.reshape(())
    steps = np.rint(shift / scale.astype(np.float64))
    steps = np.where(np.abs(steps) <= _LARGEST_BIAS, steps, 0)
    if not steps.any() or not (scale > 0).all():
        return False
    graph = graph_of(target.node)
    base = f"{target.layer.weights.name or target.node.name}_bias"
    codes = add_constant(graph, names.fresh(f"{base}_quantized"), steps.astype(np.int32))
    scales = add_constant(graph, names.fresh(f"{base}_scale"), scale)
    attributes = {"axis": 0} if scale.ndim else None
    node = ir.node("DequantizeLinear", [codes, scales], attributes)
    (output,) = node.outputs
    node.name = output.name = names.fresh(f"{base}_dequantized")
    output.type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(target.node, node)
    if len(target.node.inputs) < 3:
        target.node.resize_inputs(3)
    target.node.replace_input_with(2, output)
    return True


def add_behind(node: ir.Node, shift: NDArray[np.float64], names: NameSource) -> bool:
    """Add `shift` by channel to the output of a MatMul, in the Add behind it or in a new one.

    Returns:
        False, with nothing changed, where the output is one of the graph's.
    """
    (output,) = node.outputs
    reader = sole_consumer(output)
    split = split_constant(reader) if reader is not None and is_operator(reader, "Add") else None
    if reader is not None and split is not None:
        array = constant_floats(split[1])
        if array is not None and array.size == len(shift) and array.shape[-1:] == shift.shape:
            total = (array.astype(np.float64) + shift).astype(np.float32)
            replace_constant(reader, 1 - split[2], total, names)
            return True
    if output.is_graph_output():
        return False
    graph = graph_of(node)
    constant = add_constant(
        graph, names.fresh(f"{output.name}_correction"), shift.astype(np.float32)
    )
    uses = list(output.uses())
    behind = ir.node("Add", [output, constant])
    (corrected,) = behind.outputs
    behind.name = corrected.name = names.fresh(f"{output.name}_corrected")
    corrected.type, corrected.shape = output.type, output.shape
    graph.insert_after(node, behind)
    for use in uses:
        use.node.replace_input_with(use.idx, corrected)
    return True


def replace_constant(
    node: ir.Node, index: int, array: NDArray[np.generic], names: NameSource
) -> None:
    """Give `node` a constant, of the same name where nobody else reads the old one."""
    old = node.inputs[index] if index < len(node.inputs) else None
    name = (old.name if old is not None else None) or f"{node.outputs[0].name}_shift"
    set_constant(node, index, array, name, names)


def set_codes(target: IntegerLayer, codes: NDArray[np.int8], names: NameSource) -> None:
    """Give the layer other weight codes of the same scale."""
    replace_constant(target.dequantize, 0, codes, names)
