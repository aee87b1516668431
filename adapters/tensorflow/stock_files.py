"""Files of TensorFlow's own operators: frozen graphs and SavedModels that run without lowprec."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.saving import DEFAULT_SIGNATURE, check_suffix, is_saved_model
from lowprec.adapters.tensorflow.stock import Written, written
from lowprec.atomic import write_atomically, write_folder_atomically
from lowprec.errors import UnsupportedError

TARGET = "tensorflow"  # of save(target=)
TARGETS = ("lowprec", TARGET)


def is_stock(target: str) -> bool:
    """Return whether TensorFlow's own operators are asked for.

    Raises:
        UnsupportedError: the target is none.
    """
    if target not in TARGETS:
        raise UnsupportedError(
            f"target is '{target}'; accepted are lowprec and {TARGET} (TensorFlow's own operators)"
        )
    return target == TARGET


def save_stock(model: Any, binding: Binding, path: str | os.PathLike[str]) -> None:
    """Write a quantised model with TensorFlow's own int8 operators.

    Args:
        model: Its hub graph, or what has one as `hub`.
        binding: How the original is called.
        path: `.pb` for a frozen graph, else a folder for a SavedModel.

    Raises:
        OutputError: it cannot be written; what was there is unharmed.
        UnsupportedError: some operator cannot be written so, or the file's ending asks for a form
            that holds no graphs.
    """
    form = check_suffix(path)
    if form in ("keras", "onnx"):
        raise UnsupportedError(
            f"'{os.fspath(path)}': TensorFlow's own int8 operators are saved as a .pb file or a "
            "SavedModel folder; give the path one of these forms"
        )
    made = written(model, binding)
    if form == "graph" and os.fspath(path).lower().endswith(".pbtxt"):
        from google.protobuf import text_format  # type: ignore[import-untyped]

        write_atomically(path, text_format.MessageToString(made.definition).encode())
    elif form == "graph":
        write_atomically(path, made.definition.SerializeToString(deterministic=True))
    else:
        keys = [str(key) for key in binding.details.get("signatures") or [DEFAULT_SIGNATURE]]
        tags = [str(tag) for tag in binding.details.get("tags") or ["serve"]]
        write_folder_atomically(
            path, lambda folder: _build(made, folder, keys, tags), is_saved_model
        )


def _build(made: Written, folder: Path, keys: Sequence[str], tags: Sequence[str]) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(made.definition, name="")
        inputs = {key: graph.get_tensor_by_name(name) for key, name in made.inputs.items()}
        outputs = {key: graph.get_tensor_by_name(name) for key, name in made.outputs.items()}
        signature = v1.saved_model.predict_signature_def(inputs, outputs)
        builder = v1.saved_model.Builder(str(folder / "model"))
        builder.add_meta_graph_and_variables(
            session, tags, signature_def_map=dict.fromkeys(keys, signature)
        )
        builder.save()
    for item in list((folder / "model").iterdir()):
        item.rename(folder / item.name)
    (folder / "model").rmdir()
