"""Activations quantised by the range that they have in each run: no data needed.

    x ──► DynamicQuantizeLinear ──► xq, z_x ──► MatMulInteger(w s8) ──► Cast(f32) ──► Mul ──► Add(b)
                               └──► s_x ──► Mul(s_w, one per output channel) ──────────┘

    y = f32(sum((xq - z_x) * w)) * (s_x * s_w) + b

    x ──► DynamicQuantizeLinear ──► DequantizeLinear ──► LSTM (W, R: s8 ──► DequantizeLinear)

Standard ONNX; the engine makes one step of everything after the first operator (see
passes/fuse_dynamic_layers.py and, for LSTM, GRU and RNN, fuse_integer_recurrent.py). The state of a
recurrent layer has no range of its own to be seen in time: |h| <= 1 gives its scale, where the
activations say so. Layers that read the same tensor share its DynamicQuantizeLinear.
One range serves the whole tensor, so what else is in a batch has an influence on each result.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.fuse_integer_layers import kept_attributes
from lowprec.passes.fuse_integer_recurrent import HIDDEN_SCALE, RECURRENT_TYPES
from lowprec.passes.layers import LAYER_TYPES, Layer, find_layer
from lowprec.passes.matching import (
    NameSource,
    constant_array,
    graph_of,
    insert_operator,
    is_operator,
)
from lowprec.quantization.logarithms import why_logarithm
from lowprec.quantization.placement import why_not_worth_it
from lowprec.quantization.recurrent import choose_hidden_scale, describe_hidden
from lowprec.quantization.weight_only import store_codes, why_not_weight_only
from lowprec.quantization.weights import quantize_weights

if TYPE_CHECKING:
    from lowprec.config import Config

MIN_REUSE = 16
"""Multiply-adds per element of the input below which finding its range and rounding it costs more
than integer products save. Depthwise layers are below: in PP-OCR rec those of 5x5 take 1.7 ms in
f32, 2.5 ms and the quantising in int8."""
_LARGEST_SUM = 2**31 - 1
_LARGEST_STEP = 255 * 127  # |x_q - z_x| * |w_q|
_NO_ACTIVATION = np.float32(1)  # the scale of the input is not known yet


def why_not_dynamic(node: ir.Node, macs: int | None, total: int, *, asked_for: bool) -> str | None:
    """Return "" where `node` can be a dynamic layer, why not, None where it is no layer.

    Args:
        node: Of a float graph whose element types are known.
        macs: Its multiply-adds; None when not known.
        total: Those of the whole graph.
        asked_for: A rule names it: then it need not be worth it.
    """
    if not is_operator(node, *LAYER_TYPES, *RECURRENT_TYPES):
        return None
    layer = find_layer(node)
    if is_operator(node, *LAYER_TYPES) and isinstance(layer, str):
        return layer
    if is_operator(node, "ConvTranspose"):
        return "ONNX has no integer ConvTranspose"
    if constant_array(node.inputs[0]) is not None:
        return "a constant input"
    if node.inputs[0] is None or node.inputs[0].dtype not in (None, ir.DataType.FLOAT):
        return "its input is not float32"
    if isinstance(layer, str):
        return why_not_weight_only(node)
    depth = layer.weight_array.size // layer.channels
    if depth * _LARGEST_STEP > _LARGEST_SUM:
        return f"sums of {depth} products could pass 2^31"
    if asked_for:
        return ""
    return _why_not_worth_it(layer, macs, total) or why_logarithm(node) or ""


def _why_not_worth_it(layer: Layer, macs: int | None, total: int) -> str:
    """Return the reason when quantising in each run would not pay for `layer`, else ""."""
    weights = layer.weight_array
    stride = layer.node.attributes.get_ints("strides", [1])
    if is_operator(layer.node, "Conv"):
        inner = weights.shape[1] * layer.groups
    else:
        inner = weights.shape[1 - layer.weight_axis]
    reuse = weights.size // (inner * math.prod(stride))
    if reuse < MIN_REUSE:
        return f"not worth it: {reuse} multiply-adds for each number quantised in each run"
    return why_not_worth_it(layer, macs, total) or ""


class DynamicLayers:
    """Writes dynamic layers into one graph, in place; what they share is made once."""

    def __init__(self, names: NameSource) -> None:
        self._names = names
        self._codes: dict[ir.Value, tuple[ir.Value, ir.Value, ir.Value]] = {}
        self._weights: dict[object, tuple[ir.Value, ir.Value]] = {}

    def rewrite_recurrent(
        self, node: ir.Node, config: Config, known: dict[object, ir.Value]
    ) -> tuple[float | None, str]:
        """Let a recurrent layer read codes; return the weights' SQNR in dB, and what runs how.

        Args:
            node: One of which `why_not_dynamic` says "".
            config: `weights`.
            known: What `store_codes` made for this graph.
        """
        source = node.inputs[0]
        assert source is not None
        codes = self._quantized(graph_of(node), source)
        key = (source, "dequantized")
        if key not in known:
            known[key] = insert_operator(
                node,
                "DequantizeLinear",
                list(codes),
                like=source,
                name=self._names.fresh(f"{source.name}_dequantized"),
            )
        sqnr = store_codes(node, config, self._names, known)
        node.replace_input_with(0, known[key])
        hidden = choose_hidden_scale(node, {})
        if hidden is not None:
            node.metadata_props[HIDDEN_SCALE] = repr(float(hidden))
        return sqnr, describe_hidden(hidden)

    def rewrite(self, node: ir.Node, config: Config) -> float | None:
        """Replace `node`, of which `why_not_dynamic` says ""; return the weights' SQNR in dB.

        Raises:
            QuantizationError: a weight is NaN or infinite.
        """
        layer = find_layer(node)
        source = node.inputs[0]
        assert isinstance(layer, Layer)
        assert source is not None
        graph, name, result = graph_of(node), node.name or "layer", node.outputs[0]
        xq, x_scale, zero_point = self._quantized(graph, source)
        codes, scale, sqnr = self._stored(graph, layer, config)
        is_conv = is_operator(node, "Conv")
        acc = ir.Value(
            name=self._names.fresh(f"{result.name}_acc"), type=ir.TensorType(ir.DataType.INT32)
        )
        acc.shape = result.shape
        integer = ir.Node(
            "",
            "ConvInteger" if is_conv else "MatMulInteger",
            inputs=[xq, codes, zero_point],
            attributes=[
                ir.convenience.convert_attribute(key, value)
                for key, value in (kept_attributes(node) if is_conv else {}).items()
            ],
            outputs=[acc],
            name=node.name,
        )
        graph.insert_before(node, integer)
        real = self._step(node, "Cast", [acc], "real", {"to": int(ir.DataType.FLOAT)})
        both = self._step(node, "Mul", [x_scale, scale], "scale")
        both.shape = None
        last = self._step(node, "Mul", [real, both], "scaled")
        bias = _bias(layer)
        if bias is not None:
            bias_name = (layer.bias.name if layer.bias is not None else None) or f"{name}_bias"
            shape = (-1, *[1] * (layer.weight_array.ndim - 2)) if is_conv else (-1,)
            row = add_constant(graph, self._names.fresh(f"{bias_name}_row"), bias.reshape(shape))
            last = self._step(node, "Add", [last, row], "biased")
        label = result.name
        result.replace_all_uses_with(last, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        result.name, last.name = f"{label}__replaced", label
        return sqnr

    def _step(
        self,
        node: ir.Node,
        op_type: str,
        inputs: list[ir.Value | None],
        suffix: str,
        attributes: dict[str, int] | None = None,
    ) -> ir.Value:
        result = node.outputs[0]
        name = self._names.fresh(f"{result.name}_{suffix}")
        return insert_operator(node, op_type, inputs, like=result, name=name, attributes=attributes)

    def _quantized(self, graph: ir.Graph, source: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Return codes, scale and zero point of `source`, made where it is."""
        if source not in self._codes:
            node = ir.Node(
                "",
                "DynamicQuantizeLinear",
                inputs=[source],
                num_outputs=3,
                name=self._names.fresh(f"{source.name}_dynamic"),
            )
            u8, f32 = ir.TensorType(ir.DataType.UINT8), ir.TensorType(ir.DataType.FLOAT)
            codes, scale, zero_point = node.outputs
            for value, kind, suffix in (
                (codes, u8, "codes"),
                (scale, f32, "scale"),
                (zero_point, u8, "zero_point"),
            ):
                value.name = self._names.fresh(f"{source.name}_{suffix}")
                value.type, value.shape = kind, ir.Shape([])
            codes.shape = source.shape
            producer = source.producer()
            if producer is None or producer.graph is not graph:
                graph.insert_before(graph[0], node)
            else:
                graph.insert_after(producer, node)
            self._codes[source] = (codes, scale, zero_point)
        return self._codes[source]

    def _stored(
        self, graph: ir.Graph, layer: Layer, config: Config
    ) -> tuple[ir.Value, ir.Value, float | None]:
        """Return the codes of the weights as the integer operator reads them, and their scale."""
        quantized = quantize_weights(layer, _NO_ACTIVATION, config, has_bias=False)
        codes, scale = quantized.codes, quantized.scale
        if is_operator(layer.node, "Gemm") and layer.weight_axis == 0:
            codes = np.ascontiguousarray(codes.T)
        if is_operator(layer.node, "Gemm"):
            scale = scale * np.float32(layer.node.attributes.get_float("alpha", 1.0))
        if scale.ndim and is_operator(layer.node, "Conv"):
            scale = scale.reshape(-1, *[1] * (codes.ndim - 2))
        key = (layer.weights, codes.shape, scale.shape, scale.tobytes())
        if key not in self._weights:
            base = layer.weights.name or "weights"
            self._weights[key] = (
                add_constant(graph, self._names.fresh(f"{base}_quantized"), codes),
                add_constant(graph, self._names.fresh(f"{base}_scale"), scale),
            )
        return (*self._weights[key], quantized.sqnr)


def _bias(layer: Layer) -> NDArray[np.float32] | None:
    """Return what is added to each output channel, None where it is nothing."""
    if not layer.has_bias_input or layer.bias is None:
        return None
    beta = np.float32(layer.node.attributes.get_float("beta", 1.0))
    bias: NDArray[np.float32] = (layer.bias_array() * beta).astype(np.float32)
    return bias
