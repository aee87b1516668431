"""Keras models by path: .keras, and .h5 as Keras 2 and 3 wrote them; nothing in them is run."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras2_files import (
    Weights,
    old_batch_normalization,
    old_convolution,
    old_dense,
    old_functional,
    old_layer,
    seeded,
    write_old_h5,
)

import lowprec
from lowprec import api
from lowprec.adapters.tensorflow.keras_files import load_hdf5
from lowprec.errors import ModelError, UnsupportedError

LAYERS = keras.layers

# Keras copies variables in a way that NumPy advises against.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SEPARABLE: Weights = {
    "sep": [
        ("depthwise_kernel", seeded(3, 3, 3, 1, seed=1)),
        ("pointwise_kernel", seeded(1, 1, 3, 8, seed=2)),
        ("bias", seeded(8, seed=3)),
    ],
    "bn": [
        ("gamma", seeded(8, seed=4, positive=True)),
        ("beta", seeded(8, seed=5)),
        ("moving_mean", seeded(8, seed=6)),
        ("moving_variance", seeded(8, seed=7, positive=True)),
    ],
    "dw": [("depthwise_kernel", seeded(3, 3, 8, 1, seed=8)), ("bias", seeded(8, seed=9))],
    "up": [("kernel", seeded(2, 2, 6, 8, seed=10)), ("bias", seeded(6, seed=11))],
    "out": [("kernel", seeded(6, 5, seed=12)), ("bias", seeded(5, seed=13))],
}


def old_separable() -> dict[str, Any]:
    """Return a small network of separable convolutions, as Keras 2 described it."""
    return old_functional(
        [
            old_convolution(
                "SeparableConv2D", "sep", filters=8, kernel_size=[3, 3], strides=[2, 2]
            ),
            old_batch_normalization("bn"),
            old_layer("ReLU", "relu", max_value=6.0, negative_slope=0.0, threshold=0.0),
            old_convolution("DepthwiseConv2D", "dw", kernel_size=[3, 3]),
            old_layer("LeakyReLU", "leaky", alpha=0.1),
            old_convolution("Conv2DTranspose", "up", filters=6, kernel_size=[2, 2], strides=[2, 2]),
            old_layer(
                "GlobalAveragePooling2D", "pool", data_format="channels_last", keepdims=False
            ),
            old_dense("out", 5, "softmax"),
        ],
        (9, 8, 3),
    )


def new_separable() -> keras.Model:
    """Return the same network in Keras 3, with the same weights."""
    inputs = keras.Input((9, 8, 3))
    x = LAYERS.SeparableConv2D(8, 3, strides=2, padding="same", name="sep")(inputs)
    x = LAYERS.BatchNormalization(name="bn")(x)
    x = LAYERS.ReLU(6.0)(x)
    x = LAYERS.DepthwiseConv2D(3, padding="same", name="dw")(x)
    x = LAYERS.LeakyReLU(negative_slope=0.1)(x)
    x = LAYERS.Conv2DTranspose(6, 2, strides=2, padding="same", name="up")(x)
    x = LAYERS.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, LAYERS.Dense(5, activation="softmax", name="out")(x))
    for layer, weights in SEPARABLE.items():
        model.get_layer(layer).set_weights([array for _, array in weights])
    return model


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    path = tmp_path / "old.h5"
    write_old_h5(path, old_separable(), SEPARABLE)
    return path


def test_a_keras_2_file_with_separable_convolutions(old_file: Path) -> None:
    x = np.random.default_rng(0).standard_normal((3, 9, 8, 3)).astype(np.float32)
    captured = api.capture(str(old_file))
    assert captured.samples  # compared with Keras by compile_verified
    (result,) = api.compile_verified(captured).run({"input_1": x})
    np.testing.assert_allclose(result, new_separable()(x).numpy(), rtol=1e-4, atol=1e-6)


def test_hard_sigmoid_keeps_the_meaning_it_had(tmp_path: Path) -> None:
    kernel, bias = seeded(4, 3, seed=1), seeded(3, seed=2)
    config = old_functional([old_dense("out", 3, "hard_sigmoid")], (4,))
    path = tmp_path / "old.h5"
    write_old_h5(path, config, {"out": [("kernel", kernel), ("bias", bias)]})
    x = 3 * np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    expected = np.clip(0.2 * (x @ kernel + bias) + 0.5, 0, 1)
    np.testing.assert_allclose(load_hdf5(path)([x]).numpy(), expected, atol=1e-6)


def test_what_keras_3_cannot_do_is_named(tmp_path: Path) -> None:
    layer = old_convolution("DepthwiseConv2D", "dw", kernel_size=[3, 3], groups=2)
    path = tmp_path / "old.h5"
    write_old_h5(path, old_functional([layer], (8, 8, 4)), {})
    with pytest.raises(UnsupportedError, match=r"'dw'.*groups=2"):
        api.capture(str(path))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_of_keras_3(tmp_path: Path, suffix: str) -> None:
    model = new_separable()
    path = tmp_path / f"m{suffix}"
    model.save(path)
    x = np.random.default_rng(0).standard_normal((2, 9, 8, 3)).astype(np.float32)
    captured = api.capture(path)
    name = captured.graph.graph.inputs[0].name
    (result,) = api.compile_verified(captured).run({str(name): x})
    np.testing.assert_allclose(result, model(x).numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_lambda_layers_are_not_run(tmp_path: Path, suffix: str) -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, LAYERS.Lambda(lambda x: x * 2, name="twice")(inputs))
    path = tmp_path / f"m{suffix}"
    model.save(path)
    with pytest.raises(UnsupportedError, match=r"'twice'.*safe_mode=False"):
        api.capture(path)


def test_functions_between_the_layers_of_keras_2_are_named(tmp_path: Path) -> None:
    layer = old_layer("TFOpLambda", "tf.nn.relu", function="nn.relu")
    path = tmp_path / "old.h5"
    write_old_h5(path, old_functional([layer], (4,)), {})
    with pytest.raises(UnsupportedError, match=r"TFOpLambda.*SavedModel"):
        api.capture(path)


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "only.h5"
    with h5py.File(path, "w") as file:
        file["kernel"] = np.zeros(3)
    with pytest.raises(ModelError, match="load_weights"):
        api.capture(path)


def test_an_h5_file_does_not_reach_outside(tmp_path: Path, old_file: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["kernel:0"] = np.zeros((6, 5), np.float32)
    with h5py.File(old_file, "a") as file:
        group = file["model_weights/out/out"]
        del group["kernel:0"]
        group["kernel:0"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "kernel:0")
    with pytest.raises(ModelError, match="refers to another place"):
        api.capture(old_file)


def test_an_array_that_the_file_cannot_hold(old_file: Path) -> None:
    with h5py.File(old_file, "a") as file:
        group = file["model_weights/out/out"]
        del group["kernel:0"]
        group.create_dataset("kernel:0", (1 << 20, 1 << 20), np.float32, chunks=(1024, 1024))
    with pytest.raises(ModelError, match="fill memory"):
        api.capture(old_file)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("kept", [0, 10, 2000])
def test_cut_off_files(tmp_path: Path, suffix: str, kept: int) -> None:
    path = tmp_path / f"m{suffix}"
    new_separable().save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match="not a complete"):
        api.capture(path)


def test_a_damaged_description(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "[" * 100_000)
    with pytest.raises(ModelError, match="description"):
        api.capture(path)


def test_a_class_that_nobody_knows(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        config = {"class_name": "Popen", "module": "subprocess", "config": {"args": "true"}}
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", "{}")
    with pytest.raises(ModelError, match="does not load"):
        lowprec.compile(path)
