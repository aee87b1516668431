"""The whole preprocessing of ImageNet models in one step each, as Neural Compressor names them."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from lowprec.data.geometry import RandomCrop, RandomHorizontalFlip, Size
from lowprec.data.resize import resize
from lowprec.data.transform import (
    Array,
    Transform,
    along_channels,
    rows_back,
    rows_first,
)
from lowprec.data.transforms import Normalize
from lowprec.errors import DataError


class BilinearImagenet(Transform, frozen=True, kw_only=True):
    """Inception's: the middle `central_fraction` of each side, bilinear without antialias to
    `height` x `width`, [0, 1] to [-1, 1], then (x - mean_value) * scale."""

    height: Size
    width: Size
    central_fraction: Annotated[float, Meta(gt=0, le=1)] = 0.875
    mean_value: tuple[float, ...] = (0.0, 0.0, 0.0)
    scale: float = 1.0

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return an f32 image (H, W, C)."""
        pixels = rows_first(image)
        values: Array = pixels.astype(np.float32)
        if pixels.dtype.kind in "iu":
            values = values / np.float32(255)
        rows, columns = values.shape[:2]
        top = int((rows - rows * self.central_fraction) / 2)
        left = int((columns - columns * self.central_fraction) / 2)
        middle = values[top : rows - top, left : columns - left]
        middle = resize(middle, self.height, self.width, antialias=False)
        centered = (middle - np.float32(0.5)) * np.float32(2)
        mean = along_channels(self.mean_value, centered)
        return np.asarray((centered - mean) * np.float32(self.scale), np.float32)


class ResizeCropImagenet(Transform, frozen=True, kw_only=True):
    """ResNet's: the shorter side to `resize_side` (bilinear without antialias), the middle
    `height` x `width`, then (x - mean_value) * scale on 0..255.

    With `std_value` instead of `scale`: (x / 255 - mean_value) / std_value. `data_format` is that
    of the result.
    """

    height: Size
    width: Size
    random_crop: bool = False
    resize_side: Size = 256
    resize_method: Literal["bilinear", "nearest", "bicubic"] = "bilinear"
    random_flip_left_right: bool = False
    mean_value: tuple[float, ...] = (0.0, 0.0, 0.0)
    scale: float = 1.0
    std_value: tuple[float, ...] | None = None
    data_format: Literal["channels_last", "channels_first"] = "channels_last"
    subpixels: Literal["RGB", "BGR"] = "RGB"

    def __post_init__(self) -> None:
        if self.std_value is not None and not all(value > 0 for value in self.std_value):
            raise ValueError(".std_value must hold numbers above 0")

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return an f32 image."""
        pixels: Array = rows_first(image).astype(np.float32)
        if self.subpixels == "BGR" and pixels.ndim == 3:
            pixels = pixels[..., ::-1]
        rows, columns = pixels.shape[:2]
        ratio = self.resize_side / min(rows, columns)
        size = max(1, round(rows * ratio)), max(1, round(columns * ratio))
        if size[0] * size[1] > 1 << 28:
            raise DataError(f"ResizeCropImagenet: {size[0]} x {size[1]} pixels are too many")
        pixels = resize(pixels, *size, interpolation=self.resize_method, antialias=False)
        if self.height > size[0] or self.width > size[1]:
            raise DataError(
                f"ResizeCropImagenet: {self.height} x {self.width} does not fit the resized image "
                f"of {size[0]} x {size[1]}; raise resize_side"
            )
        if self.random_crop:
            pixels = RandomCrop(size=(self.height, self.width)).apply(pixels, rng)
        else:
            top, left = (size[0] - self.height) // 2, (size[1] - self.width) // 2
            pixels = pixels[top : top + self.height, left : left + self.width]
        if self.random_flip_left_right:
            pixels = RandomHorizontalFlip().apply(pixels, rng)
        if self.std_value is not None:
            scaled = pixels / np.float32(255)
            result = Normalize(mean=self.mean_value, std=self.std_value).apply(scaled, rng)
        else:
            mean = along_channels(self.mean_value, pixels)
            result = np.asarray((pixels - mean) * np.float32(self.scale), np.float32)
        if self.data_format == "channels_first" and result.ndim == 3:
            result = result.transpose(2, 0, 1)
        return np.ascontiguousarray(result)


class ResizeWithAspectRatio(Transform, frozen=True, kw_only=True):
    """Make the shorter side 100 / `scale` times the height (or width) of a crop that follows.

    Where the image shrinks, a pixel is the mean of the area that it covers (OpenCV's INTER_AREA).
    """

    height: Size
    width: Size
    scale: Annotated[float, Meta(gt=0, le=1000)] = 87.5

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image resampled."""
        pixels = rows_first(image)
        rows, columns = pixels.shape[:2]
        height, width = int(100 * self.height / self.scale), int(100 * self.width / self.scale)
        if rows > columns:
            height = int(height * rows / columns)
        else:
            width = int(width * columns / rows)
        if not 0 < height * width <= 1 << 28:
            raise DataError(f"ResizeWithAspectRatio: {height} x {width} pixels are not possible")
        result = resize(pixels, height, width, interpolation="area", antialias=False)
        return rows_back(result, image)
