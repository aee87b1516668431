"""Write a plan into a graph: insert Q/DQ pairs, store constants as integers.

    x ──► QuantizeLinear(s_x, z_x) ──► DequantizeLinear(s_x, z_x) ──► Conv.X
    w_quantized (s8) ──► DequantizeLinear(s_w, axis of output channels) ──► Conv.W
    b_quantized (s32) ──► DequantizeLinear(s_x * s_w, axis 0) ──► Conv.B

Names follow from the names of the tensors, so the same model and ranges give the same file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.fuse_integer_recurrent import HIDDEN_SCALE
from lowprec.passes.layers import Layer
from lowprec.passes.matching import NameSource, is_operator
from lowprec.quantization.placement import Placement
from lowprec.quantization.recurrent import QuantizedGates
from lowprec.quantization.weights import QuantizedWeights


@dataclass(frozen=True)
class ActivationParameters:
    """Scale (f32, > 0) and zero point (u8 or s8) of one activation tensor."""

    scale: np.float32
    zero_point: NDArray[np.uint8] | NDArray[np.int8]


class Rewriter:
    """Inserts quantisation into one graph, in place.

    Args:
        model: The hub: its names are taken.
        graph: Its main graph, or a body: what `plan` is about.
        plan: Where pairs go.
        parameters: Scale and zero point of every tensor in `plan.tensors`.
    """

    def __init__(
        self,
        model: ir.Model,
        graph: ir.Graph,
        plan: Placement,
        parameters: Mapping[ir.Value, ActivationParameters],
    ) -> None:
        self._graph = graph
        self._plan = plan
        self._parameters = parameters
        self._names = NameSource(model)
        self._weights: dict[tuple[ir.Value, int, bytes], ir.Value] = {}
        self._zero_points: dict[tuple[int, ...], ir.Value] = {}
        self._scales: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}

    def insert_pairs(self) -> None:
        """Give each tensor of the plan one Q/DQ pair, read by its int8 readers.

        Readers of the shape read the pair's result too, so that the float value can vanish.
        """
        for value in self._plan.tensors:
            uses = [
                use
                for use in value.uses()
                if use.node.graph is self._graph
                and (
                    self._plan.reads_codes(use.node, use.idx)
                    or is_operator(use.node, "Shape", "Size")
                )
            ]
            floats = [use for use in value.uses() if use not in uses]
            if floats or value.is_graph_output():
                uses = [use for use in uses if not is_operator(use.node, "Shape", "Size")]
            dequantized = self._insert_pair(value)
            for use in uses:
                use.node.replace_input_with(use.idx, dequantized)

    def _insert_pair(self, value: ir.Value) -> ir.Value:
        scale, zero_point = self._activation_constants(value)
        quantize = ir.node("QuantizeLinear", [value, scale, zero_point])
        dequantize = ir.node("DequantizeLinear", [quantize.outputs[0], scale, zero_point])
        assert zero_point.type is not None
        self._name(quantize, f"{value.name}_quantized", zero_point.type, value.shape)
        self._name(
            dequantize, f"{value.name}_dequantized", ir.TensorType(ir.DataType.FLOAT), value.shape
        )
        producer = value.producer()
        if producer is None or producer.graph is not self._graph:
            self._graph.insert_before(self._graph[0], [quantize, dequantize])
        else:
            self._graph.insert_after(producer, [quantize, dequantize])
        return dequantize.outputs[0]

    def _activation_constants(self, value: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return the constants of `value`; a group of tensors that share codes shares them."""
        root = self._plan.groups[value]
        if root not in self._scales:
            parameters = self._parameters[value]
            self._scales[root] = (
                self._constant(f"{root.name}_scale", np.asarray(parameters.scale, np.float32)),
                self._constant(f"{root.name}_zero_point", np.asarray(parameters.zero_point)),
            )
        return self._scales[root]

    def store_weights(self, layer: Layer, quantized: QuantizedWeights) -> None:
        """Let `layer` read its constants through DequantizeLinear."""
        node = layer.node
        base = layer.weights.name or node.name or "weights"
        key = (layer.weights, layer.weight_axis, quantized.scale.tobytes())
        if key not in self._weights:
            self._weights[key] = self._insert_dequantize(
                node, base, quantized.codes, quantized.scale, layer.weight_axis
            )
        node.replace_input_with(1, self._weights[key])
        if quantized.bias_codes is not None and quantized.bias_scale is not None:
            name = layer.bias.name if layer.bias is not None else None
            # The scale is this layer's own: a bias constant that two layers share is stored twice.
            bias = self._insert_dequantize(
                node, name or f"{base}_bias", quantized.bias_codes, quantized.bias_scale, 0
            )
            node.replace_input_with(2, bias)

    def store_gates(
        self, node: ir.Node, gates: Mapping[int, QuantizedGates], hidden: np.float32 | None
    ) -> None:
        """Let a recurrent layer read W and R, by input index, through DequantizeLinear."""
        for index, quantized in gates.items():
            value = node.inputs[index]
            assert value is not None
            key = (value, 1, quantized.scale.tobytes())
            if key not in self._weights:
                self._weights[key] = self._insert_dequantize(
                    node, value.name or "gates", quantized.codes, quantized.scale, 1
                )
            node.replace_input_with(index, self._weights[key])
        if hidden is not None:
            node.metadata_props[HIDDEN_SCALE] = repr(float(hidden))

    def _insert_dequantize(
        self,
        node: ir.Node,
        base: str,
        codes: NDArray[np.int8] | NDArray[np.int32],
        scale: NDArray[np.float32],
        axis: int,
    ) -> ir.Value:
        inputs = [
            self._constant(f"{base}_quantized", codes),
            self._constant(f"{base}_scale", scale),
        ]
        if codes.dtype == np.int8:
            inputs.append(self._zero_point_of_weights(scale.shape))
        attributes = {"axis": axis} if scale.ndim else None
        dequantize = ir.node("DequantizeLinear", inputs, attributes=attributes)
        self._name(
            dequantize,
            f"{base}_dequantized",
            ir.TensorType(ir.DataType.FLOAT),
            ir.Shape(codes.shape),
        )
        self._graph.insert_before(node, dequantize)
        return dequantize.outputs[0]

    def _zero_point_of_weights(self, shape: tuple[int, ...]) -> ir.Value:
        """Return zeros (s8); layers with as many channels share them."""
        if shape not in self._zero_points:
            name = f"zero_point_of_{shape[0]}_channels" if shape else "zero_point_of_weights"
            self._zero_points[shape] = self._constant(name, np.zeros(shape, np.int8))
        return self._zero_points[shape]

    def _constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        return add_constant(self._graph, self._names.fresh(name), array)

    def _name(
        self, node: ir.Node, name: str, tensor: ir.TypeProtocol, shape: ir.Shape | None
    ) -> None:
        fresh = self._names.fresh(name)
        node.name = fresh
        node.outputs[0].name = fresh
        node.outputs[0].type = tensor
        node.outputs[0].shape = shape
