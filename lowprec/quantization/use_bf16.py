"""Layers that multiply bf16: no data needed.

    x ──► Cast(bf16) ──► Cast(f32) ──► Conv ──► y      the rounding is written down, the operators
    w (bf16) ──────────► Cast(f32) ──►                 stay ordinary f32 ones

A product of bf16 numbers is exact in f32; sums, biases and everything between layers are f32. So
any runtime gives the same up to the order of its sums, and one that has bf16 products (ours:
passes/fuse_bf16_layers.py) recognises them. A tensor is rounded once, where it is made: all its
readers see the rounded one, so that it need only be stored in bf16. What moves elements (Reshape,
MaxPool, Concat) follows the rounding, which changes nothing.

Layers in f32 or on codes read unrounded tensors where there are any; a tensor that is needed in f32
for them is read in f32 by all who do not multiply it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
import onnx_ir as ir

from lowprec.graph.constants import add_constant
from lowprec.numerics import to_bf16
from lowprec.passes.layers import LAYER_TYPES, find_layer
from lowprec.passes.matching import NameSource, constant_array, is_operator
from lowprec.passes.move_casts import moved_inputs

# Besides layers, whoever reads so much more than it computes that bf16 saves time.
READS_MUCH = ("AveragePool", "BatchNormalization", "GlobalAveragePool", "GlobalMaxPool")
_RECURRENT = ("LSTM", "GRU", "RNN")
_QUANTIZING = ("QuantizeLinear", "DynamicQuantizeLinear")


def why_not_bf16(node: ir.Node) -> str | None:
    """Return "" for a layer that can multiply bf16, why a layer cannot, None for no layer."""
    if is_operator(node, *_RECURRENT):
        return "recurrent layers have no bf16 form yet"
    if not is_operator(node, *LAYER_TYPES):
        return None
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


def use_bf16(
    graph: ir.Graph,
    layers: Collection[ir.Node],
    pools: Collection[ir.Node],
    unrounded: Collection[ir.Node],
    names: NameSource,
) -> None:
    """Let `layers` multiply bf16 numbers, in place.

    Args:
        graph: The main graph or a body; what a body reads from outside is rounded inside of it.
            Element types of values are known.
        layers: Nodes of `graph` of which `why_not_bf16` says "".
        pools: Operators of `READS_MUCH` that read rounded tensors, too.
        unrounded: Nodes that go on reading the f32 tensor where one is rounded for somebody else.
        names: Of the whole model.
    """
    for value, wanted in _rounded_uses(graph, layers, pools).items():
        if not _is_moved(value, graph):
            _round(graph, value, wanted, unrounded, names)
    _store_weights(graph, layers, names)


def _is_float(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT


def _rounded_uses(
    graph: ir.Graph, layers: Collection[ir.Node], pools: Collection[ir.Node]
) -> dict[ir.Value, set[tuple[ir.Node, int]]]:
    """Return which values are wanted in bf16, and by whom: whoever multiplies, or moves to those.

    What a body reads from outside comes first, then the graph's own values in its order.
    """
    wanted: dict[ir.Value, set[tuple[ir.Node, int]]] = {}
    for node in reversed(graph):
        moved = moved_inputs(node) or []
        for position, value in enumerate(node.inputs):
            if value is None or not _is_float(value) or value.is_initializer():
                continue
            reads = node in layers and position < 2
            follows = position in moved and any(output in wanted for output in node.outputs)
            if reads or follows or (position == 0 and node in pools):
                wanted.setdefault(value, set()).add((node, position))
    own = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    known = set(own)
    order = [value for value in reversed(wanted) if value not in known]
    order += [value for value in own if value in wanted]
    return {value: wanted[value] for value in order}


def _is_moved(value: ir.Value, graph: ir.Graph) -> bool:
    """Return whether `value` is made of rounded ones alone: then it need not be rounded."""
    node = value.producer()
    moved = None if node is None or node.graph is not graph else moved_inputs(node)
    if not moved or node is None:
        return False
    return not any(constant_array(node.inputs[position]) is not None for position in moved)


def _round(
    graph: ir.Graph,
    value: ir.Value,
    wanted: Collection[tuple[ir.Node, int]],
    unrounded: Collection[ir.Node],
    names: NameSource,
) -> None:
    """Insert the rounding of `value`, and let its readers see it.

    Where somebody needs the f32 tensor all the same, only those that want bf16 read the rounded
    one; otherwise all do, and the f32 tensor need not be stored.
    """
    readers = [
        use
        for use in value.uses()
        if use.node.graph is graph and not is_operator(use.node, "Shape", "Size")
    ]
    is_stored = any(use.node in unrounded or is_operator(use.node, *_QUANTIZING) for use in readers)
    uses = [use for use in readers if not is_stored or (use.node, use.idx) in wanted]
    narrow = _cast(value, ir.DataType.BFLOAT16, names.fresh(f"{value.name}_bf16"))
    wide = _cast(narrow.outputs[0], ir.DataType.FLOAT, names.fresh(f"{value.name}_rounded"))
    for cast in (narrow, wide):
        cast.outputs[0].shape = value.shape
    producer = value.producer()
    if producer is None or producer.graph is not graph:
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
