"""Dtypes and shapes of a model's inputs and outputs as one line of text.

    float32[batch;3] -> float32[batch;10],int64[?]

Sizes are numbers, names, or ? where nothing is known; without brackets even the rank is open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np

from lowprec.errors import ModelError

LONGEST = 1 << 20  # characters of a signature
LARGEST = 1 << 62  # of a size

DTYPES = {
    np.dtype(kind).name: np.dtype(kind)
    for kind in (
        *(np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32),
        *(np.uint64, np.int64, np.float16, np.float32, np.float64, ml_dtypes.bfloat16),
    )
}


@dataclass(frozen=True)
class Spec:
    """One tensor.

    Attributes:
        dtype: Its dtype.
        sizes: Numbers, names, or None where nothing is known; None where even the rank is open.
    """

    dtype: np.dtype[Any]
    sizes: tuple[int | str | None, ...] | None


def written(inputs: Sequence[Any], outputs: Sequence[Any]) -> str:
    """Return the line for these TensorInfos."""
    return " -> ".join(",".join(map(_written, infos)) for infos in (inputs, outputs))


@lru_cache(maxsize=256)
def read(text: str) -> tuple[tuple[Spec, ...], tuple[Spec, ...]]:
    """Return what `written` wrote: the inputs and the outputs.

    Raises:
        ModelError: it is something else.
    """
    sides = text.split(" -> ")
    if len(sides) != 2 or len(text) > LONGEST:
        raise ModelError("the operator's signature is damaged; save the model again")
    inputs, outputs = (tuple(map(_read, side.split(","))) if side else () for side in sides)
    return inputs, outputs


def output_shapes(
    text: str, shapes: Sequence[Sequence[int | None] | None]
) -> list[list[int | None] | None]:
    """Return the shapes of the outputs for inputs of these shapes, None for what is not known.

    Raises:
        ModelError: `text` is damaged.
    """
    inputs, outputs = read(text)
    known: dict[str, int] = {}
    for spec, shape in zip(inputs, shapes, strict=True):
        for name, size in zip(spec.sizes or (), shape or (), strict=False):
            if isinstance(name, str) and size is not None:
                known.setdefault(name, size)
    return [_shape(spec, known) for spec in outputs]


def _shape(spec: Spec, known: Mapping[str, int]) -> list[int | None] | None:
    if spec.sizes is None:
        return None
    return [known.get(size) if isinstance(size, str) else size for size in spec.sizes]


def _written(info: Any) -> str:
    if info.shape is None:
        return str(info.dtype.name)
    return f"{info.dtype.name}[{';'.join(map(_plain, info.shape))}]"


def _plain(size: int | str | None) -> str:
    text = "?" if size is None else str(size)
    return text if text.isidentifier() or text.isdecimal() else "?"


def _read(text: str) -> Spec:
    name, bracket, rest = text.partition("[")
    dtype = DTYPES.get(name)
    if dtype is None:
        raise ModelError(f"the operator's signature names no dtype: '{name[:40]}'")
    inside = rest.removesuffix("]")
    if not bracket:
        return Spec(dtype, None)
    return Spec(dtype, tuple(map(_size, inside.split(";"))) if inside else ())


def _size(text: str) -> int | str | None:
    if text.isdecimal() and len(text) < 20 and int(text) <= LARGEST:
        return int(text)
    return text if text.isidentifier() else None
