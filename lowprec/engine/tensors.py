"""What a model takes and returns, and whether what is fed fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from lowprec.errors import InputError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorInfo:
    """An input or output: its name, NumPy dtype, and dimensions (int, name, or None if unknown)."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None


def checked_input(info: TensorInfo, feeds: Mapping[str, npt.ArrayLike]) -> Array:
    """Return what is fed for one input as an array.

    Raises:
        InputError: it is missing, of another dtype, rank or size, or an empty batch.
    """
    if info.name not in feeds:
        raise InputError(f"input '{info.name}' is missing; it is {_described(info)}")
    if info.dtype == object:
        return cast(Array, feeds[info.name])
    array = np.asarray(feeds[info.name])
    if array.dtype != info.dtype:
        raise InputError(
            f"input '{info.name}' is {array.dtype}; it must be {_described(info)}: "
            f"convert with .astype(np.{info.dtype.name})"
        )
    if info.shape is not None:
        if array.ndim != len(info.shape):
            raise InputError(
                f"input '{info.name}' has shape {list(array.shape)} (rank {array.ndim}); "
                f"it must be {_described(info)}"
            )
        for axis, (size, wanted) in enumerate(zip(array.shape, info.shape, strict=True)):
            if isinstance(wanted, int) and wanted != size:
                raise InputError(
                    f"input '{info.name}' has size {size} on axis {axis}; "
                    f"it must be {_described(info)}"
                )
    if array.ndim > 1 and array.shape[0] == 0:
        raise InputError(
            f"input '{info.name}' has shape {list(array.shape)}: an empty batch; "
            f"feed at least one sample of {_described(info)}"
        )
    return array


def _described(info: TensorInfo) -> str:
    if info.shape is None:
        return f"{info.dtype.name} of any shape"
    sizes = ", ".join("?" if size is None else str(size) for size in info.shape)
    return f"{info.dtype.name} [{sizes}]"
