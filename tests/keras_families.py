"""keras.applications with seeded weights that keep pictures apart, for tests and benchmarks."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.float32]

# One network of each family; `family_of` tells which of them stands for another one.
FAMILIES = (
    "ConvNeXtTiny",
    "DenseNet121",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Large",
    "MobileNetV3Small",
    "NASNetMobile",
    "ResNet50",
    "ResNet50V2",
    "VGG16",
    "Xception",
)


def constructors() -> dict[str, Callable[..., keras.Model]]:
    """Return every network of keras.applications by its name, as Keras lists them today."""
    return {
        name: function
        for name, function in vars(keras.applications).items()
        if inspect.isfunction(function) and "weights" in inspect.signature(function).parameters
    }


def family_of(name: str) -> str | None:
    """Return the network of FAMILIES that is built like `name`, by what Keras builds both with."""
    made = constructors()
    if name in FAMILIES:
        return name
    if name == "VGG19":  # each VGG has a module of its own
        return "VGG16"
    alike = [known for known in FAMILIES if made[known].__module__ == made[name].__module__]
    return alike[0] if len(alike) == 1 else None


def pictures(model: keras.Model, count: int, seed: int) -> Pictures:
    """Return random pictures, each of its own colour and contrast.

    Numbers are 0 to 255 where the model rescales them itself, else -1 to 1.
    """
    _, height, width, channels = (size or 224 for size in model.input_shape)
    random = np.random.default_rng(seed)
    coarse = random.uniform(-1, 1, (count, 1 + height // 16, 1 + width // 16, channels))
    drawn = coarse.repeat(16, 1).repeat(16, 2)[:, :height, :width]
    contrast = random.uniform(0.2, 0.8, (count, 1, 1, 1))
    colour = random.uniform(-0.6, 0.6, (count, 1, 1, channels))
    drawn = contrast * drawn + colour + random.normal(0, 0.05, drawn.shape)
    drawn = np.clip(drawn, -1, 1)
    if any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers):
        drawn = 127.5 * (drawn + 1)
    return drawn.astype(np.float32)


ALIKE = 0.1  # of the logits' deviation: pictures that differ less are alike to a network


def network(
    name: str, size: int | None = None, *, until: str | None = None, seed: int = 0, **options: Any
) -> keras.Model:
    """Return a network of keras.applications whose outputs neither vanish nor explode.

    Kernels are drawn as He et al. (2015, arXiv:1502.01852) do; batch norms hold the statistics of
    seeded pictures, with shifts above 0, so that small errors stay small from layer to layer; the
    classifier's logits are spread by about 3.

    Args:
        name: One of `constructors()`.
        size: Height and width of the pictures; None takes the network's own.
        until: The layer after which a mean and a classifier of ten classes end a shorter network.
        seed: Of the weights and of the pictures behind the statistics.
        options: For the constructor.
    """
    if size is not None:
        options["input_shape"] = (size, size, 3)
    model = constructors()[name](weights=None, **options)
    if until is not None:
        mean = keras.layers.GlobalAveragePooling2D()(model.get_layer(until).output)
        model = keras.Model(model.input, keras.layers.Dense(10, activation="softmax")(mean))
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
    elif name == "gamma":
        norm = any(other.path.endswith("beta") for other in layer.weights)
        weight.assign((1 if norm else 0.2) * random.uniform(0.7, 1.3, shape))  # else a layer scale
    elif name == "beta":
        # Layer norms have no sign to protect, and a common shift makes all pictures alike.
        shift = 0 if isinstance(layer, keras.layers.LayerNormalization) else 0.8
        weight.assign(random.normal(shift, 0.3, shape))
    elif name == "bias":
        weight.assign(random.normal(0, 0.1, shape))


def _spread(model: keras.Model, seen: Pictures) -> None:
    """Let the classifier's logits have a standard deviation of about 3, and be 0 in the mean.

    Where the pictures hardly differ (random weights make ConvNeXt's means all alike), the mean
    stays: what is left without it is rounding, of TensorFlow's as of ours.
    """
    head = model.layers[-1]
    if not isinstance(head, keras.layers.Dense):
        return
    head.bias.assign(np.zeros(head.bias.shape, np.float32))
    kept, head.activation = head.activation, keras.activations.linear
    try:
        logits = np.asarray(model(seen, training=False))
    finally:
        head.activation = kept
    spread, whole = float((logits - logits.mean(0)).std()), float(logits.std())
    is_alike = spread < ALIKE * whole
    factor = 3 / max(whole if is_alike else spread, 1e-6)
    head.kernel.assign(np.asarray(head.kernel) * factor)
    if not is_alike:
        head.bias.assign(-factor * logits.mean(0))


def logits_of(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Return logarithms of probabilities, their mean over the classes taken off."""
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), 1e-30))
    centred: NDArray[np.float64] = logits - logits.mean(-1, keepdims=True)
    return centred
