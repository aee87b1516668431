"""Calibration data as feeds of the captured graph."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from lowprec.adapters.torch.binding import KEY, Binding
from lowprec.adapters.torch.items import OpenedData, call_of
from lowprec.adapters.torch.tensors import to_numpy
from lowprec.errors import DataError
from lowprec.hookspecs import Captured

Feed = dict[str, NDArray[Any]]


class Batches:
    """Feeds by graph input name; `notes` says after iterating what was dropped."""

    def __init__(self, data: OpenedData, binding: Binding, signature: inspect.Signature) -> None:
        """Take hold of the data; nothing is read."""
        self.notes: list[str] = []
        self._data = data
        self._binding = binding
        self._signature = signature

    def __iter__(self) -> Iterator[Feed]:
        """Yield {input name: array}.

        Raises:
            DataError: there is none, or an item does not fit the module.
        """
        empty = True
        positional = len(self._binding.arguments)
        for item in self._data:
            empty = False
            args, kwargs = call_of(item, self._signature, positional, self.notes)
            leaves = self._binding.named_leaves(args, kwargs)
            names = self._binding.inputs
            yield {name: to_numpy(t) for name, (_, t) in zip(names, leaves, strict=True)}
        if empty:
            raise DataError(
                "the calibration data holds no samples: it is empty, or an iterator that was "
                "used up before; give a fresh iterator or a list"
            )


def feeds_of(data: object, captured: Captured) -> Batches:
    """Return the feeds in `data` for a captured module."""
    opened = captured.binding["data"]
    binding, signature = captured.binding[KEY], captured.binding["signature"]
    assert isinstance(binding, Binding)
    assert isinstance(signature, inspect.Signature)
    if not isinstance(opened, OpenedData) or opened.data is not data:
        opened = OpenedData(data)
    return Batches(opened, binding, signature)
