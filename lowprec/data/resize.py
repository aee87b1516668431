"""Resample images: the definition of Pillow and torchvision, in NumPy.

Each output pixel is a weighted sum of the input pixels within the filter's support around its
centre, (x + 0.5) * size_in / size_out; with antialias the filter is stretched by that ratio where
the image shrinks. Unsigned bytes are summed with weights of 22 fractional bits and rounded after
the horizontal and again after the vertical pass, which gives Pillow's result bit for bit. Without
antialias the bilinear filter is that of OpenCV and of TensorFlow's half-pixel centres.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_PRECISION = 22  # fractional bits of a weight: 32 less 8 of the pixel less 2 of room
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}


def resize(
    image: Array, height: int, width: int, *, interpolation: str = "bilinear", antialias: bool
) -> Array:
    """Return `image` with another size, of the same dtype.

    Args:
        image: (H, W) or (H, W, C); u8 or floats.
        height: Rows of the result.
        width: Columns of the result.
        interpolation: "bilinear", "bicubic" (a = -0.5), "nearest", or "area": the mean of the area
            that an output pixel covers where the image shrinks, bilinear where it grows.
        antialias: Whether the filter grows where the image shrinks; nearest has none.
    """
    if interpolation == "nearest":
        rows, columns = _nearest(image.shape[0], height), _nearest(image.shape[1], width)
        chosen: Array = image[rows][:, columns]
        return chosen
    if image.shape[1] != width:
        weights = _weights(image.shape[1], width, interpolation, antialias)
        image = np.swapaxes(_apply(weights, np.swapaxes(image, 0, 1)), 0, 1)
    if image.shape[0] != height:
        image = _apply(_weights(image.shape[0], height, interpolation, antialias), image)
    return np.ascontiguousarray(image)


def _apply(weights: NDArray[np.float64], image: Array) -> Array:
    """Return the weighted sums along axis 0."""
    flat = image.reshape(image.shape[0], -1).astype(np.float64)
    shape = (len(weights), *image.shape[1:])
    if image.dtype != np.uint8:
        return np.asarray((weights @ flat).astype(image.dtype).reshape(shape))
    scaled = weights * (1 << _PRECISION)
    whole = np.trunc(scaled + np.copysign(0.5, scaled))
    # Sums of integers below 2^53: exact in whatever order they are added.
    sums = (whole @ flat).astype(np.int64) + (1 << (_PRECISION - 1))
    return np.asarray(np.clip(sums >> _PRECISION, 0, 255).astype(np.uint8).reshape(shape))


@functools.lru_cache(maxsize=16)  # most images of a set have one of few sizes
def _weights(before: int, after: int, interpolation: str, antialias: bool) -> NDArray[np.float64]:
    """Return the matrix (after, before) of one axis's weights, rows summing to 1; shared."""
    ratio = before / after
    if interpolation == "area":
        if ratio > 1:
            return _covered(before, after)
        interpolation = "bilinear"
    stretch = max(ratio, 1.0) if antialias else 1.0
    support = _SUPPORT[interpolation] * stretch
    matrix = np.zeros((after, before))
    for index in range(after):
        center = (index + 0.5) * ratio
        first = max(int(center - support + 0.5), 0)
        last = min(int(center + support + 0.5), before)
        distance = np.abs((np.arange(first, last) - center + 0.5) / stretch)
        row = _triangle(distance) if interpolation == "bilinear" else _cubic(distance)
        total = row.sum()
        matrix[index, first:last] = row / total if total else row
    return matrix


def _covered(before: int, after: int) -> NDArray[np.float64]:
    """Return the share that each input pixel has in the area of each output pixel."""
    edges = np.arange(after + 1)[:, None] * (before / after)
    pixels = np.arange(before)[None]
    overlap = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    matrix = np.maximum(overlap, 0.0)
    result: NDArray[np.float64] = matrix / matrix.sum(axis=1, keepdims=True)
    return result


def _triangle(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - distance, 0.0)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' kernel with a = -0.5 (IEEE ASSP 29, 1981, eq. 4)."""
    a = -0.5
    near = ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0
    far = (((distance - 5.0) * distance + 8.0) * distance - 4.0) * a
    return np.where(distance < 1.0, near, np.where(distance < 2.0, far, 0.0))


def _nearest(before: int, after: int) -> NDArray[np.int64]:
    steps = np.full(after, before / after)
    steps[0] *= 0.5
    return np.minimum(np.cumsum(steps).astype(np.int64), before - 1)


def shorter_side(height: int, width: int, size: int) -> tuple[int, int]:
    """Return the size whose shorter side is `size`, the longer one rounded down."""
    if height <= width:
        return size, max(1, math.floor(size * width / height))
    return max(1, math.floor(size * height / width)), size
