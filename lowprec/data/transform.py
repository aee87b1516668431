"""The base of all transforms, and where rows, columns and channels of an image are.

Images come as (H, W, C), colours in the order RGB. ToTensor and Transpose make them (C, H, W);
transforms of rows and columns work on both: an image whose first axis has 1, 3 or 4 entries, and
whose last has not, is (C, H, W). Random transforms draw from a generator that depends on the
loader's seed, the sample's number and the transform's place only, so results repeat.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lowprec.errors import DataError

Array = NDArray[Any]
_CHANNELS = (1, 3, 4)


class Transform(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One step; `apply` never changes its argument."""

    def apply(self, image: Array, rng: np.random.Generator) -> Array:
        """Return the image transformed."""
        return image

    def apply_to_label(self, label: object) -> object:
        """Return the label that belongs to the result."""
        return label


def _channels_first(image: Array) -> bool:
    return image.ndim == 3 and image.shape[0] in _CHANNELS and image.shape[-1] not in _CHANNELS


def rows_first(image: Array) -> Array:
    """Return the image with its rows on axis 0 and its columns on axis 1."""
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise DataError(
            f"a sample of shape {list(image.shape)} is no image; transforms of rows and columns "
            "take (H, W), (H, W, C) or (C, H, W)"
        )
    return image.transpose(1, 2, 0) if _channels_first(image) else image


def rows_back(result: Array, image: Array) -> Array:
    """Return what was made of `rows_first(image)` with the axes in the order of `image`."""
    return np.ascontiguousarray(result.transpose(2, 0, 1) if _channels_first(image) else result)


def along_channels(values: tuple[float, ...], image: Array) -> NDArray[np.float32]:
    """Return `values`, one per channel, in a shape that broadcasts along the image's channel axis.

    Raises:
        DataError: they differ, and neither the last nor the first axis has as many entries.
    """
    array = np.asarray(values, np.float32)
    if len(set(values)) == 1:
        return array[:1]
    if image.ndim and image.shape[-1] == len(values):
        return array
    if image.ndim and image.shape[0] == len(values):
        return array.reshape(-1, *[1] * (image.ndim - 1))
    raise DataError(
        f"there are {len(values)} numbers for the channels, and a sample of shape "
        f"{list(image.shape)} has no first or last axis of that length"
    )
