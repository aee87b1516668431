"""The plugin for TensorFlow and Keras: decides what is ours without importing TensorFlow.

What it finds, `lowprec.adapters.tensorflow` does, whose import brings TensorFlow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lowprec.adapters.tensorflow_paths import form_of
from lowprec.errors import ModelError
from lowprec.hookspecs import AdapterInfo, Captured, CapturedParts, hookimpl, installed

if TYPE_CHECKING:
    from lowprec.adapters.tensorflow.data import OpenedData

KIND = "tensorflow"

_ACCEPTS = (
    "a keras.Model, .keras or .h5 file, SavedModel folder, frozen graph (.pb, .pbtxt), tf.function"
)


@hookimpl
def lowprec_capture(
    model: object, example_inputs: object, calibration_data: object, samples: int
) -> Captured | CapturedParts | None:
    """Take a keras.Model, TensorFlow's functions and graphs, and paths of such models."""
    if _is_keras(model):
        from lowprec.adapters.tensorflow.keras_capture import capture_keras

        return capture_keras(model, example_inputs, _opened(calibration_data), samples)
    if isinstance(model, (str, os.PathLike)):
        form = form_of(model)
        if form is None:
            return None
        _need_tensorflow(f"'{model}'")
        from lowprec.adapters.tensorflow.opening import capture_path

        return capture_path(model, form, _opened(calibration_data), samples)
    if _is_of_tensorflow(model):
        from lowprec.adapters.tensorflow.opening import capture_object

        return capture_object(model, example_inputs, _opened(calibration_data), samples)
    return None


@hookimpl
def lowprec_rebuild(quantized: object, captured: Captured | CapturedParts) -> object | None:
    """Return what is called, and saved, like the original."""
    if captured.kind != KIND:
        return None
    if isinstance(captured, CapturedParts):
        from lowprec.adapters.tensorflow.split_models import split_model

        return split_model(quantized, captured)  # type: ignore[arg-type]
    from lowprec.adapters.tensorflow.returned import returned

    return returned(quantized, captured)  # type: ignore[arg-type]


@hookimpl
def lowprec_batches(
    data: object, captured: Captured
) -> Iterable[dict[str, NDArray[np.generic]]] | None:
    """Take tf.data.Datasets, PyDatasets, arrays, iterables and functions that return one."""
    if captured.kind != KIND or isinstance(data, (str, os.PathLike)):
        return None
    from lowprec.adapters.tensorflow.batches import batches_of

    return batches_of(data, captured)


@hookimpl
def lowprec_describe() -> AdapterInfo:
    """Return the installed versions of TensorFlow and Keras."""
    versions = installed("tensorflow", "tensorflow-cpu", "keras")
    return AdapterInfo(name=KIND, versions=versions, accepts=_ACCEPTS)


def _opened(data: object) -> OpenedData | None:
    """Return calibration data whose first items may be looked at; files are not."""
    if data is None or isinstance(data, (str, os.PathLike)):
        return None
    from lowprec.adapters.tensorflow.data import OpenedData

    return OpenedData(data)


def _is_keras(model: object) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def _is_of_tensorflow(model: object) -> bool:
    given = sys.modules.get("lowprec.adapters.tensorflow.given")
    if given is not None and isinstance(model, (given.GivenSavedModel, given.GivenGraph)):
        return True
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or not hasattr(tensorflow, "types"):
        return False
    experimental = tensorflow.types.experimental
    return isinstance(
        model,
        (
            tensorflow.Module,
            tensorflow.Graph,
            tensorflow.compat.v1.GraphDef,
            experimental.ConcreteFunction,
            experimental.PolymorphicFunction,
        ),
    ) or (type(model).__module__.startswith("tensorflow.") and hasattr(model, "signatures"))


def _need_tensorflow(what: str) -> None:
    if "tensorflow" not in sys.modules and find_spec("tensorflow") is None:
        raise ModelError(
            f"{what} is a model of TensorFlow, which is not installed; install lowprec[tensorflow]"
        )
