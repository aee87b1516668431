"""Write .h5 files as Keras 2 wrote them, from seeded weights; Keras 2 itself is not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Weights = dict[str, list[tuple[str, NDArray[np.float32]]]]

_GLOROT = {"class_name": "GlorotUniform", "config": {"seed": None}}
_ZEROS: dict[str, Any] = {"class_name": "Zeros", "config": {}}
_ONES: dict[str, Any] = {"class_name": "Ones", "config": {}}
_NO_REGULARIZERS = dict.fromkeys(
    (
        *("kernel_regularizer", "bias_regularizer", "activity_regularizer"),
        *("kernel_constraint", "bias_constraint"),
    )
)


def old_layer(kind: str, name: str, **settings: Any) -> dict[str, Any]:
    """Return a layer's description, with the settings that Keras 2.15 wrote for every layer."""
    config = {"name": name, "trainable": True, "dtype": "float32", **settings}
    return {"class_name": kind, "config": config, "name": name}


def old_convolution(kind: str, name: str, **settings: Any) -> dict[str, Any]:
    """Return a convolution's description; each kind wrote its base class's settings too."""
    common = {
        "strides": [1, 1],
        "padding": "same",
        "data_format": "channels_last",
        "dilation_rate": [1, 1],
        "groups": 1,
        "activation": "linear",
        "use_bias": True,
        "kernel_initializer": _GLOROT,
        "bias_initializer": _ZEROS,
        **_NO_REGULARIZERS,
    }
    if kind in ("SeparableConv2D", "DepthwiseConv2D"):
        common |= {"depth_multiplier": 1, "depthwise_initializer": _GLOROT}
        common |= {"depthwise_regularizer": None, "depthwise_constraint": None}
    if kind == "SeparableConv2D":
        common |= {"pointwise_initializer": _GLOROT, "pointwise_regularizer": None}
        common |= {"pointwise_constraint": None}
    if kind == "Conv2DTranspose":
        common |= {"output_padding": None}
    return old_layer(kind, name, **{**common, **settings})


def old_dense(name: str, units: int, activation: str) -> dict[str, Any]:
    """Return the description of a Dense layer."""
    return old_layer(
        "Dense",
        name,
        units=units,
        activation=activation,
        use_bias=True,
        kernel_initializer=_GLOROT,
        bias_initializer=_ZEROS,
        **_NO_REGULARIZERS,
    )


def old_batch_normalization(name: str) -> dict[str, Any]:
    """Return the description of a batch normalisation over the last of four axes."""
    return old_layer(
        "BatchNormalization",
        name,
        axis=[3],
        momentum=0.99,
        epsilon=0.001,
        center=True,
        scale=True,
        beta_initializer=_ZEROS,
        gamma_initializer=_ONES,
        moving_mean_initializer=_ZEROS,
        moving_variance_initializer=_ONES,
        **dict.fromkeys(("beta_regularizer", "gamma_regularizer")),
        **dict.fromkeys(("beta_constraint", "gamma_constraint")),
    )


def old_functional(layers: Sequence[Mapping[str, Any]], shape: Sequence[int]) -> dict[str, Any]:
    """Return the description of a Functional model: an input and layers in a row."""
    entry = old_layer("InputLayer", "input_1", batch_input_shape=[None, *shape])
    entry["config"] |= {"sparse": False, "ragged": False}
    del entry["config"]["trainable"]
    chain: list[dict[str, Any]] = [{**entry, "inbound_nodes": []}]
    for layer in layers:
        chain.append({**layer, "inbound_nodes": [[[chain[-1]["name"], 0, 0, {}]]]})
    ends = {
        "input_layers": [["input_1", 0, 0]],
        "output_layers": [[chain[-1]["name"], 0, 0]],
    }
    config = {"name": "model_1", "trainable": True, "layers": chain, **ends}
    return {"class_name": "Functional", "config": config}


def write_old_h5(path: Path, config: Mapping[str, Any], weights: Weights) -> None:
    """Write a whole model, as `model.save("m.h5")` of Keras 2.15 did.

    Args:
        path: The file.
        config: From `old_functional`.
        weights: By layer, (name, array) in the layer's order.
    """
    layers = [layer["config"]["name"] for layer in config["config"]["layers"]]
    with h5py.File(path, "w") as file:
        for holder in (file, file.create_group("model_weights")):
            holder.attrs["keras_version"] = b"2.15.0"
            holder.attrs["backend"] = b"tensorflow"
        file.attrs["model_config"] = json.dumps(config).encode()
        group = file["model_weights"]
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for layer in layers:
            inner = group.create_group(layer)
            named = [(f"{layer}/{name}:0", array) for name, array in weights.get(layer, [])]
            inner.attrs["weight_names"] = [name.encode() for name, _ in named]
            for name, array in named:
                inner[name] = array


def seeded(*shape: int, seed: int, positive: bool = False) -> NDArray[np.float32]:
    """Return normal numbers that keep the size of what they are multiplied with."""
    numbers = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    if positive:
        return np.abs(numbers) + 0.5
    return numbers / np.sqrt(np.float32(max(1, int(np.prod(shape[:-1])))))
