"""Files of TensorFlow's own operators: frozen graphs and SavedModels that run without lowprec."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.saving import (
    DEFAULT_SIGNATURE,
    build_saved_model,
    check_suffix,
    is_saved_model,
    write_graph,
)
from lowprec.adapters.tensorflow.stock import written
from lowprec.atomic import write_folder_atomically
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
    if form == "graph":
        write_graph(path, made.definition)
        return
    keys = [str(key) for key in binding.details.get("signatures") or [DEFAULT_SIGNATURE]]
    tags = [str(tag) for tag in binding.details.get("tags") or ["serve"]]

    def fill(folder: Path) -> None:
        build_saved_model(made.definition, folder, made.inputs, made.outputs, keys, tags)

    write_folder_atomically(path, fill, is_saved_model)
