"""Layers whose operands are all dequantised become integer products.

    xq ──► Dequantize ──┐
    wq ──► Dequantize ──┼► Conv ──► y        becomes      xq, wq, bq ──► QConv ──► y (f32)
    bq ──► Dequantize ──┘

`y = f32(acc) * (s_x * s_w)`: the output stays float here; fuse_epilogues lets a Quantize that
follows choose codes. `xq` is u8 or s8 (unsign_codes has made u8 of most). Weights are constants, s8
or u8, per tensor or per output channel, with zero points or without (integer_weights.py); a MatMul
may also have a second operand that is made in the same run. A bias of s32 with scale s_x * s_w
belongs to the accumulator; any other constant one is added to the float result. A layer that does
not look like this stays as it is.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.integer_weights import IntegerWeights, dequantized_weights
from lowprec.passes.matching import constant_array, constant_floats, graph_of, is_operator, rank_of
from lowprec.passes.own import (
    AttributeValue,
    dequantized,
    insert_own,
    remove_if_unused,
)

# An s32 bias belongs to the accumulator where its scale is s_x * s_w but for its last bits: tools
# calculate it in f64, or in another order. A bias of 2^24 codes is off by 16 of them at most.
_SAME_SCALE = 1e-6
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


def fuse_integer_layers(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in list(model.graph):
        if is_operator(node, "Conv", "ConvTranspose", "MatMul", "Gemm"):
            changed |= _fuse(node) or _fuse_two_activations(node)
    return changed


def _fuse(node: ir.Node) -> bool:
    weights = dequantized_weights(node)
    if weights is None or weights.scale is None:
        return False
    x = _activation(node, weights)
    if x is None:
        return False
    if is_operator(node, "Gemm") and not _is_plain_gemm(node):
        return False
    attributes: dict[str, AttributeValue] = {
        "x_scale": [float(number) for number in x.scales],
        "x_zero_point": x.zero_point,
        **weights.attributes(),
        **kept_attributes(node),
    }
    groups = node.attributes.get_int("group", 1)
    channels = weights.channels
    if is_operator(node, "ConvTranspose"):
        if "w_zero_point" in attributes:
            return False
        channels *= groups
        scales = [float(number) for number in weights.scale]
        attributes["w_scale"] = scales * groups if len(scales) > 1 else scales
    graph = graph_of(node)
    inputs: list[ir.Value | None] = [x.value, weights.stored(graph)]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        operands = _bias(bias, x, weights, channels, graph)
        if operands is None:
            return False
        inputs += operands
    _replace(node, inputs, attributes)
    return True


@dataclass(frozen=True)
class _Activation:
    """The first operand of a layer; of a depthwise one with a scale for each channel, too."""

    value: ir.Value
    scales: NDArray[np.float32]
    zero_point: int
    dtype: ir.DataType


def _activation(node: ir.Node, weights: IntegerWeights) -> _Activation | None:
    x = dequantized(node.inputs[0])
    if x is not None:
        return _Activation(x.value, np.array([x.scale], np.float32), x.zero_point, x.dtype)
    dequantize = None if node.inputs[0] is None else node.inputs[0].producer()
    if not is_operator(dequantize, "DequantizeLinear") or dequantize is None:
        return None
    # NNCF quantises what a depthwise layer reads channel by channel. One zero point: the border.
    if not is_operator(node, "Conv") or weights.codes.shape[1] != 1:
        return None
    codes, scales = dequantize.inputs[0], constant_floats(dequantize.inputs[1])
    zero_points = constant_array(dequantize.inputs[2]) if len(dequantize.inputs) > 2 else None
    if codes is None or scales is None or zero_points is None or scales.ndim != 1:
        return None
    channels, groups = weights.channels, node.attributes.get_int("group", 1)
    is_uniform = zero_points.size > 0 and bool(np.all(zero_points == zero_points.reshape(-1)[0]))
    if dequantize.attributes.get_int("axis", 1) != 1 or not is_uniform or channels != groups:
        return None
    if codes.dtype != ir.DataType.UINT8 or scales.size != channels:
        return None
    return _Activation(codes, scales, int(zero_points.reshape(-1)[0]), ir.DataType.UINT8)


def _replace(
    node: ir.Node, inputs: list[ir.Value | None], attributes: dict[str, AttributeValue]
) -> None:
    readers = [value.producer() for value in node.inputs if value is not None]
    insert_own(node, f"Q{node.op_type}", inputs, node.outputs, attributes)
    graph_of(node).remove(node, safe=True)
    for reader in readers:
        remove_if_unused(reader)


def _fuse_two_activations(node: ir.Node) -> bool:
    """A product of two activations, as in attention."""
    if not is_operator(node, "MatMul"):
        return False
    a, b = dequantized(node.inputs[0]), dequantized(node.inputs[1])
    if a is None or b is None or constant_array(b.value) is not None:
        return False
    if any(rank_of(value) in (0, 1) for value in node.inputs):
        return False
    attributes: dict[str, AttributeValue] = {
        "x_scale": a.scale,
        "x_zero_point": a.zero_point,
        "w_scale": [b.scale],
        "w_zero_point": [b.zero_point],
    }
    _replace(node, [a.value, b.value], attributes)
    return True


def kept_attributes(node: ir.Node) -> dict[str, AttributeValue]:
    """Return the attributes of a layer that its fused form has, too."""
    found = {name: node.attributes.get(name) for name in _KEPT_ATTRIBUTES}
    return {name: attribute.value for name, attribute in found.items() if attribute is not None}


def _is_plain_gemm(node: ir.Node) -> bool:
    return (
        node.attributes.get_float("alpha", 1.0) == 1.0
        and node.attributes.get_float("beta", 1.0) == 1.0
        and node.attributes.get_int("transA", 0) == 0
    )


def _bias(
    value: ir.Value, x: _Activation, weights: IntegerWeights, channels: int, graph: ir.Graph
) -> list[ir.Value | None] | None:
    """Return the bias as operands 2 and 3 of a fused layer: codes, or None and floats."""
    codes = _bias_codes(value, x, weights, channels)
    if codes is not None:
        return [codes]
    floats = _bias_floats(value)
    if (
        floats is None
        or floats.size not in (1, channels)
        or floats.shape[-1:]
        not in (
            (),
            (1,),
            (channels,),
        )
    ):
        return None
    if floats.shape == (channels,) and value.is_initializer():
        return [None, value]
    name = f"{value.name}__row"
    while name in graph.initializers:
        name += "_"
    row = np.broadcast_to(floats.reshape(-1), (channels,))
    return [None, add_constant(graph, name, row)]


def _bias_floats(value: ir.Value) -> NDArray[np.float32] | None:
    array = constant_array(value)
    if array is not None:
        return array.view(np.float32) if array.dtype == np.float32 else None
    dequantize = value.producer()
    if not is_operator(dequantize, "DequantizeLinear") or dequantize is None:
        return None
    codes, scale = constant_array(dequantize.inputs[0]), constant_array(dequantize.inputs[1])
    if codes is None or scale is None or scale.dtype != np.float32 or codes.ndim != 1:
        return None
    if dequantize.attributes.get_int("block_size", 0) != 0 or scale.size not in (1, codes.size):
        return None
    zero_point = constant_array(dequantize.inputs[2]) if len(dequantize.inputs) > 2 else None
    if len(dequantize.inputs) > 2 and dequantize.inputs[2] is not None and zero_point is None:
        return None
    zeros = np.zeros(1, np.int64) if zero_point is None else zero_point.astype(np.int64)
    steps = (codes.astype(np.int64) - zeros.reshape(-1)).astype(np.float32)
    return steps * scale.view(np.float32).reshape(-1)


def _bias_codes(
    value: ir.Value, x: _Activation, weights: IntegerWeights, channels: int
) -> ir.Value | None:
    dequantize = value.producer()
    if not is_operator(dequantize, "DequantizeLinear") or dequantize is None:
        return None
    codes, scale = constant_array(dequantize.inputs[0]), constant_array(dequantize.inputs[1])
    if codes is None or scale is None or codes.dtype != np.int32 or codes.shape != (channels,):
        return None
    if len(dequantize.inputs) > 2 and dequantize.inputs[2] is not None:
        zero_point = constant_array(dequantize.inputs[2])
        if zero_point is None or np.any(zero_point):
            return None
    assert weights.scale is not None  # the caller looked
    expected = x.scales * weights.scale
    given = scale.reshape(-1).astype(np.float32)
    if expected.size not in (1, channels):  # a ConvTranspose: per group
        expected = np.tile(expected, channels // expected.size)
    if given.size not in (1, channels):
        return None
    near = np.abs(given.astype(np.float64) - expected) <= _SAME_SCALE * np.abs(expected)
    return dequantize.inputs[0] if bool(np.all(near)) else None
