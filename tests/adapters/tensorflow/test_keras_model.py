"""A quantised Keras model is a Keras model: called, evaluated, saved and used like the original."""

from __future__ import annotations

import copy
import errno
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import lowprec
from lowprec.adapters.tensorflow import CompiledModel, QuantizedModel, load
from lowprec.errors import OutputError

# Keras itself, of NumPy 2, when it saves a weight.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

LAYERS = keras.layers
IMAGES = np.random.default_rng(0).random((16, 9, 8, 3), np.float32)
LABELS = np.random.default_rng(1).integers(0, 5, 16)


def images() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 8, 3), name="picture")
    x = LAYERS.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = LAYERS.GlobalAveragePooling2D()(x)
    x = LAYERS.Dense(5, activation="softmax", name="scores")(x)
    model = keras.Model(inputs, x, name="net")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def several() -> keras.Model:
    keras.utils.set_random_seed(0)
    words = keras.Input((6,), dtype="int32", name="words")
    sizes = keras.Input((4,), name="sizes")
    x = LAYERS.Flatten()(LAYERS.Embedding(11, 3)(words))
    x = LAYERS.Concatenate()([x, LAYERS.Dense(5, activation="relu")(sizes)])
    first = LAYERS.Dense(2, name="first")(x)
    second = LAYERS.Dense(3, name="second")(x)
    model = keras.Model(
        {"words": words, "sizes": sizes}, {"first": first, "rest": [second, first]}, name="several"
    )
    return model


