"""Calibration data as feeds of the captured graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.adapters.tensorflow.binding import KEY, Binding
from lowprec.adapters.tensorflow.data import EMPTY, OpenedData, as_array, is_array
from lowprec.adapters.tensorflow.parts import UPSTREAM, Upstream
from lowprec.adapters.tensorflow.structure import leaves_like
from lowprec.errors import DataError
from lowprec.hookspecs import Captured

Array = NDArray[Any]
Feed = dict[str, Array]

DATA = "data"  # in Captured.binding: the OpenedData whose first items were looked at

LOOKED_AT = 2  # items of the data on which the captured graph is compared with TensorFlow
ROWS = (1, 3)  # of each; where the batch axis is open


@dataclass(frozen=True)
class _Input:
    """What the captured graph takes: sizes are None where they may change, or all of them."""

    name: str
    dtype: np.dtype[Any]
    sizes: tuple[int | None, ...] | None


class Batches:
    """Feeds by input name; `notes` says after iterating what was dropped or converted."""

    def __init__(self, data: OpenedData, binding: Binding, dtypes: Sequence[np.dtype[Any]]) -> None:
        """Take hold of the data; nothing is read.

        Args:
            data: As given to quantize().
            binding: Names, shapes and structure of the inputs.
            dtypes: Of the inputs, in order.
        """
        self.notes: list[str] = []
        self._data = data
        self._binding = binding
        self._names = binding.inputs
        self._inputs = [
            _Input(name, np.dtype(dtype), shape)
            for name, dtype, shape in zip(binding.inputs, dtypes, binding.shapes, strict=True)
        ]

    def __iter__(self) -> Iterator[Feed]:
        """Yield {input name: array}, checked, with the batch axis.

        Raises:
            DataError: there is none, or an item does not fit the model.
        """
        is_empty = True
        for feed in self._feeds(self._data):
            is_empty = False
            yield feed
        if is_empty:
            raise DataError(EMPTY)

    def first(self, count: int) -> list[Feed]:
        """Return the first feeds, `count` of them at most; iterating yields them again."""
        rows = self._rows()
        feeds = self._feeds(self._data.peek(count)) if rows is None else self._rows_as_feeds(rows)
        return list(islice(feeds, count))

    # ---- samples along axis 0 ----

    def _feeds(self, items: Any) -> Iterator[Feed]:
        rows = self._rows() if items is self._data else None
        if rows is not None:
            yield from self._rows_as_feeds(rows)
            return
        for number, item in enumerate(items):
            yield self._feed(self._leaves(item, number), number, is_row=False)

    def _rows(self) -> dict[str, Array] | None:
        """Return whole arrays by input name, or None where the data is an iterable of batches."""
        data: Any = self._data.found
        where = "the calibration data"
        if is_array(data):
            wanted = self._single(where)
            return {wanted.name: as_array(data, where, wanted.dtype)}
        if isinstance(data, Mapping):
            found = self._by_name(data, where)
        elif isinstance(data, (list, tuple)) and self._is_arguments(data):
            found = self._by_position(data, where)
        else:
            return None
        return {
            wanted.name: as_array(value, f"{where}, input '{wanted.name}',", wanted.dtype)
            for wanted, value in zip(self._inputs, found, strict=True)
        }

    def _is_arguments(self, data: Sequence[Any]) -> bool:
        """Return whether `data` is what fit() takes: all inputs, or (all inputs, all labels)."""
        if not data or not all(is_array(part) for part in data):
            return False
        if len(self._inputs) > 1:
            return len(data) >= len(self._inputs)
        sizes = self._inputs[0].sizes
        if not isinstance(data, tuple) or len(data) not in (2, 3) or sizes is None:
            return False
        return len(data[0].shape) == len(sizes) != len(data[1].shape)

    def _rows_as_feeds(self, rows: Mapping[str, Array]) -> Iterator[Feed]:
        lengths = {name: len(array) for name, array in rows.items() if array.ndim}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{name}: {count}" for name, count in lengths.items())
            raise DataError(
                f"the calibration data holds different numbers of samples ({counts}); "
                "every input needs as many"
            )
        for number in range(next(iter(lengths.values()), 1)):
            leaves = [rows[name][number] if rows[name].ndim else rows[name] for name in self._names]
            yield self._feed(leaves, number, is_row=True)

    # ---- one item of an iterable ----

    def _leaves(self, item: object, number: int) -> Sequence[object]:
        where = f"sample {number}"
        if isinstance(item, Mapping):
            return self._by_name(item, where)
        if isinstance(item, (tuple, list)) and any(_is_part(part) for part in item):
            if not self._is_the_argument(item) and (
                len(self._inputs) == 1 or _is_nested(item[0])  # (inputs, labels, weights)
            ):
                self._note_dropped(len(item) - 1)
                return self._leaves(item[0], number)
            return self._by_position(item, where)
        self._single(where)
        return [item]

    def _is_the_argument(self, item: Sequence[Any]) -> bool:
        return _matches(self._binding.arguments, item)

    def _by_position(self, parts: Sequence[Any], where: str) -> list[Any]:
        if self._is_the_argument(parts):
            return leaves_like(self._binding.arguments, parts, self._names)
        if len(parts) < len(self._inputs):
            raise DataError(
                f"{where} has {len(parts)} parts, the model has {len(self._inputs)} inputs "
                f"({', '.join(self._names)}); give one for each, in that order"
            )
        self._note_dropped(len(parts) - len(self._inputs))
        return list(parts[: len(self._inputs)])

    def _by_name(self, item: Mapping[Any, Any], where: str) -> list[Any]:
        keys: Any = self._names
        tree = self._binding.arguments
        if not all(name in item for name in self._names):
            if isinstance(tree, Mapping) and _matches(tree, item):
                keys = tree["dict"]
                found = leaves_like(tree, item, self._names)
            else:
                missing = next(name for name in self._names if name not in item)
                raise DataError(
                    f"{where} has no '{missing}'; it holds {', '.join(map(str, item)) or 'nothing'}"
                    f", the model's inputs are {', '.join(self._names)}"
                )
        else:
            found = [item[name] for name in self._names]
        surplus = [str(key) for key in item if key not in keys]
        if surplus:
            self._note(f"dropped {', '.join(surplus)}: not an input of the model")
        return found

    def _single(self, where: str) -> _Input:
        if len(self._inputs) != 1:
            raise DataError(
                f"{where} is one array, the model has {len(self._inputs)} inputs "
                f"({', '.join(self._names)}); give a dict by input name or a tuple in that order"
            )
        return self._inputs[0]

    # ---- checks ----

    def _feed(self, leaves: Sequence[object], number: int, *, is_row: bool) -> Feed:
        arrays = [
            as_array(leaf, f"sample {number}, input '{wanted.name}',", wanted.dtype)
            for leaf, wanted in zip(leaves, self._inputs, strict=True)
        ]
        lacking = [
            wanted.sizes is not None and array.ndim == len(wanted.sizes) - 1
            for array, wanted in zip(arrays, self._inputs, strict=True)
        ]
        # One sample without a batch axis: then all its inputs lack theirs.
        if all(
            axis or not wanted.sizes for axis, wanted in zip(lacking, self._inputs, strict=True)
        ):
            if any(lacking) and not is_row:
                self._note("its items are single samples; each was given a batch axis")
            arrays = [
                array[None] if axis or (is_row and wanted.sizes is None) else array
                for array, axis, wanted in zip(arrays, lacking, self._inputs, strict=True)
            ]
        return {
            wanted.name: self._checked(array, wanted, number)
            for array, wanted in zip(arrays, self._inputs, strict=True)
        }

    def _checked(self, array: Array, wanted: _Input, number: int) -> Array:
        where = f"sample {number}, input '{wanted.name}'"
        shape = list(array.shape)
        sizes = array.shape if wanted.sizes is None else wanted.sizes
        if len(shape) != len(sizes):
            raise DataError(
                f"{where}: shape {shape} has {len(shape)} dimensions, the model takes {len(sizes)};"
                " one item is one batch"
            )
        if not array.size:
            raise DataError(f"{where}: shape {shape} holds no values; leave the sample out")
        for axis, (size, fixed) in enumerate(zip(shape, sizes, strict=True)):
            if fixed is not None and size != fixed:
                remedy = f"; for a tf.data.Dataset: .unbatch().batch({fixed})" if not axis else ""
                raise DataError(
                    f"{where}: shape {shape} has {size} on axis {axis}, the model takes {fixed} "
                    f"there{remedy or '; give samples of that size'}"
                )
        array = self._converted(array, wanted, where)
        if array.dtype.kind not in "biuO" and not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            raise DataError(f"{where}: it holds {kind}; remove or repair that sample")
        return np.ascontiguousarray(array) if array.ndim else array

    def _converted(self, array: Array, wanted: _Input, where: str) -> Array:
        """Return the array in the model's dtype: Keras casts, TensorFlow among like kinds."""
        if array.dtype == wanted.dtype:
            return array
        given_whole, wanted_whole = array.dtype.kind in "biu", wanted.dtype.kind in "biu"
        is_allowed = given_whole == wanted_whole or self._binding.form == "keras"
        if is_allowed:
            with np.errstate(all="ignore"):
                converted = array.astype(wanted.dtype)
                is_exact = not wanted_whole or bool((converted == array).all())
            if is_exact:
                self._note(f"converted '{wanted.name}' from {array.dtype} to {wanted.dtype}")
                return converted
        raise DataError(
            f"{where}: dtype {array.dtype}, the model takes {wanted.dtype}; convert with "
            f".astype('{wanted.dtype}') or tf.cast"
        )

    # ---- notes ----

    def _note(self, text: str) -> None:
        line = f"calibration data: {text}"
        if line not in self.notes:
            self.notes.append(line)

    def _note_dropped(self, count: int) -> None:
        if count > 0:
            self._note(f"dropped what follows the inputs in each item ({count} more)")


