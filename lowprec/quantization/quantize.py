"""From a float hub, ranges and a configuration to a QDQ hub."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from lowprec.calibration.codes import codes_of
from lowprec.calibration.ranges import Range
from lowprec.errors import QuantizationError
from lowprec.graph.silence import silent_onnx_ir
from lowprec.passes.simplify import eliminate_dead_nodes
from lowprec.quantization.macs import Shape
from lowprec.quantization.placement import (
    Placement,
    comes_from_codes,
    plan_placement,
    readers_of,
    variable_inputs,
)
from lowprec.quantization.recognition import find_quantized_operator
from lowprec.quantization.recurrent import choose_hidden_scale, describe_hidden, quantize_gates
from lowprec.quantization.rewrite import ActivationParameters, Rewriter
from lowprec.quantization.weights import quantize_weights
from lowprec.report import LayerRecord

if TYPE_CHECKING:
    from lowprec.config import Config


@dataclass
class QuantizationResult:
    """A quantised model and the account of it.

    Attributes:
        model: QDQ hub; the model that came in is unchanged.
        layers: One record per operator that computes with floats or codes, in graph order.
        int8_macs: Multiply-adds of the layers that multiply codes (static and dynamic), for the
            shapes seen in calibration.
        total_macs: Multiply-adds of all operators, branches that calibration never took left out.
        note: Why nothing was quantised, where that holds for the whole model; else empty.
    """

    model: ir.Model
    layers: list[LayerRecord] = field(default_factory=list)
    int8_macs: int = 0
    total_macs: int = 0
    note: str = ""

    @property
    def int8_fraction(self) -> float:
        """Share of the multiply-adds that run in int8, 0..1 (0 for a model without any)."""
        return self.int8_macs / self.total_macs if self.total_macs else 0.0


def tensors_to_calibrate(model: ir.Model, config: Config) -> list[str]:
    """Return the names of the values whose ranges static layers may ask for, in graph order.

    Args:
        model: Simplified float hub.
        config: Layers that it keeps in float need no ranges.
    """
    if find_quantized_operator(model) is not None:
        return []
    names: list[str | None] = []
    for graph in model.graphs():
        plan = plan_placement(graph, config)
        wanted = {value for value in plan.tensors if _is_computed_with(value, plan)}
        # A layer whose activations turn out to be too coarse leaves its sum to the Add.
        wanted.update(value for node in plan.summed for value in variable_inputs(node))
        states = {node.outputs[0] for node in plan.recurrent}  # Y is h, step by step
        seen = wanted | {value for value in states if value.uses() or value.is_graph_output()}
        own = [*graph.inputs, *(value for node in graph for value in node.outputs)]
        names += [value.name for value in own if value in seen]
        names += sorted(value.name or "" for value in seen - set(own))  # read from outside
    return list(dict.fromkeys(name for name in names if name))


def infer_types(model: ir.Model) -> None:
    """Find the element types of all values: they tell shape arithmetic from computing."""
    with silent_onnx_ir():
        ShapeInferencePass(check_type=False, strict_mode=False)(model)


def finish(model: ir.Model) -> None:
    """Remove what nobody reads any more, and what was inferred."""
    eliminate_dead_nodes(model)
    _forget_types(model)


def quantize_one(
    result: QuantizationResult,
    graph: ir.Graph,
    ranges: Mapping[str, Range],
    config: Config,
    shapes: Mapping[str, Shape],
) -> dict[ir.Node, LayerRecord]:
    """Quantise the main graph or one body of `result.model`; return its records, in graph order.

    The sums of multiply-adds are added to `result`, the records are not. Types must be known.
    """
    plan = plan_placement(graph, config, shapes=shapes, ranges=ranges)
    chosen = {value: _group_range(value, plan, ranges) for value in plan.tensors}
    parameters = {value: _activation_parameters(value, r, config) for value, r in chosen.items()}
    records = {
        node: _describe(node, plan)
        for node in graph
        if any(_may_be_float(value) for value in node.outputs)  # not shape arithmetic
    }

    rewriter = Rewriter(result.model, graph, plan, parameters)
    inputs = {node: node.inputs[0] for node in (*plan.layers, *plan.recurrent)}
    rewriter.insert_pairs()
    for node, layer in plan.layers.items():
        source = inputs[node]
        assert source is not None
        quantized = quantize_weights(
            layer,
            parameters[source].scale,
            config,
            has_bias=layer.has_bias_input and layer.bias is not None,
        )
        rewriter.store_weights(layer, quantized)
        record = records[node]
        _describe_activation(record, source, chosen[source], config, ranges)
        record.weight_sqnr = quantized.sqnr
        record.raised_channels = quantized.raised_channels
    for node in plan.recurrent:
        source = inputs[node]
        assert source is not None
        gates = {
            index: quantize_gates(value, config, node)
            for index, value in enumerate(node.inputs[:3])
            if index > 0 and value is not None
        }
        hidden = choose_hidden_scale(node, ranges)
        rewriter.store_gates(node, gates, hidden)
        _describe_activation(records[node], source, chosen[source], config, ranges)
        records[node].weight_sqnr = min(
            (quantized.sqnr for quantized in gates.values() if quantized.sqnr is not None),
            default=None,
        )
        records[node].reason = describe_hidden(hidden)

    if graph is result.model.graph or not plan.never_ran:  # a branch not taken costs nothing
        result.total_macs += sum(macs or 0 for macs in plan.macs.values())
    int8 = (*plan.layers, *plan.recurrent)
    result.int8_macs += sum(plan.macs[node] or 0 for node in int8)
    return records


def _forget_types(model: ir.Model) -> None:
    """Clear claims about intermediate values: they follow from the operators, and take space."""
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output():
                value.type = None
                value.shape = None


def _is_computed_with(value: ir.Value, plan: Placement) -> bool:
    """Return whether a layer or an element-wise operator reads `value`, not only data movement."""
    readers = readers_of(value)
    return any(plan.reads_codes(node, i) and node not in plan.moved for node, i in readers)


def _group_range(value: ir.Value, plan: Placement, ranges: Mapping[str, Range]) -> Range:
    """Return the range that `value` shares with the tensors its codes move to."""
    root = plan.groups[value]
    members = [
        ranges[member.name or ""]
        for member in plan.tensors
        if plan.groups[member] is root and member.name in ranges and _is_computed_with(member, plan)
    ]
    if not members:
        raise QuantizationError(f"no range for tensor {value.name!r}: calibrate it")
    widest = max(members, key=lambda r: r.rmax - r.rmin)
    return Range(
        rmin=min(r.rmin for r in members),
        rmax=max(r.rmax for r in members),
        method=widest.method,
        clipped=max(r.clipped for r in members),
        sqnr=widest.sqnr,
        note=widest.note,
        symmetric=None if widest.symmetric is None else any(r.symmetric for r in members),
    )


def _activation_parameters(value: ir.Value, chosen: Range, config: Config) -> ActivationParameters:
    rmin, rmax = np.float32(chosen.rmin), np.float32(chosen.rmax)
    if not (np.isfinite(rmin) and np.isfinite(rmax) and rmin <= rmax):
        raise QuantizationError(
            f"tensor {value.name!r} has range [{chosen.rmin}, {chosen.rmax}]; both ends must be "
            "finite and in order: check the calibration data"
        )
    codes = codes_of(config, symmetric=chosen.symmetric)
    scale, zero_point = codes.parameters(chosen.rmin, chosen.rmax)
    return ActivationParameters(scale, np.array(zero_point, codes.dtype))


# --- records
# ----------------------------------------------------------------------------------------


def _describe(node: ir.Node, plan: Placement) -> LayerRecord:
    precision, reason = _precision_of(node, plan)
    return LayerRecord(
        name=node.name or "",
        op_type=node.op_type,
        precision=precision,
        reason=reason,
        macs=plan.macs[node],
    )


def _precision_of(node: ir.Node, plan: Placement) -> tuple[str, str]:
    if node in plan.layers or node in plan.recurrent:
        return "int8", ""
    if node in plan.summed:
        return "int8", "in the epilogue of the layer before it"
    if node in plan.elementwise:
        return "int8", "integer form: inputs and output are quantised"
    if node in plan.moved:
        return "int8", "moves codes"
    if node in plan.reasons:
        return "f32", plan.reasons[node]
    graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    if any(attribute.type in graphs for attribute in node.attributes.values()):
        return "f32", "control flow: its bodies have layers of their own"
    if comes_from_codes(node.outputs[0], plan):
        return "f32", "runs on the f32 result of the int8 layer before it"
    return "f32", "no integer form, or float around it"


def _may_be_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _describe_activation(
    record: LayerRecord,
    source: ir.Value,
    chosen: Range,
    config: Config,
    ranges: Mapping[str, Range],
) -> None:
    codes = codes_of(config, symmetric=chosen.symmetric)
    step, zero_point = codes.parameters(chosen.rmin, chosen.rmax)
    scale = float(step)
    record.tensor = source.name
    record.rmin = (codes.qmin - zero_point) * scale
    record.rmax = (codes.qmax - zero_point) * scale
    record.method, record.clipped = chosen.method, chosen.clipped
    record.range_note = chosen.note
    record.scale, record.zero_point = scale, zero_point
    own = ranges.get(source.name or "")
    record.activation_sqnr = own.sqnr if own is not None else chosen.sqnr
