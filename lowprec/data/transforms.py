"""Transforms of values, types and axes, and of labels; every option is typed and checked."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from lowprec.data.transform import Array, Transform, along_channels
from lowprec.errors import DataError


class ToTensor(Transform, frozen=True, kw_only=True):
    """(H, W, C) or (H, W) to (C, H, W); bytes become f32 / 255, others keep their value."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the channels first."""
        if image.ndim not in (2, 3):
            raise DataError(f"ToTensor takes images of 2 or 3 dimensions, got {list(image.shape)}")
        pixels = image[:, :, None] if image.ndim == 2 else image
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        return planes.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else planes


class ToArray(Transform, frozen=True, kw_only=True):
    """Nothing: samples are arrays already."""


class Normalize(Transform, frozen=True, kw_only=True):
    """(x - mean) / std per channel, in f32; then x / rescale[0] - rescale[1] where that is given.

    The channel axis is the last one when it has as many entries as `mean`, else the first.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    rescale: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not all(value > 0 for value in self.std):
            raise ValueError(".std must hold numbers above 0")
        if not self.mean:
            raise ValueError(".mean is empty; give one number per channel")
        if len({len(self.mean), len(self.std)} - {1}) > 1:
            raise ValueError(".std has another length than mean; give one number per channel")
        if self.rescale is not None and self.rescale[0] == 0:
            raise ValueError(".rescale divides by 0")

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image normalised, f32."""
        values = image.astype(np.float32)
        centered = values - along_channels(self.mean, values)
        result = centered / along_channels(self.std, values)
        if self.rescale is not None:
            result = result / np.float32(self.rescale[0]) - np.float32(self.rescale[1])
        return np.asarray(result, np.float32)


class Rescale(Transform, frozen=True, kw_only=True):
    """x / 255 in f32."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image in [0, 1], for bytes."""
        return np.asarray(image.astype(np.float32) / np.float32(255))


class Cast(Transform, frozen=True, kw_only=True):
    """Another dtype; floats become integers toward zero, within the integers' range."""

    dtype: Literal[
        "float32",
        "float64",
        "float16",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "int64",
        "bool",
    ] = "float32"

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image with that dtype."""
        dtype = np.dtype(self.dtype)
        if dtype.kind in "iu" and image.dtype.kind == "f":
            limits = np.iinfo(dtype)
            image = np.clip(image.astype(np.float64), limits.min, limits.max)
        return image.astype(dtype)


class Transpose(Transform, frozen=True, kw_only=True):
    """Axes in another order."""

    perm: tuple[Annotated[int, Meta(ge=0, le=7)], ...]

    def __post_init__(self) -> None:
        if sorted(self.perm) != list(range(len(self.perm))):
            raise ValueError(".perm must hold every axis once, for example [2, 0, 1]")

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image with its axes in that order."""
        if image.ndim != len(self.perm):
            raise DataError(
                f"Transpose: perm {list(self.perm)} has {len(self.perm)} axes, the sample has "
                f"{image.ndim}"
            )
        return np.ascontiguousarray(image.transpose(self.perm))


class Reshape(Transform, frozen=True, kw_only=True):
    """Another shape for the same values; one size may be -1."""

    shape: tuple[Annotated[int, Meta(ge=-1)], ...]

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the sample with that shape."""
        try:
            return image.reshape(self.shape)
        except ValueError:
            raise DataError(
                f"Reshape: a sample of shape {list(image.shape)} does not fit {list(self.shape)}"
            ) from None


class AlignImageChannel(Transform, frozen=True, kw_only=True):
    """(H, W) to (H, W, dim) by repetition; RGBA to RGB; RGB to one channel of luma (ITU-R 601)."""

    dim: Annotated[int, Meta(ge=1, le=4)] = 3

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return an image with `dim` channels."""
        pixels = image[:, :, None] if image.ndim == 2 else image
        channels = pixels.shape[-1]
        if channels == self.dim:
            return pixels
        if channels == 1:
            return np.repeat(pixels, self.dim, axis=-1)
        if (channels, self.dim) == (4, 3):
            return np.asarray(pixels[..., :3])
        if (channels, self.dim) == (3, 1):
            luma = pixels @ np.array([0.299, 0.587, 0.114])
            exact = np.rint(luma) if pixels.dtype.kind in "iu" else luma
            return np.asarray(exact.astype(pixels.dtype)[..., None])
        raise DataError(f"AlignImageChannel cannot make {self.dim} channels of {channels}")


class LabelShift(Transform, frozen=True, kw_only=True):
    """The label less `label_shift`: for models with, or without, a background class."""

    label_shift: int = 0

    def apply_to_label(self, label: object) -> object:
        """Return the label less the shift."""
        return np.asarray(label) - self.label_shift
