"""Whatever is a model of TensorFlow's and not a keras.Model in memory, as `Captured`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from lowprec.adapters import tensorflow_paths as paths
from lowprec.adapters.tensorflow.data import OpenedData
from lowprec.adapters.tensorflow.functions import capture_function, capture_module
from lowprec.adapters.tensorflow.given import GivenGraph, GivenSavedModel
from lowprec.adapters.tensorflow.graph_files import capture_graph
from lowprec.adapters.tensorflow.saved_models import capture_loaded, capture_saved_model
from lowprec.errors import ModelError
from lowprec.hookspecs import Captured, CapturedParts

_T = TypeVar("_T")


def capture_path(
    path: str | os.PathLike[str], form: str, data: OpenedData | None, samples: int
) -> Captured | CapturedParts:
    """Return the model in a file or folder as Captured.

    Args:
        path: Of the file or folder.
        form: What it holds, as `tensorflow_paths.form_of` says.
        data: Calibration data, on which the graph is compared with TensorFlow.
        samples: How many of its items may be looked at.
    """
    if form == paths.SAVED_MODEL:
        return _within_memory(capture_saved_model, GivenSavedModel(os.fspath(path)), data, samples)
    if form in (paths.GRAPH, paths.GRAPH_TEXT):
        return _within_memory(capture_graph, GivenGraph(path), data, samples)
    from lowprec.adapters.tensorflow import keras_files
    from lowprec.adapters.tensorflow.keras_capture import capture_keras

    load = keras_files.load_keras_zip if form == paths.KERAS else keras_files.load_hdf5
    return capture_keras(_within_memory(load, path), None, data, samples)


def capture_object(
    model: Any, example: Any, data: OpenedData | None, samples: int
) -> Captured | CapturedParts:
    """Return what `tensorflow_hooks` recognised as Captured: all but paths and keras.Model."""
    if isinstance(model, GivenSavedModel):
        return _within_memory(capture_saved_model, model, data, samples)
    if isinstance(model, GivenGraph):
        return _within_memory(capture_graph, model, data, samples)
    if isinstance(model, (tf.compat.v1.GraphDef, tf.Graph)):
        return _within_memory(capture_graph, GivenGraph(model), data, samples)
    if hasattr(model, "signatures") and not isinstance(model, tf.Module):
        return capture_loaded(model, data, samples)
    if isinstance(model, tf.Module):
        return capture_module(model, example, data, samples)
    return capture_function(model, example, data, samples)


def _within_memory(function: Callable[..., _T], given: Any, *others: Any) -> _T:
    try:
        return function(given, *others)
    except MemoryError:
        what = getattr(given, "path", None) or getattr(given, "graph", given)
        name = what if isinstance(what, (str, os.PathLike)) else "the graph"
        raise ModelError(
            f"model '{name}' needs more memory than there is; it is damaged, or too large here"
        ) from None
