"""External data: weights in files beside the model, checked before any of their bytes are read.

A model file is data from somewhere else. The names in it must not reach outside the model's own
folder, and the sizes in it must not reach outside the file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import onnx

from lowprec.errors import ModelError
from lowprec.graph.tensors import declared_bytes


def check_external(tensor: onnx.TensorProto, folder: Path | None) -> None:
    """Raise ModelError unless `tensor`'s external data lies inside a file inside `folder`.

    Args:
        tensor: A tensor whose data_location is EXTERNAL.
        folder: The folder of the model file; None when the model did not come from a file.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ModelError(
            f"tensor '{tensor.name}' has its data in the external file '{location}', but a model "
            "in memory has no folder to look in; give the path of the .onnx file instead"
        )
    path = _contained(tensor.name, location, folder)
    _check_extent(tensor, path, entries)


def _contained(name: str, location: str, folder: Path) -> Path:
    pure = Path(location.replace("\\", "/"))
    outside = ModelError(
        f"tensor '{name}' has external data outside the model's folder: '{location}'; "
        "only files inside that folder are read: put the data beside the model"
    )
    if not location or "\0" in location:
        raise ModelError(f"tensor '{name}' has external data without a usable file name")
    if pure.is_absolute() or ".." in pure.parts or (len(location) > 1 and location[1] == ":"):
        raise outside
    path = folder / location
    resolved = Path(os.path.realpath(path))
    if not resolved.is_relative_to(os.path.realpath(folder)):
        raise outside
    return path


def _check_extent(tensor: onnx.TensorProto, path: Path, entries: dict[str, str]) -> None:
    try:
        status = path.stat()
    except OSError:
        raise ModelError(
            f"tensor '{tensor.name}' has its data in '{path}', which cannot be read; "
            "copy the model together with its data files"
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(
            f"tensor '{tensor.name}' has its data in '{path}', which is not a regular file"
        )
    if status.st_nlink > 1:
        # onnx and onnx_ir refuse these too: a hard link can bring any file into the folder.
        raise ModelError(
            f"tensor '{tensor.name}' has its data in '{path}', which has more than one hard link; "
            "make a copy of the file (cp --reflink=auto)"
        )
    needed = declared_bytes(tensor)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(needed)))
    except ValueError:
        raise ModelError(
            f"tensor '{tensor.name}' has an external offset or length that is not a number"
        ) from None
    if length != needed:
        raise ModelError(
            f"tensor '{tensor.name}' of shape {list(tensor.dims)} needs {needed} bytes but "
            f"declares {length} bytes of external data; the file is damaged, export the model again"
        )
    if offset < 0 or offset + length > status.st_size:
        raise ModelError(
            f"tensor '{tensor.name}' needs bytes {offset} to {offset + length} of '{path}', which "
            f"holds {status.st_size}; copy the data file again"
        )
