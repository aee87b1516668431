"""What a module is called with while it is captured."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from lowprec.adapters.torch.items import OpenedData, call_of, wanted_positions
from lowprec.errors import DataError, ModelError

LOOKED_AT = 8  # items of the calibration data that tell which sizes vary


@dataclass(frozen=True)
class Example:
    """One call of a module, and which axes may change.

    Attributes:
        args: Positional arguments.
        kwargs: Arguments by name.
        dynamic_shapes: As torch.export.export takes them; None finds out.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any = None


def example(*args: Any, dynamic_shapes: Any = None, **kwargs: Any) -> Example:
    """Return what to give as `example_inputs`: the arguments of one call.

    Args:
        *args: Positional arguments of forward.
        dynamic_shapes: Which axes may change, as torch.export.export takes them: by argument a dict
            from axis to torch.export.Dim; `{}` fixes every size. None finds out: the batch, and
            what varies in the calibration data.
        **kwargs: Arguments by name.

    Example:
        >>> q = lowprec.compile(net, example_inputs=example(x, mask=m))  # doctest: +SKIP
    """
    return Example(args, kwargs, dynamic_shapes)


def examples_of(
    module: torch.nn.Module, example_inputs: object, data: OpenedData | None
) -> list[Example]:
    """Return calls to look at, those of `example_inputs` or else of the data's first items.

    Raises:
        ModelError: there is nothing to trace with.
        DataError: the data is empty.
    """
    signature = inspect.signature(module.forward)
    if isinstance(example_inputs, Example):
        return [example_inputs]
    if example_inputs is not None:
        everything = len(signature.parameters)
        args, kwargs = call_of(example_inputs, signature, everything, [])
        return [Example(args, kwargs)]
    if data is None:
        raise ModelError(
            f"a {type(module).__name__} must be traced: give calibration data, or example_inputs="
            "(a tuple in the order of forward's arguments, a dict by name, or "
            "lowprec.adapters.torch.example(...))"
        )
    items = data.peek(LOOKED_AT)
    if not items:
        raise DataError(
            "the calibration data holds no samples: it is empty, or an iterator that was used up "
            "before; give a fresh iterator or a list"
        )
    positional = wanted_positions(signature)
    return [Example(*call_of(item, signature, positional, [])) for item in items]
