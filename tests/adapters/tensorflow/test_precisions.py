"""Every precision of a Keras model, from the call to the file, and searches that choose them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import lowprec
from lowprec.cli.application import run as command_line
from lowprec.metrics import TopK, make_evaluate

# Keras's own, when it saves.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PICTURES = np.random.default_rng(0).random((48, 16, 16, 3), np.float32)


def network() -> keras.Model:
    """Return a network with two inputs and a dict of outputs, large enough for every precision."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    picture = keras.Input((16, 16, 3), name="picture")
    weight = keras.Input((1,), name="weight")
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="first")(picture)
    x = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu", name="second")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(64, activation="relu", name="hidden")(x) * weight
    scores = layers.Dense(10, name="head")(x)
    return keras.Model(
        {"picture": picture, "weight": weight}, {"scores": scores, "sum": keras.ops.sum(x, -1)}
    )


FEED = {"picture": PICTURES, "weight": np.ones((48, 1), np.float32)}


@pytest.fixture(scope="module")
def original() -> keras.Model:
    return network()


@pytest.mark.parametrize(
    ("precision", "data", "decibels"),
    [
        ("int8", FEED, 25),
        ("int8-dynamic", None, 25),
        ("int8-weight-only", None, 30),
        ("f16-weight-only", None, 60),
        ("bf16", None, 35),
        ("auto", FEED, 25),
    ],
)
def test_a_precision_from_the_call_to_the_file(precision, data, decibels, original, tmp_path):
    quantized = lowprec.quantize(original, data, precision=precision)
    assert isinstance(quantized, keras.Model)
    expected, found = (model.predict(FEED, verbose=0) for model in (original, quantized))
    assert set(found) == {"scores", "sum"}
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        error = np.sum((found[name] - values) ** 2)
        assert 10 * np.log10(np.sum(values**2) / error) > decibels, name
    precisions = {layer.name: layer.precision for layer in quantized.report.layers}
    if precision != "auto":
        assert precisions["second"] == precision
    quantized.save(tmp_path / "q.keras")
    again = keras.models.load_model(tmp_path / "q.keras").predict(FEED, verbose=0)
    assert all(np.array_equal(again[name], found[name]) for name in found)


def test_compiled_is_what_keras_computes(original):
    compiled = lowprec.compile(original)
    expected, found = (model.predict(FEED, verbose=0) for model in (original, compiled))
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["int8", "auto"])
def test_a_search_scores_keras_models(precision, original):
    labels = original.predict(FEED, verbose=0)["scores"].argmax(-1)
    seen: list[Any] = []

    def agreement(model: keras.Model) -> float:
        assert isinstance(model, keras.Model)
        seen.append(model)
        return float((model.predict(FEED, verbose=0)["scores"].argmax(-1) == labels).mean())

    found = lowprec.quantize(
        original,
        FEED,
        precision=precision,
        evaluate=agreement,
        config={"tuning": {"accuracy": {"absolute": 0.05}, "max_trials": 6}},
    )
    assert seen[0] is original
    assert len(seen) >= 2
    assert agreement(found) >= 0.95
    assert any("is met" in note for note in found.report.notes)


def test_metrics_score_what_comes_back(original):
    labels = original.predict(FEED, verbose=0)["scores"].argmax(-1)
    score = make_evaluate(TopK(k=1), [({**FEED, "picture": PICTURES.astype(np.float64)}, labels)])
    quantized = lowprec.quantize(original, FEED)
    assert score(original) == 1.0
    assert 0.9 <= score(quantized) <= 1.0


def test_the_command_line_takes_a_keras_file(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    network().save("net.keras")
    np.savez("data.npz", **FEED)
    assert command_line(["inspect", "net.keras"]) == 0
    assert "second" in capfd.readouterr().out
    assert command_line(["quantize", "net.keras", "--calibration", "data.npz"]) == 0
    assert "wrote net.int8.keras" in capfd.readouterr().out
    found = keras.models.load_model("net.int8.keras")
    assert found.report.samples == 48
    assert command_line(["compare", "net.keras", "net.int8.keras", "--data", "data.npz"]) == 0
    assert "times as fast" in capfd.readouterr().out
    assert command_line(["quantize", "net.keras", "--precision", "bf16", "-o", "b.onnx"]) == 0
    (scores, _) = lowprec.load("b.onnx").run(FEED)
    assert scores.shape == (48, 10)
    assert command_line(["bench", "net.keras", "--shape", "weight=1,1"]) == 0


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "bf16"])
def test_what_was_made_is_captured_again_with_its_bits(precision, original, tmp_path):
    data = FEED if precision == "int8" else None
    quantized = lowprec.quantize(original, data, precision=precision)
    quantized.save(tmp_path / "q.keras")
    again = lowprec.compile(tmp_path / "q.keras")
    expected, found = (model.predict(FEED, verbose=0) for model in (quantized, again))
    assert all(np.array_equal(expected[name], found[name]) for name in expected)

    # Inside another model, too, which is a graph of its own around it.
    inputs = {name: keras.Input(array.shape[1:], name=name) for name, array in FEED.items()}
    outer = keras.Model(inputs, keras.ops.relu(quantized(inputs)["scores"]))
    captured = lowprec.compile(outer)
    np.testing.assert_array_equal(
        captured.predict(FEED, verbose=0), np.maximum(expected["scores"], 0)
    )
