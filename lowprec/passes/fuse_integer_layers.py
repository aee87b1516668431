"""Layers whose operands are all dequantised become integer products.

    xq ──► Dequantize ──┐
    wq ──► Dequantize ──┼► Conv ──► y        becomes      xq, wq, bq ──► QConv ──► y (f32)
    bq ──► Dequantize ──┘

`y = f32(acc) * (s_x * s_w)`: the output stays float here; fuse_epilogues lets a Quantize that
follows choose codes. `xq` is u8, or s8 except for depthwise layers. Weights must be s8 constants
with zero point 0, per tensor or per output channel, and the bias s32 with scale s_x * s_w. A layer
that does not look like this stays as it is.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lowprec.passes.matching import constant_array, graph_of, is_operator
from lowprec.passes.own import (
    AttributeValue,
    Codes,
    dequantized,
    insert_own,
    remove_if_unused,
)

_KEPT_ATTRIBUTES = (
    "auto_pad",
    "dilations",
    "group",
    "kernel_shape",
    "output_padding",
    "output_shape",
    "pads",
    "strides",
    "transB",
)


@dataclass(frozen=True)
class _Weights:
    value: ir.Value
    scale: list[float]  # one, or one per output channel


def fuse_integer_layers(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in list(model.graph):
        if is_operator(node, "Conv", "ConvTranspose", "MatMul", "Gemm"):
            changed |= _fuse(node)
    return changed


def _fuse(node: ir.Node) -> bool:
    x = dequantized(node.inputs[0])
    if x is None:
        return False
    weights = _weights(node)
    if weights is None:
        return False
    if x.dtype != ir.DataType.UINT8 and _is_depthwise(node, weights):
        return False
    if is_operator(node, "Gemm") and not _is_plain_gemm(node):
        return False
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    bias_codes = None
    if bias is not None:
        bias_codes = _bias(bias, x, weights)
        if bias_codes is None:
            return False
    attributes: dict[str, AttributeValue] = {
        "x_scale": x.scale,
        "x_zero_point": x.zero_point,
        "w_scale": weights.scale,
    }
    for name in _KEPT_ATTRIBUTES:
        attribute = node.attributes.get(name)
        if attribute is not None:
            attributes[name] = attribute.value
    readers = [value.producer() for value in node.inputs if value is not None]
    inputs = [x.value, weights.value, *([bias_codes] if bias_codes is not None else [])]
    insert_own(node, f"Q{node.op_type}", inputs, node.outputs, attributes)
    graph_of(node).remove(node, safe=True)
    for reader in readers:
        remove_if_unused(reader)
    return True


def _is_plain_gemm(node: ir.Node) -> bool:
    return (
        node.attributes.get_float("alpha", 1.0) == 1.0
        and node.attributes.get_float("beta", 1.0) == 1.0
        and node.attributes.get_int("transA", 0) == 0
    )


def _is_depthwise(node: ir.Node, weights: _Weights) -> bool:
    """Return whether every channel has a filter of its own: their kernels read u8 codes only."""
    shape = weights.value.shape
    return node.attributes.get_int("group", 1) > 1 and shape is not None and shape[1] == 1


def _weights(node: ir.Node) -> _Weights | None:
    value = node.inputs[1]
    dequantize = None if value is None else value.producer()
    if not is_operator(dequantize, "DequantizeLinear") or dequantize is None:
        return None
    codes, scale = constant_array(dequantize.inputs[0]), constant_array(dequantize.inputs[1])
    if codes is None or scale is None or codes.dtype != np.int8 or scale.dtype != np.float32:
        return None
    if len(dequantize.inputs) > 2 and dequantize.inputs[2] is not None:
        zero_point = constant_array(dequantize.inputs[2])
        if zero_point is None or np.any(zero_point):
            return None
    if dequantize.attributes.get_int("block_size", 0) != 0:
        return None
    if codes.ndim != 2 and is_operator(node, "MatMul", "Gemm"):
        return None
    if scale.size == 1:
        return _Weights(_source(dequantize), [float(scale.reshape(()))])
    axis = dequantize.attributes.get_int("axis", 1) % codes.ndim
    group = node.attributes.get_int("group", 1)
    flipped = node.attributes.get_int("transB", 0) != 0
    wanted = {"Conv": 0, "ConvTranspose": 1, "MatMul": 1, "Gemm": 0 if flipped else 1}
    if axis != wanted[node.op_type] or scale.shape != (codes.shape[axis],):
        return None
    numbers = [float(number) for number in scale]
    if is_operator(node, "ConvTranspose"):
        numbers = numbers * group
    return _Weights(_source(dequantize), numbers)


def _source(dequantize: ir.Node) -> ir.Value:
    value = dequantize.inputs[0]
    assert value is not None  # constant_array said so
    return value


def _bias(value: ir.Value, x: Codes, weights: _Weights) -> ir.Value | None:
    dequantize = value.producer()
    if not is_operator(dequantize, "DequantizeLinear") or dequantize is None:
        return None
    codes, scale = constant_array(dequantize.inputs[0]), constant_array(dequantize.inputs[1])
    if codes is None or scale is None or codes.dtype != np.int32:
        return None
    if len(dequantize.inputs) > 2 and dequantize.inputs[2] is not None:
        zero_point = constant_array(dequantize.inputs[2])
        if zero_point is None or np.any(zero_point):
            return None
    expected = np.float32(x.scale) * np.asarray(weights.scale, np.float32)
    if not np.array_equal(scale.reshape(-1), expected) and not (
        scale.size == 1 and np.all(expected == scale.reshape(-1)[0])
    ):
        return None
    return dequantize.inputs[0]
