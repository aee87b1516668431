"""Batches of a data set: transformed, stacked, in an order that repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lowprec.data.datasets import Sample, Samples
from lowprec.data.transform import Transform
from lowprec.errors import DataError

Array = NDArray[Any]
Batch = tuple["Array | tuple[Array, ...]", object]


class Loader:
    """Iterates over (inputs, labels), as often as wanted, with the same result each time.

    inputs: an array with the samples along axis 0, or a tuple of them where samples have several
    inputs. labels: an array, a list where labels differ in shape, or None where there are none.
    """

    def __init__(
        self,
        samples: Samples,
        transforms: Sequence[Transform] = (),
        *,
        batch_size: int = 1,
        last_batch: Literal["rollover", "discard"] = "rollover",
        shuffle: bool = False,
        seed: int = 0,
        limit: int | None = None,
    ) -> None:
        """Look at the samples' number; nothing is read yet.

        Args:
            samples: (input, label) by number.
            transforms: Applied in this order to each sample.
            batch_size: Samples in a batch.
            last_batch: Whether a last batch that is not full is kept (rollover) or discarded.
            shuffle: Whether to take the samples in a random order.
            seed: Of that order and of random transforms.
            limit: Samples to take, at most.

        Raises:
            DataError: discarding the last batch would leave none.
        """
        self.samples = samples
        self.transforms = tuple(transforms)
        self.batch_size = batch_size
        self.keeps_last = last_batch == "rollover"
        self.shuffle = shuffle
        self.seed = seed
        self.count = len(samples) if limit is None else min(len(samples), limit)
        if len(self) == 0:
            raise DataError(
                f"{self.count} samples make no batch of {batch_size} with last_batch: discard; "
                "lower batch_size, or keep the last batch with rollover"
            )

    def __len__(self) -> int:
        """Return the number of batches."""
        whole, rest = divmod(self.count, self.batch_size)
        return whole + (1 if rest and self.keeps_last else 0)

    def __iter__(self) -> Iterator[Batch]:
        """Yield (inputs, labels).

        Raises:
            DataError: a sample cannot be read or transformed, or samples of a batch differ in
                shape.
        """
        order = np.arange(len(self.samples))
        if self.shuffle:
            np.random.default_rng(self.seed).shuffle(order)
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            numbers = order[start : min(start + self.batch_size, self.count)]
            yield _stack([self._sample(int(number)) for number in numbers], numbers)

    def _sample(self, number: int) -> Sample:
        inputs, label = self.samples[number]
        for place, transform in enumerate(self.transforms):
            rng = np.random.default_rng([self.seed, number, place])
            label = transform.apply_to_label(label) if label is not None else None
            # A model's further inputs are no images: transforms are for the first.
            if isinstance(inputs, tuple):
                inputs = (transform.apply(inputs[0], rng), *inputs[1:])
            else:
                inputs = transform.apply(inputs, rng)
        return inputs, label


def _stack(samples: list[Sample], numbers: NDArray[np.int64]) -> Batch:
    inputs = [parts if isinstance(parts, tuple) else (parts,) for parts, _ in samples]
    arrays = tuple(_stack_arrays(column, numbers) for column in zip(*inputs, strict=True))
    labels = [label for _, label in samples]
    return arrays[0] if len(arrays) == 1 else arrays, _stack_labels(labels)


def _stack_arrays(column: tuple[Array, ...], numbers: NDArray[np.int64]) -> Array:
    first = np.asarray(column[0])
    for number, array in zip(numbers, column, strict=True):
        if np.shape(array) != first.shape:
            raise DataError(
                f"samples {numbers[0]} and {number} have the shapes {list(first.shape)} and "
                f"{list(np.shape(array))}; add a Resize or a crop, or set batch_size: 1"
            )
    return np.stack(column)


def _stack_labels(labels: list[object]) -> object:
    if any(label is None for label in labels):
        return None
    try:
        shapes = {np.asarray(label).shape for label in labels}
    except ValueError:
        return labels
    return np.asarray(labels) if len(shapes) == 1 else labels
