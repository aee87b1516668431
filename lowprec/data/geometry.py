"""Transforms of rows and columns: resizing, crops, flips; every option is typed and checked."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from lowprec.data.resize import resize, shorter_side
from lowprec.data.transform import Array, Transform, rows_back, rows_first
from lowprec.errors import DataError

Size = Annotated[int, Meta(ge=1, le=65536)]
Sizes = Size | tuple[Size, ...]
Interpolation = Literal["bilinear", "nearest", "bicubic"]


class Resize(Transform, frozen=True, kw_only=True):
    """Resample to `size`: [height, width], or one number for the shorter side (torchvision).

    With antialias, bytes become what Pillow and torchvision make of them, bit for bit.
    """

    size: Sizes
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        _check_size(self.size)

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image resampled."""
        pixels = rows_first(image)
        if isinstance(self.size, int):
            height, width = shorter_side(pixels.shape[0], pixels.shape[1], self.size)
        else:
            height, width = _pair(self.size)
        if height * width > 1 << 28:
            raise DataError(f"Resize: {height} x {width} pixels; accepted are {1 << 28} at most")
        result = resize(
            pixels, height, width, interpolation=self.interpolation, antialias=self.antialias
        )
        return rows_back(result, image)


class CenterCrop(Transform, frozen=True, kw_only=True):
    """Keep the middle; an image that is smaller is framed with zeros.

    The first row is round((H - height) / 2), halves to even, as torchvision has it.
    """

    size: Sizes

    def __post_init__(self) -> None:
        _check_size(self.size)

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the middle of the image."""
        pixels = rows_first(image)
        height, width = _pair(self.size)
        missing = (max(height - pixels.shape[0], 0), max(width - pixels.shape[1], 0))
        if any(missing):
            frame = [(size // 2, (size + 1) // 2) for size in missing]
            pixels = np.pad(pixels, [*frame, *[(0, 0)] * (pixels.ndim - 2)])
        top, left = round((pixels.shape[0] - height) / 2), round((pixels.shape[1] - width) / 2)
        return rows_back(pixels[top : top + height, left : left + width], image)


class RandomCrop(Transform, frozen=True, kw_only=True):
    """Keep a part of `size` from anywhere; both corners are uniform."""

    size: Sizes

    def __post_init__(self) -> None:
        _check_size(self.size)

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return some part of the image."""
        pixels = rows_first(image)
        height, width = _pair(self.size)
        top = _offset(rng, pixels.shape[0], height, "RandomCrop")
        left = _offset(rng, pixels.shape[1], width, "RandomCrop")
        return rows_back(pixels[top : top + height, left : left + width], image)


class RandomResizedCrop(Transform, frozen=True, kw_only=True):
    """Resample a random part, of `scale` of the area and `ratio` width : height, to `size`.

    The area's share is uniform, the ratio's logarithm is; ten draws that do not fit are followed
    by the middle with the nearest ratio (torchvision).
    """

    size: Sizes
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        _check_size(self.size)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(".scale must be [least, most] of the area, above 0 and at most 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(".ratio must be [least, most] of width : height, above 0")

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return some part of the image, resampled."""
        pixels = rows_first(image)
        top, left, height, width = self._part(pixels.shape[0], pixels.shape[1], rng)
        part = pixels[top : top + height, left : left + width]
        rows, columns = _pair(self.size)
        result = resize(
            part, rows, columns, interpolation=self.interpolation, antialias=self.antialias
        )
        return rows_back(result, image)

    def _part(self, rows: int, columns: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = rows * columns * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width <= columns and 0 < height <= rows:
                top = int(rng.integers(0, rows - height + 1))
                return top, int(rng.integers(0, columns - width + 1)), height, width
        ratio = min(max(columns / rows, self.ratio[0]), self.ratio[1])
        width = min(columns, max(1, round(rows * ratio)))
        height = min(rows, max(1, round(columns / ratio)))
        return (rows - height) // 2, (columns - width) // 2, height, width


class RandomHorizontalFlip(Transform, frozen=True, kw_only=True):
    """Mirror left and right with probability `p`."""

    p: Annotated[float, Meta(ge=0, le=1)] = 0.5

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image, mirrored or not."""
        return rows_back(rows_first(image)[:, ::-1], image) if rng.random() < self.p else image


class RandomVerticalFlip(Transform, frozen=True, kw_only=True):
    """Mirror top and bottom with probability `p`."""

    p: Annotated[float, Meta(ge=0, le=1)] = 0.5

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image, mirrored or not."""
        return rows_back(rows_first(image)[::-1], image) if rng.random() < self.p else image


class CropToBoundingBox(Transform, frozen=True, kw_only=True):
    """Keep the given rows and columns."""

    offset_height: Annotated[int, Meta(ge=0)]
    offset_width: Annotated[int, Meta(ge=0)]
    target_height: Size
    target_width: Size

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return that part of the image.

        Raises:
            DataError: the image does not reach that far.
        """
        pixels = rows_first(image)
        bottom = self.offset_height + self.target_height
        right = self.offset_width + self.target_width
        if bottom > pixels.shape[0] or right > pixels.shape[1]:
            raise DataError(
                f"CropToBoundingBox ends at row {bottom}, column {right}; the image has "
                f"{pixels.shape[0]} x {pixels.shape[1]}: make the box smaller, or resize first"
            )
        return rows_back(pixels[self.offset_height : bottom, self.offset_width : right], image)


class CropResize(Transform, frozen=True, kw_only=True):
    """Keep a part, then resample it to `size`."""

    x: Annotated[int, Meta(ge=0)]
    y: Annotated[int, Meta(ge=0)]
    width: Size
    height: Size
    size: Sizes
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        _check_size(self.size)

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the part, resampled."""
        box = CropToBoundingBox(
            offset_height=self.y,
            offset_width=self.x,
            target_height=self.height,
            target_width=self.width,
        )
        scaler = Resize(
            size=_pair(self.size), interpolation=self.interpolation, antialias=self.antialias
        )
        return scaler.apply(box.apply(image, rng), rng)


class PaddedCenterCrop(Transform, frozen=True, kw_only=True):
    """Keep a square in the middle, int(size / (size + crop_padding) * shorter side) wide.

    EfficientNet's preprocessing; a Resize to `size` usually follows.
    """

    size: Sizes
    crop_padding: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        _check_size(self.size)

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the square."""
        pixels = rows_first(image)
        size = _pair(self.size)[0]
        rows, columns = pixels.shape[:2]
        side = max(1, int(size / (size + self.crop_padding) * min(rows, columns)))
        top, left = (rows - side + 1) // 2, (columns - side + 1) // 2
        return rows_back(pixels[top : top + side, left : left + side], image)


def _check_size(size: int | tuple[int, ...]) -> None:
    if not isinstance(size, int) and len(size) not in (1, 2):
        raise ValueError(".size must be one number, or [height, width]")


def _pair(size: int | tuple[int, ...]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    return size[0], size[-1]


def _offset(rng: np.random.Generator, available: int, wanted: int, name: str) -> int:
    if wanted > available:
        raise DataError(
            f"{name}: {wanted} rows or columns of an image with {available}; resize first"
        )
    return int(rng.integers(0, available - wanted + 1))
