"""Take a constant off the channels of a tensor and give it back in the biases of its layers.

    x ──► Conv(W1, b1) ──► [Relu] ──► v ──► Conv(W2, b2)
    becomes    x ──► Conv(W1, b1 - z) ──► [Relu] ──► v - z ──► Conv(W2, b2 + W2 z)

A channel that lies between 5 and 6 spends codes on 0 to 5. Where nothing but sums with constants
stands between, the float result stays what it was, up to rounding, and z is the middle of the
channel's range. Through a Relu that holds as long as no value falls below z: z is then what the
channel was never seen to fall below, less a margin. `auto` leaves those alone, for what was not
seen may come, and looks at nothing but normalisations: no trained network at hand gains elsewhere.

Nagel et al. 2019, arXiv:1906.04721, section 4.1.3; there z follows from batch norm's constants
(mean less three deviations), here from observed ranges. Without the Relu it is the channel-wise
shift of Outlier Suppression+ (Wei et al. 2023, arXiv:2304.09145, section 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.passes.layers import Layer, set_bias
from lowprec.passes.matching import (
    NameSource,
    constant_floats,
    is_operator,
    sole_consumer,
)
from lowprec.quantization.algorithms.integer_layers import add_behind, replace_constant
from lowprec.quantization.algorithms.moments import ChannelMoments, Feed, observe_moments
from lowprec.quantization.algorithms.outcome import Outcome
from lowprec.quantization.algorithms.scaling import by_input, describe_weights, shift_gain
from lowprec.quantization.algorithms.spots import Spot, find_spots

if TYPE_CHECKING:
    from lowprec.config import Config

MIN_GAIN = 0.5
"""Expected dB in a layer's sums below which nothing is changed."""
MARGIN = 0.25
"""Share of a channel's range below what was seen that its values may still reach."""


def absorb_bias(model: ir.Model, feeds: Sequence[Feed], config: Config) -> Outcome:
    """Move constant parts of channels into the biases of the layers that read them, in place.

    Args:
        model: Simplified float hub, before calibration: ranges change.
        feeds: A few typical feeds by input name.
        config: With `true` also behind layers, and through a Relu.
    """
    everywhere = config.algorithms.bias_absorption is True
    places = [
        (spot, relu)
        for spot in find_spots(model, config)
        if not spot.others and all(_takes_constants(layer) for layer in spot.readers)
        for relu in [_relu_behind_source(spot)]
        if relu is not None and (everywhere or is_operator(_node(spot), "LayerNormalization"))
    ]
    if not places:
        return Outcome("bias_absorption", 0, None, "no layer hands its bias on to others")
    observed = observe_moments(model, [spot.axis for spot, _ in places], feeds)
    per_channel = config.weights.granularity == "per_channel"
    names = NameSource(model)
    changed = 0
    for (spot, relu), moments in zip(places, observed, strict=True):
        shift = _below_all(moments) if relu else (moments.lowest + moments.highest) / 2
        readers = [describe_weights(layer, per_channel=per_channel) for layer in spot.readers]
        if not shift.any() or shift_gain(moments, readers, shift) < MIN_GAIN:
            continue
        if not all(_can_be_told(layer) for layer in spot.readers):
            continue
        for layer in spot.readers:
            _tell(layer, shift, names)
        _take_off(spot, shift, names)
        changed += 1
    if not changed:
        return Outcome("bias_absorption", 0, None, "no channel keeps far from zero")
    tensors = "tensor" if changed == 1 else "tensors"
    return Outcome("bias_absorption", changed, None, f"channels of {changed} {tensors} shifted")


def _below_all(moments: ChannelMoments) -> NDArray[np.float64]:
    """Return what no value of a channel behind a Relu is below: 0 where it reaches 0."""
    margin = MARGIN * (moments.highest - moments.lowest)
    return np.maximum(moments.lowest - margin, 0)


def _takes_constants(layer: Layer) -> bool:
    """Return whether every output of `layer` sees every tap: a border of zeros is not shifted."""
    attributes = layer.node.attributes
    if layer.node.op_type == "ConvTranspose":
        return False
    if layer.node.op_type != "Conv":
        return True
    automatic = attributes.get_string("auto_pad", "NOTSET")
    return automatic in ("NOTSET", "VALID") and not any(attributes.get_ints("pads", []) or [])


def _can_be_told(layer: Layer) -> bool:
    return layer.node.op_type != "MatMul" or not layer.node.outputs[0].is_graph_output()


def _node(spot: Spot) -> ir.Node | None:
    return spot.source.node if isinstance(spot.source, Layer) else spot.source


def _relu_behind_source(spot: Spot) -> bool | None:
    """Return whether one Relu stands between source and tensor; None where something else does."""
    source, node = spot.source, _node(spot)
    if node is None or is_operator(node, "Mul"):
        return None
    if isinstance(source, Layer) and not source.has_bias_input and not spot.sums:
        return None
    producer = spot.value.producer()
    first = spot.sums[0] if spot.sums else node
    if producer is first:
        return False
    if not is_operator(producer, "Relu") or producer is None or producer.inputs[0] is None:
        return None
    value = producer.inputs[0]
    return True if value.producer() is first and sole_consumer(value) is producer else None


def _tell(layer: Layer, shift: NDArray[np.float64], names: NameSource) -> None:
    """Add what the layer makes of `shift` to its bias."""
    weights = by_input(layer).sum(axis=3, dtype=np.float64)
    parts = shift.reshape(layer.groups if layer.node.op_type == "Conv" else 1, 1, -1)
    made = (weights * parts).sum(axis=2).reshape(-1)
    if layer.node.op_type == "MatMul":
        add_behind(layer.node, made, names)
    else:
        set_bias(layer, (layer.bias_array() + made).astype(np.float32), names)


def _take_off(spot: Spot, shift: NDArray[np.float64], names: NameSource) -> None:
    """Take `shift` off the constant nearest to the tensor."""
    source = spot.source
    if spot.sums:
        node = spot.sums[0]
        index = next(i for i, v in enumerate(node.inputs) if constant_floats(v) is not None)
        array = constant_floats(node.inputs[index])
        assert array is not None
        old = np.broadcast_to(array.astype(np.float64).reshape(-1), shift.shape)
        less = (old - shift).astype(np.float32).reshape(spot.axis.broadcast)
        replace_constant(node, index, less, names)
    elif isinstance(source, Layer):
        set_bias(source, (source.bias_array() - shift).astype(np.float32), names)
    elif source is not None:
        array = constant_floats(source.inputs[2]) if len(source.inputs) > 2 else None
        old = np.zeros(len(shift)) if array is None else array.astype(np.float64)
        replace_constant(source, 2, (old - shift).astype(np.float32), names)
