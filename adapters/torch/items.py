"""Calibration data one item at a time, and what one item says to forward."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import numpy as np
import torch

from lowprec.errors import DataError

Call = tuple[tuple[Any, ...], dict[str, Any]]  # args, kwargs

ACCEPTED = (
    "a DataLoader, an iterable of tensors, tuples or dicts (one item is one call of the module), a "
    "function that returns one, or a tensor or a dict of tensors with samples along axis 0"
)


class OpenedData:
    """Calibration data whose first items may be looked at before they are read.

    Iterating yields every item, those that were looked at included; again, where `data` can be
    iterated again.
    """

    def __init__(self, data: object) -> None:
        """Take hold of `data`; nothing is read yet."""
        self.data = data
        self._seen: list[object] = []
        self._rest: Iterator[object] | None = None

    def peek(self, count: int) -> list[object]:
        """Return the first `count` items, or all where there are fewer."""
        if self._rest is None:
            self._rest = _items(self.data)
        self._seen += islice(self._rest, max(count - len(self._seen), 0))
        return self._seen[:count]

    def __iter__(self) -> Iterator[object]:
        """Yield the items."""
        seen, rest = self._seen, self._rest
        self._seen, self._rest = [], None
        return _items(self.data) if rest is None else chain(seen, rest)


def call_of(item: object, signature: inspect.Signature, positional: int, notes: list[str]) -> Call:
    """Return the arguments that `item` stands for.

    Args:
        item: One item of the calibration data: a dict by parameter name, a tuple or list in the
            order of the parameters, (inputs, labels), or the only input.
        signature: Of forward.
        positional: How many positional arguments to give at most; what exceeds them is dropped.
        notes: Takes a line about what was dropped.
    """
    if isinstance(item, Mapping):
        names = set(signature.parameters)
        kept = {key: _tensors(value) for key, value in item.items() if key in names}
        if kept:
            dropped = [str(key) for key in item if key not in names]
            if dropped:
                _note(notes, f"dropped {', '.join(dropped)}: not an argument of forward")
            return (), kept
        return (_tensors(item),), {}
    if isinstance(item, (tuple, list)) and item:
        first = item[0]
        if isinstance(first, Mapping) or (isinstance(first, (tuple, list)) and _nested(first)):
            if len(item) > 1:
                _note(notes, f"dropped what follows the inputs in each item ({len(item) - 1} more)")
            return call_of(first, signature, positional, notes)
        if _nested(item):
            surplus = len(item) - positional
            if surplus > 0:
                _note(notes, f"dropped what follows the inputs in each item ({surplus} more)")
            return tuple(_tensors(part) for part in item[:positional]), {}
    return (_tensors(item),), {}


def wanted_positions(signature: inspect.Signature) -> int:
    """Return how many positional arguments forward needs: those without a default, at least 1."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [p for p in signature.parameters.values() if p.kind in kinds]
    return max(sum(p.default is inspect.Parameter.empty for p in named), 1)


def _items(data: object) -> Iterator[object]:
    if isinstance(data, (str, os.PathLike)):
        raise DataError(
            f"calibration data for a torch module is a path ('{data}'); give {ACCEPTED}"
        )
    if isinstance(data, Mapping):
        yield from _rows(data)
    elif isinstance(data, (torch.Tensor, np.ndarray)):
        for number in range(len(data)):
            yield data[number : number + 1]
    elif isinstance(data, Iterable):
        yield from data
    elif callable(data):
        yield from _items(data())
    else:
        raise DataError(f"calibration data is a {type(data).__name__}; give {ACCEPTED}")


def _rows(data: Mapping[Any, Any]) -> Iterator[dict[Any, Any]]:
    columns = {key: _tensors(value) for key, value in data.items()}
    counts = {key: len(column) for key, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise DataError(
            "the calibration data holds different numbers of samples "
            f"({', '.join(f'{key}: {count}' for key, count in counts.items())})"
        )
    for number in range(next(iter(counts.values()), 0)):
        yield {key: column[number : number + 1] for key, column in columns.items()}


def _tensors(value: Any) -> Any:
    """Return `value` with arrays, and lists of numbers, as tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, list) and value and not _nested(value):
        return torch.tensor(value)
    return value


def _nested(value: Any) -> bool:
    return any(isinstance(part, (torch.Tensor, np.ndarray, Mapping)) for part in value)


def _note(notes: list[str], text: str) -> None:
    line = f"calibration data: {text}"
    if line not in notes:
        notes.append(line)
