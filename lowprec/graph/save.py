"""Write a hub model to disk so that either the new file or the old one is there, never half of one.

The bytes depend on the model alone: the same model gives the same file. Above the size that
protobuf can hold, weights go to a data file beside the model whose name carries the digest of its
content; the model file is renamed into place last, so that a reader never sees it with another
save's data.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx
import onnx_ir as ir

from lowprec.atomic import output_errors, resolve_target, sync_folder, temporary_file
from lowprec.errors import ModelError
from lowprec.graph.constants import own_tensor
from lowprec.graph.opsets import lower_opset

IR_VERSION = 10  # what the releases of onnxruntime and OpenVINO of the last years open
EXTERNAL_LIMIT = (
    2**31 - 2**26
)  # bytes of weights; protobuf ends at 2 GiB and the graph needs room too
SMALL_TENSOR = (
    1024  # bytes; smaller tensors stay in the model file: readers want axes and shapes there
)
ALIGNMENT = 4096  # bytes, for readers that map the data file


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Return `model` as the ModelProto that `save` writes: IR version 10, all weights inside.

    An opset above 23 is declared as 23 where every operator of the model has the same definition
    there.
    """
    return _serialize(model, lambda tensor: own_tensor(tensor, copy_external=True))


def save(
    model: ir.Model, path: str | os.PathLike[str], *, external_limit: int = EXTERNAL_LIMIT
) -> None:
    """Write `model` to `path` atomically: after any failure the old file is still there, unharmed.

    Args:
        model: Stays as it is.
        path: The .onnx file; its folder must exist.
        external_limit: Bytes of weights above which they go to `<path>.<digest>.data` beside it.

    Raises:
        OutputError: the folder is missing or read-only, the disk is full, or the path is a folder.
    """
    target = resolve_target(path)
    is_large = constant_bytes(model) > external_limit
    data_name = None
    with output_errors(target), contextlib.ExitStack() as stack:
        if is_large:
            data = stack.enter_context(temporary_file(target))
            places = _write_data(model, data.file)
            data_name = f"{target.name}.{places.digest}.data"
            proto = _serialize(model, lambda tensor: places.external(tensor, str(data_name)))
        else:
            proto = to_proto(model)
        content = stack.enter_context(temporary_file(target))
        content.file.write(_serialized_bytes(proto))
        if data_name is not None:
            data.move_to(target.with_name(data_name))
        content.move_to(target)
        sync_folder(target.parent)
        _remove_stale_data(target, keep=data_name)


def _serialized_bytes(proto: onnx.ModelProto) -> bytes:
    try:
        content: bytes = proto.SerializeToString(deterministic=True)
    except Exception as error:  # protobuf raises EncodeError, upb a ValueError
        raise ModelError(f"the model's graph is too large for protobuf: {error}") from None
    return content


def _serialize(
    model: ir.Model, place: Callable[[ir.TensorProtocol], ir.TensorProtocol]
) -> onnx.ModelProto:
    """Return a ModelProto of `model` whose weights are what `place` makes of them."""
    copy = model.clone()
    for graph in copy.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                value.const_value = place(value.const_value)
            if not value.is_graph_input() and not value.is_graph_output():
                value.type = None  # the tensor itself says so
                value.shape = None
        for node in graph:
            for name, attribute in tuple(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    tensor = own_tensor(attribute.as_tensor(), copy_external=True)
                    node.attributes[name] = ir.AttrTensor(name, tensor)
    copy.ir_version = IR_VERSION
    lower_opset(copy)
    return ir.to_proto(copy)


def constant_bytes(model: ir.Model) -> int:
    """Return the size of all constants of `model` that have a fixed size (texts have none)."""
    return sum(tensor.nbytes for tensor in _weights(model) if tensor.dtype != ir.DataType.STRING)


def _weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value


@dataclass
class _DataFile:
    """Where each large tensor lies in a data file, by the tensor's identity."""

    digest: str
    offsets: dict[int, int]

    def external(self, tensor: ir.TensorProtocol, location: str) -> ir.TensorProtocol:
        offset = self.offsets.get(id(tensor))
        if offset is None:
            return own_tensor(tensor, copy_external=True)
        shape = ir.Shape(tensor.shape.numpy())
        return ir.ExternalTensor(
            location, offset, tensor.nbytes, tensor.dtype, shape=shape, name=tensor.name or ""
        )


def _write_data(model: ir.Model, file: BinaryIO) -> _DataFile:
    digest = hashlib.sha256()
    offsets: dict[int, int] = {}
    position = 0
    for tensor in _weights(model):
        is_string = tensor.dtype == ir.DataType.STRING
        if is_string or tensor.nbytes < SMALL_TENSOR or id(tensor) in offsets:
            continue
        padding = bytes(-position % ALIGNMENT)
        content = tensor.tobytes()
        for piece in (padding, content):
            file.write(piece)
            digest.update(piece)
        offsets[id(tensor)] = position + len(padding)
        position += len(padding) + len(content)
    return _DataFile(digest.hexdigest()[:16], offsets)


def _remove_stale_data(target: Path, keep: str | None) -> None:
    """Remove data files of earlier saves to the same path; nothing refers to them any more."""
    stale = re.compile(re.escape(target.name) + r"\.[0-9a-f]{16}\.data")
    for sibling in target.parent.iterdir():
        if stale.fullmatch(sibling.name) and sibling.name != keep:
            sibling.unlink(missing_ok=True)
