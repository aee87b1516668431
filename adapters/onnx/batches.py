"""Complete feeds by input name from whatever people hold their calibration data in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowprec.adapters.onnx.npz import Archive, archives_at, called
from lowprec.errors import DataError

if TYPE_CHECKING:
    import onnx_ir as ir

Array = NDArray[np.generic]
Feed = dict[str, Array]

ACCEPTED = (
    "an iterable of arrays, tuples or dicts (one item is one complete feed), a function that "
    "returns one, a dict of arrays with samples along axis 0, an .npz file, or a folder of .npz "
    "files"
)


@dataclass(frozen=True)
class _Input:
    name: str
    dtype: np.dtype[Any]
    rank: int | None


class Batches:
    """Feeds from `data` for the inputs of `graph`; `notes` says after iterating what was dropped.

    Iterating again starts again where `data` can; a one-shot iterator yields nothing then, which
    is a DataError.
    """

    def __init__(self, data: object, graph: ir.Model) -> None:
        """Look at the form of `data`; nothing is consumed yet."""
        self.notes: list[str] = []
        self._data = data
        self._inputs = [_describe(value) for value in graph.graph.inputs]

    def __iter__(self) -> Iterator[Feed]:
        """Yield {input name: array}, checked.

        Raises:
            DataError: there is none, or a feed lacks an input or has a wrong rank, dtype or size.
        """
        number = -1
        for number, feed in enumerate(self._feeds(self._data)):
            yield {item.name: self._checked(feed[item.name], item, number) for item in self._inputs}
        if number < 0:
            raise DataError(
                "the calibration data holds no samples: it is empty, or an iterator that was "
                "used up before; give a fresh iterator or a list"
            )

    def _feeds(self, data: object) -> Iterator[Feed]:
        if data is None:
            raise DataError(f"no calibration data was given; give {ACCEPTED}")
        if isinstance(data, (str, os.PathLike)):
            yield from self._from_path(Path(data))
        elif isinstance(data, Mapping):
            yield from self._from_stacked(data)
        elif hasattr(data, "shape") and hasattr(data, "__array__"):
            yield from self._from_array(np.asarray(data))
        elif isinstance(data, Iterable):
            for number, item in enumerate(data):
                yield self._from_item(item, number)
        elif callable(data):
            yield from self._feeds(called(data))
        else:
            raise DataError(f"calibration data is a {type(data).__name__}; give {ACCEPTED}")

    # ---- files ----

    def _from_path(self, path: Path) -> Iterator[Feed]:
        for file in archives_at(path):
            archive = Archive(file, self._names, [item.rank for item in self._inputs])
            self._note_surplus(archive.surplus)
            yield from archive

    # ---- whole arrays with samples along axis 0 ----

    def _from_stacked(self, data: Mapping[Any, Any]) -> Iterator[Feed]:
        arrays = self._from_mapping(data, 0)
        lengths = {name: len(array) for name, array in arrays.items() if array.ndim}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name}: {count}" for name, count in lengths.items())
            raise DataError(
                f"the calibration data holds different numbers of samples ({counts}); "
                "every input needs as many"
            )
        ranks = {item.name: item.rank for item in self._inputs}
        for number in range(next(iter(lengths.values()), 1)):
            yield {name: _sample(array, ranks[name], number) for name, array in arrays.items()}

    def _from_array(self, array: Array) -> Iterator[Feed]:
        item = self._single_input(0)
        if array.ndim == 0 or (
            item.rank is not None and array.ndim not in (item.rank, item.rank + 1)
        ):
            raise DataError(
                f"the calibration array has shape {list(array.shape)}, the input '{item.name}' has "
                f"{item.rank} dimensions; give samples along axis 0"
            )
        for number in range(len(array)):
            yield {item.name: _sample(array, item.rank, number)}

    # ---- one item of an iterable ----

    def _from_item(self, item: object, number: int) -> Feed:
        if isinstance(item, Mapping):
            return self._from_mapping(item, number)
        if isinstance(item, (tuple, list)) and any(_is_nested(part) for part in item):
            return self._from_parts(item, number)
        return {self._single_input(number).name: _as_array(item, number)}

    def _from_parts(self, parts: tuple[object, ...] | list[object], number: int) -> Feed:
        first = parts[0]
        if isinstance(first, (Mapping, tuple)):  # (inputs, labels) with several inputs
            if len(parts) > 1:
                self._note(f"dropped what follows the inputs in each item ({len(parts) - 1} more)")
            return self._from_item(first, number)
        if len(parts) < len(self._inputs):
            raise DataError(
                f"sample {number} has {len(parts)} arrays, the model has {len(self._inputs)} "
                f"inputs ({', '.join(self._names)}); give one array for each, in that order"
            )
        surplus = len(parts) - len(self._inputs)
        if surplus:
            self._note(f"dropped what follows the inputs in each item ({surplus} more)")
        return {
            item.name: _as_array(part, number)
            for item, part in zip(self._inputs, parts, strict=False)
        }

    def _from_mapping(self, item: Mapping[Any, Any], number: int) -> Feed:
        missing = [name for name in self._names if name not in item]
        if missing:
            raise DataError(
                f"sample {number} has no '{missing[0]}'; it holds "
                f"{', '.join(str(key) for key in item) or 'nothing'}, the model's inputs are "
                f"{', '.join(self._names)}"
            )
        self._note_surplus([str(key) for key in item if key not in self._names])
        return {name: _as_array(item[name], number) for name in self._names}

    def _single_input(self, number: int) -> _Input:
        if len(self._inputs) != 1:
            raise DataError(
                f"sample {number} is one array, the model has {len(self._inputs)} inputs "
                f"({', '.join(self._names)}); give a dict by input name or a tuple in that order"
            )
        return self._inputs[0]

    # ---- checks and notes ----

    def _checked(self, array: Array, item: _Input, number: int) -> Array:
        where = f"sample {number}, input '{item.name}'"
        if item.rank is not None and array.ndim != item.rank:
            raise DataError(
                f"{where}: shape {list(array.shape)} has {array.ndim} dimensions, the model "
                f"expects {item.rank}; one item is one complete feed, with its batch axis"
            )
        if array.size == 0:
            raise DataError(f"{where}: shape {list(array.shape)} holds no values; leave it out")
        if array.dtype != item.dtype:
            if array.dtype != np.float64 or item.dtype != np.float32:
                raise DataError(
                    f"{where}: dtype {array.dtype}, the model expects {item.dtype}; "
                    f"convert with .astype('{item.dtype}')"
                )
            self._note(f"converted '{item.name}' from float64 to float32")
            array = array.astype(np.float32)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            raise DataError(f"{where}: it holds {kind}; remove or repair that sample")
        return np.ascontiguousarray(array) if array.ndim else array

    @property
    def _names(self) -> list[str]:
        return [item.name for item in self._inputs]

    def _note(self, text: str) -> None:
        line = f"calibration data: {text}"
        if line not in self.notes:
            self.notes.append(line)

    def _note_surplus(self, keys: list[str]) -> None:
        if keys:
            self._note(f"dropped {', '.join(keys)}: not an input of the model")


def _describe(value: ir.Value) -> _Input:
    dtype = value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
    rank = None if value.shape is None else len(value.shape)
    return _Input(str(value.name), dtype, rank)


def _sample(array: Array, rank: int | None, number: int) -> Array:
    """Return sample `number` with batch 1, without a batch axis where the input has none."""
    if array.ndim == 0:
        return array
    without_axis = rank is not None and array.ndim == rank + 1
    sample: Array = array[number] if without_axis else array[number : number + 1]
    return sample


def _is_nested(part: object) -> bool:
    return isinstance(part, (Mapping, tuple)) or hasattr(part, "__array__")


def _as_array(item: object, number: int) -> Array:
    try:
        array = np.asarray(item)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"sample {number} is not an array of numbers: {reason}") from None
    if array.dtype == object:
        raise DataError(
            f"sample {number} is a {type(item).__name__}, not an array of numbers; give NumPy "
            f"arrays"
        )
    return array
