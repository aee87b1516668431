"""What may be given in the place of a plain torch.nn.Module, and what may not."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from lowprec.adapters.torch.examples import Example
from lowprec.adapters.torch.refusals import Refusal
from lowprec.errors import ModelError


def opened_program(program: torch.export.ExportedProgram) -> tuple[nn.Module, Example | None]:
    """Return an exported program as a module, and the call that it was exported with.

    The sizes that may change are those of the program.
    """
    module = program.module()
    args, kwargs = program.example_inputs or ((), {})
    names = [*inspect.signature(module.forward).parameters]
    if not args or not all(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values())):
        return module, None
    inputs = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.name in inputs]
    shapes = {}
    for name, value in zip([*names[: len(args)], *kwargs], values, strict=True):
        sizes = {axis: size for axis, size in enumerate(value.shape) if not isinstance(size, int)}
        shapes[name] = {
            axis: _dimension(size.node.expr, program.range_constraints)
            for axis, size in sizes.items()
        }
    return module, Example(tuple(args), dict(kwargs), shapes)


def _dimension(expression: Any, ranges: Any) -> Any:
    """Return the torch.export.Dim that stands for a size of a program."""
    (symbol,) = expression.free_symbols
    rest = int(expression.subs(symbol, 0))
    step = int(expression.subs(symbol, 1)) - rest
    limits = ranges[symbol]
    least = {"min": int(limits.lower)} if int(limits.lower) > 0 else {}
    most = {"max": int(limits.upper)} if limits.upper.is_Integer else {}
    made = Dim(f"size_{symbol}", **least, **most)
    made = step * made if step != 1 else made
    return made + rest if rest else made


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
