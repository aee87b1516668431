"""Every precision in one graph: each layer gets the one that the configuration asks for.

    int8              Q/DQ pairs with ranges from calibration    `quantize`, `placement`
    int8-dynamic      DynamicQuantizeLinear in every run         `dynamic`
    int8-weight-only  codes in the file, float products          `weight_only`
    bf16              Casts; products of bf16, sums in f32       `use_bf16`
    f16-weight-only   f16 in the file, float products            `storage_f16`
    f32               as it is

What a layer cannot have it does not get, and its record says why and what it has instead. Static
int8 is placed first, on the float graph; the others change only layers that it left alone. Codes
are made of unrounded tensors, also where a bf16 layer reads the same tensor rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from lowprec.calibration.ranges import Range
from lowprec.passes.fuse_attention import PRODUCTS, needs_body
from lowprec.passes.fuse_integer_recurrent import RECURRENT_TYPES
from lowprec.passes.join_attention import is_joined
from lowprec.passes.layers import LAYER_TYPES
from lowprec.passes.matching import NameSource, is_operator, walk_nodes
from lowprec.passes.recover_attention import find_attention
from lowprec.quantization.dynamic import DynamicLayers, why_not_dynamic
from lowprec.quantization.logarithms import why_logarithm
from lowprec.quantization.macs import concrete_shapes
from lowprec.quantization.placement import wanted_precision
from lowprec.quantization.quantize import QuantizationResult, finish, infer_types, quantize_one
from lowprec.quantization.recognition import find_quantized_operator
from lowprec.quantization.storage_f16 import store_f16, why_not_f16
from lowprec.quantization.use_bf16 import READS_MUCH, use_bf16, why_not_bf16
from lowprec.quantization.weight_only import (
    is_small_table,
    is_table,
    store_codes,
    why_not_weight_only,
)
from lowprec.report import LayerRecord

if TYPE_CHECKING:
    from lowprec.config import Config

_OF_CODES = ("int8", "int8-dynamic")


@dataclass(frozen=True)
class _Choice:
    """What a node gets, and why it is not what was asked for (empty: it is)."""

    precision: str
    reason: str


def apply_precisions(
    model: ir.Model,
    ranges: Mapping[str, Range],
    config: Config,
    *,
    input_shapes: Mapping[str, Iterable[int]] | None = None,
) -> QuantizationResult:
    """Return a copy of `model` in which each layer has its precision.

    A model that is quantised already comes back as it is.

    Args:
        model: Simplified float hub.
        ranges: By value name, for the layers in static int8 (`tensors_to_calibrate` names them);
            one whose input has none stays float.
        config: `precision`, and `layers`, whose last matching rule wins. "auto" has been resolved;
            it counts as int8.
        input_shapes: Shapes of the inputs as fed, by name; decides how many multiply-adds each
            layer has. Without them declared shapes count.

    Raises:
        QuantizationError: a weight that becomes codes is not finite, or a range is not.
    """
    found = find_quantized_operator(model)
    if found is not None:
        note = f"already quantised: node {found.name!r} is a {found.op_type}"
        return QuantizationResult(model.clone(), note=note)
    is_bf16 = any(v.dtype == ir.DataType.BFLOAT16 for v in model.graph.initializers.values())
    if config.precision == "bf16" and is_bf16:
        return QuantizationResult(model.clone(), note="its weights are bf16 already")

    result = QuantizationResult(model.clone())
    infer_types(result.model)
    _forget_attention(result.model)
    shapes = concrete_shapes(model, input_shapes)
    are_known = _are_known(model, input_shapes)
    for graph in list(result.model.graphs()):
        records = quantize_one(result, graph, ranges, config, shapes)
        result.layers += records.values()
        total = sum(record.macs or 0 for record in records.values())
        choices = {
            node: choice
            for node, record in records.items()
            if record.precision != "int8"
            and (choice := _choose(node, config, record.macs if are_known else None, total))
            is not None
        }
        for node, choice in choices.items():
            records[node].precision, records[node].reason = choice.precision, choice.reason
        if any(choice.precision != "f32" for choice in choices.values()):
            _rewrite(result, graph, records, choices, config)
        for node, record in records.items():
            if wanted_precision(node, config) in _OF_CODES:
                _let_attention_use_codes(node, record)
            if is_operator(node, "Softmax") and graph is result.model.graph:
                _let_written_attention_use_codes(node, records, config)
    finish(result.model)
    return result


def _forget_attention(model: ir.Model) -> None:
    """Remove what an earlier quantisation, or a stranger, said of products of codes."""
    for node in walk_nodes(model):
        node.metadata_props.pop(PRODUCTS, None)


def _let_attention_use_codes(node: ir.Node, record: LayerRecord) -> None:
    """Say in the metadata of an Attention that its products may be of codes, and in its record."""
    if not is_operator(node, "Attention") or needs_body(node):
        return
    node.metadata_props[PRODUCTS] = "int8"
    _describe_codes(record, "both products of codes; softmax in f32")


def _let_written_attention_use_codes(
    softmax: ir.Node, records: Mapping[ir.Node, LayerRecord], config: Config
) -> None:
    """Say the same of attention that a file of an older opset writes out, in its Softmax.

    A rule that keeps Attention, or one of the products, in another precision counts.
    """
    found = find_attention(softmax)
    if found is None or not is_joined(found):
        return
    rule = config.layer_precision(softmax.name or "", "Attention")
    if rule is not None and rule not in (*_OF_CODES, "auto"):
        return
    products = (found.product, found.last)
    if any(wanted_precision(product, config) not in _OF_CODES for product in products):
        return
    softmax.metadata_props[PRODUCTS] = "int8"
    for product in products:
        if product in records:
            _describe_codes(records[product], "attention: a product of codes")


def _describe_codes(record: LayerRecord, reason: str) -> None:
    record.precision, record.method, record.reason = "int8-dynamic", "in each run", reason


def _are_known(model: ir.Model, fed: Mapping[str, Iterable[int]] | None) -> bool:
    """Return whether the shapes of all inputs are: unknown dimensions count as 1 in macs."""
    return all(
        (fed is not None and value.name in fed)
        or (value.shape is not None and value.shape.is_static())
        for value in model.graph.inputs
    )


def _choose(node: ir.Node, config: Config, macs: int | None, total: int) -> _Choice | None:
    """Return what `node` gets; None: what static quantisation said of it stands."""
    wanted = wanted_precision(node, config)
    rule = config.layer_precision(node.name or "", node.op_type)
    if is_table(node) and wanted in _OF_CODES:
        reason = why_not_weight_only(node)
        if rule is None and reason == "" and is_small_table(node):
            reason = "a small table"
        return _or_f32("int8-weight-only", reason, "rows of codes, a scale each: nothing to sum")
    if wanted == "bf16":
        return _or_f32(wanted, why_not_bf16(node))
    if wanted == "int8-weight-only":
        reason = why_not_weight_only(node)
        if rule is None and reason == "":
            reason = why_logarithm(node) or ""
        return _or_f32(wanted, reason)
    if wanted == "f16-weight-only":
        return _or_f32(wanted, why_not_f16(node))
    if wanted == "int8-dynamic":
        reason = why_not_dynamic(node, macs, total, asked_for=rule is not None)
        if is_operator(node, "ConvTranspose") and why_not_weight_only(node) == "":
            return _Choice("int8-weight-only", f"{reason}: weights only")
        return _or_f32(wanted, reason)
    return None


def _or_f32(precision: str, why_not: str | None, remark: str = "") -> _Choice:
    """Return `precision`, or f32 with the reason; None: there is nothing to change."""
    if why_not is None:
        return _Choice("f32", "computes in f32")
    return _Choice("f32", why_not) if why_not else _Choice(precision, remark)


def _rewrite(
    result: QuantizationResult,
    graph: ir.Graph,
    records: Mapping[ir.Node, LayerRecord],
    choices: Mapping[ir.Node, _Choice],
    config: Config,
) -> None:
    """Write the chosen forms into `graph`, one precision after the other."""
    names = NameSource(result.model)
    bf16 = {node: None for node, choice in choices.items() if choice.precision == "bf16"}
    pools = {
        node
        for node in choices
        if is_operator(node, *READS_MUCH) and wanted_precision(node, config) == "bf16"
    }
    if bf16 or pools:
        unrounded = {
            node
            for node in records
            if node not in bf16 and is_operator(node, *LAYER_TYPES, *RECURRENT_TYPES)
        }
        use_bf16(graph, bf16.keys(), pools, unrounded, names)
    codes: dict[object, ir.Value] = {}
    halves: dict[object, ir.Value] = {}
    dynamic = DynamicLayers(names)
    for node, choice in choices.items():
        record = records[node]
        if choice.precision == "int8-weight-only":
            record.weight_sqnr = store_codes(node, config, names, codes)
        elif choice.precision == "f16-weight-only":
            record.weight_sqnr = store_f16(node, names, halves)
        elif choice.precision == "int8-dynamic":
            source = node.inputs[0]
            record.tensor, record.method = None if source is None else source.name, "in each run"
            if is_operator(node, *RECURRENT_TYPES):
                found = dynamic.rewrite_recurrent(node, config, codes)
                record.weight_sqnr, record.reason = found
            else:
                record.weight_sqnr = dynamic.rewrite(node, config)
            result.int8_macs += record.macs or 0
