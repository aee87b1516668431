"""How far apart the channels of a tensor may be before its layers lose bits, and what mends it.

All channels of an activation share one scale, and every layer that reads the tensor has one weight
scale per output channel. Dividing channel c of the tensor by s[c] and multiplying the layers'
weights for it by s[c] changes nothing in float; in int8 it moves error from activations to weights
or back. `expected_noise` says how much error the layers' sums will hold, from what was observed of
the channels and from the weights alone; `choose_factor` returns the s with the least of it.

The family of candidates, s = r^alpha / w^(1 - alpha) with r the range of a channel and w the
largest weight that meets it, holds cross-layer equalisation (Nagel et al. 2019, arXiv:1906.04721,
section 4.1) and SmoothQuant (Xiao et al. 2023, arXiv:2211.10438, equation 4). Here s is a power of
two: then the float model keeps every bit of its results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowprec.passes.layers import Layer
from lowprec.quantization.algorithms.moments import ChannelAxis, ChannelMoments

ALPHAS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Exponents that are tried: 1 looks at activations only."""
LARGEST_EXPONENT = 16
"""Powers of two between the least and the largest factor, at most; beyond, it hardly matters."""
_STEPS = 255  # codes of an activation, less one
_WEIGHT_STEPS = 127


@dataclass(frozen=True)
class InputWeights:
    """The weights of one layer, seen from its input channels.

    Attributes:
        largest: Largest magnitude over the taps, shape (groups, outputs of a group, inputs of a
            group).
        energy: Sum of squares over taps and outputs, shape (input channels,).
        taps: Kernel positions.
        per_channel: Whether each output channel has its own weight scale.
    """

    largest: NDArray[np.float64]
    energy: NDArray[np.float64]
    taps: int
    per_channel: bool

    @property
    def reach(self) -> NDArray[np.float64]:
        """Largest weight that meets an input channel, shape (input channels,)."""
        reach: NDArray[np.float64] = self.largest.max(axis=1).reshape(-1)
        return reach


def input_channels(layer: Layer) -> int:
    """Return how many channels the input of `layer` has."""
    weights = layer.weight_array
    if layer.node.op_type == "Conv":
        return int(weights.shape[1]) * layer.groups
    if layer.node.op_type == "ConvTranspose":
        return int(weights.shape[0])
    return int(weights.shape[1 - layer.weight_axis])


def input_axis(layer: Layer) -> ChannelAxis:
    """Return where the channels are that `layer` reads."""
    is_image = layer.node.op_type in ("Conv", "ConvTranspose")
    value = layer.node.inputs[0]
    rank = layer.weight_array.ndim if is_image else None
    return ChannelAxis((value.name if value else "") or "", input_channels(layer), rank)


