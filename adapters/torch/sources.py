"""Calibration data one item at a time; one item is one call of the module.

DataLoaders and other iterables yield calls as they are. Data sets hold single samples, and arrays,
tokenizer outputs and .npz files hold samples along axis 0: each becomes a call with batch 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lowprec.adapters.onnx.npz import Archive, archives_at, called, read_members
from lowprec.errors import DataError

ACCEPTED = (
    "a DataLoader or another iterable of tensors, tuples or dicts (one item is one call of the "
    "module), a data set (of torch or Hugging Face), a function that returns one of these, "
    "tensors, arrays or a tokenizer's output with samples along axis 0, an .npz file, or a folder "
    "of .npz files"
)


class OpenedData:
    """Calibration data whose first items may be looked at before they are read.

    Iterating yields every item, those that were looked at included; again, where `data` can be
    iterated again. What is iterated is opened once for both.
    """

    def __init__(self, data: object, names: Iterable[str] = ()) -> None:
        """Take hold of `data`; nothing is read yet.

        Args:
            data: As given to quantize().
            names: Of forward's parameters: what arrays in files are called.
        """
        self.data = data
        self.notes: list[str] = []
        self._names = tuple(names)
        self._seen: list[object] = []
        self._rest: Iterator[object] | None = None

    def peek(self, count: int) -> list[object]:
        """Return the first `count` items, or all where there are fewer."""
        if self._rest is None:
            self._rest = self._items(self.data)
        self._seen += islice(self._rest, max(count - len(self._seen), 0))
        return self._seen[:count]

    def __iter__(self) -> Iterator[object]:
        """Yield the items."""
        seen, rest = self._seen, self._rest
        self._seen, self._rest = [], None
        return self._items(self.data) if rest is None else chain(seen, rest)

    def _items(self, data: object) -> Iterator[object]:
        if isinstance(data, (str, os.PathLike)):
            yield from self._from_path(Path(data))
        elif isinstance(data, Mapping):
            yield from _rows(data)
        elif isinstance(data, (torch.Tensor, np.ndarray)):
            if not data.ndim:
                raise DataError(f"the calibration data is one number; give {ACCEPTED}")
            for number in range(len(data)):
                yield data[number : number + 1]
        elif _is_of_hub(data) or isinstance(data, torch.utils.data.Dataset):
            for item in _samples(data):
                yield with_batch_axis(item)
        elif isinstance(data, torch.nn.Module):
            raise DataError(f"calibration data is a {type(data).__name__}; give {ACCEPTED}")
        elif isinstance(data, Iterable):
            yield from data
        elif callable(data):
            yield from self._items(called(data))
        else:
            raise DataError(f"calibration data is a {type(data).__name__}; give {ACCEPTED}")

    def _from_path(self, path: Path) -> Iterator[object]:
        for file in archives_at(path):
            held = {name.rpartition("/")[0] or name: None for name in read_members(file)}
            names = [name for name in held if name in self._names]
            if not names:
                raise DataError(
                    f"data file '{file}' holds {', '.join(held) or 'nothing'}; name its arrays "
                    f"like forward's arguments ({', '.join(self._names)}), or "
                    "'argument/00000', 'argument/00001', ... for whole calls"
                )
            archive = Archive(file, names, [None] * len(names))
            if archive.surplus:
                note(self.notes, f"dropped {', '.join(archive.surplus)}: no argument of forward")
            yield from archive


def note(notes: list[str], text: str) -> None:
    """Add a line on calibration data, once."""
    line = f"calibration data: {text}"
    if line not in notes:
        notes.append(line)


def with_batch_axis(value: Any) -> Any:
    """Return one sample as a batch of one: tensors, arrays, numbers and lists of numbers in it.

    What holds no numbers (text, pictures of PIL, None) stays as it is.
    """
    if isinstance(value, torch.Tensor):
        return value.unsqueeze(0)
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)[None]
    if isinstance(value, (bool, int, float)):
        return torch.tensor([value])
    if isinstance(value, Mapping):
        return {key: with_batch_axis(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        if holds_numbers_only(value):
            return [value]
        parts = [with_batch_axis(item) for item in value]
        return parts if isinstance(value, list) else tuple(parts)
    return value


def holds_numbers_only(value: Any) -> bool:
    """Return whether `value` is a list of numbers, or of lists of numbers."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(holds_numbers_only(part) for part in value)
    return isinstance(value, (bool, int, float))


def _samples(data: Any) -> Iterator[object]:
    if hasattr(data, "__iter__"):
        yield from data
        return
    try:
        length = len(data)
    except (TypeError, NotImplementedError):
        raise DataError(
            f"calibration data is a {type(data).__name__} without a length; define __len__, or "
            "give a DataLoader"
        ) from None
    for number in range(length):
        yield data[number]


def _is_of_hub(data: object) -> bool:
    """Return whether `data` is a data set of Hugging Face's `datasets`, told without importing."""
    return any(
        kind.__module__.partition(".")[0] == "datasets"
        and kind.__name__ in ("Dataset", "IterableDataset")
        for kind in type(data).__mro__
    )


def _rows(data: Mapping[Any, Any]) -> Iterator[dict[Any, Any]]:
    """Yield samples along axis 0 of all that `data` holds, each with batch 1."""
    for key, value in data.items():
        if _is_of_hub(value):
            raise DataError(
                f"calibration data is a {type(data).__name__} of several data sets "
                f"({', '.join(map(str, data))}); give one of them, as data['{key}']"
            )
    if isinstance(data.get("input_ids"), (list, tuple)) and holds_flat(data["input_ids"]):
        yield {key: with_batch_axis(value) for key, value in data.items()}  # of one text
        return
    counts = {key: len(value) for key, value in data.items() if _is_stack(value)}
    if len(set(counts.values())) > 1:
        raise DataError(
            "the calibration data holds different numbers of samples "
            f"({', '.join(f'{key}: {count}' for key, count in counts.items())}); every argument "
            "needs as many"
        )
    for number in range(next(iter(counts.values()), 0)):
        yield {key: _row(value, number) for key, value in data.items()}


def holds_flat(values: Sequence[Any]) -> bool:
    """Return whether `values` are numbers, not lists of numbers."""
    return bool(values) and isinstance(values[0], int)


def _is_stack(value: Any) -> bool:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.ndim > 0
    return isinstance(value, (list, tuple))


def _row(value: Any, number: int) -> Any:
    if not _is_stack(value):
        return value
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value[number : number + 1]
    return with_batch_axis(value[number])
