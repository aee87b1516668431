"""Every precision in one graph: who gets what, what is written, what the engine makes of it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_networks import mobile, transformer

from lowprec.calibration import calibrate
from lowprec.config import Config
from lowprec.graph import load, to_proto
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


RULES = [
    {"match": "*_1", "precision": "bf16"},
    {"match": "*_2", "precision": "int8-weight-only"},
    {"match": "*_3", "precision": "f32"},
    {"match": "*_6", "precision": "int8"},
]


@pytest.mark.parametrize("network", [mobile, transformer])
@pytest.mark.parametrize(
    "precision", ["int8", "int8-dynamic", "int8-weight-only", "bf16", "f16-weight-only"]
)
def test_each_layer_has_what_its_rule_says(network, precision):
    proto, feeds = network()
    original, result, _ = apply(proto, feeds, {"precision": precision, "layers": RULES})
    kind = "Conv" if network is mobile else "MatMul"
    found = precisions(result)
    assert found[f"{kind}_1"] == "bf16"
    assert found[f"{kind}_2"] == "int8-weight-only"
    assert found[f"{kind}_3"] == "f32"
    assert found[f"{kind}_6"] == "int8"
    assert found[f"{kind}_7"] == precision
    made = to_proto(result.model)
    onnx.checker.check_model(made, full_check=True)
    model = CompiledModel(load(made))
    for feed in feeds[:2]:
        (expected,), (actual,) = original.run(feed), model.run(feed)
        assert 25 < decibels(expected, actual) < 80
        (other,) = onnxruntime_results(made, feed)
        assert decibels(other, actual) > 35
    kernels = {step.kernel for step in model.session.explain().steps}
    matrix = "conv" if network is mobile else "matrix"
    assert any(kernel.startswith(f"{matrix} u8s8") for kernel in kernels)
    assert any("bf16" in kernel for kernel in kernels)
    assert all(step.native for step in model.session.explain().steps)


def test_only_static_layers_need_ranges():
    proto, feeds = mobile()
    rules = [{"match": "Conv_4", "precision": "int8"}]
    _, _, names = apply(proto, feeds, {"precision": "bf16", "layers": rules})
    assert len(names) == 1
    for precision in ("bf16", "int8-dynamic", "int8-weight-only", "f16-weight-only"):
        assert apply(proto, feeds, {"precision": precision})[2] == []
