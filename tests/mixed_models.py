"""A model in float and in the precisions of a configuration, and what others make of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from lowprec.calibration import calibrate
from lowprec.config import Config
from lowprec.graph import load
from lowprec.models import CompiledModel
from lowprec.passes import simplify
from lowprec.quantization import QuantizationResult, apply_precisions, tensors_to_calibrate

Feeds = list[dict[str, np.ndarray]]


def decibels(expected: np.ndarray, actual: np.ndarray) -> float:
    error = np.square(expected.astype(np.float64) - actual).sum()
    return float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / max(error, 1e-300)))


def apply(
    proto: onnx.ModelProto, feeds: Feeds, config: dict[str, object]
) -> tuple[CompiledModel, QuantizationResult, list[str]]:
    """The float model, what became of it, and the tensors whose ranges were asked for."""
    hub = load(proto)
    simplify(hub)
    settings = Config.of(config)
    names = tensors_to_calibrate(hub, settings)
    ranges = calibrate(hub, names, feeds[:8], settings).ranges if names else {}
    shapes = {name: array.shape for name, array in feeds[0].items()}
    return CompiledModel(hub), apply_precisions(hub, ranges, settings, input_shapes=shapes), names


def precisions(result: QuantizationResult) -> dict[str, str]:
    return {layer.name: layer.precision for layer in result.layers}


def onnxruntime_results(proto: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """As written: its optimiser may quantise what weight-only layers read (MatMulNBits)."""
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, feed)
