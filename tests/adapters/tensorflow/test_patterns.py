"""What Keras writes out is one operator in the simplified graph, with TensorFlow's numbers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import lowprec
from lowprec.adapters.tensorflow.hub import hub_of
from lowprec.adapters.tensorflow.keras_source import source_of_keras
from lowprec.passes import simplify

LAYERS = keras.layers


def simplified(model: keras.Model, *shapes: tuple[int, ...]) -> Counter[str]:
    """Check a model of one input against TensorFlow; return the operators of its graph."""
    random = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(weight + random.normal(0, 0.2, weight.shape))
    source, _ = source_of_keras(model)
    hub = hub_of(source, "tested")
    simplify(hub)
    session = lowprec.compile(hub)
    (name,) = source.inputs
    for shape in shapes:
        x = random.standard_normal(shape).astype(np.float32)
        x[..., -1:, :] = 0  # masked, where there is a mask
        (wanted,) = source.run([x])
        (found,) = session.run({name: x})
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)
    return Counter(node.op_type for node in hub.graph)


def encoder(length: int | None, *, masked: bool = False, causal: bool = False) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((length, 16))
    x = LAYERS.Masking()(inputs) if masked else inputs
    made = LAYERS.MultiHeadAttention(2, 8)(x, x, use_causal_mask=causal)
    x = LAYERS.LayerNormalization()(x + made)
    made = LAYERS.Dense(16)(LAYERS.Dense(24, activation="gelu")(x))
    return keras.Model(inputs, LAYERS.LayerNormalization()(x + made))


@pytest.mark.parametrize("length", [6, None])
def test_an_encoder_has_no_arithmetic_of_sizes(length: int | None) -> None:
    found = simplified(encoder(length), (1, 6, 16), (3, 6, 16))
    assert found == {
        "MatMul": 6,
        "Add": 8,
        "Reshape": 4,
        "Transpose": 4,
        "Attention": 1,
        "LayerNormalization": 2,
        "Gelu": 1,
    }


@pytest.mark.parametrize("causal", [False, True])
def test_masks_are_part_of_attention(causal: bool) -> None:
    found = simplified(encoder(None, masked=not causal, causal=causal), (2, 1, 16), (3, 5, 16))
    assert (found["Attention"], found["Softmax"], found["LayerNormalization"]) == (1, 0, 2)


def test_attention_in_int8_has_products_of_codes() -> None:
    model = encoder(6)
    random = np.random.default_rng(0)
    data = [random.standard_normal((2, 6, 16)).astype(np.float32) for _ in range(4)]
    source, _ = source_of_keras(model)
    quantized = lowprec.quantize(hub_of(source, "tested"), [{"input_0": x} for x in data])
    quantized.run({"input_0": data[0]})
    assert "attention int8" in str(quantized.explain())


@pytest.mark.parametrize(
    ("name", "operator"),
    [("gelu", "Gelu"), ("tanh", "Gelu"), ("hard_swish", "HardSwish"), ("relu6", "Clip")],
)
def test_activations(name: str, operator: str) -> None:
    function: Any = name
    if name == "tanh":
        function = lambda x: keras.activations.gelu(x, approximate=True)  # noqa: E731
    inputs = keras.Input((5,))
    model = keras.Model(inputs, LAYERS.Dense(4, activation=function)(inputs))
    found = simplified(model, (2, 5), (1, 5))
    assert found[operator] == 1
    assert set(found) <= {"MatMul", "Gemm", "Add", operator}


def test_dense_layers_over_many_axes_are_one_product() -> None:
    for sizes in ((None, 5), (4, 5), (None, None, 5), (2, 3, 5)):
        inputs = keras.Input(sizes)
        model = keras.Model(inputs, LAYERS.Dense(3)(inputs))
        shape = tuple(size or 3 for size in sizes)
        assert simplified(model, (1, *shape), (2, *shape)) == {"MatMul": 1, "Add": 1}


def test_einsum_dense_is_one_product() -> None:
    inputs = keras.Input((None, 6))
    made = LAYERS.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de")(inputs)
    assert simplified(keras.Model(inputs, made), (2, 3, 6)) == {
        "MatMul": 1,
        "Add": 1,
        "Reshape": 1,
    }


def test_a_flattened_product_that_is_not_restored_stays() -> None:
    """The same nodes as a dense layer's, with the rows in another arrangement."""
    weights = tf.constant(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32))

    class Rearranged(LAYERS.Layer):  # type: ignore[name-defined, misc]
        def call(self, x: Any) -> Any:
            flat = tf.reshape(x, [-1, 4]) @ weights
            return tf.reshape(flat, [-1, 6, 2, 3])

    inputs = keras.Input((2, 6, 4))
    model = keras.Model(inputs, Rearranged()(inputs))
    assert simplified(model, (1, 2, 6, 4), (3, 2, 6, 4))["Reshape"] == 2
