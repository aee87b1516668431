"""Bias absorption: constant parts of channels go into the next layer's bias."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks import outputs
from small_models import build, values_of

from lowprec.config import Config
from lowprec.quantization import prepare

rng = np.random.default_rng(23)
OTHERS = {"equalization": False, "smoothing": False}
ON = Config.of({"algorithms": {**OTHERS, "bias_absorption": True}})
AUTO = Config.of({"algorithms": OTHERS})
HIGH = np.linspace(40, 60, 12).astype(np.float32)
CONSTANTS = {
    "w": rng.standard_normal((12, 3, 3, 3)).astype(np.float32),
    "b": HIGH,
    "v": rng.standard_normal((7, 12, 3, 3)).astype(np.float32),
    "gamma": np.ones(12, np.float32),
    "beta": HIGH,
    "u": rng.standard_normal((12, 7)).astype(np.float32),
    "c": rng.standard_normal(7).astype(np.float32),
}
IMAGE = [{"x": rng.standard_normal((1, 3, 12, 12)).astype(np.float32)} for _ in range(4)]
ROWS = [{"x": rng.standard_normal((5, 12)).astype(np.float32)} for _ in range(4)]


def images(between: str, attributes: str = "") -> ir.Model:
    return build(
        "m (float[1,3,12,12] x) => (float[1,7,H,W] y) {"
        f" a = Conv(x, w, b) {between} y = Conv{attributes}(h, v) }}",
        CONSTANTS,
    )


def rows(tail: str) -> ir.Model:
    return build(
        "m (float[5,12] x) => (float[5,7] y) {"
        f" h = LayerNormalization(x, gamma, beta) m = MatMul(h, u) {tail} }}",
        CONSTANTS,
    )


@pytest.mark.parametrize(
    ("hub", "feeds", "config"),
    [
        pytest.param(lambda: images("h = Relu(a)"), IMAGE, ON, id="relu"),
        pytest.param(lambda: images("t = Add(a, half) h = Relu(t)"), IMAGE, ON, id="sum"),
        pytest.param(lambda: rows("y = Add(m, c)"), ROWS, AUTO, id="normalisation"),
        pytest.param(lambda: rows("y = Relu(m)"), ROWS, AUTO, id="no sum behind"),
    ],
)
def test_the_float_result_stays_and_the_range_shrinks(hub, feeds, config) -> None:
    CONSTANTS["half"] = np.float32(0.5)
    model = hub()
    before = outputs(model, feeds)
    (wide,) = values_of(model, ["h"], feeds[0]).values()
    (outcome,) = prepare(model, feeds, config)
    assert outcome.name == "bias_absorption"
    assert outcome.changed == 1
    assert outcome.gain is not None
    assert outcome.gain > 3
    for expected, actual in zip(before, outputs(model, feeds), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, atol=2e-6 * scale, rtol=0)
    (narrow,) = values_of(model, ["h"], feeds[0]).values()
    assert np.abs(narrow).max() < 0.8 * np.abs(wide).max()


@pytest.mark.parametrize(
    ("hub", "feeds", "config"),
    [
        pytest.param(lambda: images("h = Relu(a)"), IMAGE, AUTO, id="what was not seen may come"),
        pytest.param(
            lambda: images("h = Relu(a)", "<pads=[1,1,1,1]>"), IMAGE, ON, id="a border of zeros"
        ),
        pytest.param(lambda: images("h = LeakyRelu(a)"), IMAGE, ON, id="not a Relu"),
        pytest.param(lambda: images("h = Sigmoid(a)"), IMAGE, ON, id="not a sum"),
    ],
)
def test_other_surroundings_are_left_alone(hub, feeds, config) -> None:
    model = hub()
    before = ir.to_proto(model).SerializeToString()
    assert sum(outcome.changed for outcome in prepare(model, feeds, config)) == 0
    assert ir.to_proto(model).SerializeToString() == before
