"""Recurrent layers whose X, W and R are dequantised multiply codes.

    xq ──► Dequantize ──┐
    wq ──► Dequantize ──┼► LSTM ──► y        becomes      xq, wq, rq, b ──► QLSTM ──► y (f32)
    rq ──► Dequantize ──┘

X * W^T is a product of codes, all steps at once: f32(acc) * (s_x * s_w) + bias. What a QDQ file
cannot say is that the state h is quantised, too, inside of the node. `lowprec.quantize` writes the
scale that it chose into the node's metadata, `HIDDEN_SCALE`; with it H * R^T is a product of u8
codes (zero point 128) with s8 codes in every step, without it one of floats with R dequantised:
what the file means. Other runtimes ignore the metadata.

X may have the range of each run: DynamicQuantizeLinear before DequantizeLinear. Its zero point and
scale are then operands 8 and 9 of the fused layer.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx_ir as ir

from lowprec.passes.matching import constant_array, graph_of, is_operator
from lowprec.passes.own import AttributeValue, dequantized, insert_own, remove_if_unused

RECURRENT_TYPES = ("LSTM", "GRU", "RNN")
HIDDEN_SCALE = "lowprec.hidden_scale"
"""Key of a node's metadata: real units per u8 code of h; a decimal number that is an f32."""
SMALLEST_SCALE = 2.0**-60

_ZERO_POINT = 8  # the operand's place; the scale is next to it
MAX_DEPTH = 2**31 // (255 * 128)
"""Products of so many codes fit an s32 accumulator."""


def hidden_scale(node: ir.Node) -> float:
    """Return the scale of h that `node` carries, 0.0 where it has none that makes sense."""
    try:
        scale = float(node.metadata_props.get(HIDDEN_SCALE, "0"))
    except ValueError:
        return 0.0
    return float(np.float32(scale)) if SMALLEST_SCALE <= scale <= 1e30 else 0.0


def fuse_integer_recurrent(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in list(model.graph):
        if is_operator(node, *RECURRENT_TYPES) and len(node.inputs) >= 3:
            changed |= _fuse(node)
    return changed


def _fuse(node: ir.Node) -> bool:
    x, own_range = dequantized(node.inputs[0]), _own_range(node.inputs[0])
    weights, recurrence = (_codes(node.inputs[i]) for i in (1, 2))
    if (x is None and own_range is None) or weights is None or recurrence is None:
        return False
    w, w_scale = weights
    r, r_scale = recurrence
    attributes: dict[str, AttributeValue] = {
        "x_scale": 1.0 if x is None else x.scale,
        "x_zero_point": 0 if x is None else x.zero_point,
        "w_scale": w_scale,
        "r_scale": r_scale,
        "h_scale": hidden_scale(node),
    }
    for name, attribute in node.attributes.items():
        if attribute.type == ir.AttributeType.STRINGS:
            attributes[name] = ",".join(attribute.as_strings())
        else:
            attributes[name] = attribute.value
    readers = [value.producer() for value in node.inputs[:3] if value is not None]
    if own_range is not None:
        codes, scale, zero_point = own_range
        rest = [*node.inputs[3:], *[None] * (_ZERO_POINT - len(node.inputs))]
        inputs = [codes, w, r, *rest, zero_point, scale]
    else:
        assert x is not None
        inputs = [x.value, w, r, *node.inputs[3:]]
    insert_own(node, f"Q{node.op_type}", inputs, node.outputs, attributes)
    graph_of(node).remove(node, safe=True)
    for reader in readers:
        remove_if_unused(reader)
    return True


def _own_range(value: ir.Value | None) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """Return codes, scale and zero point behind `value` where each run finds them."""
    node = None if value is None else value.producer()
    if not is_operator(node, "DequantizeLinear") or node is None or len(node.inputs) != 3:
        return None
    codes, scale, zero_point = node.inputs
    quantize = None if codes is None else codes.producer()
    if not is_operator(quantize, "DynamicQuantizeLinear") or quantize is None:
        return None
    if codes is None or scale is None or zero_point is None:
        return None
    if (codes, scale, zero_point) != tuple(quantize.outputs):
        return None
    return codes, scale, zero_point


def _codes(value: ir.Value | None) -> tuple[ir.Value, list[float]] | None:
    """Return the s8 codes behind `value` and their scale, one or one per gate row (axis 1)."""
    node = None if value is None else value.producer()
    if not is_operator(node, "DequantizeLinear") or node is None:
        return None
    source, codes, scale = (
        node.inputs[0],
        constant_array(node.inputs[0]),
        constant_array(node.inputs[1]),
    )
    if source is None or codes is None or scale is None:
        return None
    if codes.dtype != np.int8 or scale.dtype != np.float32 or codes.ndim != 3:
        return None
    if codes.shape[2] > MAX_DEPTH or node.attributes.get_int("block_size", 0) != 0:
        return None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        zero_point = constant_array(node.inputs[2])
        if zero_point is None or np.any(zero_point):
            return None
    if scale.size == 1:
        return source, [float(scale.reshape(()))]
    if node.attributes.get_int("axis", 1) % 3 != 1 or scale.shape != (codes.shape[1],):
        return None
    return source, [float(number) for number in scale]
