"""A keras.Model as `Captured`."""

from __future__ import annotations

from typing import Any

import keras

from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.capture import captured, shapes_of
from lowprec.adapters.tensorflow.keras_source import source_of_keras
from lowprec.hookspecs import Captured, CapturedParts


def capture_keras(model: keras.Model, example: Any = None) -> Captured | CapturedParts:
    """Return a Keras model as Captured; `example` is what one that was never built is called with.

    Raises:
        ModelError: it cannot be traced.
        UnsupportedError: some operation has no translation.
    """
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
    return captured(source, binding, model)
