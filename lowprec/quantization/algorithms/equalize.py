"""Give the channels between layers ranges that suit eight bits, at no cost at run time.

    x ──► Conv(W1, b1) ──► [Relu] ──► Conv(W2) ──► y
    becomes    x ──► Conv(W1 / s, b1 / s) ──► [Relu] ──► Conv(W2 * s) ──► y

One scale serves all channels of an activation, so a channel that spans a hundredth of the widest
one's range has two codes left. A depthwise convolution treats each channel alone and its weights
have a scale per channel, so the channels it reads may be stretched freely. A layer that sums over
channels trades: what its activations gain its weights may lose, and with one weight scale per
tensor the layer before it, too.

Cross-layer equalisation, after Nagel et al. 2019, "Data-free quantization through weight
equalization and bias correction", arXiv:1906.04721, section 4.1; here with observed ranges beside
those of the weights, and s a power of two, so that the float model keeps every bit (`scaling`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from lowprec.passes.matching import NameSource
from lowprec.quantization.algorithms.moments import Feed, observe_moments
from lowprec.quantization.algorithms.outcome import Outcome
from lowprec.quantization.algorithms.scaling import (
    choose_factor,
    describe_source,
    describe_weights,
)
from lowprec.quantization.algorithms.spots import Spot, divide, find_spots
from lowprec.quantization.placement import is_depthwise

if TYPE_CHECKING:
    from lowprec.config import Config

MIN_GAIN = 0.5
"""Expected dB in a layer's sums below which nothing is changed."""


def equalize(model: ir.Model, feeds: Sequence[Feed], config: Config) -> Outcome:
    """Equalise, in place, the channels of what one layer makes and others read.

    Args:
        model: Simplified float hub, before calibration: ranges change.
        feeds: A few typical feeds by input name; a handful is enough, ratios matter.
        config: Layers that it keeps out of int8 are left as they are. With `auto` and a weight
            scale per channel only what depthwise layers read is looked at: that cannot lose.

    Returns:
        The account. Its gain, where nothing could be lost, is the mean of the gains to expect in
        the depthwise layers' sums; else None, for the caller to measure.
    """
    everywhere = config.algorithms.equalization is True
    everywhere = everywhere or config.weights.granularity == "per_tensor"
    spots = [
        spot
        for spot in find_spots(model, config)
        if is_equalizable(spot) and (everywhere or _is_free(spot))
    ]
    if not spots and not everywhere:
        note = "no depthwise convolution follows a layer directly; other layers with `true`"
        return Outcome("equalization", 0, None, note)
    if not spots:
        return Outcome("equalization", 0, None, "no layer feeds others directly")
    gains = scale_spots(model, spots, feeds, config, MIN_GAIN)
    if not gains:
        return Outcome("equalization", 0, None, "the channels between layers are even enough")
    places = "tensor" if len(gains) == 1 else "tensors"
    note = f"channels of {len(gains)} {places} between layers scaled"
    # No weight loses anything before a depthwise layer: nothing has to be tried.
    certain = not everywhere
    return Outcome("equalization", len(gains), float(np.mean(gains)) if certain else None, note)


def _is_free(spot: Spot) -> bool:
    return all(is_depthwise(layer) for layer in spot.readers)


def is_equalizable(spot: Spot) -> bool:
    """Return whether a layer takes the factor of `spot`, and no other reader needs it back."""
    return spot.is_between_layers and not spot.others


def scale_spots(
    model: ir.Model,
    spots: Sequence[Spot],
    feeds: Sequence[Feed],
    config: Config,
    least: float,
    least_of_extra: float = float("inf"),
) -> list[float]:
    """Divide the channels of each spot by the best factor; return the expected gains, dB.

    Args:
        model: Changed in place.
        spots: Tensors of it.
        feeds: What ranges are observed on.
        config: Decides the granularity of weights.
        least: Expected gain below which a spot is left alone.
        least_of_extra: The same for a spot whose factor costs a multiplication at run time.
    """
    observed = observe_moments(model, [spot.axis for spot in spots], feeds)
    per_channel = config.weights.granularity == "per_channel"
    names = NameSource(model)
    gains = []
    for spot, moments in zip(spots, observed, strict=True):
        # Now, not before: the spot above may have scaled the same layer's other side.
        readers = [describe_weights(layer, per_channel=per_channel) for layer in spot.readers]
        source = None if per_channel else describe_source(spot.source, moments)
        factor, gain = choose_factor(moments, readers, source)
        if gain < (least_of_extra if spot.extra_operators else least):
            continue
        divide(spot, factor, names)
        gains.append(gain)
    return gains
