"""Calibration data as it was given: what is in it, one item at a time, without using it up."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, TypeGuard

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowprec.adapters.onnx.npz import called
from lowprec.errors import DataError

ACCEPTED = (
    "a tf.data.Dataset, a keras.utils.PyDataset, another iterable of arrays, tuples or dicts (one "
    "item is one batch), arrays or a dict of arrays with samples along axis 0, a function that "
    "returns one of these, an .npz file, or a folder of .npz files"
)

EMPTY = (
    "the calibration data holds no samples: it is empty, or an iterator that was used up before; "
    "give a fresh iterator or a list"
)


class OpenedData:
    """Calibration data whose first items may be looked at before they are read.

    Iterating yields every item, those that were looked at included; again, where the data can be
    iterated again. It is opened once for both.
    """

    def __init__(self, data: object) -> None:
        """Take hold of `data`; nothing is read yet."""
        self.data = data
        self._found: object = None
        self._seen: list[object] = []
        self._rest: Iterator[object] | None = None
        self._keeps = False

    @property
    def found(self) -> object:
        """The data itself, or what a function that was given for it returns."""
        if self._found is None:
            self._found = called(self.data) if _is_function(self.data) else self.data
        return self._found

    def peek(self, count: int) -> list[object]:
        """Return the first `count` items, or all where there are fewer."""
        if self._rest is None:
            self._rest = self._items()
        self._seen += islice(self._rest, max(count - len(self._seen), 0))
        return self._seen[:count]

    def keep(self) -> None:
        """Keep what is read of a one-shot iterator, for those who iterate again."""
        self._keeps = isinstance(self.found, Iterator)

    def __iter__(self) -> Iterator[object]:
        """Yield the items."""
        if self._keeps:
            return self._kept()
        seen, rest = self._seen, self._rest
        self._seen, self._rest = [], None
        return self._items() if rest is None else chain(seen, rest)

    def _kept(self) -> Iterator[object]:
        number = 0
        while len(self.peek(number + 1)) > number:
            yield self._seen[number]
            number += 1

    def _items(self) -> Iterator[object]:
        data: Any = self.found
        if isinstance(data, keras.utils.PyDataset) or (
            _is_indexed(data) and not isinstance(data, Iterable)
        ):
            return _by_number(data)
        if not isinstance(data, Iterable) or isinstance(data, (str, bytes, keras.Model)):
            raise DataError(f"calibration data is a {type(data).__name__}; give {ACCEPTED}")
        return iter(data)


def first_argument(opened: OpenedData) -> object:
    """Return what a model that was never built is called with: the first item, without labels.

    As fit() has it, a tuple is (inputs, labels, weights), a list is several inputs.

    Raises:
        DataError: there is no data.
    """
    data: Any = opened.found
    if is_array(data):
        return _some(np.asarray(data)[:1])
    if isinstance(data, Mapping) and data:
        return {key: _some(np.asarray(value)[:1]) for key, value in data.items()}
    items = opened.peek(1)
    if not items:
        raise DataError(EMPTY)
    return _as_arrays(items[0][0] if isinstance(items[0], tuple) and items[0] else items[0])


def is_array(value: object) -> bool:
    """Return whether `value` is one array or tensor."""
    return hasattr(value, "shape") and hasattr(value, "__array__")


def as_array(value: object, where: str, dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Return `value` as an array of numbers.

    Args:
        value: An array, a tensor of any framework, a number or nested lists of numbers.
        where: What messages call it.
        dtype: What is wanted; text is let through where that is object.

    Raises:
        DataError: it is something else.
    """
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)):
        raise DataError(
            f"{where} is a {type(value).__name__}; give dense tensors: with .to_tensor(), or "
            "tf.sparse.to_dense()"
        )
    try:
        array = np.asarray(value)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{where} is not an array of numbers: {reason}") from None
    if dtype is not None and dtype.kind == "O":
        return array.astype(object)
    if array.dtype.kind in "SUOT":
        kind = "text" if array.dtype.kind in "SUT" else f"a {type(value).__name__}"
        kind = "text" if isinstance(value, tf.Tensor) and value.dtype == tf.string else kind
        raise DataError(f"{where} is {kind}; give arrays or tensors of numbers")
    return array


def _as_arrays(nested: Any) -> Any:
    if isinstance(nested, Mapping):
        return {key: _as_arrays(value) for key, value in nested.items()}
    if isinstance(nested, (list, tuple)) and not _holds_numbers(nested):
        return type(nested)(_as_arrays(value) for value in nested)
    return as_array(nested, "sample 0")


def _holds_numbers(value: object) -> bool:
    """Return whether `value` is a list of numbers, or of lists of numbers."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_holds_numbers(part) for part in value)
    return isinstance(value, (bool, int, float))


def _some(array: NDArray[Any]) -> NDArray[Any]:
    if not array.size:
        raise DataError(EMPTY)
    return array


def _is_indexed(data: object) -> bool:
    has_items = hasattr(data, "__getitem__") and hasattr(data, "__len__")
    return has_items and not isinstance(data, type)


def _is_function(data: object) -> TypeGuard[Callable[[], object]]:
    is_data = isinstance(data, (Iterable, keras.Model)) or _is_indexed(data)
    return callable(data) and not is_data


def _by_number(data: Any) -> Iterator[object]:
    """Yield the batches of a data set by number; it may be endless when iterated."""
    try:
        count = data.num_batches if hasattr(data, "num_batches") else len(data)
    except NotImplementedError:
        raise DataError(
            f"calibration data is a {type(data).__name__} without a length; define __len__ or "
            "num_batches"
        ) from None
    for number in itertools.count() if count is None else range(int(count)):
        yield data[number]
