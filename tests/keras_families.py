"""keras.applications with seeded weights that keep pictures apart, for tests and benchmarks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float32]


def constructors() -> dict[str, Callable[..., keras.Model]]:
    """Return every network of keras.applications by its name, as Keras lists them today."""
    return {
        name: function
        for name, function in vars(keras.applications).items()
        if inspect.isfunction(function) and "weights" in inspect.signature(function).parameters
    }


def pictures(model: keras.Model, count: int, seed: int) -> Pictures:
    """Return smooth random pictures, 0 to 255 where the model rescales itself, else -1 to 1."""
    _, height, width, channels = (size or 224 for size in model.input_shape)
    random = np.random.default_rng(seed)
    coarse = random.uniform(-1, 1, (count, 1 + height // 16, 1 + width // 16, channels))
    drawn = coarse.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    drawn = np.clip(0.8 * drawn + random.normal(0, 0.1, drawn.shape), -1, 1)
    if any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers):
        drawn = 127.5 * (drawn + 1)
    return drawn.astype(np.float32)


def network(name: str, size: int | None = None, seed: int = 0) -> keras.Model:
    """Return a network of keras.applications whose outputs neither vanish nor explode.

    Kernels are drawn as He et al. (2015, arXiv:1502.01852) do; batch norms hold the statistics of
    seeded pictures, with shifts above 0, so that small errors stay small from layer to layer; the
    classifier's logits are spread by about 3.

    Args:
        name: One of `constructors()`.
        size: Height and width of the pictures; None takes the network's own.
        seed: Of the weights and of the pictures behind the statistics.
    """
    shape = {} if size is None else {"input_shape": (size, size, 3)}
    model = constructors()[name](weights=None, **shape)
    random = np.random.default_rng(seed)
    layers = list(model._flatten_layers(include_self=False))
    for layer in layers:
        for weight in layer.weights:
            _draw(layer, weight, random)
    seen = pictures(model, 4, seed + 1)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # the next batch's statistics replace what is stored
    if norms:
        model(seen, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    _spread(model, seen)
    return model


def _draw(layer: keras.Layer, weight: Any, random: np.random.Generator) -> None:
    name = weight.path.split("/")[-1]
    shape = tuple(weight.shape)
    if "kernel" in name:
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D) or "depthwise" in name
        fan_in = int(np.prod(shape[:2] if depthwise else shape[:-1]))
        weight.assign(random.normal(0, np.sqrt(2 / fan_in), shape))
    elif name == "gamma":  # of norms, and ConvNeXt's layer scale
        weight.assign(random.uniform(0.7, 1.3, shape))
    elif name == "beta":
        weight.assign(random.normal(0.8, 0.3, shape))
    elif name == "bias":
        weight.assign(random.normal(0, 0.1, shape))


def _spread(model: keras.Model, seen: Pictures) -> None:
    """Scale the classifier so that its logits have a standard deviation of about 3."""
    head = model.layers[-1]
    if not isinstance(head, keras.layers.Dense):
        return
    kept, head.activation = head.activation, keras.activations.linear
    try:
        logits = np.asarray(model(seen, training=False))
    finally:
        head.activation = kept
    deviation = float((logits - logits.mean(0)).std())
    head.kernel.assign(np.asarray(head.kernel) * (3 / max(deviation, 1e-6)))
