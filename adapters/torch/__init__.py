"""PyTorch modules, and calibration data as tensors, DataLoaders and tokenizer outputs.

Importing this package does not import torch; its hooks and names do when they are used. Where torch
is imported already, it registers the operator that exported programs hold; where it is not,
`import lowprec.adapters.torch.operator` does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowprec.hookspecs import AdapterInfo, Captured, CapturedParts, hookimpl, installed

KIND = "torch"

# Public names, and the files that hold them.
_PUBLIC = {
    "CompiledModule": "module",
    "QuantizedModule": "module",
    "example": "examples",
    "from_pretrained": "pretrained",
    "save_pretrained": "pretrained",
    "load": "module",
}

__all__ = [
    "CompiledModule",
    "QuantizedModule",
    "example",
    "from_pretrained",
    "load",
    "save_pretrained",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


@hookimpl
def lowprec_capture(
    model: object, example_inputs: object, calibration_data: object, samples: int
) -> Captured | CapturedParts | None:
    """Take a torch.nn.Module or ExportedProgram; traced with the example or the first samples."""
    if not _is_module(model) and not _is_program(model):
        return None
    from lowprec.adapters.torch.capture import capture_module

    return capture_module(
        model,  # type: ignore[arg-type]
        example_inputs,
        calibration_data,
        samples,
    )


@hookimpl
def lowprec_defer(model: object, build: Callable[[object], Any]) -> object | None:
    """Take a torch.nn.Module that nothing was given to trace with: its first call will do."""
    if not _is_module(model):
        return None
    from lowprec.adapters.torch.deferred import DeferredModule

    return DeferredModule(model, build)  # type: ignore[arg-type]


@hookimpl
def lowprec_rebuild(quantized: object, captured: Captured | CapturedParts) -> object | None:
    """Return a torch.nn.Module with the original's forward signature."""
    if captured.kind != KIND:
        return None
    if isinstance(captured, CapturedParts):
        from lowprec.adapters.torch.split import assemble

        return assemble(quantized, captured)  # type: ignore[arg-type]
    from lowprec.adapters.torch.module import module_of

    return module_of(quantized, captured)  # type: ignore[arg-type]


@hookimpl
def lowprec_batches(
    data: object, captured: Captured
) -> Iterable[dict[str, NDArray[np.generic]]] | None:
    """Take DataLoaders, iterables of tensors, tuples and dicts, and functions that return one."""
    if captured.kind != KIND:
        return None
    from lowprec.adapters.torch.batches import feeds_of

    return feeds_of(data, captured)


@hookimpl
def lowprec_describe() -> AdapterInfo:
    """Return the installed versions of torch and onnxscript."""
    return AdapterInfo(
        name=KIND,
        versions=installed("torch", "onnxscript"),
        accepts="a torch.nn.Module",
    )


def _is_module(model: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _is_program(model: object) -> bool:
    torch = sys.modules.get("torch.export")
    return torch is not None and isinstance(model, torch.ExportedProgram)


if hasattr(sys.modules.get("torch"), "export"):  # not while torch itself is being imported
    import_module(f"{__name__}.operator")
