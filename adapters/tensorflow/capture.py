"""A model of TensorFlow as `Captured`: its source, the hub graph, and TensorFlow's own answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowprec.adapters.tensorflow.batches import DATA, feeds_to_compare
from lowprec.adapters.tensorflow.binding import KEY, Binding
from lowprec.adapters.tensorflow.data import OpenedData
from lowprec.adapters.tensorflow.hub import hub_of
from lowprec.adapters.tensorflow.nodes import numpy_dtype
from lowprec.adapters.tensorflow.parts import NOT_COMPARED, cannot_run, captured_parts
from lowprec.adapters.tensorflow.source import Source
from lowprec.adapters.tensorflow.translator import UntranslatableError
from lowprec.adapters.tensorflow_hooks import KIND
from lowprec.hookspecs import Captured, CapturedParts

Array = NDArray[Any]

BATCHES = (1, 3)  # sizes for which the hub is compared with TensorFlow
OPEN = 8  # a size that nothing tells, in made-up inputs


def captured(
    source: Source,
    binding: Binding,
    model: object,
    feeds: Sequence[Sequence[Array]] = (),
    *,
    data: OpenedData | None = None,
    samples: int = 1,
) -> Captured | CapturedParts:
    """Return `source` as Captured; in parts where TensorFlow has to keep some of its operations.

    Args:
        source: The model as a graph.
        binding: How it is called.
        model: As it was given.
        feeds: Inputs to compare with TensorFlow, each in the order of the inputs; without any, the
            first of the data, or else made up.
        data: Calibration data.
        samples: How many of its items may be looked at.

    Raises:
        UnsupportedError: some operation has no translation, and nothing else is worth a part.
        ModelError: TensorFlow itself cannot run the model on inputs that were given.
    """
    chosen: Sequence[Sequence[Array]] = list(islice(feeds, len(BATCHES)))
    if not chosen and data is not None:
        dtypes = [np.dtype(tensor.dtype.as_numpy_dtype) for tensor in source.inputs.values()]
        chosen = feeds_to_compare(data, binding, dtypes, samples)
    is_made_up = not chosen
    chosen = chosen or made_up(source)
    try:
        hub = hub_of(source, binding.name)
    except UntranslatableError as error:
        parts = captured_parts(source, binding, model, chosen, error, is_made_up=is_made_up)
        return parts if data is None else _with_data(parts, data)
    names = list(source.inputs)
    notes: list[str] = []
    try:
        compared = [
            (dict(zip(names, arrays, strict=True)), source.run(arrays)) for arrays in chosen
        ]
    except tf.errors.OpError as failure:  # division by 0, a place that is not there
        if not is_made_up:
            raise cannot_run(failure) from failure
        compared = []
        notes.append(NOT_COMPARED)
    return Captured(
        graph=hub,
        source=model,
        kind=KIND,
        binding={KEY: binding} if data is None else {KEY: binding, DATA: data},
        samples=compared,
        notes=notes,
    )


def _with_data(parts: CapturedParts, data: OpenedData) -> CapturedParts:
    data.keep()  # every part reads it
    for part in parts.parts.values():
        part.binding = {**part.binding, DATA: data}
    return parts


def shapes_of(tensors: Sequence[tf.Tensor]) -> tuple[tuple[int | None, ...] | None, ...]:
    """Return the shapes of symbolic tensors as a Binding has them."""
    return tuple(
        None if tensor.shape.rank is None else tuple(tensor.shape.as_list()) for tensor in tensors
    )


def made_up(source: Source) -> list[list[Array]]:
    """Return inputs of several batch sizes: normal numbers, and 0 and 1 for integers."""
    random = np.random.default_rng(0)
    feeds = []
    for batch in BATCHES:
        arrays: list[Array] = []
        for tensor in source.inputs.values():
            sizes = [] if tensor.shape.rank is None else tensor.shape.as_list()
            shape = [
                size if size is not None else (batch if axis == 0 else OPEN)
                for axis, size in enumerate(sizes)
            ]
            dtype = np.dtype(numpy_dtype(tensor.dtype))
            if dtype.kind not in "biufV":
                arrays.append(np.full(shape, b"a", object))
            elif dtype.kind in "biu":
                arrays.append(random.integers(0, 2, shape).astype(dtype))
            else:
                arrays.append(random.standard_normal(shape).astype(dtype))
        feeds.append(arrays)
    return feeds
