"""Read a ModelProto from a file, or say in one line why the file is not one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from lowprec.errors import ModelError

PROTOBUF_LIMIT = 2**31 - 1  # bytes; protobuf refuses longer messages


def read_proto(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """Return the ModelProto in the file `path`; external data is not touched.

    Raises:
        ModelError: the file is missing, unreadable, not a regular file, longer than protobuf
            allows, or not a complete ONNX protobuf.
    """
    path = Path(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ModelError(
            f"model file '{path}' does not exist; give the path of an .onnx file"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"model file '{path}' cannot be read: {_reason(error)}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ModelError(f"'{path}' is a folder; give the path of an .onnx file")
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"'{path}' is not a regular file; give the path of an .onnx file")
    if status.st_size > PROTOBUF_LIMIT:
        raise ModelError(
            f"model file '{path}' is {status.st_size / 1e9:.1f} GB, protobuf allows 2 GB; "
            "store its weights as external data"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"model file '{path}' cannot be read: {_reason(error)}") from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        model = onnx.ModelProto()
    if not model.HasField("graph"):
        raise ModelError(f"model file '{path}' {_what_it_looks_like(content)}")
    return model


def _what_it_looks_like(content: bytes) -> str:
    if not content:
        return "is empty; an ONNX protobuf is expected: export the model again"
    head = content[:1024]
    if all(byte >= 0x20 or byte in b"\t\r\n" for byte in head):
        return "is a text file, not an ONNX protobuf; give the exported .onnx file itself"
    return (
        "is not a complete ONNX protobuf: it is truncated or of another format; "
        "copy or export it again"
    )


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
