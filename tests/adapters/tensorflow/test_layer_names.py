"""Layers of a captured Keras model have the names that the user gave them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import lowprec
from lowprec.adapters.tensorflow.keras_capture import capture_keras
from lowprec.api import open_workbench

LAYERS = keras.layers


def nested() -> keras.Model:
    """Return a network with names like those that TensorFlow makes up, one layer used twice."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 9, 3))
    x = LAYERS.Conv2D(8, 3, name="stem")(inputs)
    x = LAYERS.Conv2D(8, 3, padding="same", use_bias=False, name="stem_1")(x)
    twice = LAYERS.Conv2D(8, 3, padding="same", name="twice")
    x = twice(twice(x))
    head = keras.Sequential([LAYERS.Flatten(), LAYERS.Dense(4, name="dense")], name="head")
    return keras.Model(inputs, head(x))


def test_products_are_called_like_their_layers() -> None:
    captured: Any = capture_keras(nested())
    names = [node.name for node in captured.graph.graph if node.op_type in ("Conv", "MatMul")]
    assert names == ["stem", "stem_1", "twice/convolution", "twice/convolution_1", "head/dense"]
    everything = [node.name for node in captured.graph.graph]
    assert len(set(everything)) == len(everything)
    assert "stem/BiasAdd" in everything


def test_rules_name_layers() -> None:
    captured: Any = capture_keras(nested())
    config = lowprec.Config.from_dict({"layers": [{"match": "stem", "precision": "f32"}]})
    data = np.random.default_rng(0).random((4, 9, 9, 3), np.float32)
    report = open_workbench(captured, data, config).quantize(config).report
    precisions = {layer.name: layer.precision for layer in report.layers}
    assert precisions["stem"] == "f32"
    assert precisions["stem_1"] == "int8"


def test_layers_of_a_subclass() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.others = LAYERS.Dense(4, name="first"), [LAYERS.Dense(3, name="last")]

        def call(self, inputs: Any) -> Any:
            return self.others[0](self.first(inputs))

    captured: Any = capture_keras(Own(), np.ones((2, 3), np.float32))
    names = [node.name for node in captured.graph.graph if node.op_type == "MatMul"]
    assert names == ["first", "last"]
