"""From a float hub to one whose layers multiply bf16: no data needed.

    x ──► Cast(bf16) ──► Cast(f32) ──► Conv ──► y      the rounding is written down, the operators
    w (bf16) ──────────► Cast(f32) ──►                 stay ordinary f32 ones

A product of bf16 numbers is exact in f32; sums, biases and everything between layers are f32. So
any runtime gives the same up to the order of its sums, and one that has bf16 products (ours:
passes/fuse_bf16_layers.py) recognises them. A tensor is rounded once, where it is made: all its
readers see the rounded one, so that it need only be stored in bf16. What moves elements (Reshape,
MaxPool, Concat) follows the rounding, which changes nothing.

Layers that the configuration keeps in f32 read unrounded tensors where there are any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass, ShapeInferencePass

from lowprec.graph.silence import silent_onnx_ir
from lowprec.numerics import to_bf16
from lowprec.passes.layers import LAYER_TYPES, find_layer
from lowprec.passes.matching import NameSource, add_constant, constant_array, is_operator
from lowprec.passes.move_casts import moved_inputs
from lowprec.quantization.macs import concrete_shapes, count_macs
from lowprec.quantization.quantize import QuantizationResult
from lowprec.quantization.recognition import find_quantized_operator
from lowprec.report import LayerRecord

if TYPE_CHECKING:
    from lowprec.config import Config

# Besides layers, whoever reads so much more than it computes that bf16 saves time.
_READS_MUCH = ("AveragePool", "BatchNormalization", "GlobalAveragePool", "GlobalMaxPool")
_RECURRENT = ("LSTM", "GRU", "RNN")


def convert_to_bf16(
    model: ir.Model, config: Config, *, input_shapes: Mapping[str, Iterable[int]] | None = None
) -> QuantizationResult:
    """Return a copy of `model` whose layers multiply bf16 numbers.

    Args:
        model: Simplified float hub.
        config: Layers to keep in f32.
        input_shapes: By input name; decides how many multiply-adds each layer has. Without them
            declared shapes count.
    """
    found = find_quantized_operator(model)
    if found is not None:
        note = f"already quantised: node {found.name!r} is a {found.op_type}"
        return QuantizationResult(model.clone(), note=note)
    if any(value.dtype == ir.DataType.BFLOAT16 for value in model.graph.initializers.values()):
        return QuantizationResult(model.clone(), note="its weights are bf16 already")

    result = QuantizationResult(model.clone())
    with silent_onnx_ir():
        ShapeInferencePass(check_type=False, strict_mode=False)(result.model)
    reasons = {node: _why_not(node, config) for node in result.model.graph}
    layers = [node for node, why in reasons.items() if why == ""]
    names = NameSource(result.model)
    for value in _rounded_values(result.model, set(layers)):
        _round(result.model.graph, value, reasons, names)
    _store_weights(result.model.graph, layers, names)
    RemoveUnusedNodesPass()(result.model)

    shapes = concrete_shapes(model, input_shapes)
    result.layers = [
        LayerRecord(
            name=node.name or "",
            op_type=node.op_type,
            precision="bf16" if why == "" else "f32",
            reason=why if why is not None else "computes in f32",
            macs=count_macs(node, shapes),
        )
        for node, why in reasons.items()
        if any(_is_float(value) or value.dtype is None for value in node.outputs)
    ]
    result.total_macs = sum(record.macs or 0 for record in result.layers)
    for node in result.model.graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output():
                value.type = value.shape = None
    return result


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def _why_not(node: ir.Node, config: Config) -> str | None:
    """Return "" for a layer that multiplies bf16, why a layer does not, None for no layer."""
    if is_operator(node, *_RECURRENT):
        return "recurrent layers have no bf16 form yet"
    if not is_operator(node, *LAYER_TYPES):
        return None
    if config.layer_precision(node.name or "", node.op_type) == "f32":
        return "the configuration keeps it in f32"
    if node.attributes.get_float("alpha", 1.0) != 1.0:
        return "alpha is not 1"
    layer = find_layer(node)
    if isinstance(layer, str):
        two = len(node.inputs) == 2 and all(_is_float(value) for value in node.inputs)
        if is_operator(node, "MatMul") and two and layer == "no constant weights":
            return ""
        return layer
    if not _is_float(node.inputs[0]):
        return "its input is not float32"
    with np.errstate(over="ignore"):
        finite = np.isfinite(to_bf16(layer.weight_array).astype(np.float32)).all()
    return "" if finite else "a weight is too large for bf16, infinite or NaN"


def _rounded_values(model: ir.Model, layers: set[ir.Node]) -> list[ir.Value]:
    """Return the values to round, in graph order: what is wanted in bf16 and made, not moved."""
    wanted: dict[ir.Value, None] = {}
    for node in reversed(model.graph):
        moved = moved_inputs(node) or []
        for position, value in enumerate(node.inputs):
            if value is None or not _is_float(value):
                continue
            reads = node in layers and position < 2
            follows = position in moved and any(output in wanted for output in node.outputs)
            if reads or follows or (position == 0 and is_operator(node, *_READS_MUCH)):
                wanted[value] = None
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return [value for value in values if value in wanted and not _is_moved(value)]


def _is_moved(value: ir.Value) -> bool:
    """Return whether `value` is made of rounded ones alone: then it need not be rounded."""
    node = value.producer()
    moved = None if node is None else moved_inputs(node)
    if not moved or node is None:
        return False
    return not any(constant_array(node.inputs[position]) is not None for position in moved)


def _round(
    graph: ir.Graph, value: ir.Value, reasons: Mapping[ir.Node, str | None], names: NameSource
) -> None:
    uses = [
        use
        for use in value.uses()
        if not is_operator(use.node, "Shape", "Size") and not reasons.get(use.node)
    ]
    narrow = _cast(value, ir.DataType.BFLOAT16, names.fresh(f"{value.name}_bf16"))
    wide = _cast(narrow.outputs[0], ir.DataType.FLOAT, names.fresh(f"{value.name}_rounded"))
    for cast in (narrow, wide):
        cast.outputs[0].shape = value.shape
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [narrow, wide])
    else:
        graph.insert_after(producer, [narrow, wide])
    for use in uses:
        use.node.replace_input_with(use.idx, wide.outputs[0])


def _cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], attributes={"to": int(to)}, name=name)
    node.outputs[0].name = name
    node.outputs[0].type = ir.TensorType(to)
    return node


def _store_weights(graph: ir.Graph, layers: Iterable[ir.Node], names: NameSource) -> None:
    """Let each layer read its weights through a Cast from bf16."""
    widened: dict[ir.Value, ir.Value] = {}
    for node in layers:
        weights = node.inputs[1]
        array = constant_array(weights)
        if weights is None or array is None:
            continue
        if weights not in widened:
            narrow = add_constant(
                graph, names.fresh(f"{weights.name}_bf16"), to_bf16(array.view(np.float32))
            )
            cast = _cast(narrow, ir.DataType.FLOAT, names.fresh(f"{weights.name}_rounded"))
            cast.outputs[0].shape = weights.shape
            graph.insert_before(graph[0], cast)
            widened[weights] = cast.outputs[0]
        node.replace_input_with(1, widened[weights])
