"""Smoothing: outliers of channels go into weights; normalisations and products absorb them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from small_models import build

from lowprec.config import Config
from lowprec.engine import compile_model
from lowprec.quantization import prepare
from lowprec.quantization.algorithms.moments import ChannelMoments
from lowprec.quantization.algorithms.scaling import (
    InputWeights,
    choose_factor,
    expected_noise,
)

rng = np.random.default_rng(5)
WIDTH = 64
GAMMA = np.ones(WIDTH, np.float32)
GAMMA[3] = 40  # the outlier that transformers have
CONSTANTS = {
    "gamma": GAMMA,
    "beta": (0.1 * rng.standard_normal(WIDTH)).astype(np.float32),
    "wq": rng.standard_normal((WIDTH, 256)).astype(np.float32),
    "wk": rng.standard_normal((WIDTH, 128)).astype(np.float32),
    "wide": np.ldexp(np.ones(WIDTH, np.float32), np.arange(WIDTH) % 7 - 3),
}
FEED = {"x": rng.standard_normal((1, 9, WIDTH)).astype(np.float32)}
ON = Config.of({"algorithms": {"equalization": False, "smoothing": True, "bias_absorption": False}})
AUTO = Config.of({"algorithms": {"equalization": False, "bias_absorption": False}})


def run(hub: ir.Model, feed: dict) -> list:
    return compile_model(hub).run(feed)


def attention(extra: str = "", outputs: str = "") -> ir.Model:
    return build(
        f"m (float[1,9,{WIDTH}] x) => (float[1,9,256] q, float[1,9,128] k{outputs}) {{"
        " n = LayerNormalization(x, gamma, beta) q = MatMul(n, wq) k = MatMul(n, wk)"
        f" {extra} }}",
        CONSTANTS,
    )


def operators(hub: ir.Model) -> list[str]:
    return [node.op_type for node in hub.graph]


@pytest.mark.parametrize("config", [ON, AUTO], ids=["true", "auto"])
def test_a_normalisation_absorbs_the_factor_of_all_its_readers(config: Config) -> None:
    hub = attention()
    before, operators_before = run(hub, FEED), operators(hub)
    (outcome,) = prepare(hub, [FEED], config)
    assert outcome.changed == 1
    assert outcome.gain is not None
    assert outcome.gain > 6
    assert operators(hub) == operators_before
    for expected, actual in zip(before, run(hub, FEED), strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_a_residual_connection_takes_the_factor_back() -> None:
    hub = attention("r = Add(n, x)", f", float[1,9,{WIDTH}] r")
    before = run(hub, FEED)
    (outcome,) = prepare(hub, [FEED], ON)
    assert outcome.changed == 1
    assert operators(hub).count("Mul") == 1
    for expected, actual in zip(before, run(hub, FEED), strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_where_nothing_absorbs_it_a_multiplication_is_inserted() -> None:
    text = (
        f"m (float[1,9,{WIDTH}] x) => (float[1,9,256] q) {{"
        " a = Mul(x, wide) g = Gelu(a) q = MatMul(g, wq) }"
    )
    hub = build(text, CONSTANTS)
    feed = {"x": FEED["x"] * np.where(np.arange(WIDTH) == 7, 50, 1).astype(np.float32)}
    before = run(hub, feed)
    (outcome,) = prepare(hub, [feed], ON)
    assert outcome.changed == 1
    assert operators(hub) == ["Mul", "Gelu", "Mul", "MatMul"]
    np.testing.assert_array_equal(before[0], run(hub, feed)[0])


def test_auto_looks_at_transformers_and_asks_nothing_of_other_models(monkeypatch) -> None:
    text = f"m (float[1,9,{WIDTH}] x) => (float[1,9,256] q) {{ g = Gelu(x) q = MatMul(g, wq) }}"

    def fail(*_: object) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr("lowprec.quantization.algorithms.moments.compile_model", fail)
    assert [o.changed for o in prepare(build(text, CONSTANTS), [FEED], AUTO)] == [0]
    with pytest.raises(AssertionError, match="the model was run"):
        prepare(build(text, CONSTANTS), [FEED], ON)


def test_layers_that_stay_float_do_not_take_part() -> None:
    hub = attention()
    rules = [{"match": "*", "precision": "f32"}]
    config = Config.of({"algorithms": {"smoothing": True}, "layers": rules})
    assert sum(outcome.changed for outcome in prepare(hub, [FEED], config)) == 0


def test_the_factor_trades_activations_against_weights() -> None:
    ranges = np.array([100.0, 1, 1, 1])
    moments = ChannelMoments(-ranges, ranges, 0 * ranges, ranges**2 / 3)
    weights = InputWeights(np.ones((1, 8, 4)), np.full(4, 8.0), 1, per_channel=True)
    factor, gain = choose_factor(moments, [weights])
    assert 1 / 100 < factor[1] < 1  # not all the way: then the weights would lose as much
    assert factor[0] == 1
    noise = [expected_noise(moments, [weights], f) for f in (np.ones(4), factor)]
    assert gain == pytest.approx(10 * np.log10(noise[0] / noise[1]))
    assert gain > 3
    np.testing.assert_array_equal(np.exp2(np.rint(np.log2(factor))), factor)


def test_dead_and_unweighed_channels_are_left_alone() -> None:
    ranges = np.array([100.0, 1, 0, 1])
    moments = ChannelMoments(-ranges, ranges, 0 * ranges, ranges**2 / 3)
    largest = np.ones((1, 8, 4))
    largest[..., 3] = 0
    weights = InputWeights(largest, largest.sum(axis=(0, 1)), 1, per_channel=True)
    factor, _ = choose_factor(moments, [weights])
    assert factor[2] == factor[3] == 1
    nothing = ChannelMoments(*[np.zeros(4)] * 4)
    assert choose_factor(nothing, [weights]) == (pytest.approx(np.ones(4)), 0.0)


def test_the_expected_noise_is_that_of_the_codes() -> None:
    x = rng.standard_normal((4096, 16)) * np.geomspace(0.1, 5, 16)
    w = rng.standard_normal((32, 16))
    moments = ChannelMoments(x.min(0), x.max(0), x.mean(0), np.square(x).mean(0))
    weights = InputWeights(np.abs(w)[None], np.square(w).sum(0), 1, per_channel=True)
    step = (x.max() - x.min()) / 255
    steps = np.abs(w).max(axis=1, keepdims=True) / 127
    wrong = (np.rint(x / step) * step) @ (np.rint(w / steps) * steps).T
    measured = np.square(wrong - x @ w.T).sum() / np.square(x @ w.T).sum()
    assert expected_noise(moments, [weights], np.ones(16)) == pytest.approx(measured, rel=0.15)
