"""Which files and folders hold a model of TensorFlow or Keras; decided without importing either."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

SAVED_MODEL = "saved_model"
GRAPH = "graph"
GRAPH_TEXT = "graph_text"
KERAS = "keras"
HDF5 = "hdf5"

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_ZIP_MAGIC = b"PK\x03\x04"
_ONNX_VERSION_TAG = 0x08  # how a ModelProto begins; a GraphDef begins with a node
_NODE_TAG, _NAME_TAG, _OP_TAG = 0x0A, 0x0A, 0x12
_HEAD = 1024  # bytes that are looked at


def form_of(path: str | os.PathLike[str]) -> str | None:
    """Return what the file or folder holds, one of the constants above; None: nothing of ours.

    A file with the right suffix counts whatever it holds, unless it is ONNX: whoever reads it says
    what is wrong with it.
    """
    target = Path(path)
    try:
        if target.is_dir():
            found = any((target / name).is_file() for name in SAVED_MODEL_FILES)
            return SAVED_MODEL if found else None
        if not target.is_file():
            return None
        if target.name in SAVED_MODEL_FILES:
            return SAVED_MODEL
        with target.open("rb") as file:
            head = file.read(_HEAD)
    except (OSError, ValueError):
        return None
    suffix = target.suffix.lower()
    if head.startswith(_HDF5_MAGIC) or suffix in (".h5", ".hdf5"):
        return HDF5
    if suffix == ".keras" or (head.startswith(_ZIP_MAGIC) and _holds_config(target)):
        return KERAS
    if suffix == ".pbtxt":
        return GRAPH_TEXT
    if suffix == ".pb" and not (head and head[0] == _ONNX_VERSION_TAG):
        return GRAPH
    return GRAPH if suffix != ".onnx" and _begins_like_a_graph(head) else None


def folder_of(path: str | os.PathLike[str]) -> Path:
    """Return the folder of a SavedModel that is named by its folder or by the file in it."""
    target = Path(path)
    return target if target.is_dir() else target.parent


def _holds_config(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "config.json" in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def _begins_like_a_graph(head: bytes) -> bool:
    """Return whether this is a node with a name and an operation."""
    at = _after_length(head, 0, _NODE_TAG)
    if at is None:
        return False
    name = _after_length(head, at[0], _NAME_TAG)
    if name is None or not _is_word(head[name[0] : name[0] + name[1]], name[1]):
        return False
    operation = _after_length(head, name[0] + name[1], _OP_TAG)
    return operation is not None and _is_word(
        head[operation[0] : operation[0] + operation[1]], operation[1]
    )


def _after_length(head: bytes, at: int, tag: int) -> tuple[int, int] | None:
    """Return where the field with `tag` begins that is expected at `at`, and its length."""
    if at >= len(head) or head[at] != tag:
        return None
    length = 0
    for shift in range(5):
        at += 1
        if at >= len(head):
            return None
        length |= (head[at] & 0x7F) << (7 * shift)
        if head[at] < 0x80:
            return (at + 1, length) if length else None
    return None


def _is_word(text: bytes, length: int) -> bool:
    return len(text) == length and all(0x20 < letter < 0x7F for letter in text)
