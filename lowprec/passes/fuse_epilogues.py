"""What follows a product happens while its result is still in registers.

    QConv ──► Add(bias row) ──► UnaryChain ──► Mul ──► Quantize ──► yq     becomes     QConv ──► yq
    Conv ──► UnaryChain ──► Cast(bf16) ──► yb                              becomes     Conv ──► yb

Steps, each optional: a constant row added to a matrix product; a chain of unary operators; a Mul by
a constant for each channel (smoothing leaves one); Quantize, or a Cast to bf16. After an integer
layer, Relu and Clip alone before Quantize act on codes (docs/architecture.md, "Numbers"): the clamp
of the saturation is narrowed.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx_ir as ir

from lowprec.numerics import reference
from lowprec.passes.channel_values import (
    extend_chain,
    is_image_product,
    is_matrix_product,
    per_output_channel,
)
from lowprec.passes.fuse_bf16_layers import is_bf16_layer
from lowprec.passes.matching import (
    constant_array,
    constant_floats,
    graph_of,
    is_operator,
    other_operand,
    sole_consumer,
)
from lowprec.passes.move_casts import narrows
from lowprec.passes.own import Codes, float_list, int_list, is_own, makes_floats, next_quantize
from lowprec.passes.unary_operators import CLIP, MUL_CHANNEL, RELU

_INTEGER = ("QConv", "QConvTranspose", "QMatMul", "QGemm")
_FLOAT = ("Conv", "ConvTranspose", "MatMul", "Gemm")
_MATRIX = ("MatMul", "QMatMul")


def fuse_epilogues(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in list(model.graph):
        if node.graph is None or not (
            is_own(node, *_INTEGER) or is_operator(node, *_FLOAT) or is_bf16_layer(node)
        ):
            continue
        if is_operator(node, *_FLOAT) and node.outputs[0].dtype != ir.DataType.FLOAT:
            continue
        if node.op_type in _MATRIX:
            changed |= _take_row(node, keep)
        changed |= _take_chain(node, keep)
        changed |= _take_factors(node, keep)
        changed |= _take_quantize(node, keep)
        changed |= _take_cast(node, keep)
    return changed


def _reader(node: ir.Node, keep: Container[str]) -> ir.Node | None:
    value = node.outputs[0]
    reader = None if value.name in keep else sole_consumer(value)
    return reader if reader is not None and reader.graph is node.graph else None


def take_over(node: ir.Node, reader: ir.Node) -> None:
    """Let `node` make what `reader` made, and remove `reader`."""
    made, result = node.outputs[0], reader.outputs[0]
    name, made.type, made.shape = result.name, result.type, result.shape
    result.replace_all_uses_with(made, replace_graph_outputs=True)
    graph_of(reader).remove(reader, safe=True)
    made.name = name


def _take_row(node: ir.Node, keep: Container[str]) -> bool:
    """MatMul + constant row: float adds it as its bias, an integer product after its scale."""
    reader = _reader(node, keep)
    if reader is None or not is_operator(reader, "Add"):
        return False
    row = other_operand(reader, node.outputs[0])
    numbers, weights = constant_floats(row), node.inputs[1]
    if row is None or numbers is None or weights is None or weights.const_value is None:
        return False
    shape = weights.const_value.shape.numpy()
    if len(shape) != 2 or numbers.ndim != 1 or numbers.shape[0] != shape[1]:
        return False
    inputs: list[ir.Value | None] = list(node.inputs)
    position = 3 if is_own(node, "QMatMul") else 2
    if len(inputs) > position and inputs[position] is not None:
        return False
    inputs += [None] * (position + 1 - len(inputs))
    inputs[position] = row
    graph = graph_of(node)
    made = ir.Node(
        "ai.lowprec",
        node.op_type,
        inputs=inputs,
        attributes=list(node.attributes.values()),
        num_outputs=1,
        name=node.name,
    )
    graph.insert_before(reader, made)
    result = reader.outputs[0]
    made.outputs[0].type, made.outputs[0].shape = result.type, result.shape
    name = result.name
    result.replace_all_uses_with(made.outputs[0], replace_graph_outputs=True)
    graph.remove([reader, node], safe=True)
    made.outputs[0].name = name
    # The rest of the epilogue belongs to the new node.
    _take_chain(made, keep)
    _take_factors(made, keep)
    _take_quantize(made, keep)
    _take_cast(made, keep)
    return True


def _take_chain(node: ir.Node, keep: Container[str]) -> bool:
    if node.graph is None or "chain_codes" in node.attributes or not makes_floats(node):
        return False
    reader = _reader(node, keep)
    if reader is None or not is_own(reader, "UnaryChain"):
        return False
    for name in ("codes", "a", "b"):
        attribute = reader.attributes[name]
        node.attributes[f"chain_{name}"] = ir.Attr(f"chain_{name}", attribute.type, attribute.value)
    take_over(node, reader)
    return True


def _take_factors(node: ir.Node, keep: Container[str]) -> bool:
    """Multiply each output channel by a constant of its own."""
    if node.graph is None or "channel_values" in node.attributes or not makes_floats(node):
        return False
    if not is_image_product(node) and not is_matrix_product(node):
        return False
    reader = _reader(node, keep)
    if reader is None or not is_operator(reader, "Mul"):
        return False
    factors = per_output_channel(node, other_operand(reader, node.outputs[0]))
    if factors is None:
        return False
    extend_chain(node, MUL_CHANNEL, factors)
    take_over(node, reader)
    return True


def _take_quantize(node: ir.Node, keep: Container[str]) -> bool:
    if node.graph is None or not _stores_any_dtype(node):
        return False
    if not makes_floats(node):
        return False
    found = next_quantize(node.outputs[0], keep)
    if found is None:
        return False
    quantize, codes = found
    node.attributes["y_dtype"] = ir.AttrInt64("y_dtype", int(codes.dtype))
    node.attributes["y_scale"] = ir.AttrFloat32("y_scale", codes.scale)
    node.attributes["y_zero_point"] = ir.AttrInt64("y_zero_point", codes.zero_point)
    if is_own(node, *_INTEGER) and len(node.inputs) < 4:
        _clamp_on_codes(node, codes)
    take_over(node, quantize)
    return True


def _stores_any_dtype(node: ir.Node) -> bool:
    """Return whether the engine's step for `node` is sure to be one with a full epilogue.

    A matrix product of floats is, where its weights are a constant matrix and its bias a row.
    """
    if node.op_type not in ("MatMul", "Gemm"):
        return True
    weights = constant_array(node.inputs[1])
    if weights is None or weights.ndim != 2 or node.attributes.get_int("transA", 0) != 0:
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return True
    row = constant_floats(bias)
    columns = weights.shape[0 if node.attributes.get_int("transB", 0) != 0 else 1]
    return row is not None and (row.size == 1 or row.shape == (columns,))


def _take_cast(node: ir.Node, keep: Container[str]) -> bool:
    """Let a product round to bf16 itself."""
    if node.graph is None or not makes_floats(node):
        return False
    if not is_bf16_layer(node) and not _stores_any_dtype(node):
        return False
    reader = _reader(node, keep)
    if reader is None or not narrows(reader):
        return False
    node.attributes["y_dtype"] = ir.AttrInt64("y_dtype", int(ir.DataType.BFLOAT16))
    take_over(node, reader)
    return True


def _clamp_on_codes(node: ir.Node, codes: Codes) -> None:
    """Turn a chain that is one Relu or Clip into bounds of the code."""
    if int_list(node, "chain_codes") == [RELU]:
        low, high = 0.0, np.inf
    elif int_list(node, "chain_codes") == [CLIP]:
        low, high = float_list(node, "chain_a")[0], float_list(node, "chain_b")[0]
    else:
        return
    unsigned = codes.dtype == ir.DataType.UINT8
    zero_point = np.array(codes.zero_point, np.uint8 if unsigned else np.int8)
    bounds = reference.quantize_linear(
        np.array([low, high], np.float32), np.float32(codes.scale), zero_point
    )
    node.attributes["y_qmin"] = ir.AttrInt64("y_qmin", int(bounds[0]))
    node.attributes["y_qmax"] = ir.AttrInt64("y_qmax", int(bounds[1]))
    for name in ("chain_codes", "chain_a", "chain_b"):
        del node.attributes[name]
