"""A model as the bytes of one ONNX file: what returned models and saved graphs hold.

The bytes may come from anyone: a file of weights, a SavedModel, a GraphDef.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lowprec.adapters.tensorflow.binding import KEY, Binding
from lowprec.errors import ModelError, UnsupportedError
from lowprec.graph import constant_bytes, load, to_proto
from lowprec.graph.save import EXTERNAL_LIMIT

if TYPE_CHECKING:
    from lowprec import CompiledModel
    from lowprec.hookspecs import Captured

Bytes = NDArray[np.uint8]

LONGEST_CALL = 1 << 24  # characters of how a model is called


def content_of(compiled: CompiledModel, captured: Captured) -> bytes:
    """Return the ONNX file of a model that was quantised or compiled, with how it is called.

    Raises:
        UnsupportedError: its weights exceed what one ONNX file can hold.
    """
    import lowprec

    if isinstance(compiled, lowprec.QuantizedModel):
        _check_size(constant_bytes(compiled.hub))
        proto = compiled.to_onnx()
    else:
        _check_size(constant_bytes(captured.graph))
        proto = to_proto(captured.graph)
    binding = captured.binding[KEY]
    assert isinstance(binding, Binding)
    for entry in [entry for entry in proto.metadata_props if entry.key == KEY]:
        proto.metadata_props.remove(entry)
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(binding.to_dict(), separators=(",", ":"))
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def compiled_from(content: Bytes | bytes) -> CompiledModel:
    """Return what the bytes compile to; a QuantizedModel where they hold a report.

    Raises:
        ModelError: they are not a usable model.
    """
    import lowprec

    hub = load(proto_of(content))
    if lowprec.QuantizedModel.is_in(hub):
        found: CompiledModel = lowprec.QuantizedModel.from_hub(hub, "")
    else:
        found = lowprec.compile(hub)
    return found


def binding_in(content: Bytes | bytes) -> Binding | None:
    """Return how the model in the bytes is called; None where they do not say it.

    Raises:
        ModelError: what they say is damaged, or does not fit the model.
    """
    proto = proto_of(content)
    for entry in proto.metadata_props:
        if entry.key == KEY:
            binding = Binding.from_dict(_parsed(entry.value))
            fed = {tensor.name for tensor in proto.graph.initializer}
            names = tuple(value.name for value in proto.graph.input if value.name not in fed)
            if binding.inputs != names or len(binding.outputs) != len(proto.graph.output):
                raise ModelError(
                    "what the file says about the model's call does not fit its graph, which takes "
                    f"{', '.join(names)}; save the model again"
                )
            return binding
    return None


def proto_of(content: Bytes | bytes) -> onnx.ModelProto:
    """Return the bytes as a ModelProto.

    Raises:
        ModelError: they are none.
    """
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content if isinstance(content, bytes) else content.tobytes())
    except Exception as error:  # protobuf's DecodeError has no stable home
        raise ModelError(
            f"a model's bytes are damaged: they are not an ONNX file ({error}); save it again"
        ) from None
    return proto


def _check_size(size: int) -> None:
    if size > EXTERNAL_LIMIT:
        raise UnsupportedError(
            f"the model's constants take {size / 2**30:.1f} GiB; what lowprec returns for "
            "TensorFlow keeps them in one ONNX file, which ends at 2 GiB: quantise parts of it"
        )


def _parsed(text: str) -> Any:
    if len(text) > LONGEST_CALL:
        raise ModelError("the description of the model's call is damaged; save the model again")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ModelError(
            "the description of the model's call is damaged; save the model again"
        ) from None
