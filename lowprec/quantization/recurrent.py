"""The int8 form of LSTM, GRU and RNN.

    x ──► Q ──► DQ ────────┐
    W (s8) ──► DequantizeLinear(axis 1: one scale per gate row) ──┼► LSTM {hidden_scale in metadata}
    R (s8) ──► DequantizeLinear(axis 1) ──┘

The state h is quantised inside the node, to u8 with zero point 128, where its range is known:
calibration has seen Y, or the activations bound it (|h| <= 1). See
`lowprec.passes.fuse_integer_recurrent` for what the engine makes of it. Biases, peepholes and the
cell state stay f32: they are not multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.calibration.ranges import Range
from lowprec.errors import QuantizationError
from lowprec.passes.fuse_integer_recurrent import MAX_DEPTH, SMALLEST_SCALE
from lowprec.passes.matching import constant_array, constant_floats
from lowprec.quantization.weights import decibel, weight_qmax

if TYPE_CHECKING:
    from lowprec.config import Config

_BOUNDED = ("tanh", "sigmoid", "hardsigmoid", "softsign")  # |f(x)| <= 1
_STEPS = 127  # codes on either side of zero


@dataclass(frozen=True)
class QuantizedGates:
    """W or R of a recurrent layer as codes.

    Attributes:
        codes: s8, shape (directions, gate rows, depth).
        scale: f32, shape (gate rows,), shared by the directions; or () per tensor.
        sqnr: Signal to quantisation noise, dB; None when there is no signal or no noise.
    """

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    sqnr: float | None


def why_not_recurrent(node: ir.Node) -> str | None:
    """Return why the recurrent layer `node` has no int8 form, else None."""
    for index, what in ((1, "W"), (2, "R")):
        array = constant_array(node.inputs[index]) if len(node.inputs) > index else None
        if array is None:
            return f"{what} is not constant"
        if array.dtype != np.float32 or array.ndim != 3 or array.size == 0:
            return f"{what} is {array.dtype} of shape {list(array.shape)}"
        if array.shape[2] > MAX_DEPTH:
            return f"sums of {array.shape[2]} products could pass 2^31"
    for index in (3, 7):
        value = node.inputs[index] if len(node.inputs) > index else None
        if value is not None and constant_floats(value) is None:
            return "its bias or peepholes are not constant"
    return None


def quantize_gates(value: ir.Value, config: Config, node: ir.Node) -> QuantizedGates:
    """Return the codes of constant W or R, symmetric: in [-127, 127], or as `weight_qmax` says.

    Raises:
        QuantizationError: it holds a NaN or an infinity.
    """
    weights, layer = constant_floats(value), node.name or ""
    assert weights is not None  # why_not_recurrent said so
    if not np.isfinite(weights).all():
        raise QuantizationError(
            f"tensor {value.name!r} of layer {layer!r} holds NaN or infinite values; weights must "
            f"be finite: repair the model, or keep the layer in float with layers: "
            f"[{{match: {layer!r}, precision: f32}}]"
        )
    per_channel = config.layer_granularity(layer, node.op_type) == "per_channel"
    largest = np.abs(weights).max(axis=(0, 2) if per_channel else None)
    tiny = np.float32(2.0**-120)
    qmax = weight_qmax(config)
    scale = np.maximum(largest / np.float32(qmax), tiny).astype(np.float32)
    scale = np.where(largest == 0, np.float32(1), scale).astype(np.float32)
    steps = scale.reshape(1, -1, 1) if per_channel else scale
    codes = np.clip(np.rint(weights / steps), -qmax, qmax).astype(np.int8)
    error = weights.astype(np.float64) - codes * steps.astype(np.float64)
    sqnr = decibel(float(np.square(weights, dtype=np.float64).sum()), float((error**2).sum()))
    return QuantizedGates(codes, scale, sqnr)


def choose_hidden_scale(node: ir.Node, ranges: Mapping[str, Range]) -> np.float32 | None:
    """Return the scale of h in u8 codes around 128, None where nothing bounds h."""
    bound: float | None = 1.0 if _is_bounded(node) else None
    seen = ranges.get(node.outputs[0].name or "") if node.outputs[0].name else None
    if seen is not None:
        widest = max(abs(seen.rmin), abs(seen.rmax))
        bound = widest if bound is None else min(bound, widest)
    if bound is None or not np.isfinite(bound) or bound <= 0:
        return None
    scale: np.float32 = np.float32(max(float(bound) / _STEPS, SMALLEST_SCALE))
    return scale


def describe_hidden(scale: np.float32 | None) -> str:
    """Return what a recurrent layer in int8 computes how, for its record."""
    if scale is None:
        return "X * W in int8; H * R in f32 with s8 weights: nothing bounds the state"
    return f"X * W and H * R in int8; the state has steps of {float(scale):.3g}"


def _is_bounded(node: ir.Node) -> bool:
    """Return whether |h| <= 1 by the activations, for an initial state that is so, too."""
    attribute = node.attributes.get("activations")
    if attribute is None:
        return True
    names = [name.lower() for name in attribute.as_strings()]
    if node.op_type == "LSTM":  # h = o * k(c)
        return all(name in _BOUNDED for name in (*names[0::3], *names[2::3]))
    last = names[1::2] if node.op_type == "GRU" else names
    gates = names[0::2] if node.op_type == "GRU" else []
    return all(n in _BOUNDED for n in last) and all(n in _BOUNDED[1:3] for n in gates)
