"""Element-wise operators between Dequantize and Quantize work on codes.

    aq ──► Dequantize ──┐
                        ├► Add ──► Quantize ──► yq     becomes     aq, bq ──► QAdd ──► yq
    bq ──► Dequantize ──┘

    xq ──► Dequantize ──► UnaryChain ──► Quantize ──► yq     becomes     xq ──► QTable ──► yq

Each form is by definition the float operators one after the other (`(q - z) * s`, the operation,
division by the scale), so nothing changes but the time. A chain has only 256 different inputs: a
table.
"""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from lowprec.passes.matching import graph_of, is_operator
from lowprec.passes.own import (
    AttributeValue,
    Codes,
    dequantized,
    float_list,
    insert_own,
    int_list,
    is_own,
    next_quantize,
    remove_if_unused,
)

_BINARY = {"Add": "QAdd", "Mul": "QMul"}
_POOLS = {"AveragePool": "QAveragePool", "GlobalAveragePool": "QGlobalAveragePool"}
_POOL_ATTRIBUTES = (
    "auto_pad",
    "ceil_mode",
    "count_include_pad",
    "dilations",
    "kernel_shape",
    "pads",
    "strides",
)


def fuse_integer_elementwise(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in list(model.graph):
        if len(node.outputs) != 1:
            continue
        if is_operator(node, *_BINARY):
            changed |= _fuse_binary(node, keep)
        elif is_operator(node, "Concat"):
            changed |= _fuse_concat(node, keep)
        elif is_operator(node, *_POOLS):
            changed |= _fuse_pool(node, keep)
        elif is_own(node, "UnaryChain"):
            changed |= _fuse_chain(node, keep)
    return changed


def _numbers(prefix: str, codes: Codes) -> dict[str, AttributeValue]:
    return {
        f"{prefix}_scale": codes.scale,
        f"{prefix}_zero_point": codes.zero_point,
        f"{prefix}_dtype": int(codes.dtype),
    }


def _replace(
    node: ir.Node,
    op_type: str,
    inputs: list[ir.Value],
    quantize: ir.Node,
    attributes: dict[str, AttributeValue],
) -> bool:
    readers = [value.producer() for value in node.inputs if value is not None]
    insert_own(node, op_type, inputs, quantize.outputs, attributes)
    graph_of(node).remove([quantize, node], safe=True)
    for reader in readers:
        remove_if_unused(reader)
    return True


def _fuse_binary(node: ir.Node, keep: Container[str]) -> bool:
    a, b = dequantized(node.inputs[0]), dequantized(node.inputs[1])
    target = next_quantize(node.outputs[0], keep)
    if a is None or b is None or target is None:
        return False
    quantize, y = target
    attributes = {**_numbers("a", a), **_numbers("b", b), **_numbers("y", y)}
    return _replace(node, _BINARY[node.op_type], [a.value, b.value], quantize, attributes)


def _fuse_concat(node: ir.Node, keep: Container[str]) -> bool:
    parts = [dequantized(value) for value in node.inputs]
    target = next_quantize(node.outputs[0], keep)
    if target is None:
        return False
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or len({part.dtype for part in known}) != 1:
        return False
    quantize, y = target
    attributes: dict[str, AttributeValue] = {
        "axis": node.attributes.get_int("axis", 0),
        "x_scale": [part.scale for part in known],
        "x_zero_point": [part.zero_point for part in known],
        **_numbers("y", y),
    }
    return _replace(node, "QConcat", [part.value for part in known], quantize, attributes)


def _fuse_pool(node: ir.Node, keep: Container[str]) -> bool:
    x = dequantized(node.inputs[0])
    target = next_quantize(node.outputs[0], keep)
    if x is None or target is None:
        return False
    quantize, y = target
    attributes = {**_numbers("x", x), **_numbers("y", y)}
    for name in _POOL_ATTRIBUTES:
        attribute = node.attributes.get(name)
        if attribute is not None:
            attributes[name] = attribute.value
    return _replace(node, _POOLS[node.op_type], [x.value], quantize, attributes)


def _fuse_chain(node: ir.Node, keep: Container[str]) -> bool:
    x = dequantized(node.inputs[0])
    target = next_quantize(node.outputs[0], keep)
    if x is None or target is None:
        return False
    quantize, y = target
    attributes: dict[str, AttributeValue] = {
        **_numbers("x", x),
        **_numbers("y", y),
        "codes": int_list(node, "codes"),
        "a": float_list(node, "a"),
        "b": float_list(node, "b"),
    }
    return _replace(node, "QTable", [x.value], quantize, attributes)
