"""Keras 3's layers for files of Keras 2: settings that have gone, and names that changed meaning.

Keras 3 refuses a setting that it does not know. Keras 2 wrote many into its files that say nothing
about inference (initial values, regularisers), or that say what is the only choice now.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from lowprec.errors import UnsupportedError

# Settings that Keras 3 has no more, with the only value that means what it does now.
_GONE: Mapping[str, tuple[Any, ...]] = {
    "dynamic": (False, None),
    "groups": (1, None),
    "implementation": (0, 1, 2, None),
    "ragged": (False, None),
    "renorm": (False, None),
    "renorm_clipping": (None,),
    "renorm_momentum": (0.99, None),
    "sparse": (False, None),
    "fused": (True, False, None),
    "time_major": (False, None),
    "virtual_batch_size": (None,),
    "zero_output_for_mask": (False, True, None),
}
_TRAINING_ONLY = ("_initializer", "_regularizer", "_constraint")
_OF_EVERY_LAYER = frozenset(
    {
        *("name", "dtype", "trainable", "autocast", "activity_regularizer", "input_shape"),
        *("batch_shape", "batch_input_shape", "input_dim", "input_dtype", "alpha"),
    }
)
_CONTAINERS = frozenset({"Layer", "Wrapper", "RNN", "TFSMLayer", "Lambda"})
_OTHER_NAMES = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
}


def accepting_layers(is_old: bool) -> dict[str, Any]:
    """Return stand-ins for Keras' layers by name, for `custom_objects`: they make the real ones.

    Args:
        is_old: Keras 1 or 2 wrote the file: names have the meaning that they had there.
    """
    found: dict[str, Any] = {}
    for name in dir(keras.layers):
        layer = getattr(keras.layers, name)
        is_layer = inspect.isclass(layer) and issubclass(layer, keras.layers.Layer)
        if is_layer and name not in _CONTAINERS and not issubclass(layer, keras.Model):
            found[name] = _accepting(layer, is_old)
    for other, name in _OTHER_NAMES.items():
        found[other] = found[name]
    return found


def old_hard_sigmoid(x: Any) -> Any:
    """Return what Keras 2 called hard_sigmoid: 0.2 x + 0.5 within 0 and 1; Keras 3's is x/6."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


def _accepting(layer: Any, is_old: bool) -> type:
    def from_config(cls: type, config: dict[str, Any]) -> Any:
        return layer.from_config(_fitting(layer, dict(config), is_old))

    return type(layer.__name__, (), {"from_config": classmethod(from_config)})


def _fitting(layer: Any, config: dict[str, Any], is_old: bool) -> dict[str, Any]:
    """Return a layer's settings without those that Keras 3 does not know and need not know."""
    known = _known(layer)
    for key in [key for key in config if key not in known]:
        if key.endswith(_TRAINING_ONLY):
            del config[key]
        elif key in _GONE:
            if config[key] not in _GONE[key]:
                raise UnsupportedError(
                    f"layer '{config.get('name', '')}' ({layer.__name__}) has {key}={config[key]}, "
                    "which Keras 3 cannot do; export a SavedModel with the Keras that wrote it"
                )
            del config[key]
    axis = config.get("axis")
    if layer is keras.layers.BatchNormalization and isinstance(axis, list) and len(axis) == 1:
        config["axis"] = axis[0]
    if layer is keras.layers.LeakyReLU and "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
    if is_old:
        for key in ("activation", "recurrent_activation"):
            if config.get(key) == "hard_sigmoid":
                config[key] = old_hard_sigmoid
        if layer is keras.layers.GRU:
            config.setdefault("reset_after", False)
        if layer in (keras.layers.GRU, keras.layers.LSTM):
            config.setdefault("recurrent_activation", old_hard_sigmoid)
    return config


def _known(layer: Any) -> frozenset[str]:
    """Return the settings that a layer's constructors name."""
    names = set(_OF_EVERY_LAYER)
    for base in layer.__mro__:
        if base is keras.layers.Layer:
            break
        constructor = vars(base).get("__init__")
        if constructor is None:
            continue
        parameters = inspect.signature(constructor).parameters.values()
        names.update(p.name for p in parameters if p.kind.name != "VAR_KEYWORD")
        if not any(p.kind.name == "VAR_KEYWORD" for p in parameters):
            break
    return frozenset(names)
