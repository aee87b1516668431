"""Calibration data as feeds of the captured graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from lowprec.adapters.torch.binding import KEY, Binding
from lowprec.adapters.torch.examples import EMPTY
from lowprec.adapters.torch.items import Wanted, call_of
from lowprec.adapters.torch.sources import OpenedData, note
from lowprec.adapters.torch.tensors import to_numpy, torch_dtype
from lowprec.errors import DataError, InputError
from lowprec.hookspecs import Captured

Feed = dict[str, NDArray[Any]]

RECORDED = "recorded"  # in the binding of a part of a module: what reaches it when the whole runs


@dataclass(frozen=True)
class _Input:
    """What the captured graph takes: sizes are None where they may change."""

    name: str
    dtype: torch.dtype
    sizes: tuple[int | None, ...]


class Batches:
    """Feeds by graph input name; `notes` says after iterating what was dropped or converted."""

    def __init__(self, data: OpenedData, binding: Binding, graph: ir.Model) -> None:
        """Take hold of the data; nothing is read."""
        self.notes = data.notes
        self._data = data
        self._binding = binding
        self._wanted = Wanted.by_capture(binding.arguments)
        inputs = {value.name: value for value in graph.graph.inputs}
        self._inputs = [_described(inputs[name]) for name in binding.inputs]

    def __iter__(self) -> Iterator[Feed]:
        """Yield {input name: array}.

        Raises:
            DataError: there is none, or an item does not fit the module.
        """
        number = -1
        for number, item in enumerate(self._data):
            leaves = self._leaves(item, number)
            yield {
                wanted.name: to_numpy(self._checked(tensor, path, wanted, number))
                for (path, tensor), wanted in zip(leaves, self._inputs, strict=True)
            }
        if number < 0:
            raise DataError(EMPTY)

    def _leaves(self, item: object, number: int) -> Sequence[tuple[str, torch.Tensor]]:
        args, kwargs = call_of(item, self._wanted, number, self.notes)
        given: Mapping[str, Any] = {
            **dict(zip(self._wanted.positions, args, strict=False)),
            **kwargs,
        }
        try:
            return self._binding.named_leaves((), given)
        except InputError as error:
            raise DataError(f"sample {number}: {error}") from None

    def _checked(
        self, tensor: torch.Tensor, path: str, wanted: _Input, number: int
    ) -> torch.Tensor:
        where = f"sample {number}, argument '{path}'"
        shape = list(tensor.shape)
        if tensor.ndim != len(wanted.sizes):
            raise DataError(
                f"{where}: shape {shape} has {tensor.ndim} dimensions, the module was captured "
                f"with {len(wanted.sizes)}; one item is one call, with its batch axis"
            )
        if not tensor.numel():
            raise DataError(f"{where}: shape {shape} holds no values; leave the sample out")
        for axis, (size, fixed) in enumerate(zip(shape, wanted.sizes, strict=True)):
            if fixed is not None and size != fixed:
                raise DataError(
                    f"{where}: shape {shape} has {size} on axis {axis}, the module was captured "
                    f"with {fixed} there; give samples of that size, or two sizes among the first "
                    "samples, so that it is captured for any"
                )
        tensor = self._converted(tensor, wanted, where)
        if tensor.dtype.is_floating_point and not bool(torch.isfinite(tensor).all()):
            kind = "NaN" if bool(torch.isnan(tensor).any()) else "infinity"
            raise DataError(f"{where}: it holds {kind}; remove or repair that sample")
        return tensor

    def _converted(self, tensor: torch.Tensor, wanted: _Input, where: str) -> torch.Tensor:
        if tensor.dtype == wanted.dtype:
            return tensor
        both_float = tensor.dtype.is_floating_point and wanted.dtype.is_floating_point
        neither = not tensor.dtype.is_floating_point and not wanted.dtype.is_floating_point
        converted = tensor.to(wanted.dtype)
        if not both_float and not (neither and torch.equal(converted.to(tensor.dtype), tensor)):
            raise DataError(
                f"{where}: dtype {_name(tensor.dtype)}, the module takes {_name(wanted.dtype)}; "
                f"convert with .to({wanted.dtype})"
            )
        note(
            self.notes,
            f"converted '{wanted.name}' from {_name(tensor.dtype)} to {_name(wanted.dtype)}",
        )
        return converted


def feeds_of(data: object, captured: Captured) -> Iterable[Feed]:
    """Return the feeds in `data` for a captured module."""
    recorded: Any = captured.binding.get(RECORDED)
    if recorded is not None:
        return recorded  # type: ignore[no-any-return]
    opened, binding = captured.binding["data"], captured.binding[KEY]
    assert isinstance(binding, Binding)
    if not isinstance(opened, OpenedData) or opened.data is not data:
        opened = OpenedData(data, binding.arguments)
    return Batches(opened, binding, captured.graph)


def _described(value: ir.Value) -> _Input:
    dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
    shape = value.shape if value.shape is not None else ()
    sizes = tuple(size if isinstance(size, int) else None for size in shape)
    return _Input(str(value.name), torch_dtype(dtype), sizes)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
