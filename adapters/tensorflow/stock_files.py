"""Files of TensorFlow's own operators: frozen graphs and SavedModels that run without lowprec."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.stock import written
from lowprec.atomic import output_errors, sync_folder, write_atomically
from lowprec.errors import OutputError, UnsupportedError

TARGET = "tensorflow"  # of save(target=)
DEFAULT = "serving_default"
_SAVED_MODEL = {"saved_model.pb", "fingerprint.pb", "keras_metadata.pb", "assets", "variables"}


def check_target(target: str | None) -> bool:
    """Return whether TensorFlow's own operators are asked for.

    Raises:
        UnsupportedError: something else is.
    """
    if target is not None and target != TARGET:
        raise UnsupportedError(
            f"target '{target}' is not known; '{TARGET}' writes TensorFlow's own int8 operators, "
            "None lowprec's"
        )
    return target is not None


def save_stock(
    model: Any, binding: Binding, path: str | os.PathLike[str], overwrite: bool = True
) -> None:
    """Write a quantised model with TensorFlow's own int8 operators.

    Args:
        model: Its hub graph, or what has one as `hub`.
        binding: How the original is called.
        path: `.pb` for a frozen graph, else a folder for a SavedModel.
        overwrite: False to refuse to replace what is there.

    Raises:
        OutputError: it cannot be written; what was there is unharmed.
        UnsupportedError: some operator cannot be written so, or the file's ending asks for a form
            that holds no graphs.
    """
    name = os.fspath(path)
    if not overwrite and os.path.exists(name):
        raise OutputError(f"'{name}' is there; overwrite=True replaces it")
    if name.endswith(".pb"):
        content = written(model, binding).definition.SerializeToString(deterministic=True)
        write_atomically(path, content)
    elif name.endswith((".keras", ".h5", ".onnx")):
        raise UnsupportedError(
            f"'{name}': TensorFlow's own int8 operators are saved as a .pb file or a SavedModel "
            "folder; give the path one of these forms"
        )
    else:
        _save_folder(model, binding, Path(os.path.realpath(name)))


def _save_folder(model: Any, binding: Binding, target: Path) -> None:
    names = {each.name for each in target.iterdir()} if target.is_dir() else set()
    if (target.exists() and not target.is_dir()) or names - _SAVED_MODEL:
        raise OutputError(
            f"'{target}' holds something else than a SavedModel; give the name of a new folder"
        )
    made = written(model, binding)
    keys = binding.details.get("signatures") or [DEFAULT]
    tags = binding.details.get("tags") or ["serve"]
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            beside.chmod(0o755)
            _build(made, beside / "new", [str(key) for key in keys], [str(tag) for tag in tags])
            if target.exists():
                os.rename(target, beside / "old")
            try:
                os.rename(beside / "new", target)
            except OSError:
                if (beside / "old").exists():
                    os.rename(beside / "old", target)
                raise
            sync_folder(target.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _build(made: Any, folder: Path, keys: list[str], tags: list[str]) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(made.definition, name="")
        inputs = {key: graph.get_tensor_by_name(name) for key, name in made.inputs.items()}
        outputs = {key: graph.get_tensor_by_name(name) for key, name in made.outputs.items()}
        signature = v1.saved_model.predict_signature_def(inputs, outputs)
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session, tags, signature_def_map=dict.fromkeys(keys, signature)
        )
        builder.save()
