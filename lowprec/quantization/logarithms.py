"""Layers whose results go through a logarithm: filter banks of sound, not for eight bits.

    sound ──► Conv (filters) ──► re*re + im*im ──► [mel MatMul] ──► Log ──► network

Codes are evenly spaced: the error is a share of the largest value. A logarithm makes equal ratios
equal steps, so what was 40 dB below the largest value, silence and overtones, comes out as noise.
Basic Pitch, measured: its constant-Q filters hold 8 % of the multiply-adds and, in int8, make all
of the loss (23 dB at the notes, 40 dB with them in float; F1 0.892, 0.901, float 0.902).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.passes.layers import LAYER_TYPES, Layer, find_layer
from lowprec.passes.matching import constant_array, is_operator

_MOVING = (
    "Concat", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Split",
    "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
_MAGNITUDE = (
    "Abs", "Add", "Div", "Mul", "Neg", "Pow", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean",
    "ReduceSum", "ReduceSumSquare", "Sqrt", "Sub",
)  # fmt: skip
_FLOORS = ("Clip", "Max", "Relu")
LEAST_OFFSET = 1.0
"""A constant of this size, added to all values, keeps a logarithm away from zero: log(1 + x)."""


def logarithm_after(node: ir.Node) -> ir.Node | None:
    """Return the Log that the result of the layer `node` goes through, if there is one.

    What only moves, scales, squares or sums lies between, and further layers without a bias; a
    bias, or an activation function with layers behind it, ends the search: a network, no filter.
    """
    seen: set[tuple[ir.Value, bool]] = set()
    pending = [(output, False) for output in node.outputs]
    while pending:
        value, is_clamped = pending.pop()
        if (value, is_clamped) in seen:
            continue
        seen.add((value, is_clamped))
        for reader, index in value.uses():
            if is_operator(reader, "Log"):
                return reader
            if _passes(reader, index, is_clamped):
                clamps = is_clamped or is_operator(reader, *_FLOORS)
                pending += [(output, clamps) for output in reader.outputs]
    return None


def why_logarithm(node: ir.Node) -> str | None:
    """Return the reason when a logarithm makes eight bits too few for `node`, else None."""
    logarithm = logarithm_after(node)
    if logarithm is None:
        return None
    return f"a logarithm follows ({logarithm.name}): even steps are large errors of small values"


def _passes(reader: ir.Node, index: int, is_clamped: bool) -> bool:
    """Return whether the errors of input `index` stay comparable errors in what `reader` makes."""
    if is_operator(reader, *LAYER_TYPES):
        layer = find_layer(reader)
        if is_clamped or index != 0 or not isinstance(layer, Layer):
            return False
        bias = layer.bias_array() if layer.bias is not None else None
        return bias is None or not bias.any()
    if is_operator(reader, *_MOVING):
        return is_operator(reader, "Concat") or index == 0
    if is_operator(reader, "Add"):
        other = reader.inputs[1 - index]
        offset = constant_array(other) if other is not None else None
        return offset is None or bool(np.min(np.abs(offset)) < LEAST_OFFSET)
    return is_operator(reader, *_MAGNITUDE, *_FLOORS)
