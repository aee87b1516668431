"""Did it help? The output of the quantised model beside the float one's, on a few feeds.

Outputs of Softmax and Sigmoid are compared before it: probabilities near 0 and 1 hide the error of
what they were made from, and one decision at a tie makes more of them than all the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.calibration import calibrate
from lowprec.passes.matching import is_operator
from lowprec.quantization.algorithms.moments import Feed, Probe, fed
from lowprec.quantization.precisions import apply_precisions
from lowprec.quantization.quantize import tensors_to_calibrate

if TYPE_CHECKING:
    from lowprec.config import Config

SQUASHING_TYPES = ("Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid")
_MOVING_TYPES = ("Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten", "Identity")
FEEDS_TRIED = 4
"""Feeds of a trial: a change of half a decibel shows in them."""
MOST = 100.0
"""dB that stand for an output without any error."""


class Trial:
    """Compares quantised forms of one float model, all on the same feeds.

    Args:
        model: Simplified float hub; not changed.
        feeds: Typical feeds by input name; the first `count` are used.
        config: How models are quantised for a trial. Every layer becomes int8 that can and that no
            rule keeps out: what is compared may not depend on which layers pass for too coarse.
    """

    def __init__(
        self, model: ir.Model, feeds: Sequence[Feed], config: Config, *, count: int = FEEDS_TRIED
    ) -> None:
        self._feeds = feeds[:count]
        self._names = [name for output in model.graph.outputs if (name := _compared(output))]
        self._config = _everything_in_int8(config)
        self._expected = self._run(model)

    def sqnr(self, model: ir.Model) -> float:
        """Return the mean of the outputs' signal to noise, dB, with `model` quantised afresh."""
        names = tensors_to_calibrate(model, self._config)
        found = calibrate(model, names, iter(self._feeds), self._config)
        result = apply_precisions(
            model, found.ranges, self._config, input_shapes=found.input_shapes
        )
        return self.sqnr_of(result.model)

    def sqnr_of(self, quantized: ir.Model) -> float:
        """Return the mean of the outputs' signal to noise, dB, for a quantised model."""
        signal = np.zeros(len(self._names))
        noise = np.zeros(len(self._names))
        for expected, actual in zip(self._expected, self._run(quantized), strict=True):
            for index, (a, b) in enumerate(zip(expected, actual, strict=True)):
                signal[index] += np.square(a, dtype=np.float64).sum()
                noise[index] += np.square(a.astype(np.float64) - b).sum()
        if not len(signal):
            return MOST
        with np.errstate(divide="ignore", invalid="ignore"):
            each = np.where(noise > 0, 10 * np.log10(signal / noise), MOST)
        return float(np.clip(np.nan_to_num(each, nan=MOST), -MOST, MOST).mean())

    def _run(self, model: ir.Model) -> list[list[NDArray[np.float32]]]:
        probe = Probe(model)
        for name in self._names:
            probe.add_value(name)
        session = probe.compile()
        return [session.run(fed(session, feed)) for feed in self._feeds]


def _compared(output: ir.Value) -> str:
    """Return the name of what to compare for a graph output; "" where it holds no floats."""
    if output.dtype not in (None, ir.DataType.FLOAT):
        return ""
    value, compared = output, output
    while (producer := value.producer()) is not None and producer.inputs:
        source = producer.inputs[0]
        if source is None or not is_operator(producer, *SQUASHING_TYPES, *_MOVING_TYPES):
            break
        if is_operator(producer, *SQUASHING_TYPES):
            compared = source
        value = source
    return compared.name or ""


def _everything_in_int8(config: Config) -> Config:
    from lowprec.config import LayerRule

    calibration = msgspec.structs.replace(config.calibration, method="minmax")
    layers = config.layers
    if config.precision == "int8":
        layers = (LayerRule(match="*", precision="int8"), *layers)
    return msgspec.structs.replace(config, calibration=calibration, layers=layers)
