"""The operator that stands for a whole model while torch traces: lowprec::run.

Its model is an argument, the bytes of an ONNX file in a uint8 tensor: what torch.export saves is
complete. `signature` is the digest of these bytes, by which compiled models are found, and the
shapes of inputs and outputs, which a trace needs without the bytes.

Importing this file registers the operator: programs that hold it can be loaded from then on.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch

from lowprec.adapters.torch.sizes import output_shape, signature_of, sizes_of, specs_of
from lowprec.adapters.torch.tensors import converted, to_numpy, to_tensor, torch_dtype
from lowprec.errors import InputError

Tensors = list[torch.Tensor]

OTHER_DEVICES = ("CUDA", "XPU", "MPS")
BLOBS_KNOWN = 256  # places in memory whose bytes were hashed before

_library = torch.library.Library("lowprec", "DEF")  # type: ignore[no-untyped-call]
_library.define(  # type: ignore[no-untyped-call]
    "run(Tensor[] inputs, Tensor model, str signature) -> Tensor[]"
)

_lock = threading.RLock()
_models: dict[str, weakref.WeakSet[Any]] = {}  # by digest: modules may hold several of the same
_checked: dict[tuple[str, int, int], None] = {}  # signature, address, version of known bytes


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew_lock)


# ---- Which model -------------------------------------------------------------------------------


def signature_for(model: torch.Tensor, compiled: Any) -> str:
    """Return what finds `compiled` again: the digest of its bytes, and its inputs and outputs."""
    return f"{_digest(model)} {signature_of(compiled.inputs, compiled.outputs)}"


def register(signature: str, model: torch.Tensor, compiled: Any) -> None:
    """Make `compiled` one that runs for `signature`, as long as it or its bytes are held."""
    with _lock:
        _add(signature, compiled)
        _remember(signature, model, compiled)


def compiled_of(model: torch.Tensor) -> Any:
    """Return what the bytes in `model` compile to, or what is compiled from the same already.

    Raises:
        ModelError: the bytes are not a usable model.
    """
    from lowprec.adapters.torch.state import compiled_from

    return _alive(_digest(model)) or compiled_from(model)


def compiled_for(model: torch.Tensor, signature: str) -> Any:
    """Return the compiled model for `signature`, compiled from the bytes in `model` if need be.

    Raises:
        InputError: the bytes are others than those that were traced.
        ModelError: the bytes are not a usable model.
    """
    digest, _, shapes = signature.partition(" ")
    found = _alive(digest)
    if found is not None and _place(signature, model) in _checked:
        return found
    with _lock:
        if _place(signature, model) not in _checked:
            _check_digest(model, signature)
        found = _alive(digest)
        if found is None:
            from lowprec.adapters.torch.state import compiled_from

            found = compiled_from(model)
            if signature_of(found.inputs, found.outputs) != shapes:
                raise InputError(
                    "the model has other inputs and outputs than the program that runs it; export "
                    "the program again"
                )
            _add(signature, found)
        _remember(signature, model, found)
    return found


def _alive(digest: str) -> Any:
    return next(iter(_models.get(digest, ())), None)


def _add(signature: str, compiled: Any) -> None:
    digest = signature.partition(" ")[0]
    known = _models.setdefault(digest, weakref.WeakSet())
    if compiled not in known:
        # What is registered last is called first: it has left the set when _drop looks.
        weakref.finalize(compiled, _drop, digest).atexit = False
        known.add(compiled)


def _drop(digest: str) -> None:
    if not _models.get(digest, True):
        _models.pop(digest, None)


def _check_digest(model: torch.Tensor, signature: str) -> None:
    if _digest(model) != signature.partition(" ")[0]:
        raise InputError(
            "the model's bytes are not those that the program was traced with; trace it again"
        )


def _digest(model: torch.Tensor) -> str:
    return hashlib.blake2b(to_numpy(model).data, digest_size=16).hexdigest()


def _place(signature: str, model: torch.Tensor) -> tuple[str, int, int]:
    version = 0 if model.is_inference() else model._version
    return signature, model.data_ptr(), version


def _remember(signature: str, model: torch.Tensor, compiled: Any) -> None:
    place = _place(signature, model)
    if place in _checked:
        return
    if len(_checked) >= BLOBS_KNOWN:
        _checked.clear()
    _checked[place] = None
    # The memory of the bytes holds what was compiled from them, whichever tensor shows it.
    held = weakref.finalize(model.untyped_storage(), _forget, place, compiled)
    held.atexit = False


def _forget(place: tuple[str, int, int], compiled: object) -> None:
    _checked.pop(place, None)


# ---- Running -----------------------------------------------------------------------------------


def run(compiled: Any, inputs: Sequence[torch.Tensor]) -> Tensors:
    """Return the outputs of a compiled model for tensors in the order of its inputs.

    Raises:
        InputError: a tensor does not fit its input.
    """
    tensors = [
        converted(_dense(_on_cpu(tensor, info.name), info.name), torch_dtype(info.dtype), info.name)
        for info, tensor in zip(compiled.inputs, inputs, strict=True)
    ]
    if any(tensor.numel() == 0 for tensor in tensors):
        empty = _empty_results(compiled, tensors)
        if empty is not None:
            return empty
    names = [info.name for info in compiled.inputs]
    arrays = [to_numpy(tensor) for tensor in tensors]
    results = compiled.run(dict(zip(names, arrays, strict=True)))
    return [to_tensor(array) for array in results]


def _on_cpu(tensor: torch.Tensor, name: str) -> torch.Tensor:
    if tensor.device.type != "cpu":
        raise InputError(
            f"argument '{name}' is on '{tensor.device}'; a lowprec module runs on the CPU, "
            "wherever its model was before: give it tensor.cpu(), its results are on the CPU too"
        )
    return tensor


def _dense(tensor: torch.Tensor, name: str) -> torch.Tensor:
    if tensor.layout != torch.strided:
        raise InputError(
            f"argument '{name}' has the layout {tensor.layout}; a lowprec module takes dense "
            "tensors: give it tensor.to_dense()"
        )
    return tensor


def _empty_results(compiled: Any, inputs: Sequence[torch.Tensor]) -> Tensors | None:
    """Return results without an element, where inputs without one make such; None elsewhere."""
    for info, tensor in zip(compiled.inputs, inputs, strict=True):
        sizes = info.shape
        if sizes is None or len(sizes) != tensor.ndim:
            return None
        if any(isinstance(s, int) and s != n for s, n in zip(sizes, tensor.shape, strict=True)):
            return None
    takes, makes = specs_of(signature_of(compiled.inputs, compiled.outputs))
    known = sizes_of(takes, [tensor.shape for tensor in inputs])
    results = []
    for spec in makes:
        if spec.sizes is None:
            return None
        shape = output_shape(spec, known, lambda: -1)
        if 0 not in shape or min(shape) < 0:
            return None
        results.append(torch.empty(shape, dtype=torch_dtype(spec.dtype)))
    return results


def _run(inputs: Tensors, model: torch.Tensor, signature: str) -> Tensors:
    compiled = compiled_for(model, signature)
    if len(inputs) != len(compiled.inputs):
        raise InputError(f"the model takes {len(compiled.inputs)} inputs, {len(inputs)} were given")
    return run(compiled, inputs)


def _fake(inputs: Tensors, model: torch.Tensor, signature: str) -> Tensors:
    takes, makes = specs_of(signature.partition(" ")[2])
    if len(inputs) != len(takes):
        raise InputError(f"the model takes {len(takes)} inputs, {len(inputs)} were given")
    known = sizes_of(takes, [tensor.shape for tensor in inputs])
    unknown: Callable[[], Any] = torch.library.get_ctx().new_dynamic_size
    return [
        inputs[0].new_empty(output_shape(spec, known, unknown), dtype=torch_dtype(spec.dtype))
        for spec in makes
    ]


def refuse_gradients(names: Sequence[str], inputs: Sequence[torch.Tensor]) -> None:
    """Raise InputError where a gradient would be wanted of a model that has none."""
    if torch.is_grad_enabled():
        for name, tensor in zip(names, inputs, strict=False):
            if tensor.requires_grad:
                raise InputError(
                    f"argument '{name}' requires a gradient, and a lowprec module computes none: "
                    "call it under torch.no_grad(), or give it tensor.detach()"
                )


def _names(signature: str, inputs: Sequence[torch.Tensor]) -> list[str]:
    compiled = _alive(signature.partition(" ")[0])
    if compiled is None:
        return [str(number) for number in range(len(inputs))]
    return [info.name for info in compiled.inputs]


def _autograd(inputs: Tensors, model: torch.Tensor, signature: str) -> Tensors:
    refuse_gradients(_names(signature, inputs), inputs)
    with torch._C._AutoDispatchBelowAutograd():
        outputs: Tensors = torch.ops.lowprec.run.default(inputs, model, signature)
        return outputs


def _elsewhere(inputs: Tensors, model: torch.Tensor, signature: str) -> Tensors:
    for name, tensor in zip(_names(signature, inputs), inputs, strict=False):
        _on_cpu(tensor, name)
    raise InputError(f"the model's bytes are on '{model.device}'; move the program to the CPU")


def _batched(
    info: Any, in_dims: Any, inputs: Tensors, model: torch.Tensor, signature: str
) -> tuple[Tensors, list[int]]:
    """Run once for each sample of torch.vmap: nothing says which axis of the model is free."""
    columns: list[Tensors] = []
    for sample in range(info.batch_size):
        chosen = [
            tensor if dim is None else tensor.select(dim, sample)
            for tensor, dim in zip(inputs, in_dims[0], strict=True)
        ]
        columns.append(torch.ops.lowprec.run(chosen, model, signature))
    results = [torch.stack(column) for column in zip(*columns, strict=True)]
    return results, [0] * len(results)


_library.impl("run", _run, "CPU")  # type: ignore[no-untyped-call]
_library.impl("run", _autograd, "Autograd")  # type: ignore[no-untyped-call]
for _key in OTHER_DEVICES:
    with suppress(RuntimeError):  # a build without that device
        _library.impl("run", _elsewhere, _key)  # type: ignore[no-untyped-call]
torch.library.register_fake("lowprec::run", _fake, lib=_library)
torch.library.register_vmap("lowprec::run", _batched, lib=_library)
