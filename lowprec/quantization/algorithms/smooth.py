"""Move outliers of single channels from activations into weights.

    LayerNormalization(g, b) ──► v ──► MatMul(W)
    becomes    LayerNormalization(g / s, b / s) ──► v / s ──► MatMul(s * W)

In transformers a few channels are far larger than the rest, and the one scale of the activation
follows them. The factor goes into the normalisation before, or into a Mul with a constant; where
there is neither (after Gelu), a Mul is inserted: next to a product it costs little. All layers that
read the tensor share the factor; a residual connection that reads it, too, takes it back.

After Xiao et al. 2023, "SmoothQuant", arXiv:2211.10438; alpha is chosen for each tensor, by the
error to expect of its channels' observed moments and of the weights that meet them (`scaling`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import onnx_ir as ir

from lowprec.passes.matching import is_operator
from lowprec.quantization.algorithms.equalize import is_equalizable, scale_spots
from lowprec.quantization.algorithms.moments import Feed
from lowprec.quantization.algorithms.outcome import Outcome
from lowprec.quantization.algorithms.spots import Spot, find_spots

if TYPE_CHECKING:
    from lowprec.config import Config

MIN_GAIN = 0.5
"""Expected dB in a layer's sums below which nothing is changed."""
MIN_GAIN_OF_EXTRA = 1.5
"""The same where the factor costs a multiplication at run time."""

MIN_OUTPUTS = 256
"""Products per element of a tensor that make up for one multiplication more, for `auto`."""


def smooth(model: ir.Model, feeds: Sequence[Feed], config: Config) -> Outcome:
    """Smooth, in place, what layers read and no layer alone makes for them.

    Args:
        model: Simplified float hub, before calibration: ranges change.
        feeds: A few typical feeds by input name.
        config: Layers that it keeps out of int8 are left as they are. `auto` looks at models with
            a LayerNormalization, and there at matrices that are worth a multiplication more.
    """
    everywhere = config.algorithms.smoothing is True
    if not everywhere and not any(is_operator(n, "LayerNormalization") for n in model.graph):
        note = "no LayerNormalization, hence no outliers of transformers; other models with `true`"
        return Outcome("smoothing", 0, None, note)
    spots = [spot for spot in find_spots(model, config) if not is_equalizable(spot)]
    if not everywhere:
        spots = [spot for spot in spots if _is_cheap(spot)]
    if not spots:
        return Outcome("smoothing", 0, None, "no tensor that layers read can be scaled")
    gains = scale_spots(model, spots, feeds, config, MIN_GAIN, MIN_GAIN_OF_EXTRA)
    if not gains:
        return Outcome("smoothing", 0, None, "no channel stands out")
    places = "tensor" if len(gains) == 1 else "tensors"
    return Outcome("smoothing", len(gains), None, f"channels of {len(gains)} {places} smoothed")


def _is_cheap(spot: Spot) -> bool:
    """Return whether a multiplication more is little beside the products that the layers do."""
    if spot.axis.rank is not None:
        return False  # of images; between layers `equalize` does it for nothing
    outputs = sum(layer.channels for layer in spot.readers)
    return not spot.extra_operators or outputs >= MIN_OUTPUTS
