"""Operations that TensorFlow keeps, and the parts between them."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import pytest
import tensorflow as tf

import lowprec
from lowprec.adapters.tensorflow.keras_capture import capture_keras
from lowprec.adapters.tensorflow.parts import SPLIT, Split, assembled
from lowprec.hookspecs import CapturedParts

LAYERS = keras.layers


def words_and_numbers() -> keras.Model:
    """Return a model with a table of words before, and a sum of scores as text after."""
    keras.utils.set_random_seed(0)
    words = keras.Input((5,), dtype="string", name="words")
    numbers = keras.Input((3,), name="numbers")
    x = LAYERS.StringLookup(vocabulary=["a", "b", "c"])(words)
    x = LAYERS.GlobalAveragePooling1D()(LAYERS.Embedding(6, 4)(x))
    x = LAYERS.Dense(8, activation="relu")(LAYERS.Concatenate()([x, numbers]))
    return keras.Model([words, numbers], LAYERS.Dense(4)(x))


class Rounds(keras.Model):
    """Two products, and between them an operation that nothing translates."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = LAYERS.Dense(6), LAYERS.Dense(3)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        between = tf.strings.to_number(tf.strings.as_string(self.first(inputs), precision=2))
        return self.second(between) + tf.reduce_sum(inputs, axis=1, keepdims=True)


def in_parts(model: keras.Model, example: object = None) -> CapturedParts:
    captured = capture_keras(model, example)
    assert isinstance(captured, CapturedParts)
    return captured


def run_on_engine(captured: CapturedParts, *arguments: tf.Tensor) -> list[np.ndarray]:
    """Return what the model gives with its parts on the engine."""
    sessions = {name: lowprec.compile(part.graph) for name, part in captured.parts.items()}
    split = captured.binding[SPLIT]
    assert isinstance(split, Split)

    def ours(name: str, tensors: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        session = sessions[name]
        made = tf.numpy_function(
            lambda *arrays: session.run(
                dict(zip([info.name for info in session.inputs], arrays, strict=True))
            ),
            list(tensors),
            [tf.as_dtype(info.dtype) for info in session.outputs],
        )
        return list(made) if isinstance(made, (list, tuple)) else [made]

    return [result.numpy() for result in assembled(split, ours)(*arguments)]


def test_a_table_of_words_stays_in_tensorflow() -> None:
    model = words_and_numbers()
    captured = in_parts(model)
    assert list(captured.parts) == ["part_1"]
    assert "LookupTableFindV2" in captured.notes[0]
    words, numbers = tf.constant([["a", "b", "?", "c", "c"]] * 3), tf.random.normal((3, 3))
    (result,) = run_on_engine(captured, words, numbers)
    np.testing.assert_allclose(result, model([words, numbers]), rtol=1e-5, atol=1e-6)


def test_two_parts_around_an_operation() -> None:
    model = Rounds()
    x = tf.random.normal((4, 5))
    expected = model(x)
    captured = in_parts(model, x)
    assert len(captured.parts) == 2
    (result,) = run_on_engine(captured, x)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_samples_are_those_of_tensorflow() -> None:
    for part in in_parts(words_and_numbers()).parts.values():
        session = lowprec.compile(part.graph)
        for feed, outputs in part.samples:
            for result, expected in zip(session.run(feed), outputs, strict=True):
                np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_nothing_but_words_is_refused() -> None:
    words = keras.Input((5,), dtype="string", name="words")
    model = keras.Model(words, LAYERS.StringLookup(vocabulary=["a", "b"])(words))
    with pytest.raises(lowprec.LowprecError, match="words"):
        capture_keras(model)
