"""Layers whose activations are quantised by their own range become one integer product.

    x ──► DynamicQuantize ──► xq ──► MatMulInteger(wq) ──► Cast ──► Mul ──► Add(row) ──► y
                      └─► s_x ──► Mul(s_w) ───────────────────────────┘

becomes

    x ──► DynamicQuantize ──► xq, z_x, s_x ──► QMatMul(wq) ──► y

`y = f32(acc) * (s_x * s_w) + row`, the numbers of the operators one by one. ConvInteger likewise. A
product without this tail, or with another one, becomes an integer product to s32. Weights are
constants; zero point and scale of x are operands 4 and 5 of the fused layer.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.fuse_integer_layers import kept_attributes
from lowprec.passes.integer_weights import IntegerWeights, integer_operator_weights
from lowprec.passes.matching import (
    constant_array,
    constant_floats,
    graph_of,
    is_operator,
    other_operand,
    sole_consumer,
)
from lowprec.passes.own import AttributeValue, insert_own, remove_if_unused


def fuse_dynamic_layers(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in list(model.graph):
        if is_operator(node, "ConvInteger", "MatMulInteger"):
            changed |= _fuse(node, keep)
    return changed


def _fuse(node: ir.Node, keep: Container[str]) -> bool:
    weights = integer_operator_weights(node)
    x, zero_point = node.inputs[0], node.inputs[2] if len(node.inputs) > 2 else None
    if weights is None or x is None or x.dtype not in (ir.DataType.UINT8, ir.DataType.INT8):
        return False
    if zero_point is not None and not _is_one_number(zero_point):
        return False
    graph = graph_of(node)
    attributes: dict[str, AttributeValue] = {**weights.attributes(), **kept_attributes(node)}
    row: ir.Value | None = None
    scale: ir.Value | None = None
    last = node
    members = [node]
    tail = _scale_after(node, weights, keep)
    if tail is None:
        attributes["y_dtype"] = int(ir.DataType.INT32)
    else:
        scale, w_scale, last = tail
        attributes["w_scale"] = w_scale
        members += _nodes_between(node, last)
        added = _row_after(last, weights, node, keep)
        if added is not None:
            adder, floats = added
            name = f"{adder.name}__row"
            while name in graph.initializers:
                name += "_"
            row = add_constant(graph, name, floats)
            members.append(adder)
            last = adder
    inputs = [x, weights.stored(graph), None, row, zero_point, scale]
    operator = {"ConvInteger": "QConv", "MatMulInteger": "QMatMul"}[node.op_type]
    operands = [value for member in members for value in member.inputs]
    insert_own(last, operator, inputs, last.outputs, attributes, name=node.name)
    graph.remove(list(reversed(members)), safe=True)
    for value in operands:
        remove_if_unused(None if value is None else value.producer())
    return True


def _is_one_number(value: ir.Value) -> bool:
    """Return whether a zero point is one for all rows: rank 0, or one element."""
    array = constant_array(value)
    if array is not None:
        return array.size == 1
    writer = value.producer()
    if is_operator(writer, "DynamicQuantizeLinear"):
        return True
    return value.shape is not None and len(value.shape) == 0


def _only_reader(value: ir.Value, keep: Container[str]) -> ir.Node | None:
    return None if value.name in keep else sole_consumer(value)


def _scale_after(
    node: ir.Node, weights: IntegerWeights, keep: Container[str]
) -> tuple[ir.Value, list[float], ir.Node] | None:
    """Return (scale of x, scales of w, the Mul that applies them) after an integer operator."""
    cast = _only_reader(node.outputs[0], keep)
    if cast is None or not is_operator(cast, "Cast"):
        return None
    if cast.attributes.get_int("to", 0) != ir.DataType.FLOAT or cast.graph is not node.graph:
        return None
    multiply = _only_reader(cast.outputs[0], keep)
    if multiply is None or not is_operator(multiply, "Mul") or multiply.graph is not node.graph:
        return None
    scales = other_operand(multiply, cast.outputs[0])
    product = None if scales is None else scales.producer()
    if scales is None or product is None or not is_operator(product, "Mul"):
        return None
    for x_scale, w_scale in (product.inputs, reversed(product.inputs)):
        floats = _by_channel(constant_floats(w_scale), weights, node)
        if floats is None or x_scale is None or not _is_one_real(x_scale):
            continue
        return x_scale, [float(number) for number in floats], multiply
    return None


def _is_one_real(value: ir.Value) -> bool:
    """Return whether `value` is a scalar of f32 made in the run."""
    writer = value.producer()
    if is_operator(writer, "DynamicQuantizeLinear"):
        return True
    is_scalar = value.shape is not None and len(value.shape) == 0
    return is_scalar and value.dtype == ir.DataType.FLOAT and constant_array(value) is None


def _nodes_between(node: ir.Node, last: ir.Node) -> list[ir.Node]:
    """Return the Cast after `node`, and `last`."""
    (use,) = node.outputs[0].uses()
    return [use.node, last]


def _row_after(
    last: ir.Node, weights: IntegerWeights, node: ir.Node, keep: Container[str]
) -> tuple[ir.Node, NDArray[np.float32]] | None:
    adder = _only_reader(last.outputs[0], keep)
    if adder is None or not is_operator(adder, "Add") or adder.graph is not node.graph:
        return None
    floats = _by_channel(
        _constant_behind_reshape(other_operand(adder, last.outputs[0])), weights, node
    )
    if floats is None:
        return None
    return adder, np.ascontiguousarray(np.broadcast_to(floats, (weights.channels,)))


def _constant_behind_reshape(value: ir.Value | None) -> NDArray[np.float32] | None:
    """Return a constant, also one that a constant Reshape brings into its shape."""
    array = constant_floats(value)
    if array is not None or value is None:
        return array
    reshape = value.producer()
    if not is_operator(reshape, "Reshape") or reshape is None:
        return None
    array, shape = constant_floats(reshape.inputs[0]), constant_array(reshape.inputs[1])
    if array is None or shape is None or reshape.attributes.get_int("allowzero", 0) != 0:
        return None
    sizes = [int(size) for size in shape.reshape(-1)]
    if len(sizes) > 8 or 0 in sizes or sizes.count(-1) > 1:
        return None
    try:
        return array.reshape(sizes)
    except ValueError:
        return None


def _by_channel(
    array: NDArray[np.float32] | None, weights: IntegerWeights, node: ir.Node
) -> NDArray[np.float32] | None:
    """Return one value, or one per output channel, of a constant that meets the result of `node`.

    Of a matrix the channels are the last axis, of an image the one that `rank - 2` others follow.
    """
    if array is None:
        return None
    rank = 2 if is_operator(node, "MatMulInteger") else weights.codes.ndim
    if array.ndim > rank:
        return None
    if array.size == 1:
        return array.reshape(1)
    axis = array.ndim - (1 if is_operator(node, "MatMulInteger") else rank - 1)
    if axis < 0 or array.size != weights.channels or array.shape[axis] != weights.channels:
        return None
    return array.reshape(-1)