class PartBatches:
    """Feeds of a part of a model: what reaches it when the model runs on feeds of its own."""

    def __init__(self, batches: Batches, upstream: Upstream) -> None:
        """Take the model's feeds, and an Upstream of the part."""
        self.notes = batches.notes
        self._batches = batches
        self._upstream = upstream

    def __iter__(self) -> Iterator[Feed]:
        """Yield {input name of the part: array}; DataError as Batches has it."""
        yield from self._upstream.feeds(feed.values() for feed in self._batches)


def batches_of(data: object, captured: Captured) -> Batches | PartBatches:
    """Return the feeds in `data` for a captured model, or for a part of one."""
    opened, upstream = captured.binding.get(DATA), captured.binding.get(UPSTREAM)
    if not isinstance(opened, OpenedData) or opened.data is not data:
        opened = OpenedData(data)
    if isinstance(upstream, Upstream):
        return PartBatches(Batches(opened, upstream.binding, upstream.dtypes), upstream)
    binding = captured.binding[KEY]
    assert isinstance(binding, Binding)
    values = {value.name: value for value in captured.graph.graph.inputs}
    return Batches(opened, binding, [_dtype(values.get(name)) for name in binding.inputs])


def feeds_to_compare(
    data: OpenedData, binding: Binding, dtypes: Sequence[np.dtype[Any]], samples: int
) -> list[list[Array]]:
    """Return a few rows of the first items, in the order of the inputs.

    Args:
        data: Calibration data; what is looked at is yielded again.
        binding: Of the model.
        dtypes: Of its inputs.
        samples: How many items may be looked at.

    Raises:
        DataError: there is none, or an item does not fit the model.
    """
    feeds = Batches(data, binding, dtypes).first(min(samples, LOOKED_AT))
    if not feeds:
        raise DataError(EMPTY)
    shapes = [shape for shape in binding.shapes if shape is None or shape]
    is_open = bool(shapes) and all(shape is not None and shape[0] is None for shape in shapes)
    compared = []
    for rows, feed in zip(ROWS, (feeds[0], feeds[-1]), strict=True):
        arrays = [feed[name] for name in binding.inputs]
        if is_open and len({len(array) for array in arrays if array.ndim}) == 1:
            arrays = [
                array.take(np.arange(rows) % len(array), axis=0) if array.ndim else array
                for array in arrays
            ]
        compared.append(arrays)
    return compared


def _dtype(value: ir.Value | None) -> np.dtype[Any]:
    known = value is not None and value.dtype is not None
    return value.dtype.numpy() if known else np.dtype(np.float32)  # type: ignore[union-attr]


def _is_nested(part: object) -> bool:
    return isinstance(part, (Mapping, tuple)) or (
        isinstance(part, list) and any(_is_part(inner) for inner in part)
    )


def _is_part(part: object) -> bool:
    """Return whether `part` of an item is more than a number: an array, or nested ones."""
    return _is_nested(part) or hasattr(part, "__array__") or hasattr(part, "to_tensor")


def _matches(tree: Any, nested: Any) -> bool:
    """Return whether `nested` has the structure `tree`; more than one part is needed to tell."""
    if isinstance(tree, int):
        return not isinstance(nested, (Mapping, list, tuple))
    kind, inner = next(iter(tree.items()))
    if kind == "dict":
        return isinstance(nested, Mapping) and all(
            key in nested and _matches(part, nested[key]) for key, part in inner.items()
        )
    return (
        isinstance(nested, (list, tuple))
        and len(nested) == len(inner)
        and all(_matches(part, value) for part, value in zip(inner, nested, strict=True))
    )
