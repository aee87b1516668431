"""Attention puts its result where it is wanted, and in the type it is wanted in.

    Attention ──► Transpose ──► Reshape ──► Mul(row) ──► Quantize ──► yq
    becomes
    Attention (y_perm, column_factors, y_scale ..) ──► Reshape ──► yq

Each part is optional: a Transpose that leaves the last axis; a constant row that the joined columns
of all heads are multiplied by (smoothing leaves one); Quantize. Operands need no pass: the engine
reads them through Transpose, Reshape, Gather, Slice and Split (Planner::view_of).

`needs_body` names the nodes that the engine's kernel does not do: they are written as the
operators that ONNX defines Attention by (expand_functions).
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.passes.matching import (
    constant_floats,
    graph_of,
    is_operator,
    other_operand,
    sole_consumer,
)
from lowprec.passes.own import AttributeValue, Codes, insert_own, is_own, quantizes

PRODUCTS = "lowprec.attention"
"""Key of a node's metadata: "int8" where both products of an Attention are of codes, with scales
of each run. A QDQ file cannot say that; other runtimes ignore it."""

_ATTRIBUTES = ("is_causal", "kv_num_heads", "q_num_heads", "scale")
_OWN_ATTRIBUTES = ("joined", "int8", "chain_codes", "chain_a", "chain_b")  # join_attention
_KNOWN = (*_ATTRIBUTES, "qk_matmul_output_mode", "softcap", "softmax_precision")
_SOFTMAX_TYPES = (ir.DataType.UNDEFINED, ir.DataType.FLOAT)


def needs_body(node: ir.Node) -> bool:
    """Return whether `node` is an Attention that the engine's kernel does not do."""
    if not is_operator(node, "Attention"):
        return False
    if any(value is not None and value.name for value in node.inputs[4:]):
        return True
    if any(name not in _KNOWN for name in node.attributes):  # later opsets: windows
        return True
    if any(value.name and (value.uses() or value.is_graph_output()) for value in node.outputs[1:]):
        return True
    if node.attributes.get_float("softcap", 0.0) != 0.0:
        return True
    if node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.DOUBLE:
        return True
    return node.attributes.get_int("softmax_precision", 0) not in _SOFTMAX_TYPES


def fuse_attention(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in list(model.graph):
        if not is_operator(node, "Attention") and not is_own(node, "Attention"):
            continue
        if node.outputs[0].dtype == ir.DataType.FLOAT:
            changed |= _fuse(node, keep)
    return changed


def _next(value: ir.Value, keep: Container[str], node: ir.Node) -> ir.Node | None:
    """Return the sole reader of `value` in the graph of `node`."""
    reader = None if value.name in keep else sole_consumer(value)
    return reader if reader is not None and reader.graph is node.graph else None


def _fuse(node: ir.Node, keep: Container[str]) -> bool:
    attributes: dict[str, AttributeValue] = {}
    taken: list[ir.Node] = []  # what the new node does, too
    last = node.outputs[0]

    quantize = _next(last, keep, node)
    codes = quantizes(quantize)
    if quantize is not None and codes is not None:
        attributes.update(_code_attributes(codes))
        taken.append(quantize)
        last = quantize.outputs[0]
    transpose = _next(last, keep, node)
    order = None if transpose is None else _order(transpose)
    if transpose is not None and order is not None:
        attributes["y_perm"] = order
        taken.append(transpose)
        last = transpose.outputs[0]
    behind = None
    if codes is None and order is not None and order[2] == 1:
        behind = _row_and_codes(last, keep, node)
    if behind is not None:
        reshape, mul, row, quantize, codes = behind
        if mul is not None and row is not None:
            attributes["column_factors"] = [float(factor) for factor in row]
        attributes.update(_code_attributes(codes))
    if node.metadata_props.get(PRODUCTS) == "int8":
        attributes["int8"] = 1
    if not attributes:
        return False
    for key in (*_ATTRIBUTES, *(_OWN_ATTRIBUTES if is_own(node, "Attention") else ())):
        attribute = node.attributes.get(key)
        if attribute is not None:
            attributes[key] = attribute.value
    made = insert_own(node, "Attention", node.inputs, [last], attributes).outputs[0]
    graph = graph_of(node)
    graph.remove([node, *taken], safe=True)
    if behind is None:
        return True
    reshape, mul, _, quantize, codes = behind
    result, moved = quantize.outputs[0], reshape.outputs[0]
    made.type, moved.type = ir.TensorType(codes.dtype), ir.TensorType(codes.dtype)
    name = result.name
    result.replace_all_uses_with(moved, replace_graph_outputs=True)
    graph.remove([quantize] if mul is None else [mul, quantize], safe=True)
    moved.name = name
    return True


def _code_attributes(codes: Codes) -> dict[str, AttributeValue]:
    return {
        "y_dtype": int(codes.dtype),
        "y_scale": codes.scale,
        "y_zero_point": codes.zero_point,
    }


def _order(node: ir.Node) -> list[int] | None:
    """Return the order of the axes of a Transpose of four that leaves the last one."""
    if not is_operator(node, "Transpose"):
        return None
    attribute = node.attributes.get("perm")
    order = [] if attribute is None else list(attribute.as_ints())
    return order if len(order) == 4 and order[3] == 3 else None


def _row_and_codes(
    value: ir.Value, keep: Container[str], node: ir.Node
) -> tuple[ir.Node, ir.Node | None, NDArray[np.float32] | None, ir.Node, Codes] | None:
    """Return Reshape, Mul and its row or None, and Quantize with its codes, behind `value`."""
    reshape = _next(value, keep, node)
    if reshape is None or not is_operator(reshape, "Reshape") or reshape.inputs[0] is not value:
        return None
    mul: ir.Node | None = None
    row: NDArray[np.float32] | None = None
    last = reshape.outputs[0]
    reader = _next(last, keep, node)
    if is_operator(reader, "Mul") and reader is not None:
        row = _row(other_operand(reader, last), value, last)
        if row is None:
            return None
        mul = reader
        last = mul.outputs[0]
        reader = _next(last, keep, node)
    codes = quantizes(reader)
    return None if reader is None or codes is None else (reshape, mul, row, reader, codes)


def _row(operand: ir.Value | None, apart: ir.Value, joined: ir.Value) -> NDArray[np.float32] | None:
    """Return the constant row behind `operand`, one factor for each column of `joined`."""
    row = constant_floats(operand)
    if row is None or row.ndim < 1 or row.size != row.shape[-1] or joined.shape is None:
        return None
    if row.ndim > len(joined.shape):
        return None
    is_joined = joined.shape[-1] == row.size or (row.size > 1 and _joins_heads(apart, joined))
    return row.reshape(-1) if is_joined else None


def _joins_heads(apart: ir.Value, joined: ir.Value) -> bool:
    """Return whether [B, S, H, D] is known to become [B, S, H * D], more than one column.

    H may be unknown: a Reshape keeps the number of elements, so equal names of B and S are enough.
    """
    if apart.shape is None or joined.shape is None:
        return False
    if len(apart.shape) != 4 or len(joined.shape) != 3:
        return False
    depth = apart.shape[3]
    names = [getattr(dim, "value", dim) for dim in apart.shape[:2]]
    same = names == [getattr(dim, "value", dim) for dim in joined.shape[:2]]
    return same and None not in names and isinstance(depth, int) and depth > 1
