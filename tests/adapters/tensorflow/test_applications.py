"""Narrow or short networks of keras.applications; full ones: benchmarks/bench_tensorflow.py."""

from __future__ import annotations

from typing import Any

import keras_families
import numpy as np
import pytest

import lowprec
from lowprec.adapters.tensorflow.keras_capture import capture_keras
from lowprec.hookspecs import Captured

QUICK: dict[str, dict[str, Any]] = {
    "MobileNet": {"alpha": 0.25, "until": "conv_pw_5_relu"},
    "MobileNetV2": {"alpha": 0.35, "until": "block_4_add"},
    "MobileNetV3Small": {"until": "expanded_conv_3_project_bn"},
    "EfficientNetB0": {"until": "block2b_add"},
    "ResNet50V2": {"until": "conv2_block2_out"},
}
# Of the running plan. A BatchNormalization before its ReLU is an Elementwise or UnaryChain step.
LEFT_OVER = {"Transpose", "Reshape", "Shape", "Concat", "Gather", "Slice", "BatchNormalization"}


def steps_of(explanation: object) -> list[str]:
    """Return the operators of the rows of a plan."""
    return [line.split()[1] for line in str(explanation).splitlines()[1:] if line[:1].isdigit()]


@pytest.mark.parametrize("name", QUICK)
def test_a_network_is_captured_whole_and_quantised(name: str) -> None:
    model = keras_families.network(name, 64, **QUICK[name])
    captured = capture_keras(model)
    assert isinstance(captured, Captured)
    feed = captured.graph.graph.inputs[0].name
    assert feed is not None
    pictures = keras_families.pictures(model, 3, 7)
    expected = np.asarray(model(pictures, training=False))
    difference_between_pictures = np.abs(expected - expected.mean(0)).max()
    assert difference_between_pictures > 0.1 * np.abs(expected).max()  # else agreement says little

    session = lowprec.compile(captured.graph)
    (floats,) = session.run({feed: pictures})
    assert np.abs(floats - expected).max() <= 1e-4 * np.abs(expected).max()
    steps = steps_of(session.explain())
    assert len(steps) > 9
    assert not LEFT_OVER & set(steps)

    samples = [{feed: keras_families.pictures(model, 1, 100 + number)} for number in range(4)]
    quantized = lowprec.quantize(captured.graph, samples)
    assert quantized.report.int8_macs > 0.85 * quantized.report.total_macs
    exact = keras_families.logits_of(expected)
    noise = keras_families.logits_of(quantized.run({feed: pictures})[0]) - exact
    assert np.square(exact).sum() > 10 * np.square(noise).sum()
    steps = steps_of(quantized.explain())
    assert not LEFT_OVER & set(steps)
    assert any(step.startswith("Q") for step in steps)


def test_every_network_belongs_to_a_family_that_is_measured() -> None:
    missing = [
        name for name in keras_families.constructors() if keras_families.family_of(name) is None
    ]
    assert missing == []
