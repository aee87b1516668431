"""A layer that is hard to quantise stands out, alone and in company, and its repair is measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sensitive_network import ASK, BAD, workbench

from lowprec.config import Config
from lowprec.errors import ConfigError, DataError
from lowprec.sensitivity import LayerSensitivity, analyse, output_sqnr, with_rules
from lowprec.workbench import Workbench


@pytest.fixture(scope="module")
def found() -> dict[str, LayerSensitivity]:
    calls: list[tuple[int, int]] = []
    layers = analyse(workbench(), ASK, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert [layer.gain for layer in layers] == sorted(layer.gain for layer in layers)[::-1]
    return {layer.name: layer for layer in layers}


def test_the_layer_that_reads_an_outlier_is_the_most_harmful(
    found: dict[str, LayerSensitivity],
) -> None:
    assert next(iter(found)) == BAD
    assert found[BAD].gain > 10
    assert found[BAD].isolated < found["first"].isolated - 10
    assert found[BAD].isolated < found["third"].isolated - 10


def test_noise_shows_behind_the_layer_that_makes_it(found: dict[str, LayerSensitivity]) -> None:
    before, at = found["first"].accumulated, found[BAD].accumulated
    assert before is not None
    assert at is not None
    assert at < before - 10


def test_gain_is_what_the_rule_gives(found: dict[str, LayerSensitivity]) -> None:
    bench = workbench()
    feeds = bench.feeds.first(8)
    expected = [bench.original.run(feed) for feed in feeds]
    plain = Config.from_dict({**ASK.to_dict(), "algorithms": {"bias_correction": False}})
    configs = (
        plain,
        with_rules(plain, {BAD: "f32"}),
        with_rules(plain, {BAD: "int8"}, others="f32"),
    )
    prepared = bench.prepared(ASK)
    models = [bench.quantize(config, prepared=prepared, measure=False) for config in configs]
    whole, restored, alone = (
        output_sqnr(expected, [model.run(feed) for feed in feeds]) for model in models
    )
    assert found[BAD].gain == pytest.approx(restored - whole, abs=0.3)
    assert found[BAD].isolated == pytest.approx(alone, abs=0.3)


def test_without_the_outlier_no_layer_stands_out() -> None:
    layers = analyse(workbench(outlier=1.0), ASK)
    assert max(layer.gain for layer in layers) < 6


def test_times_are_of_this_model(found: dict[str, LayerSensitivity]) -> None:
    for layer in found.values():
        assert layer.float_ms is not None
        assert layer.float_ms > 0
        assert layer.int8_ms is not None
        assert layer.int8_ms > 0


def test_only_the_layers_asked_for() -> None:
    (layer,) = analyse(workbench(), ASK, only=["third"])
    assert layer.name == "third"
    with pytest.raises(ConfigError, match=r"'forth' is not quantised .* first, second, third"):
        analyse(workbench(), ASK, only=["forth"])


def test_without_data_it_cannot_be_said() -> None:
    bench = Workbench(workbench().hub)
    with pytest.raises(DataError, match="data"):
        analyse(bench, ASK)


def test_a_rule_means_the_very_name() -> None:
    config = with_rules(Config(), {"a[0]*?": "f32"}, others="int8")
    assert config.layer_precision("a[0]*?", "Conv") == "f32"
    assert config.layer_precision("a0xx", "Conv") == "int8"


def test_plain_data_and_back() -> None:
    layer = LayerSensitivity("n", "Conv", "int8", None, math.inf, None, -math.inf, 1.0, None)
    assert LayerSensitivity.from_dict(layer.to_dict()) == layer


def test_ratios_of_outputs_are_averaged() -> None:
    a = [np.ones(4, "f"), np.ones(4, "f")]
    b = [np.ones(4, "f"), np.full(4, 0.9, "f")]
    assert output_sqnr([a], [b]) == pytest.approx(10 * np.log10(2 / 0.01), abs=1e-3)
    assert output_sqnr([a], [a]) == math.inf
