"""A handful of models as tf2onnx translates them: the same results."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras_layers import seeded

import lowprec
from lowprec.adapters.tensorflow.hub import hub_of
from lowprec.adapters.tensorflow.keras_source import source_of_keras

onnxruntime = pytest.importorskip("onnxruntime")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tf2onnx = pytest.importorskip("tf2onnx")

L = keras.layers


def convolutions() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((11, 10, 3)),
            L.Conv2D(4, 4, strides=2, padding="same", activation="relu"),
            L.BatchNormalization(),
            L.DepthwiseConv2D(3, padding="same"),
            L.AveragePooling2D(3, 2, "same"),
            L.Conv2DTranspose(5, 3, strides=2, padding="same"),
            L.GlobalAveragePooling2D(),
            L.Dense(3, activation="softmax"),
        ]
    )


def sequences() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((12, 6)),
            L.Conv1D(4, 3, dilation_rate=2, padding="causal"),
            L.LeakyReLU(),
            L.MaxPooling1D(2),
            L.LayerNormalization(),
            L.Flatten(),
            L.Dense(3, activation="tanh"),
        ]
    )


def resized() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((6, 5, 2)),
            L.UpSampling2D(2, interpolation="bilinear"),
            L.ZeroPadding2D(((1, 0), (0, 2))),
            L.Cropping2D(1),
            L.Conv2D(3, 2, padding="same", activation="elu"),
        ]
    )


@pytest.mark.parametrize("make", [convolutions, sequences, resized])
def test_results_are_those_of_tf2onnx(make: Callable[[], keras.Model]) -> None:
    model = make()
    seeded(model)
    spec = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="x")
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, about what tf2onnx calls
        function = tf.function(lambda x: model(x, training=False), autograph=False)
        try:
            proto, _ = tf2onnx.convert.from_function(function, [spec], opset=18)
        except Exception as error:
            pytest.skip(f"tf2onnx fails: {type(error).__name__}")
    peer = onnxruntime.InferenceSession(proto.SerializeToString())
    source, called = source_of_keras(model)
    session = lowprec.compile(hub_of(source, "compared"))
    for batch in (1, 5):
        x = np.random.default_rng(batch).standard_normal((batch, *spec.shape[1:])).astype("f")
        (wanted,) = peer.run(None, {peer.get_inputs()[0].name: x})
        (found,) = session.run({called.names[0]: x})
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
