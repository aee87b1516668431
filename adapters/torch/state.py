"""A module's state: the bytes of one ONNX file, and what they compile to.

The bytes may come from anyone: a state_dict, a pickle, an exported program, a file.
"""

from __future__ import annotations

import inspect
import json
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from lowprec.adapters.torch.binding import KEY, Binding
from lowprec.adapters.torch.signature import from_plain, of_names, to_plain
from lowprec.adapters.torch.stored import parsed
from lowprec.adapters.torch.tensors import to_numpy
from lowprec.adapters.torch.trees import leaf_count
from lowprec.errors import ModelError, UnsupportedError
from lowprec.graph import constant_bytes, load, to_proto
from lowprec.graph.save import EXTERNAL_LIMIT

if TYPE_CHECKING:
    from lowprec import CompiledModel


@dataclass(frozen=True)
class Call:
    """How a module is called: what stands in its file besides the graph.

    Attributes:
        binding: Arguments and results as graph inputs and outputs.
        signature: Of forward, without self.
        name: Of the original's class; for people.
    """

    binding: Binding
    signature: inspect.Signature
    name: str

    def to_json(self) -> str:
        """Return it as a text for the file's metadata."""
        plain = {
            **self.binding.to_dict(),
            "signature": to_plain(self.signature),
            "name": self.name,
        }
        return json.dumps(plain, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Call:
        """Return what `to_json` wrote.

        Raises:
            ModelError: it is something else.
        """
        data = parsed(text)
        signature = from_plain(data.get("signature"))
        return cls(Binding.from_dict(data), signature, str(data.get("name", ""))[:200])

    @classmethod
    def of_state(cls, text: str, compiled: CompiledModel) -> Call:
        """Return what `to_json` wrote, for a model that it fits.

        Raises:
            ModelError: it is something else, or for another model.
        """
        call = cls.from_json(text)
        names = [info.name for info in compiled.inputs]
        count = leaf_count(call.binding.result)
        if list(call.binding.inputs) != names or count != len(compiled.outputs):
            raise ModelError(
                "what the file says about the module's call does not fit its graph, which takes "
                f"{', '.join(names)} and returns {len(compiled.outputs)} tensors; save the module "
                "again"
            )
        return call

    @classmethod
    def of_model(cls, compiled: CompiledModel, name: str) -> Call:
        """Return how to call a model that nobody captured: its inputs in order."""
        signature = of_names([info.name for info in compiled.inputs])
        parameters = tuple(signature.parameters)
        arguments = {parameter: {"leaf": index} for index, parameter in enumerate(parameters)}
        leaves: list[Any] = [{"leaf": index} for index in range(len(compiled.outputs))]
        result = leaves[0] if len(leaves) == 1 else {"tuple": leaves}
        names = tuple(info.name for info in compiled.inputs)
        binding = Binding(parameters, len(parameters), arguments, names, result, {})
        return cls(binding, signature, name)


def state_of(hub: ir.Model | Callable[[], onnx.ModelProto], call: Call | None) -> torch.Tensor:
    """Return the bytes of the ONNX file of a hub, with how it is called, as a uint8 tensor.

    Args:
        hub: Or a function that returns its ModelProto.
        call: Goes into the metadata; None leaves them as they are.

    Raises:
        UnsupportedError: its weights exceed what one ONNX file can hold.
    """
    if isinstance(hub, ir.Model):
        size = constant_bytes(hub)
        if size > EXTERNAL_LIMIT:
            raise UnsupportedError(
                f"the module's constants take {size / 2**30:.1f} GiB; a module of lowprec keeps "
                "them in one ONNX file, which ends at 2 GiB: quantise parts of it, each a module"
            )
        proto = to_proto(hub)
    else:
        proto = hub()
    if call is not None:
        for entry in [entry for entry in proto.metadata_props if entry.key == KEY]:
            proto.metadata_props.remove(entry)
        entry = proto.metadata_props.add()
        entry.key, entry.value = KEY, call.to_json()
    content = proto.SerializeToString(deterministic=True)
    del proto
    return tensor_of(content)


def tensor_of(content: bytes) -> torch.Tensor:
    """Return bytes as a uint8 tensor that may be changed."""
    with torch.inference_mode(False):
        return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def compiled_from(state: torch.Tensor) -> CompiledModel:
    """Return what the bytes in `state` compile to; a QuantizedModel where they hold a report.

    Raises:
        ModelError: they are not a usable model.
    """
    import lowprec

    hub = load(_proto(state))
    if lowprec.QuantizedModel.is_in(hub):
        compiled: CompiledModel = lowprec.QuantizedModel.from_hub(hub, "")
    else:
        compiled = lowprec.compile(hub)
    return without_hub(compiled, state)


def without_hub(compiled: CompiledModel, state: torch.Tensor) -> CompiledModel:
    """Return `compiled` without the hub in memory: it is read from the bytes when it is needed."""
    return compiled.without_hub(_reader(state))


def _reader(state: torch.Tensor) -> Callable[[], ir.Model]:
    """Return a function that reads the hub from `state`, which it does not keep alive.

    What is compiled from bytes lives as long as these do: it must not hold them itself.
    """
    storage = weakref.ref(state.untyped_storage())
    start, size = state.storage_offset(), state.numel()

    def read() -> ir.Model:
        kept = storage()
        if kept is None:
            raise ModelError("the module's state was replaced while it ran; run it again")
        content = torch.empty(0, dtype=torch.uint8).set_(kept, start, (size,), (1,))
        return load(_proto(content))

    return read


def call_from(state: torch.Tensor, compiled: CompiledModel, name: str) -> Call:
    """Return how the module whose bytes these are is called.

    Args:
        state: The bytes.
        compiled: From them.
        name: Of the model, where the bytes do not say how it is called: then by its inputs.

    Raises:
        ModelError: what they say is damaged.
    """
    for entry in _proto(state).metadata_props:
        if entry.key == KEY:
            return Call.of_state(entry.value, compiled)
    return Call.of_model(compiled, name)


def _proto(state: torch.Tensor) -> onnx.ModelProto:
    if state.dtype != torch.uint8 or state.ndim != 1:
        raise ModelError(
            f"a module's state is a tensor of bytes (uint8 of rank 1), not {state.dtype} of rank "
            f"{state.ndim}; give what state_dict() of such a module returned"
        )
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(to_numpy(state).tobytes())
    except Exception as error:  # protobuf's DecodeError has no stable home
        raise ModelError(
            f"a module's state is damaged: it is not an ONNX file ({error}); save it again"
        ) from None
    return proto
