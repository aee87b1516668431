"""Give the channels that a depthwise convolution reads the same range, at no cost at run time.

    x ──► Conv(W1, b1) ──► [Relu] ──► Conv(W2, depthwise) ──► y
    becomes    x ──► Conv(W1 / s, b1 / s) ──► [Relu] ──► Conv(W2 * s) ──► y

One scale serves all channels of an activation, so a channel that spans a hundredth of the widest
one's range has two codes left. A depthwise convolution treats each channel alone and its weights
have a scale per channel, so its input channels may be stretched freely: s is the channel's range as
a fraction of the widest channel's. As a power of two it changes no bit of the float model's result.

Cross-layer equalisation, after Nagel et al. 2019, "Data-free quantization through weight
equalization and bias correction", arXiv:1906.04721, section 4.1; here with observed ranges, and
only where the second layer loses nothing by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from lowprec.engine import compile_model
from lowprec.passes.layers import Layer, find_layer, set_bias, set_weights
from lowprec.passes.matching import NameSource, add_constant, is_operator, sole_consumer
from lowprec.quantization.algorithms.outcome import Outcome
from lowprec.quantization.placement import is_depthwise

if TYPE_CHECKING:
    from lowprec.config import Config

HOMOGENEOUS_TYPES = ("Relu", "LeakyRelu")
"""Functions with f(s * x) = s * f(x) for s > 0."""
LARGEST_STRETCH = 16
"""Powers of two by which a channel is stretched at most; beyond, it hardly matters."""


@dataclass(frozen=True)
class _Pair:
    """A layer, and the depthwise convolution that alone reads its result."""

    first: Layer
    second: Layer
    between: ir.Value  # what the second one reads


def equalize(
    model: ir.Model, feeds: Sequence[Mapping[str, NDArray[Any]]], config: Config
) -> Outcome:
    """Equalise, in place, what depthwise convolutions read.

    Args:
        model: Simplified float hub, before calibration: ranges change.
        feeds: A few typical feeds by input name; a handful is enough, ratios matter.
        config: Layers that it keeps in float are left as they are.
    """
    pairs = [pair for pair in _find_pairs(model) if _is_wanted(pair, config)]
    if not pairs:
        return Outcome("equalization", 0, None, "no depthwise convolution follows a layer directly")
    names = NameSource(model)
    changed = 0
    for pair, largest in zip(pairs, _channel_ranges(model, pairs, feeds), strict=True):
        factor = stretch_of(largest)
        if (factor == 1).all():
            continue
        bias = (pair.first.bias_array() / factor).astype(np.float32)
        set_weights(pair.first, pair.first.scale_channels(1 / factor), names)
        if bias.any():
            set_bias(pair.first, bias, names)
        repeats = pair.second.channels // len(factor)
        set_weights(pair.second, pair.second.scale_channels(np.repeat(factor, repeats)), names)
        changed += 1
    note = f"channels equalised before {changed} depthwise convolutions"
    return Outcome("equalization", changed, None, note)


def stretch_of(largest: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return s per channel: its range as a fraction of the widest one's, a power of two in (0, 1].

    Args:
        largest: Largest magnitude by channel. A channel of zeros is left alone.
    """
    values = largest.astype(np.float64)
    if not np.isfinite(values).all() or not values.any():
        return np.ones(len(values))
    exponents = np.rint(np.log2(np.where(values > 0, values, values.max()) / values.max()))
    stretch: NDArray[np.float64] = np.exp2(np.maximum(exponents, -LARGEST_STRETCH))
    return stretch


def _find_pairs(model: ir.Model) -> list[_Pair]:
    pairs = []
    for node in model.graph:
        second = find_layer(node)
        if isinstance(second, str) or node.op_type != "Conv" or not is_depthwise(second):
            continue
        between = node.inputs[0]
        if between is None or sole_consumer(between) is not node:
            continue
        producer = between.producer()
        while producer is not None and is_operator(producer, *HOMOGENEOUS_TYPES):
            source = producer.inputs[0]
            if source is None or sole_consumer(source) is not producer:
                producer = None
                break
            producer = source.producer()
        first = "no producer" if producer is None else find_layer(producer)
        if isinstance(first, str) or first.node.op_type not in ("Conv", "ConvTranspose"):
            continue
        if first.node.graph is node.graph:
            pairs.append(_Pair(first, second, between))
    return pairs


def _is_wanted(pair: _Pair, config: Config) -> bool:
    return all(
        config.layer_precision(layer.node.name or "", layer.node.op_type) in (None, "int8")
        for layer in (pair.first, pair.second)
    )


def _channel_ranges(
    model: ir.Model, pairs: Sequence[_Pair], feeds: Sequence[Mapping[str, NDArray[Any]]]
) -> list[NDArray[np.float32]]:
    """Return the largest magnitude in each channel of what each pair's second layer reads."""
    probe = model.clone()
    values = {value.name: value for node in probe.graph for value in node.outputs}
    names = NameSource(probe)
    outputs = []
    for pair in pairs:
        rank = pair.second.weight_array.ndim
        axes = np.array([axis for axis in range(rank) if axis != 1], np.int64)
        constant = add_constant(probe.graph, names.fresh("probe_axes"), axes)
        magnitude = ir.node("Abs", [values[pair.between.name]])
        reduced = ir.node("ReduceMax", [magnitude.outputs[0], constant], {"keepdims": 0})
        for node in (magnitude, reduced):
            node.name = node.outputs[0].name = names.fresh("probe")
            probe.graph.append(node)
        reduced.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        outputs.append(reduced.outputs[0])
    probe.graph.outputs[:] = outputs
    RemoveUnusedNodesPass()(probe)
    session = compile_model(probe)
    needed = {value.name for value in probe.graph.inputs}
    largest: list[NDArray[np.float32]] = []
    for feed in feeds:
        found = session.run({name: array for name, array in feed.items() if name in needed})
        largest = (
            found
            if not largest
            else [np.maximum(a, b) for a, b in zip(largest, found, strict=True)]
        )
    return largest