def several_feeds(count: int) -> dict[str, Any]:
    random = np.random.default_rng(count)
    return {
        "words": random.integers(0, 11, (count, 6)).astype(np.int32),
        "sizes": random.standard_normal((count, 4)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def original() -> keras.Model:
    return images()


@pytest.fixture(scope="module")
def quantized(original: keras.Model) -> QuantizedModel:
    made = lowprec.quantize(original, [IMAGES[:8], IMAGES[8:]])
    assert isinstance(made, QuantizedModel)
    return made


def state(model: keras.Model) -> tuple[Any, ...]:
    weights = [(w.path, w.trainable, w.numpy().tobytes()) for w in model.weights]
    metrics = [v.numpy().tobytes() for metric in model.metrics for v in metric.variables]
    return weights, metrics, model.compiled, model.optimizer, model.loss, model.get_config()


def test_it_is_a_keras_model_near_the_original(
    original: keras.Model, quantized: QuantizedModel
) -> None:
    assert isinstance(quantized, keras.Model)
    assert quantized.name == original.name
    expected = original.predict(IMAGES, verbose=0)
    found = quantized(IMAGES)
    assert isinstance(found, tf.Tensor)
    assert np.abs(found - expected).max() < 0.02
    np.testing.assert_array_equal(quantized.predict(IMAGES, verbose=0, batch_size=5), found)
    np.testing.assert_array_equal(quantized(IMAGES, training=True), found)
    np.testing.assert_array_equal(quantized.run({"picture": IMAGES})[0], found)
    assert quantized(IMAGES[:0]).shape == (0, 5)


def test_inputs_and_outputs_as_keras_has_them(
    original: keras.Model, quantized: QuantizedModel
) -> None:
    assert [tensor.name for tensor in quantized.inputs] == ["picture"]
    assert quantized.input_shape == original.input_shape == (None, 9, 8, 3)
    assert quantized.output_shape == original.output_shape
    assert quantized.output_names == original.output_names
    assert [argument.name for argument in quantized.get_inputs()] == ["picture"]
    assert [argument.name for argument in quantized.get_outputs()] == ["scores"]


def test_it_says_what_was_done(quantized: QuantizedModel) -> None:
    quantized(IMAGES)
    assert quantized.report.precision == "int8"
    assert quantized.config.precision == "int8"
    assert "int8" in str(quantized.report)
    assert str(quantized.explain())
    assert quantized.profile({"picture": IMAGES}, repeats=1)
    operators = [node.op_type for node in quantized.to_onnx().graph.node]
    assert "QuantizeLinear" in operators


def test_evaluate_as_the_original_was_compiled(
    original: keras.Model, quantized: QuantizedModel
) -> None:
    loss, accuracy = original.evaluate(IMAGES, LABELS, verbose=0)
    found = quantized.evaluate(IMAGES, LABELS, verbose=0)
    assert found[0] == pytest.approx(loss, abs=0.02)
    assert abs(found[1] - accuracy) <= 2 / 16


def test_metrics_are_not_shared_with_the_original() -> None:
    model = images()
    metric = keras.metrics.SparseTopKCategoricalAccuracy(2)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(), metrics=[metric])
    model.evaluate(IMAGES, LABELS, verbose=0)
    before = state(model)
    made = lowprec.compile(model)
    expected = made.evaluate(IMAGES[:3], LABELS[:3], verbose=0)
    assert len(expected) == 2
    after = state(model)
    assert before == after


def test_a_metric_that_cannot_be_copied_is_left_to_the_user() -> None:
    class Own(keras.metrics.Mean):
        def __init__(self, wanted: int) -> None:
            super().__init__(name="own")

        def update_state(self, true: Any, found: Any, sample_weight: Any = None) -> None:
            super().update_state(found)

    model = images()
    model.compile(loss="mse", metrics=[Own(3)])
    made = lowprec.compile(model)
    assert not made.compiled
    with pytest.raises(ValueError, match=r"compile\(\)"):
        made.evaluate(IMAGES, LABELS, verbose=0)


def test_the_original_is_unchanged() -> None:
    model = images()
    model.layers[1].trainable = False
    before = state(model)
    lowprec.quantize(model, [IMAGES])
    lowprec.compile(model)
    assert state(model) == before


def test_several_inputs_and_outputs_in_a_structure() -> None:
    model = several()
    made = lowprec.compile(model)
    for count in (1, 4):
        feeds = several_feeds(count)
        expected, found = model(feeds), made(feeds)
        assert set(found) == {"first", "rest"}
        assert isinstance(found["rest"], list)
        for a, b in zip(tf.nest.flatten(expected), tf.nest.flatten(found), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert [tensor.name for tensor in made.inputs] == [tensor.name for tensor in model.inputs]
    wide = {"words": feeds["words"].astype(np.int64), "sizes": feeds["sizes"].astype(np.float64)}
    np.testing.assert_array_equal(made(wide)["first"], found["first"])
    for a, b in zip(
        tf.nest.flatten(made.predict(feeds, verbose=0)), tf.nest.flatten(found), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert made.output["first"].shape == (None, 2)


def test_keys_may_be_in_any_order() -> None:
    inputs = {name: keras.Input((4,), name=name) for name in ("b", "a")}
    outputs = {"z": inputs["b"] * 2, "y": inputs["a"] * 3}  # of equal shape: nothing else tells
    feeds = {"a": np.ones((2, 4), np.float32), "b": np.full((2, 4), 5, np.float32)}
    made = lowprec.compile(keras.Model(inputs, outputs))
    names = [output.name for output in made.get_outputs()]
    run = dict(zip(names, made.run(feeds), strict=True))
    for found in (made(feeds), made.predict(feeds, verbose=0), run):
        np.testing.assert_array_equal(found["z"], feeds["b"] * 2)
        np.testing.assert_array_equal(found["y"], feeds["a"] * 3)


def test_inside_a_function(quantized: QuantizedModel) -> None:
    function = tf.function(quantized)
    np.testing.assert_array_equal(function(tf.constant(IMAGES)), quantized(IMAGES))


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_losses_by_output(order: tuple[str, str]) -> None:
    inputs = keras.Input((4,), name="x")
    outputs = {name: LAYERS.Dense(1, name=name)(inputs) for name in order}
    model = keras.Model(inputs, outputs)
    model.compile(loss={"a": "mse", "b": "mae"}, metrics={"a": ["mae"]}, loss_weights=[1, 2])
    x, y = np.ones((4, 4), np.float32), {"a": np.zeros((4, 1)), "b": np.ones((4, 1))}
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    found = lowprec.compile(model).evaluate(x, y, verbose=0, return_dict=True)
    assert set(found) == set(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-4)


def test_subclassed_model_with_tuples() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = LAYERS.Dense(3)

        def call(self, inputs: Any) -> Any:
            x, (y, z) = inputs
            return self.dense(x), {"sum": y + z}

    x = np.ones((2, 4), np.float32)
    model = Own()
    made = lowprec.compile(model, example_inputs=(x, (x, 2 * x)))
    dense, rest = made((x, (x, 2 * x)))
    np.testing.assert_allclose(dense, model((x, (x, 2 * x)))[0], rtol=1e-5)
    np.testing.assert_array_equal(rest["sum"], 3 * x)


@pytest.mark.parametrize("precision", ["bf16", "int8-dynamic"])
def test_other_precisions(original: keras.Model, precision: str) -> None:
    made = lowprec.quantize(original, precision=precision)
    assert np.abs(made(IMAGES) - original(IMAGES)).max() < 0.02
    assert made.report.precision == precision


def test_a_compiled_model_is_not_a_quantized_one(original: keras.Model, tmp_path: Path) -> None:
    made = lowprec.compile(original)
    assert type(made) is CompiledModel
    np.testing.assert_allclose(made(IMAGES), original(IMAGES), rtol=1e-4, atol=1e-6)
    made.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert type(again) is CompiledModel
    np.testing.assert_array_equal(again(IMAGES), made(IMAGES))


def test_as_a_part_of_another_model(quantized: QuantizedModel, tmp_path: Path) -> None:
    inputs = keras.Input((9, 8, 3))
    model = keras.Model(inputs, LAYERS.Dense(2)(quantized(inputs)))
    assert model.output_shape == (None, 2)
    model.compile(loss="mse")
    before = quantized(IMAGES)
    model.fit(IMAGES, np.zeros((16, 2)), verbose=0)  # trains what follows
    assert len(model.trainable_variables) == 2
    np.testing.assert_array_equal(quantized(IMAGES), before)
    model.save(tmp_path / "whole.keras")
    again = keras.models.load_model(tmp_path / "whole.keras")
    np.testing.assert_array_equal(again(IMAGES), model(IMAGES))
    assert keras.Sequential([quantized, LAYERS.Dense(2)])(IMAGES).shape == (16, 2)


def test_training_is_refused(quantized: QuantizedModel) -> None:
    with pytest.raises(lowprec.LowprecError, match="train the original"):
        quantized.fit(IMAGES, LABELS)
    with pytest.raises(lowprec.LowprecError, match="train the original"):
        quantized.train_on_batch(IMAGES, LABELS)
    with pytest.raises(lowprec.LowprecError, match="quantise the original"):
        quantized.quantize("int8")
    variable = tf.Variable(IMAGES)
    with tf.GradientTape() as tape:
        y = quantized(variable)
    with pytest.raises(lowprec.LowprecError, match="no gradient"):
        tape.gradient(y, variable)


def test_a_layer_before_it_cannot_be_trained(quantized: QuantizedModel) -> None:
    model = keras.Sequential([keras.Input((9, 8, 3)), LAYERS.Conv2D(3, 1), quantized])
    model.compile(loss="mse")
    with pytest.raises(lowprec.LowprecError, match="no gradient"):
        model.fit(IMAGES, np.zeros((16, 5)), verbose=0)


def test_saved_by_keras(quantized: QuantizedModel, tmp_path: Path) -> None:
    quantized.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert type(again) is QuantizedModel
    np.testing.assert_array_equal(again(IMAGES), quantized(IMAGES))
    assert again.report.to_json() == quantized.report.to_json()
    assert again.evaluate(IMAGES, LABELS, verbose=0) == quantized.evaluate(
        IMAGES, LABELS, verbose=0
    )


def test_a_save_that_fails_leaves_the_old_file(
    quantized: QuantizedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "q.keras"
    quantized.save(path)
    old = path.read_bytes()
    with pytest.raises(OutputError, match="overwrite=True"):
        quantized.save(path, overwrite=False)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keras.src.saving.saving_lib, "_save_state", full)
    with pytest.raises(OutputError, match="No space left"):
        quantized.save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_saved_as_onnx(quantized: QuantizedModel, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    quantized.save(path)
    plain = lowprec.load(path)
    assert type(plain) is lowprec.QuantizedModel
    np.testing.assert_array_equal(plain(IMAGES), quantized(IMAGES))
    again = load(path)
    assert type(again) is QuantizedModel
    np.testing.assert_array_equal(again(IMAGES), quantized(IMAGES))
    with pytest.raises(lowprec.LowprecError, match="is there"):
        quantized.save(path, overwrite=False)
    plain.save(tmp_path / "plain.onnx")
    assert type(load(tmp_path / "plain.onnx")) is QuantizedModel


def test_an_onnx_file_of_others_is_no_keras_model(tmp_path: Path) -> None:
    from lowprec.graph import load as load_hub
    from lowprec.graph import save

    made = lowprec.compile(images()).to_onnx()
    del made.metadata_props[:]
    save(load_hub(made), tmp_path / "other.onnx")
    with pytest.raises(lowprec.LowprecError, match="no model that lowprec saved for TensorFlow"):
        load(tmp_path / "other.onnx")


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_weights_alone(quantized: QuantizedModel, tmp_path: Path) -> None:
    path = tmp_path / "m.weights.h5"
    quantized.save_weights(path)
    clone = keras.models.clone_model(quantized)
    with pytest.raises(lowprec.LowprecError, match="no weights yet"):
        clone(IMAGES)
    clone.load_weights(path)
    np.testing.assert_array_equal(clone(IMAGES), quantized(IMAGES))
    other = lowprec.compile(images())
    with pytest.raises(ValueError, match="not the weights of this model"):
        other.load_weights(path)


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_weights_of_the_same_size_but_other_content_are_refused(
    quantized: QuantizedModel, tmp_path: Path
) -> None:
    path = tmp_path / "m.weights.h5"
    quantized.save_weights(path)
    other = keras.models.clone_model(quantized)
    (content,) = quantized.get_weights()
    content[len(content) // 2] ^= 1
    other.set_weights([content])
    other.save_weights(path)
    with pytest.raises(ValueError, match="another model, or damaged"):
        keras.models.clone_model(quantized).load_weights(path)
    with pytest.raises(lowprec.LowprecError, match="not those that the graph was made with"):
        other(IMAGES)


def test_copies(quantized: QuantizedModel) -> None:
    for made in (copy.deepcopy(quantized), pickle.loads(pickle.dumps(quantized))):
        assert type(made) is QuantizedModel
        np.testing.assert_array_equal(made(IMAGES), quantized(IMAGES))
    made = keras.models.clone_model(quantized)
    made.set_weights(quantized.get_weights())
    np.testing.assert_array_equal(made(IMAGES), quantized(IMAGES))


def test_mixed_precision_policies_change_nothing(quantized: QuantizedModel, tmp_path: Path) -> None:
    quantized.save(tmp_path / "m.keras")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        again = keras.models.load_model(tmp_path / "m.keras")
        found = again(IMAGES)
    finally:
        keras.config.set_dtype_policy(policy)
    assert found.dtype == tf.float32
    np.testing.assert_array_equal(found, quantized(IMAGES))


def test_xla_is_not_for_it(quantized: QuantizedModel) -> None:
    clone = copy.deepcopy(quantized)
    with pytest.warns(UserWarning, match="jit_compile"):
        clone.compile(loss="mse", jit_compile=True)
    assert clone.jit_compile is False


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1},
        {"size": 1 << 40},
        {"size": "many"},
        {"signature": "none"},
        {"binding": {}},
        {"binding": {"form": "keras"}},
    ],
)
def test_damaged_configurations_are_refused(
    quantized: QuantizedModel, change: dict[str, Any]
) -> None:
    with pytest.raises(lowprec.LowprecError, match=r"damaged|signature"):
        QuantizedModel.from_config({**quantized.get_config(), **change})


FRESH = """
import sys
import numpy as np
import tensorflow as tf
import lowprec.adapters.tensorflow
import keras

folder = sys.argv[1]
x = np.load(f"{folder}/x.npy")
model = keras.models.load_model(f"{folder}/m.keras")
exported = tf.saved_model.load(f"{folder}/exported")
saved = tf.saved_model.load(f"{folder}/saved").signatures["serving_default"]
(by_name,) = saved(tf.constant(x)).values()
np.savez(
    f"{folder}/y.npz",
    keras=model.predict(x, verbose=0),
    exported=exported.serve(x),
    saved=by_name,
    one_row=exported.serve(x[:1]),
)
"""


def test_everything_saved_runs_in_a_fresh_process(
    quantized: QuantizedModel, tmp_path: Path
) -> None:
    quantized.save(tmp_path / "m.keras")
    quantized.export(tmp_path / "exported", verbose=False)
    tf.saved_model.save(quantized, str(tmp_path / "saved"))
    np.save(tmp_path / "x.npy", IMAGES)
    expected = quantized(IMAGES).numpy()
    subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path)], cwd=tmp_path, check=True, capture_output=True
    )
    with np.load(tmp_path / "y.npz") as found:
        for name in ("keras", "exported", "saved"):
            np.testing.assert_array_equal(found[name], expected)
        np.testing.assert_allclose(found["one_row"], expected[:1], rtol=1e-5, atol=1e-7)
