"""Layers whose operands are widened from bf16 become bf16 products.

    xb ──► Cast(f32) ──┐
    wb ──► Cast(f32) ──┼► Conv ──► y (f32)        becomes      xb, wb, b (f32) ──► Conv ──► y (f32)
    b (f32) ───────────┘

The own operator has the name of the standard one and `y_dtype`: it multiplies bf16, sums in f32 as
docs/numerics.md says, and adds the f32 bias. fuse_epilogues lets a Cast to bf16 that follows choose
what is stored. MatMul may have two operands that change. A layer that looks different stays; bf16
constants that others read are widened by widen_weights.
"""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from lowprec.passes.matching import (
    constant_array,
    constant_floats,
    graph_of,
    is_operator,
)
from lowprec.passes.move_casts import move_casts, widened
from lowprec.passes.own import AttributeValue, insert_own, is_own, remove_if_unused

BF16_LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")

_KEPT_ATTRIBUTES = (
    "auto_pad",
    "beta",
    "dilations",
    "group",
    "kernel_shape",
    "output_padding",
    "pads",
    "strides",
    "transB",
)


def fuse_bf16_layers(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = move_casts(model, keep)
    for node in list(model.graph):
        if is_operator(node, *BF16_LAYERS):
            changed |= _fuse(node)
    return changed


def is_bf16_layer(node: ir.Node | None) -> bool:
    """Return whether `node` is a product that this pass made."""
    return is_own(node, *BF16_LAYERS) and node is not None and "y_dtype" in node.attributes


def _fuse(node: ir.Node) -> bool:
    x, w = widened(node.inputs[0]), widened(node.inputs[1])
    if x is None or w is None:
        return False
    refused = _refuse_matrix(node, w) if _is_matrix(node) else _refuse_convolution(node, w)
    if refused or node.outputs[0].dtype not in (None, ir.DataType.FLOAT):
        return False
    attributes: dict[str, AttributeValue] = {"y_dtype": int(ir.DataType.FLOAT)}
    for name in _KEPT_ATTRIBUTES:
        attribute = node.attributes.get(name)
        if attribute is not None:
            attributes[name] = attribute.value
    casts = [value.producer() for value in node.inputs[:2] if value is not None]
    inputs = [x, w, *node.inputs[2:]]
    made = insert_own(node, node.op_type, inputs, node.outputs, attributes)
    made.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph_of(node).remove(node, safe=True)
    for cast in casts:
        remove_if_unused(cast)
    return True


def _is_matrix(node: ir.Node) -> bool:
    return node.op_type in ("MatMul", "Gemm")


def _refuse_matrix(node: ir.Node, weights: ir.Value) -> bool:
    if node.attributes.get_float("alpha", 1.0) != 1.0 or node.attributes.get_int("transA", 0) != 0:
        return True
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return False
    array, numbers = constant_array(weights), constant_floats(bias)
    if array is None or array.ndim != 2 or numbers is None:
        return True
    columns = array.shape[0 if node.attributes.get_int("transB", 0) != 0 else 1]
    return numbers.size != 1 and not (numbers.size == columns and numbers.shape[-1] == columns)


def _refuse_convolution(node: ir.Node, weights: ir.Value) -> bool:
    array = constant_array(weights)
    if array is None or array.ndim not in (3, 4):
        return True
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = constant_floats(node.inputs[2])
        if bias is None or bias.ndim != 1:
            return True
    if node.op_type != "ConvTranspose":
        return False
    automatic = node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")
    return automatic or "output_shape" in node.attributes
