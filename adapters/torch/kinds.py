"""What may be given in the place of a plain torch.nn.Module, and what may not."""

from __future__ import annotations

import torch
from torch import nn

from lowprec.adapters.torch.refusals import Refusal
from lowprec.errors import ModelError


def plain_module(module: nn.Module) -> nn.Module:
    """Return the module itself, out of what torch.compile or DataParallel put around it.

    Raises:
        ModelError: it cannot be captured as it is: scripted, without sizes yet, not on the CPU.
    """
    while True:
        inner = getattr(module, "_orig_mod", None)  # of torch.compile
        if not isinstance(inner, nn.Module) or type(module).__name__ != "OptimizedModule":
            wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
            inner = module.module if isinstance(module, wrappers) else None
        if inner is None:
            break
        module = inner
    if isinstance(module, torch.jit.ScriptModule):
        raise Refusal(
            "a TorchScript module cannot be traced by torch.export",
            None,
            "give the Python module that it was made of, or an ONNX file",
        )
    for name, part in module.named_modules():
        lazy = getattr(part, "has_uninitialized_params", None)
        if lazy is not None and lazy():
            raise ModelError(
                f"the lazy module '{name or type(part).__name__}' has no sizes yet; call the "
                "module once before"
            )
        if isinstance(part, torch.jit.ScriptModule):
            raise ModelError(
                f"the part '{name}' is a TorchScript module, which torch.export cannot trace; use "
                "the Python module that it was made of"
            )
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.device.type == "meta":
            raise ModelError(f"'{name}' is on 'meta' and has no values; load its weights first")
        if tensor.device.type != "cpu":
            raise ModelError(
                f"'{name}' is on '{tensor.device}'; lowprec runs on the CPU: give it module.cpu()"
            )
    return module
