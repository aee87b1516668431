"""Codes and scales of constant weights and biases.

A bias is stored as s32 with the scale `s_x * s_w[c]` of its channel's accumulator, so that it can
be added to it. With small weights and a large bias that scale is too fine: then the channel's
weight scale is raised until the bias fits. A channel whose weights are all zero gets the finest
scale that holds its bias, for its bias is all it computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lowprec.errors import QuantizationError
from lowprec.passes.layers import Layer

if TYPE_CHECKING:
    from lowprec.config import Config

WEIGHT_QMAX = 127  # symmetric: -128 is not used, so that a negated weight has a code
# As onnxruntime's reduce_range: the sum of two products with u8 codes, 2 * 255 * 64, fits 16 bits.
REDUCED_WEIGHT_QMAX = 64
_S32_MAX = 2**31 - 1
_SLICE = 2**20  # weights that are rounded at a time
_LARGEST_STEP = 255 * 128  # |x_q - z_x| * |w_q|, the most that one product can add
# No product of scales may be denormal: its reciprocal, and every sum with it, would lose bits.
_SMALLEST_PRODUCT = 2.0**-120


def weight_qmax(config: Config) -> int:
    """Return the largest magnitude of a weight's code."""
    return REDUCED_WEIGHT_QMAX if config.weights.reduce_range else WEIGHT_QMAX


@dataclass(frozen=True)
class QuantizedWeights:
    """The integer form of one layer's constants.

    Attributes:
        codes: s8, shape of the weights.
        scale: f32, shape (n,), n the length of the weight's channel axis, or () per tensor.
        bias_codes: s32, shape (channels,); None for a layer without a bias.
        bias_scale: f32, shape (channels,): s_x * s_w in f32; or () per tensor.
        sqnr: Signal to quantisation noise of the weights, dB; None when there is no signal or no
        noise.
        raised_channels: Channels whose scale was raised for the bias.
    """

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias_codes: NDArray[np.int32] | None
    bias_scale: NDArray[np.float32] | None
    sqnr: float | None
    raised_channels: int


def quantize_weights(
    layer: Layer, activation_scale: np.float32, config: Config, *, has_bias: bool
) -> QuantizedWeights:
    """Return the s8 weights and s32 bias of `layer`, whose input has `activation_scale`.

    Args:
        layer: Constant weights and bias.
        activation_scale: Real units per code of the layer's input.
        config: Its `weights`, and `layers` for the granularity of this one.
        has_bias: Whether a bias takes part (a MatMul's stays a float Add).

    Raises:
        QuantizationError: weights or bias hold a NaN or an infinity.
    """
    weights = layer.weight_array
    bias = layer.bias_array() if has_bias else None
    _check_finite(weights, layer.weights.name or "", layer.node.name or "")
    if bias is not None:
        _check_finite(bias, (layer.bias.name if layer.bias else "") or "", layer.node.name or "")

    others = tuple(axis for axis in range(weights.ndim) if axis != layer.weight_axis)
    largest = np.abs(weights).max(axis=others)
    node = layer.node
    per_channel = config.layer_granularity(node.name or "", node.op_type) == "per_channel"
    if not per_channel:
        largest = largest.max(keepdims=True)
    qmax = weight_qmax(config)
    wanted = largest / np.float32(qmax)
    floor = np.full(len(wanted), _SMALLEST_PRODUCT / float(activation_scale))
    needed = np.zeros(len(wanted))
    if bias is not None:
        needed = _least_scale_for_bias(layer, bias, float(activation_scale), len(wanted))
    # Rounded up, never down: the bias must fit.
    scale = np.maximum(wanted, np.nextafter(np.maximum(needed, floor).astype(np.float32), np.inf))
    scale = np.where((largest == 0) & (needed == 0), np.float32(1), scale).astype(np.float32)
    raised = int(((largest > 0) & (needed > wanted)).sum())

    shape = tuple(-1 if axis == layer.weight_axis else 1 for axis in range(weights.ndim))
    spread = scale.reshape(shape) if per_channel else scale.reshape(())
    codes, signal, noise = _round_to_codes(weights, spread, qmax)
    bias_codes = bias_scale = None
    if bias is not None:
        product = (np.float32(activation_scale) * scale).astype(np.float32)
        bias_scale = np.resize(product, layer.channels) if per_channel else product.reshape(())
        steps = np.rint(bias.astype(np.float64) / bias_scale.astype(np.float64))
        bias_codes = steps.astype(np.int64).astype(np.int32)
    return QuantizedWeights(
        codes=codes,
        scale=scale if per_channel else scale.reshape(()),
        bias_codes=bias_codes,
        bias_scale=bias_scale,
        sqnr=decibel(signal, noise),
        raised_channels=raised,
    )


def _round_to_codes(
    weights: NDArray[np.float32], scale: NDArray[np.float32], qmax: int
) -> tuple[NDArray[np.int8], float, float]:
    """Return codes, and the power of the weights and of their rounding error.

    Slice by slice: intermediate arrays of a layer with 100 million weights would not fit.
    """
    codes = np.empty(weights.shape, np.int8)
    signal = noise = 0.0
    rows = max(1, _SLICE * len(weights) // weights.size)
    for start in range(0, len(weights), rows):
        part = slice(start, start + rows)
        steps = scale if scale.ndim == 0 or scale.shape[0] == 1 else scale[part]
        rounded = np.clip(np.rint(weights[part] / steps), -qmax, qmax)
        codes[part] = rounded
        error = weights[part] - rounded * steps
        signal += float(np.square(weights[part], dtype=np.float64).sum())
        noise += float(np.square(error, dtype=np.float64).sum())
    return codes, signal, noise


def decibel(signal: float, noise: float) -> float | None:
    """Return 10 log10(signal / noise), both powers; None where either is zero."""
    if signal <= 0 or noise <= 0:
        return None
    return float(10 * np.log10(signal / noise))


def _least_scale_for_bias(
    layer: Layer, bias: NDArray[np.float32], activation_scale: float, entries: int
) -> NDArray[np.float64]:
    """Return, per entry of the weight scale, the least one that lets the bias fit beside the sum.

    The bias is added to the exact sum of products, so it may use what the largest sum leaves of
    s32; of a very deep layer it leaves nothing, its accumulator is wider, and half the range will
    do.
    """
    depth = layer.weight_array.size // layer.channels
    room = max(_S32_MAX - _LARGEST_STEP * depth, _S32_MAX // 2)
    needed = np.abs(bias.astype(np.float64)) / (activation_scale * room)
    # A grouped ConvTranspose shares one entry between the groups.
    least: NDArray[np.float64] = needed.reshape(-1, entries).max(axis=0)
    return least


def _check_finite(array: NDArray[np.float32], tensor: str, node: str) -> None:
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise QuantizationError(
            f"tensor {tensor!r} of layer {node!r} holds {bad} NaN or infinite values; weights must "
            f"be finite: repair the model, or keep the layer in float with layers: "
            f"[{{match: {node!r}, precision: f32}}]"
        )
