"""What a module is called with while it is captured."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from lowprec.adapters.torch.items import EXAMPLE, Wanted, call_of, tensors_in, where
from lowprec.adapters.torch.sources import OpenedData
from lowprec.errors import DataError, ModelError

EMPTY = (
    "the calibration data holds no samples: it is empty, or an iterator that was used up before; "
    "give a fresh iterator or a list"
)
LOOKED_AT = 8  # items of the calibration data that tell which sizes vary


@dataclass(frozen=True)
class Example:
    """One call of a module, and which axes may change.

    Attributes:
        args: Positional arguments.
        kwargs: Arguments by name.
        dynamic_shapes: As torch.export.export takes them; None finds out.
        sample: Its number in the calibration data, where it comes from there.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any = None
    sample: int | None = None


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
    module: torch.nn.Module,
    example_inputs: object,
    data: OpenedData | None,
    samples: int = LOOKED_AT,
) -> list[Example]:
    """Return calls to look at, those of `example_inputs` or else of the data's first items.

    Args:
        module: The calls are for its forward.
        example_inputs: One call, or None.
        data: Calibration data, or None.
        samples: How many items of it may be asked for.

    Raises:
        ModelError: there is nothing to trace with.
        DataError: the data is empty, or an item is not what forward takes.
    """
    if isinstance(example_inputs, Example):
        return [example_inputs]
    signature = inspect.signature(module.forward)
    dtype = _floats_of(module)
    if example_inputs is not None:
        wanted = Wanted.by_signature(signature, all_positions=True)
        return [_example(example_inputs, wanted, EXAMPLE, dtype)]
    if data is None:
        raise ModelError(
            f"a {type(module).__name__} must be traced: give calibration data, or example_inputs="
            "(a tuple in the order of forward's arguments, a dict by name, or "
            "lowprec.adapters.torch.example(...))"
        )
    items = data.peek(min(samples, LOOKED_AT))
    if not items:
        raise DataError(EMPTY)
    wanted = Wanted.by_signature(signature)
    return [_example(item, wanted, number, dtype) for number, item in enumerate(items)]


def _example(item: object, wanted: Wanted, number: int, dtype: torch.dtype | None) -> Example:
    args, kwargs = call_of(item, wanted, number, [])
    for tensor in tensors_in([*args, *kwargs.values()]):
        if not tensor.numel():
            raise DataError(
                f"{where(number)}: a tensor of shape {list(tensor.shape)} holds no values; leave "
                "the sample out"
            )
    if dtype is not None:
        args = tuple(_as_float(value, dtype) for value in args)
        kwargs = {name: _as_float(value, dtype) for name, value in kwargs.items()}
    return Example(args, kwargs, sample=None if number == EXAMPLE else number)


def _floats_of(module: torch.nn.Module) -> torch.dtype | None:
    """Return what float64 tensors, NumPy's default, are meant as; None: as what they are."""
    floats = [p.dtype for p in module.parameters() if p.dtype.is_floating_point]
    return None if not floats or torch.float64 in floats else floats[0]


def _as_float(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.dtype == torch.float64 else value
    if type(value) is dict:
        return {key: _as_float(part, dtype) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_as_float(part, dtype) for part in value)
    return value
