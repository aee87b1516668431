"""Texts have any length, also where the few that are at hand have one and the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import Dim

from lowprec.adapters.torch.trees import Leaf

LENGTH = "length"
_WHOLE = (torch.int32, torch.int64)


def with_lengths(
    calls: Sequence[Sequence[Leaf]], axes: Sequence[dict[int, Any]]
) -> list[dict[int, Any]] | None:
    """Return `axes` with the length of token ids as one that may change; None if there is none.

    Token ids are tensors of whole numbers, (batch, length); what has the same two sizes, as masks,
    goes with them.

    Args:
        calls: Leaves of several calls.
        axes: For each leaf the axes that may change already.
    """
    first = [tensor for _, tensor in calls[0]]
    ids = [t for t in first if t.dtype in _WHOLE and t.ndim == 2 and t.shape[1] > 1]
    if not ids:
        return None
    shape = ids[0].shape
    alike = [index for index, tensor in enumerate(first) if tensor.shape == shape]
    if any(1 in axes[index] for index in alike):
        return None  # it varies anyway
    length = Dim(LENGTH)
    return [
        {**found, 1: length} if index in alike else dict(found) for index, found in enumerate(axes)
    ]
