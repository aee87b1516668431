"""A caller's memory: inputs read where they are, outputs written where they are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lowprec._ext import _core
from lowprec.errors import InputError

if TYPE_CHECKING:
    from lowprec.engine.tensors import TensorInfo

Array = npt.NDArray[Any]


def in_order(array: Array) -> Array:
    """Return `array` as the engine reads memory: C-contiguous and aligned; a copy only if not."""
    if isinstance(array, np.ndarray) and array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.array(array, order="C", copy=True)


def checked_targets(out: object, outputs: Sequence[TensorInfo]) -> list[Array]:
    """Return `out` as a list of arrays.

    Raises:
        InputError: it is not one writable array per output.
    """
    if not isinstance(out, (list, tuple)):
        raise InputError(
            f"out must be a list of arrays, one per output, got a {type(out).__name__}"
        )
    if len(out) != len(outputs):
        raise InputError(f"out has {len(out)} arrays, the model makes {len(outputs)}")
    for info, target in zip(outputs, out, strict=True):
        if not isinstance(target, np.ndarray):
            raise InputError(
                f"out for '{info.name}' is a {type(target).__name__}; it must be a NumPy array"
            )
        if not target.flags.writeable:
            raise InputError(f"out for '{info.name}' is read-only; give an array to write into")
    return list(out)


def check_target(name: str, target: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise InputError unless `target` has the output's shape and dtype."""
    if target.shape != shape or target.dtype != dtype:
        raise InputError(
            f"out for '{name}' is {target.dtype} {list(target.shape)}; "
            f"it must be {dtype} {list(shape)}"
        )


def direct_targets(
    outputs: Sequence[TensorInfo], targets: Sequence[Array], feeds: Mapping[str, Array]
) -> dict[str, Array]:
    """Return by name those targets that may be written while inputs are still being read."""
    direct: dict[str, Array] = {}
    inputs = [array for array in feeds.values() if isinstance(array, np.ndarray)]
    for index, (info, target) in enumerate(zip(outputs, targets, strict=True)):
        others = [*inputs, *targets[:index], *targets[index + 1 :]]
        if (
            target.flags.c_contiguous
            and target.flags.aligned
            and info.name not in direct
            and not any(np.may_share_memory(target, other) for other in others)
        ):
            direct[info.name] = target
    return direct


def plan_targets(
    plan: _core.Plan, names: Sequence[str], direct: Mapping[str, Array]
) -> list[Array | None]:
    """Return what `plan` writes its outputs into; None where it must allocate.

    Raises:
        InputError: an array does not have its output's shape or dtype.
    """
    targets: list[Array | None] = []
    for index, name in enumerate(names):
        target = direct.get(name)
        if target is not None:
            check_target(name, target, plan.output_shapes[index], plan.output_dtypes[index])
            if plan.output_needs_slack(index):
                target = None
        targets.append(target)
    return targets
