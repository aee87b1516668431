"""Simplified real models compute what the originals do, in onnxruntime, and lose their chains."""

from __future__ import annotations

from collections import Counter
from importlib import metadata

import numpy as np
import onnx
import onnxruntime
import pytest
from real_models import RealModel, real_models

from lowprec import graph
from lowprec.passes import simplify

ALLOWED_ERROR = 1e-5  # of the largest value,
# or, where a softmax near a tie magnifies rounding, what onnxruntime's own optimiser changes:
ALLOWED_OF_PEER = 4

# Operators that the exporters wrote as arithmetic: what is there afterwards, and what is not.
RECOVERED = {
    "PP-OCR rec": ({"HardSwish": 28, "LayerNormalization": 5}, {"Clip", "Pow", "Sqrt"}),
    "PP-OCR det": ({"HardSwish": 24}, {"Clip", "Div", "BatchNormalization"}),
    "PP-OCR cls": ({"HardSwish": 18}, {"Clip", "Div", "BatchNormalization"}),
    "Magika": ({}, set()),
    "Silero sequence": ({"LSTM": 1}, {"Concat", "Identity"}),
    "Basic Pitch": ({}, set()),
}


@pytest.fixture(params=[m for m in real_models() if m.name in RECOVERED], ids=lambda m: m.name)
def model(request: pytest.FixtureRequest) -> RealModel:
    found: RealModel = request.param
    return found


@pytest.fixture
def source(model: RealModel) -> str | onnx.ModelProto:
    try:
        return model.load()
    except metadata.PackageNotFoundError as missing:
        pytest.skip(f"{missing.name} is not installed")


def session(data: bytes, *, optimized: bool) -> onnxruntime.InferenceSession:
    levels = onnxruntime.GraphOptimizationLevel
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = (
        levels.ORT_ENABLE_BASIC if optimized else levels.ORT_DISABLE_ALL
    )
    return onnxruntime.InferenceSession(data, options)


def test_simplified_equals_original(model: RealModel, source: str | onnx.ModelProto) -> None:
    hub = graph.load(source)
    data = graph.to_proto(hub).SerializeToString()
    original, peer = session(data, optimized=False), session(data, optimized=True)
    simplify(hub)
    proto = graph.to_proto(hub)
    onnx.checker.check_model(proto, full_check=True)
    simplified = session(proto.SerializeToString(), optimized=False)
    for feeds in model.feeds(2, 3):
        results = [s.run(None, feeds) for s in (original, peer, simplified)]
        for expected, of_peer, ours in zip(*results, strict=True):
            allowed = ALLOWED_ERROR * np.abs(expected).max()
            allowed = max(allowed, ALLOWED_OF_PEER * np.abs(expected - of_peer).max())
            assert np.abs(expected - ours).max() <= allowed


def test_composite_operators_are_recovered(model: RealModel, source: str | onnx.ModelProto) -> None:
    hub = graph.load(source)
    simplify(hub)
    found = Counter(node.op_type for node in hub.graph)
    present, absent = RECOVERED[model.name]
    assert {name: found[name] for name in present} == present
    assert not absent & set(found)


def test_simplifying_twice_changes_nothing(model: RealModel, source: str | onnx.ModelProto) -> None:
    hub = graph.load(source)
    simplify(hub)
    once = graph.to_proto(hub).SerializeToString(deterministic=True)
    simplify(hub)
    assert graph.to_proto(hub).SerializeToString(deterministic=True) == once
