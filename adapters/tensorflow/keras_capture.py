"""A keras.Model as `Captured`."""

from __future__ import annotations

from typing import Any

import keras

from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.capture import captured, shapes_of
from lowprec.adapters.tensorflow.data import OpenedData, first_argument
from lowprec.adapters.tensorflow.keras_source import is_built, source_of_keras
from lowprec.adapters.tensorflow.layer_names import name_after_layers
from lowprec.hookspecs import Captured, CapturedParts


def capture_keras(
    model: keras.Model, example: Any = None, data: OpenedData | None = None, samples: int = 1
) -> Captured | CapturedParts:
    """Return a Keras model as Captured.

    Args:
        model: Any keras.Model.
        example: What one that was never built is called with; None takes the data's first item.
        data: Calibration data; what is looked at is yielded again.
        samples: How many of its items may be looked at.

    Raises:
        ModelError: it cannot be traced.
        UnsupportedError: some operation has no translation.
        DataError: the data is empty, or its first items do not fit the model.
    """
    if example is None and data is not None and not is_built(model):
        example = first_argument(data)
    source, called = source_of_keras(model, example)
    binding = Binding(
        form="keras",
        name=model.name,
        inputs=called.names,
        outputs=called.results,
        shapes=shapes_of(list(source.inputs.values())),
        results=shapes_of(list(source.outputs.values())),
        arguments=called.arguments,
        returned=called.outputs,
    )
    made = captured(source, binding, model, data=data, samples=samples)
    parts = made.parts.values() if isinstance(made, CapturedParts) else [made]
    for part in parts:
        name_after_layers(part.graph, model, source.function)
    return made
