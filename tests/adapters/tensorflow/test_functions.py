"""tf.function, concrete functions and tf.Module: what comes back is called like them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_models import (
    Pair,
    frozen_images,
    image_feeds,
    pair_feeds,
    read_graph_def,
    run_graph,
)

import lowprec
from lowprec import api
from lowprec.errors import InputError, ModelError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WEIGHTS = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)


@tf.function
def nested(a: tf.Tensor, b: dict[str, tf.Tensor], scale: float = 2.0, *, flag: bool = True) -> Any:
    product = a @ tf.constant(WEIGHTS)
    return {"z": product * scale if flag else product, "a": (tf.nn.relu(b["w"]), product + 1)}


def test_a_function_with_nested_arguments() -> None:
    example = {"a": X, "b": {"w": X[:, :3]}}
    compiled = lowprec.compile(nested, example_inputs=example)
    for batch in (5, 2):  # the batch is open
        a, b = tf.constant(X[:batch]), {"w": tf.constant(X[:batch, :3])}
        results, expected = compiled(a, b), nested(a, b)
        tf.nest.assert_same_structure(results, expected)
        for result, tensor in zip(tf.nest.flatten(results), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(result, tensor, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(compiled(a, b=b, scale=2.0, flag=True)["z"], results["z"])


def test_keys_may_be_in_any_order() -> None:
    @tf.function
    def unlike(*, b: Any, a: Any, c: Any) -> Any:  # pairs of equal shape: nothing else tells
        return {"z": b - 2 * a, "y": [{"q": c[0]["z"] * 3, "p": c[0]["y"] * 5}]}

    b, a, z, y = (X + number for number in range(4))
    compiled = lowprec.compile(unlike, example_inputs={"b": b, "a": a, "c": [{"z": z, "y": y}]})
    for results in (
        compiled(b=b, a=a, c=[{"z": z, "y": y}]),
        compiled(c=[{"y": y, "z": z}], a=a, b=b),
    ):
        np.testing.assert_allclose(results["z"], b - 2 * a, rtol=1e-5)
        np.testing.assert_allclose(results["y"][0]["q"], z * 3, rtol=1e-5)
        np.testing.assert_allclose(results["y"][0]["p"], y * 5, rtol=1e-5)
    named = dict(zip(["b", "a", "c_0_z", "c_0_y"], (b, a, z, y), strict=True))
    outputs = [output.name for output in compiled.get_outputs()]
    found = dict(zip(outputs, compiled.run(named), strict=True))
    np.testing.assert_allclose(found["z"], b - 2 * a, rtol=1e-5)
    np.testing.assert_allclose(found["y_0_q"], z * 3, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 3.0}, r"'scale' is 3.0, the model was captured with 2.0"),
        ({"b": {"v": X}}, "argument 'b' does not have the structure"),
        ({"c": X}, "no argument 'c'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    example = {"a": X, "b": {"w": X}}
    compiled = lowprec.compile(nested, example_inputs=example)
    with pytest.raises(InputError, match=message):
        compiled(**{**example, **arguments})


def test_calibration_data_shows_what_a_function_takes(tmp_path: Path) -> None:
    @tf.function
    def dense(x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(x @ tf.constant(WEIGHTS))

    quantized = lowprec.quantize(dense, iter([X, X + 1]))
    np.testing.assert_allclose(quantized(tf.constant(X)), dense(X), atol=0.1)
    assert quantized.report.layers
    quantized.save(tmp_path / "q")
    signature = tf.saved_model.load(str(tmp_path / "q")).signatures["serving_default"]
    (result,) = signature(x=tf.constant(X)).values()
    np.testing.assert_array_equal(result, quantized(tf.constant(X)))
    quantized.save(tmp_path / "q.pb")
    result = run_graph(read_graph_def(tmp_path / "q.pb"), "output:0", {"x:0": X})
    np.testing.assert_array_equal(result, quantized(tf.constant(X)))


def test_a_function_that_nothing_is_known_of() -> None:
    @tf.function
    def relu(x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(x)

    with pytest.raises(ModelError, match=r"input_signature.*example_inputs="):
        lowprec.compile(relu)
    relu(tf.constant(X))  # traced once: that is what is meant
    np.testing.assert_array_equal(lowprec.compile(relu)(tf.constant(X)), np.maximum(X, 0))


def test_inputs_that_tensorflow_cannot_run() -> None:
    signature = [tf.TensorSpec([None, 3], tf.int32)] * 2
    divided = tf.function(lambda x, y: x // y, input_signature=signature)
    x, y = np.array([[-7, 7, 8]], np.int32), np.array([[2, -2, 4]], np.int32)
    compiled = lowprec.compile(divided)  # made-up divisors are 0
    np.testing.assert_array_equal(compiled(tf.constant(x), tf.constant(y)), [[-4, -4, 2]])
    with pytest.raises(ModelError, match=r"TensorFlow cannot run .* division by zero"):
        lowprec.quantize(divided, [{"x": x, "y": y * 0}])


def test_an_input_signature_and_a_concrete_function() -> None:
    signed = tf.function(lambda x: tf.nn.relu(x), input_signature=[tf.TensorSpec([None, 6])])
    expected = np.maximum(X, 0)
    np.testing.assert_array_equal(lowprec.compile(signed)(tf.constant(X)), expected)
    concrete = signed.get_concrete_function()
    np.testing.assert_array_equal(lowprec.compile(concrete)(tf.constant(X)), expected)


def test_an_argument_that_is_no_batch_keeps_its_size() -> None:
    @tf.function
    def product(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.matmul(x, y)

    square = WEIGHTS[:4]  # as long as X[:4]: but not the batch
    compiled = lowprec.compile(product, example_inputs=(X[:4, :4], square))
    np.testing.assert_allclose(
        compiled(tf.constant(X[:4, :4]), tf.constant(square)), X[:4, :4] @ square, rtol=1e-5
    )


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="returns something besides tensors"):
        lowprec.compile(tf.function(lambda x: (x, None)), example_inputs=X)


def test_a_module_is_called_like_its_call() -> None:
    pair = Pair()
    feed = pair_feeds(1)[0]
    x, y = tf.constant(feed["x"]), tf.constant(feed["y"])
    quantized = lowprec.quantize(pair, pair_feeds())
    results, expected = quantized(x, y), pair(x, y)
    assert set(results) == {"scores", "hidden"}
    np.testing.assert_allclose(results["scores"], expected["scores"], atol=0.05)


def test_a_module_of_several_functions_is_ambiguous() -> None:
    class Several(tf.Module):
        one = tf.function(lambda self, x: x)
        two = tf.function(lambda self, x: x)

    with pytest.raises(ModelError, match="several functions"):
        api.capture(Several())


def test_a_keras_model_is_saved_as_the_other_kinds_too(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,), name="x"), keras.layers.Dense(4, name="y")])
    quantized = lowprec.quantize(model, [X])
    expected = quantized(X)
    quantized.save(tmp_path / "q.pb")
    saved = read_graph_def(tmp_path / "q.pb")
    (result,) = [node.name for node in saved.node if node.op == "Identity"][-1:]
    np.testing.assert_array_equal(run_graph(saved, f"{result}:0", {"x:0": X}), expected)
    quantized.save(tmp_path / "folder")
    signature = tf.saved_model.load(str(tmp_path / "folder")).signatures["serving_default"]
    np.testing.assert_array_equal(*signature(x=tf.constant(X)).values(), expected)
    again = lowprec.adapters.tensorflow.load(tmp_path / "folder")
    assert isinstance(again, keras.Model)
    np.testing.assert_array_equal(again(X), expected)


def test_a_graph_in_memory() -> None:
    x = image_feeds(1)[0]
    definition = frozen_images()
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(definition, name="")
    np.testing.assert_array_equal(lowprec.compile(graph)(x), lowprec.compile(definition)(x))
