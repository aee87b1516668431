"""Small models, quantised on a few feeds, and how well they keep their outputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.calibration import calibrate
from lowprec.config import Config
from lowprec.engine import compile_model
from lowprec.quantization import QuantizationResult, apply_precisions, tensors_to_calibrate

Feeds = Sequence[dict[str, NDArray[np.float32]]]
IN_INT8 = {"layers": [{"match": "*", "precision": "int8"}]}


def quantized(hub: ir.Model, feeds: Feeds, config: Config) -> QuantizationResult:
    found = calibrate(hub, tensors_to_calibrate(hub, config), iter(feeds), config)
    return apply_precisions(hub, found.ranges, config, input_shapes=found.input_shapes)


def outputs(hub: ir.Model, feeds: Feeds) -> list[NDArray[np.float32]]:
    session = compile_model(hub)
    return [array for feed in feeds for array in session.run(feed)]


def sqnr(exact: ir.Model, other: ir.Model, feeds: Feeds) -> float:
    """Signal to noise over all outputs, dB."""
    pairs = list(zip(outputs(exact, feeds), outputs(other, feeds), strict=True))
    signal = sum(float(np.square(a).sum()) for a, _ in pairs)
    noise = sum(float(np.square(a - b).sum()) for a, b in pairs)
    return float(10 * np.log10(signal / max(noise, 1e-30)))


def integer_constants(hub: ir.Model, dtype: type) -> dict[str, NDArray[np.generic]]:
    found = {}
    for name, value in hub.graph.initializers.items():
        if value.const_value is not None and value.const_value.numpy().dtype == dtype:
            found[name] = value.const_value.numpy()
    return found