def by_input(layer: Layer) -> NDArray[np.float32]:
    """Return the weights as (groups, outputs of a group, inputs of a group, taps)."""
    weights, groups = layer.weight_array, layer.groups
    if layer.node.op_type == "Conv":
        outputs = len(weights) // groups
        return weights.reshape(groups, outputs, weights.shape[1], -1)
    if layer.node.op_type == "ConvTranspose":
        parts = weights.reshape(groups, len(weights) // groups, weights.shape[1], -1)
        turned: NDArray[np.float32] = parts.transpose(0, 2, 1, 3)
        return turned
    matrix: NDArray[np.float32] = weights if layer.weight_axis == 0 else weights.T
    return matrix.reshape(1, *matrix.shape, 1)


def scale_inputs(layer: Layer, factor: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the weights of `layer` with what meets input channel c multiplied by `factor[c]`."""
    weights = layer.weight_array.astype(np.float64)
    if layer.node.op_type == "Conv":
        shape = (layer.groups, 1, -1) + (1,) * (weights.ndim - 2)
        parts = weights.reshape(layer.groups, -1, *weights.shape[1:])
        return (parts * factor.reshape(shape)).reshape(weights.shape).astype(np.float32)
    axis = 0 if layer.node.op_type == "ConvTranspose" else 1 - layer.weight_axis
    shape = tuple(-1 if i == axis else 1 for i in range(weights.ndim))
    return (weights * factor.reshape(shape)).astype(np.float32)


def describe_weights(layer: Layer, *, per_channel: bool) -> InputWeights:
    """Return what `expected_noise` needs to know of `layer`."""
    weights = np.abs(by_input(layer))
    energy = np.square(weights, dtype=np.float64).sum(axis=(1, 3)).reshape(-1)
    largest = weights.max(axis=3).astype(np.float64)
    return InputWeights(largest, energy, weights.shape[3], per_channel)


@dataclass(frozen=True)
class SourceWeights:
    """The layer that makes a tensor, its weights having one scale per tensor.

    Attributes:
        largest: Largest weight of an output channel, shape (channels,).
        unit: Error of a channel of the tensor, real units squared, for a weight step of 1.
    """

    largest: NDArray[np.float64]
    unit: float


def describe_source(source: object, moments: ChannelMoments) -> SourceWeights | None:
    """Return what `expected_noise` needs to know of the layer that makes a tensor.

    What the layer itself reads is not observed: its energy is taken from that of its outputs.
    """
    if not isinstance(source, Layer):
        return None
    weights = source.weight_array.astype(np.float64)
    axes = tuple(axis for axis in range(weights.ndim) if axis != source.weight_axis)
    depth = weights.size / source.channels
    energy = np.square(weights).sum() / source.channels
    if energy <= 0:
        return None
    groups = source.channels // weights.shape[source.weight_axis]
    largest = np.tile(np.abs(weights).max(axis=axes), groups)
    return SourceWeights(largest, depth * float(moments.square.mean()) / energy / 12)


def expected_noise(
    moments: ChannelMoments,
    layers: Sequence[InputWeights],
    factor: NDArray[np.float64],
    source: SourceWeights | None = None,
) -> float:
    """Return the error to expect in the sums of `layers`, relative to their signal, added up.

    Args:
        moments: Of the tensor that the layers read, before it is divided by `factor`.
        layers: Its readers.
        factor: s, shape (channels,), > 0.
        source: The layer that makes the tensor, where its weights have one scale.
    """
    noises = _noises(moments, layers, factor, source)
    signals = [signal_of(moments, weights) for weights in layers]
    return sum(noise / of for noise, of in zip(noises, signals, strict=True) if of > 0)


def shift_gain(
    moments: ChannelMoments, layers: Sequence[InputWeights], shift: NDArray[np.float64]
) -> float:
    """Return what it gains to take `shift` off the channels of a tensor, dB.

    Args:
        moments: Of the tensor as it is.
        layers: Its readers, whose biases take the shift back exactly.
        shift: Real units, shape (channels,).
    """
    ones = np.ones(len(shift))
    before = _noises(moments, layers, ones)
    after = _noises(moments.affine(ones, -shift), layers, ones)
    signals = [signal_of(moments, weights) for weights in layers]
    first = sum(noise / of for noise, of in zip(before, signals, strict=True) if of > 0)
    then = sum(noise / of for noise, of in zip(after, signals, strict=True) if of > 0)
    return float(10 * np.log10(first / then)) if first > 0 and then > 0 else 0.0


def signal_of(moments: ChannelMoments, weights: InputWeights) -> float:
    """Return the energy of a layer's sums, were its input's channels independent."""
    return float((moments.square * weights.energy).sum())


def _noises(
    moments: ChannelMoments,
    layers: Sequence[InputWeights],
    factor: NDArray[np.float64],
    source: SourceWeights | None = None,
) -> list[float]:
    low = min(0.0, float((moments.lowest / factor).min()))
    high = max(0.0, float((moments.highest / factor).max()))
    power = moments.square / factor**2
    # Rounded to the next code, an error is at most what a channel holds: then all of it is lost.
    rounding = np.minimum(((high - low) / _STEPS) ** 2 / 12, power)
    if source is not None:
        step = float((source.largest / factor).max()) / _WEIGHT_STEPS
        rounding = rounding + source.unit * step**2
    noises = []
    for weights in layers:
        noise = float((rounding * factor**2 * weights.energy).sum())
        groups, _, inputs = weights.largest.shape
        by_group = factor.reshape(groups, 1, inputs)
        steps = (weights.largest * by_group).max(axis=2) / _WEIGHT_STEPS
        if not weights.per_channel:
            steps = np.full_like(steps, steps.max())
        met = power.reshape(groups, inputs).sum(axis=1)
        noises.append(noise + weights.taps * float((steps**2 / 12 * met[:, None]).sum()))
    return noises


def choose_factor(
    moments: ChannelMoments,
    layers: Sequence[InputWeights],
    source: SourceWeights | None = None,
) -> tuple[NDArray[np.float64], float]:
    """Return the powers of two with the least expected noise, and the gain over 1, dB.

    The largest factor is 1: the widest channel stays what it is.
    """
    ones = np.ones(len(moments.square))
    ranges = moments.largest
    reach = np.max([weights.reach for weights in layers], axis=0)
    usable = (ranges > 0) & (reach > 0) & np.isfinite(ranges)
    if not usable.any():
        return ones, 0.0
    first = expected_noise(moments, layers, ones, source)
    best, least = ones, first
    bases = [ranges] if source is None else [ranges, source.largest]
    for base, alpha in ((base, alpha) for base in bases for alpha in ALPHAS):
        counted = usable & (base > 0)
        if not counted.any():
            continue
        exponents = np.full(len(base), -np.inf)
        exponents[counted] = alpha * np.log2(base[counted])
        exponents[counted] -= (1 - alpha) * np.log2(reach[counted])
        exponents = np.rint(exponents - exponents[counted].max())
        # A channel that is zero, or that nobody weighs, is left alone.
        factor = np.exp2(np.maximum(exponents, -LARGEST_EXPONENT))
        factor[~counted] = 1.0
        noise = expected_noise(moments, layers, factor, source)
        if noise < least:
            best, least = factor, noise
    if first <= 0 or least <= 0:
        return ones, 0.0
    return best, float(10 * np.log10(first / least))
