"""The operator that stands for a whole model while torch traces: lowprec::run.

Its model is an argument, the bytes of an ONNX file in a uint8 tensor: what torch.export saves is
complete. `key` is the hash of these bytes; compiled models are found by it.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import torch

from lowprec.adapters.torch.tensors import to_numpy, to_tensor, torch_dtype
from lowprec.errors import InputError

_library = torch.library.Library("lowprec", "DEF")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "run(Tensor[] inputs, Tensor model, str key) -> Tensor[]"
)

_lock = threading.Lock()
_models: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()


def key_of(model: torch.Tensor) -> str:
    """Return the hash of a model's bytes."""
    return hashlib.blake2b(to_numpy(model).data, digest_size=16).hexdigest()


def register(key: str, compiled: Any) -> None:
    """Make `compiled`, a CompiledModel, the one that runs for `key`, as long as it is held."""
    with _lock:
        _models[key] = compiled


def compiled_for(model: torch.Tensor, key: str) -> Any:
    """Return the compiled model for `key`, compiled from the bytes in `model` if need be."""
    found = _models.get(key)
    if found is None:
        from lowprec.adapters.torch.module import compiled_from

        if key_of(model) != key:
            raise InputError(
                "the model's bytes are not those that the program was traced with; trace it again"
            )
        found = compiled_from(model)
        register(key, found)
        weakref.finalize(model, lambda kept: None, found)  # held as long as its bytes are
    return found


def run(compiled: Any, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the outputs of a compiled model for tensors in the order of its inputs."""
    feeds = {
        info.name: to_numpy(tensor) for info, tensor in zip(compiled.inputs, inputs, strict=True)
    }
    return [to_tensor(array) for array in compiled.run(feeds)]


def _run(inputs: list[torch.Tensor], model: torch.Tensor, key: str) -> list[torch.Tensor]:
    return run(compiled_for(model, key), inputs)


def _fake(inputs: list[torch.Tensor], model: torch.Tensor, key: str) -> list[torch.Tensor]:
    compiled = _models[key]
    sizes: dict[str, Any] = {}
    for info, tensor in zip(compiled.inputs, inputs, strict=True):
        for size, actual in zip(info.shape or (), tensor.shape, strict=False):
            if isinstance(size, str):
                sizes[size] = actual
    context = torch.library.get_ctx()
    outputs = []
    for info in compiled.outputs:
        shape = [
            size
            if isinstance(size, int)
            else sizes[size]
            if size in sizes
            else context.new_dynamic_size()
            for size in info.shape or ()
        ]
        outputs.append(inputs[0].new_empty(shape, dtype=torch_dtype(info.dtype)))
    return outputs


_library.impl("run", _run, "CPU")  # type: ignore[no-untyped-call]
torch.library.register_fake("lowprec::run", _fake, lib=_library)
