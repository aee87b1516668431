"""The plugin for TensorFlow and Keras: decides what is ours without importing TensorFlow.

What it finds, `lowprec.adapters.tensorflow` does, whose import brings TensorFlow.
"""

from __future__ import annotations

import sys

from lowprec.hookspecs import AdapterInfo, Captured, CapturedParts, hookimpl, installed

KIND = "tensorflow"


@hookimpl
def lowprec_capture(
    model: object, example_inputs: object, calibration_data: object, samples: int
) -> Captured | CapturedParts | None:
    """Take a keras.Model."""
    if _is_keras(model):
        from lowprec.adapters.tensorflow.keras_capture import capture_keras

        return capture_keras(model, example_inputs)
    return None


@hookimpl
def lowprec_describe() -> AdapterInfo:
    """Return the installed versions of TensorFlow and Keras."""
    versions = installed("tensorflow", "tensorflow-cpu", "keras")
    return AdapterInfo(name=KIND, versions=versions, accepts="a keras.Model")


def _is_keras(model: object) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)
