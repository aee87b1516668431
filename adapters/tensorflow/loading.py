"""Read back what was saved: .onnx, .pb and .pbtxt files and SavedModels that hold LowprecRun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from lowprec.adapters import tensorflow_paths as paths
from lowprec.adapters.tensorflow import operator
from lowprec.adapters.tensorflow.content import binding_in
from lowprec.adapters.tensorflow.function_model import from_content
from lowprec.adapters.tensorflow.graph_files import read_graph
from lowprec.adapters.tensorflow.keras_model import from_content as keras_from_content
from lowprec.adapters.tensorflow.saved_models import read_saved_model
from lowprec.errors import ModelError, UnsupportedError


def load(path: str | os.PathLike[str]) -> Any:
    """Return a model that `save` wrote, as it was: with its call, bits, configuration and report.

    Args:
        path: An .onnx, .pb, .pbtxt or .keras file, or the folder of a SavedModel.

    Raises:
        ModelError: the file is missing or damaged, or lowprec did not write it.
        UnsupportedError: it is a graph of several parts, which TensorFlow itself loads.
    """
    form = paths.form_of(path)
    if form in (paths.KERAS, paths.HDF5):
        from lowprec.adapters.tensorflow import keras_files

        read = keras_files.load_keras_zip if form == paths.KERAS else keras_files.load_hdf5
        return read(path)
    if form == paths.SAVED_MODEL:
        contents = list(_contents(read_saved_model(paths.folder_of(path)).meta_graphs[0].graph_def))
    elif form in (paths.GRAPH, paths.GRAPH_TEXT):
        contents = list(_contents(read_graph(path)))
    else:
        from lowprec.graph.read import read_proto

        contents = [read_proto(path).SerializeToString(deterministic=True)]
    if len(contents) > 1:
        raise UnsupportedError(
            f"'{os.fspath(path)}' holds a model in {len(contents)} parts; TensorFlow loads and "
            "runs it after import lowprec.adapters.tensorflow"
        )
    binding = binding_in(contents[0]) if contents else None
    if binding is None:
        raise ModelError(
            f"'{os.fspath(path)}' is no model that lowprec saved for TensorFlow; "
            "lowprec.quantize takes float models, lowprec.load any .onnx file"
        )
    make = keras_from_content if binding.form == "keras" else from_content
    return make(contents[0], binding)


def _contents(definition: Any) -> Iterator[bytes]:
    """Yield the models that the operators of a graph run, as ONNX files."""
    bodies = [function.node_def for function in definition.library.function]
    for nodes in [definition.node, *bodies]:
        constants = {node.name: node for node in nodes if node.op == "Const"}
        for node in nodes:
            if node.op != operator.NAME:
                continue
            held = constants.get(node.input[-1].partition(":")[0]) if node.input else None
            tensor = held.attr["value"].tensor if held is not None else None
            if tensor is not None and tensor.dtype == tf.uint8.as_datatype_enum:
                yield bytes(tensor.tensor_content)
