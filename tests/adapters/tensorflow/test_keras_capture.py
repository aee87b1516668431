"""A Keras model is a hub graph that gives what Keras gives."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import lowprec
from lowprec.adapters.tensorflow.keras_capture import capture_keras

LAYERS = keras.layers


def images() -> keras.Model:
    """Return a small network of images with all that takes its own way through the layout."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 8, 3), name="picture")
    x = LAYERS.Conv2D(8, 3, strides=2, padding="same")(inputs)
    x = LAYERS.BatchNormalization()(x)
    x = LAYERS.ReLU()(x)
    y = LAYERS.DepthwiseConv2D(3, padding="same")(x)
    x = LAYERS.Add()([x, y])
    x = LAYERS.MaxPooling2D()(x)
    x = LAYERS.Flatten()(x)
    return keras.Model(inputs, LAYERS.Dense(5, activation="softmax", name="scores")(x))


def differences(model: keras.Model, example: Any = None) -> float:
    """Return the largest difference to Keras, relative to the largest number."""
    captured = capture_keras(model, example)
    session = lowprec.compile(captured.graph)
    worst = 0.0
    for feed, expected in captured.samples:
        for a, b in zip(expected, session.run(feed), strict=True):
            worst = max(worst, float(np.abs(a - b).max() / np.abs(a).max()))
    return worst


def test_a_network_of_images() -> None:
    assert differences(images()) < 1e-5


def test_names_and_open_batch() -> None:
    graph = capture_keras(images()).graph.graph
    assert [value.name for value in graph.inputs] == ["picture"]
    assert [value.name for value in graph.outputs] == ["scores"]
    assert not isinstance(graph.inputs[0].shape[0], int)


def test_no_transpose_is_left_but_at_the_input() -> None:
    model = lowprec.compile(capture_keras(images()).graph)
    model.run({"picture": np.zeros((1, 9, 8, 3), np.float32)})
    text = str(model.explain())
    assert text.count("Transpose") <= 2  # the input, and before Flatten


def test_a_model_that_was_never_built_needs_an_example() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = LAYERS.Dense(3)

        def call(self, inputs: Any) -> Any:
            return {"twice": self.dense(inputs["x"]) * 2, "sum": inputs["x"] + inputs["y"]}

    x = np.zeros((2, 4), np.float32)
    with pytest.raises(lowprec.LowprecError, match="example_inputs"):
        capture_keras(Own())
    assert differences(Own(), {"x": x, "y": x}) < 1e-6
