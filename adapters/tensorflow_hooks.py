"""The plugin for TensorFlow and Keras: decides what is ours without importing TensorFlow.

What it finds, `lowprec.adapters.tensorflow` does, whose import brings TensorFlow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lowprec.hookspecs import AdapterInfo, Captured, CapturedParts, hookimpl, installed

if TYPE_CHECKING:
    from lowprec.adapters.tensorflow.data import OpenedData

KIND = "tensorflow"


@hookimpl
def lowprec_capture(
    model: object, example_inputs: object, calibration_data: object, samples: int
) -> Captured | CapturedParts | None:
    """Take a keras.Model."""
    if _is_keras(model):
        from lowprec.adapters.tensorflow.keras_capture import capture_keras

        return capture_keras(model, example_inputs, _opened(calibration_data), samples)
    return None


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
    return AdapterInfo(name=KIND, versions=versions, accepts="a keras.Model")


def _opened(data: object) -> OpenedData | None:
    """Return calibration data whose first items may be looked at; files are not."""
    if data is None or isinstance(data, (str, os.PathLike)):
        return None
    from lowprec.adapters.tensorflow.data import OpenedData

    return OpenedData(data)


def _is_keras(model: object) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)
