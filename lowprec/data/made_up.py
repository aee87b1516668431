"""Data sets of random numbers, for trying things out: the same at every run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from lowprec.data.datasets import Computed, Dataset, Inputs, Sample, Samples

Number = float
Dtype = Literal["float32", "float16", "float64", "uint8", "int8", "int32", "int64", "bool"]
Shape = tuple[Annotated[int, Meta(ge=1, le=1 << 24)] | tuple[int, ...], ...]
MAX_ELEMENTS = 1 << 28  # of one made-up sample


class Dummy(Dataset, frozen=True, kw_only=True):
    """Uniform random numbers in [low, high), for trying things out; the label is 0.

    `shape` holds the number of samples first; a list of shapes makes several inputs.
    """

    shape: Shape
    low: Number | tuple[Number, ...] = -128.0
    high: Number | tuple[Number, ...] = 127.0
    dtype: Dtype | tuple[Dtype, ...] = "float32"
    label: bool = True
    seed: int = 9527

    def __post_init__(self) -> None:
        shapes = _shapes(self.shape, ".shape")
        if len({shape[0] for shape in shapes}) != 1:
            raise ValueError(".shape: every shape begins with the same number of samples")
        _check_parts(self, len(shapes))

    def open(self) -> Samples:
        """Return the samples, each made from the seed and its number."""
        shapes = _shapes(self.shape, ".shape")
        label = 0 if self.label else None

        def make(number: int) -> Sample:
            rng = np.random.default_rng([self.seed, number])
            return _draw(rng, [shape[1:] for shape in shapes], self), label

        return Computed(shapes[0][0], make)


class DummyV2(Dataset, frozen=True, kw_only=True):
    """As dummy, shapes without the number of samples, and random labels of `label_shape`."""

    input_shape: Shape
    label_shape: Shape = (1,)
    low: Number | tuple[Number, ...] = -128.0
    high: Number | tuple[Number, ...] = 127.0
    dtype: Dtype | tuple[Dtype, ...] = "float32"
    samples: Annotated[int, Meta(ge=1)] = 128
    seed: int = 9527

    def __post_init__(self) -> None:
        _shapes(self.label_shape, ".label_shape")
        _check_parts(self, len(_shapes(self.input_shape, ".input_shape")))

    def open(self) -> Samples:
        """Return the samples, each made from the seed and its number."""
        shapes = _shapes(self.input_shape, ".input_shape")
        label_shape = _shapes(self.label_shape, ".label_shape")[0]

        def make(number: int) -> Sample:
            rng = np.random.default_rng([self.seed, number])
            inputs = _draw(rng, shapes, self)
            return inputs, rng.uniform(_first(self.low), _first(self.high), label_shape)

        return Computed(self.samples, make)


def _shapes(shape: Shape, key: str) -> list[tuple[int, ...]]:
    """Return one shape per input, from one shape or a list of them."""
    nested = [part for part in shape if isinstance(part, tuple)]
    if (nested and len(nested) != len(shape)) or not shape:
        raise ValueError(f"{key} must be a list of sizes, or a list of such lists")
    shapes = nested or [tuple(int(size) for size in shape if isinstance(size, int))]
    for sizes in shapes:
        elements = 1
        for size in sizes[1:] if key == ".shape" else sizes:
            elements *= size
        if not sizes or min(sizes) < 1 or elements > MAX_ELEMENTS:
            raise ValueError(
                f"{key} must hold sizes of at least 1, {MAX_ELEMENTS} elements at most"
            )
    return shapes


def _check_parts(options: Dummy | DummyV2, inputs: int) -> None:
    for key in ("low", "high", "dtype"):
        value: Any = getattr(options, key)
        if isinstance(value, tuple) and len(value) != inputs:
            raise ValueError(f".{key} has {len(value)} entries for {inputs} inputs")
    pairs = zip(_each(options.low, inputs), _each(options.high, inputs), strict=True)
    if any(low > high for low, high in pairs):
        raise ValueError(".low is above high")


def _each(value: Any, count: int) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,) * count


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


def _draw(
    rng: np.random.Generator, shapes: list[tuple[int, ...]], options: Dummy | DummyV2
) -> Inputs:
    count = len(shapes)
    arrays = []
    settings = (_each(value, count) for value in (options.low, options.high, options.dtype))
    for shape, low, high, name in zip(shapes, *settings, strict=True):
        values = rng.uniform(low, high, shape)
        dtype = np.dtype(name)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            values = np.clip(np.trunc(values), limits.min, limits.max)
        arrays.append(values >= (low + high) / 2 if name == "bool" else values.astype(dtype))
    return arrays[0] if count == 1 else tuple(arrays)
