"""Which sizes may change, told to torch.export by named dimensions, and what it answers.

torch.export refuses a module that treats some sizes differently; its refusals are right and are
kept. What it suggests is followed where it holds for every call (two sizes are equal, one is a
multiple), and refused where it would make the program right for some sizes only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch.export import Dim

from lowprec.adapters.torch.trees import Leaf
from lowprec.errors import ModelError

BATCH = "batch"
ROUNDS = 8  # of suggestions that may follow from one another

_CONSTANT = re.compile(r"^\s*(\w+) = (\d+)\s*$", re.MULTILINE)
_BOUNDED = re.compile(r"^\s*(\w+) = Dim\('\w+', (?:min=\d+, )?max=(\d+)\)\s*$", re.MULTILINE)

Axes = dict[int, Any]  # axis -> Dim


def varying_axes(calls: Sequence[Sequence[Leaf]], batched: bool) -> list[Axes]:
    """Return for each leaf the axes that may change, with a dimension for each.

    Args:
        calls: Leaves of several calls, alike but for sizes.
        batched: Whether axis 0 is one size of all, which may change too.
    """
    batch = Dim(BATCH)
    axes: list[Axes] = []
    for index, (name, first) in enumerate(calls[0]):
        found: Axes = {}
        for axis in range(first.ndim):
            if axis == 0 and batched:
                found[axis] = batch
            elif len({leaves[index][1].shape[axis] for leaves in calls}) > 1:
                found[axis] = Dim(f"{re.sub(r'[^0-9a-zA-Z_]', '_', name)}_{axis}")
        axes.append(found)
    return axes


def may_be_batched(calls: Sequence[Sequence[Leaf]]) -> bool:
    """Return whether every leaf has an axis 0 of one and the same size, in each call."""
    return all(
        all(tensor.ndim for _, tensor in leaves)
        and len({tensor.shape[0] for _, tensor in leaves}) == 1
        for leaves in calls
    )


def export_with(
    module: torch.nn.Module, leaves: Sequence[torch.Tensor], axes: Sequence[Axes]
) -> torch.export.ExportedProgram:
    """Return `module` exported, with `axes` that may change.

    Raises:
        ModelError: it works differently for some sizes.
        torch's own errors: it cannot be exported at all.
    """
    from torch._dynamo.exc import UserError, UserErrorType
    from torch.export.dynamic_shapes import refine_dynamic_shapes_from_suggested_fixes

    shapes: Any = (tuple(dict(found) or None for found in axes),)
    for _ in range(ROUNDS):
        try:
            return torch.export.export(module, tuple(leaves), dynamic_shapes=shapes)
        except UserError as error:
            if error.error_type != UserErrorType.CONSTRAINT_VIOLATION:
                raise
            text = str(error).partition("\n\nThe error above")[0]
            constant = _CONSTANT.search(text)
            if constant is not None:
                raise ModelError(
                    f"the module works only for {constant[1]} = {constant[2]}, but that size varies"
                ) from None
            shapes = refine_dynamic_shapes_from_suggested_fixes(text, shapes)
    raise ModelError("the sizes that the module accepts could not be found out")
