"""A Keras model as a graph: traced once, in inference, with an open batch axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from lowprec.adapters.tensorflow.source import Source, source_of
from lowprec.adapters.tensorflow.structure import Tree, described, packed
from lowprec.errors import LowprecError, ModelError, UnsupportedError


@dataclass(frozen=True)
class Called:
    """How a model is called.

    Attributes:
        names: Of its inputs.
        specs: Shape and dtype of each.
        arguments: The structure of its first argument; its leaves are the inputs.
        outputs: The structure of what it returns.
        results: Names of its outputs.
    """

    names: tuple[str, ...]
    specs: tuple[tf.TensorSpec, ...]
    arguments: Tree
    outputs: Tree
    results: tuple[str, ...]


def source_of_keras(model: keras.Model, example: object = None) -> tuple[Source, Called]:
    """Return `model` as a Source, and how it is called.

    Args:
        model: Any keras.Model of Keras 3 on the TensorFlow back end.
        example: What it is called with, for a model that was never built: arrays or tensors, nested
            as the model takes them.

    Raises:
        UnsupportedError: Keras runs on another back end, or the model takes ragged or sparse input.
        ModelError: the model was never built and there is no example, or it cannot be traced.
    """
    if keras.backend.backend() != "tensorflow":
        raise UnsupportedError(
            f"Keras runs on {keras.backend.backend()} here; lowprec takes Keras models on the "
            "TensorFlow back end: set KERAS_BACKEND=tensorflow before keras is imported"
        )
    leaves: list[Any] = []
    arguments = described(_inputs_of(model, example), leaves)
    specs = [_spec(leaf) for leaf in leaves]
    names = _unique([_name(leaf, number) for number, leaf in enumerate(leaves)])
    specs = [tf.TensorSpec(spec.shape, spec.dtype, name=None) for spec in specs]

    # A list of one is called with its item; Keras itself warns where it gets that.
    declared = getattr(model, "_inputs_struct", None)
    is_list_of_one = isinstance(declared, (list, tuple)) and len(declared) == 1

    def call(*tensors: tf.Tensor) -> Any:
        given = packed(arguments, tensors)
        return model([given] if is_list_of_one else given, training=False)

    function = tf.function(call, autograph=False, jit_compile=False)
    try:
        concrete = function.get_concrete_function(*specs)
    except LowprecError:
        raise
    except Exception as error:
        raise ModelError(
            f"the Keras model '{model.name}' cannot be traced: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}"
        ) from error
    flat: list[Any] = []
    outputs = described(concrete.structured_outputs, flat)
    results = _unique(_output_names(model, outputs, len(flat)))
    source = source_of(concrete, names, results)
    called = Called(tuple(names), tuple(specs), arguments, outputs, tuple(results))
    return source, called


def is_built(model: keras.Model) -> bool:
    """Return whether the model says itself what it takes."""
    return getattr(model, "_inputs_struct", None) is not None or bool(
        getattr(model, "inputs", None)
    )


def _inputs_of(model: keras.Model, example: object) -> Any:
    """Return the structure that the model takes, with KerasTensors, tensors or arrays in it."""
    structure = getattr(model, "_inputs_struct", None)  # Functional
    if structure is None:
        inputs = getattr(model, "inputs", None)  # a built Sequential has a list of one
        structure = inputs[0] if inputs and len(inputs) == 1 else inputs
    if structure is not None:
        alone = isinstance(structure, (list, tuple)) and len(structure) == 1
        return structure[0] if alone and hasattr(structure[0], "shape") else structure
    if example is not None:
        return example
    raise ModelError(
        f"the Keras model '{model.name}' does not say what it takes; call it once, or give "
        "example_inputs= or calibration data"
    )


def _spec(leaf: Any) -> tf.TensorSpec:
    """Return shape and dtype of an input, its first axis open."""
    if getattr(leaf, "sparse", False) or getattr(leaf, "ragged", False):
        raise UnsupportedError("the model takes sparse or ragged input; give it dense tensors")
    shape = [None, *tuple(leaf.shape)[1:]] if len(leaf.shape) else []
    dtype = getattr(leaf.dtype, "name", leaf.dtype)
    return tf.TensorSpec(shape, "float32" if dtype == "float64" else dtype)


def _name(leaf: Any, number: int) -> str:
    name = getattr(leaf, "name", None)
    if not isinstance(name, str) or name.startswith("keras_tensor"):
        return f"input_{number}"
    return name.split(":")[0]


def _output_names(model: keras.Model, outputs: Tree, count: int) -> list[str]:
    if isinstance(outputs, dict) and "dict" in outputs:
        by_leaf = {leaf: key for key, leaf in outputs["dict"].items() if isinstance(leaf, int)}
        if len(by_leaf) == count:
            return [by_leaf[leaf] for leaf in range(count)]
    names = getattr(model, "output_names", None)
    if names and len(names) == count:
        return list(names)
    return [f"output_{number}" for number in range(count)]


def _unique(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return unique
