"""Operations that TensorFlow keeps, and the parts between them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import lowprec
from lowprec.adapters.tensorflow.keras_capture import capture_keras
from lowprec.hookspecs import CapturedParts

LAYERS = keras.layers


def words_and_numbers() -> keras.Model:
    """Return a model with a table of words before, and numbers beside."""
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


def test_a_table_of_words_stays_in_tensorflow(tmp_path: Path) -> None:
    model = words_and_numbers()
    words = tf.constant([["a", "b", "?", "c", "c"], ["c", "?", "a", "a", "b"]] * 4)
    numbers = tf.random.stateless_normal((8, 3), (1, 2))
    data = tf.data.Dataset.from_tensor_slices(((words, numbers), tf.zeros(8))).batch(4)
    expected = model([words, numbers])
    quantized = lowprec.quantize(model, data)
    assert quantized.parts == ("part_1",)
    assert "LookupTableFindV2" in quantized.report.notes[0]
    assert quantized.report.int8_fraction == 1
    peak = float(np.abs(expected).max())
    for result in (quantized([words, numbers]), quantized.predict(data, verbose=0)):
        assert 0 < np.abs(result - expected).max() < 0.05 * peak
    with pytest.raises(lowprec.LowprecError, match="export"):
        quantized.save(tmp_path / "split.keras")
    quantized.export(tmp_path / "split", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "split")
    np.testing.assert_array_equal(loaded.serve([words, numbers]), quantized([words, numbers]))


def test_two_parts_around_an_operation() -> None:
    model = Rounds()
    x = tf.random.stateless_normal((4, 5), (1, 2))
    expected = model(x)
    compiled = lowprec.compile(model, example_inputs=x)
    assert compiled.parts == ("part_1", "part_2")
    np.testing.assert_allclose(compiled(x), expected, rtol=1e-5, atol=1e-6)
    assert "Add" in str(compiled.explain()["part_2"])
    with pytest.raises(lowprec.LowprecError, match="AsString"):
        compiled.to_onnx()


def test_a_function_in_parts_is_called_as_it_was_and_saved(tmp_path: Path) -> None:
    dense = LAYERS.Dense(3)
    dense.build((None, 4))

    def lines(text: tf.Tensor) -> dict[str, tf.Tensor]:
        numbers = tf.strings.to_number(tf.strings.split(text, ",").to_tensor(shape=[None, 4]))
        return {"scores": dense(numbers)}

    function = tf.function(
        lines, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
    )
    text = tf.constant(["1,2,3,4", "0,1,0.5,-1", "2,2,2,2"])
    compiled = lowprec.compile(function)
    assert "StringSplitV2" in compiled.notes[0]
    expected = function(text)["scores"]
    np.testing.assert_allclose(compiled(text)["scores"], expected, rtol=1e-5, atol=1e-6)
    compiled.save(tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served")
    result = served.signatures["serving_default"](text=text)["scores"]
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    compiled.save(tmp_path / "frozen.pb")
    definition = tf.compat.v1.GraphDef.FromString((tmp_path / "frozen.pb").read_bytes())
    with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
        tf.graph_util.import_graph_def(definition, name="")
        names = [node.name for node in graph.get_operations()]
        result = session.run("scores:0", {"text:0": text.numpy()})
    assert any(graph.get_operation_by_name(name).type == "LowprecRun" for name in names)
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
