"""ONNX models, and calibration data as NumPy arrays and .npz files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lowprec.hookspecs import AdapterInfo, Captured, hookimpl, installed

KIND = "onnx"

# How a ModelProto begins: ir_version (field 1), a small number, then one of the fields 2 to 14.
_IR_VERSION_TAG = 0x08
_NEXT_TAGS = frozenset({0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72})


@hookimpl
def lowprec_capture(model: object) -> Captured | None:
    """Take an onnx.ModelProto, an onnx_ir.Model, or a path that ends in .onnx or holds ONNX."""
    if not _is_onnx(model):
        return None
    from lowprec.graph import load  # heavy: only once we know it is ours

    graph = load(model)  # type: ignore[arg-type]
    return Captured(graph=graph, source=model, kind=KIND)


@hookimpl
def lowprec_rebuild(quantized: object, captured: Captured) -> object | None:
    """Return the QuantizedModel itself: it has an onnxruntime-like session's members."""
    return quantized if captured.kind == KIND else None


@hookimpl
def lowprec_batches(
    data: object, captured: Captured
) -> Iterable[dict[str, NDArray[np.generic]]] | None:
    """Take iterables of arrays, tuples and dicts, a callable returning one, .npz files and folders.

    These forms belong to no framework, so they are taken whatever the model's kind is.
    """
    from lowprec.adapters.onnx.batches import Batches

    return Batches(data, captured.graph)


@hookimpl
def lowprec_describe() -> AdapterInfo:
    """Return the installed versions of onnx and onnx_ir."""
    return AdapterInfo(
        name=KIND,
        versions=installed("onnx", "onnx_ir"),
        accepts="an onnx.ModelProto, an onnx_ir.Model or the path of an .onnx file",
    )


def _is_onnx(model: object) -> bool:
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model).endswith(".onnx") or _begins_like_onnx(Path(model))
    onnx = sys.modules.get("onnx")
    if onnx is not None and isinstance(model, onnx.ModelProto):
        return True
    onnx_ir = sys.modules.get("onnx_ir")
    return onnx_ir is not None and isinstance(model, onnx_ir.Model)


def _begins_like_onnx(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(3)
    except (OSError, ValueError):
        return False
    return (
        len(head) == 3 and head[0] == _IR_VERSION_TAG and 0 < head[1] < 64 and head[2] in _NEXT_TAGS
    )
