"""dynamic_shapes as torch.export takes them, as the axes of each tensor."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch.export import Dim

from lowprec.adapters.torch.examples import Example
from lowprec.adapters.torch.trees import Leaf, Tree, pairs_of
from lowprec.errors import InputError


def axes_given(
    example: Example,
    arguments: Mapping[str, Tree],
    leaves: Sequence[Leaf],
    signature: inspect.Signature,
) -> list[dict[int, Any]] | None:
    """Return for each leaf the axes that may change, as the user said; None if he did not.

    Raises:
        InputError: what he said does not fit the arguments.
    """
    given = example.dynamic_shapes
    if given is None:
        return None
    if isinstance(given, Mapping):
        names = [*arguments]
        unknown = [str(name) for name in given if name not in arguments]
        if unknown:
            raise InputError(
                f"dynamic_shapes names {', '.join(unknown)}; the example's arguments are "
                f"{', '.join(names)}"
            )
        wanted = dict(given)
    elif isinstance(given, (tuple, list)) and len(given) <= len(arguments):
        wanted = dict(zip(arguments, given, strict=False))
    else:
        raise InputError(
            f"dynamic_shapes is a {type(given).__name__}; accepted are a dict by argument name "
            f"and a tuple with an entry for each of {', '.join(arguments)}"
        )
    axes: list[dict[int, Any]] = [{} for _ in leaves]
    for name, tree in arguments.items():
        _walk(tree, wanted.get(name), leaves, axes)
    return axes


def _walk(tree: Tree, spec: Any, leaves: Sequence[Leaf], axes: list[dict[int, Any]]) -> None:
    if spec is None:
        return
    if "leaf" in tree:
        name, tensor = leaves[tree["leaf"]]
        axes[tree["leaf"]] = _axes_of(name, tensor.ndim, spec)
        return
    for key, part in [*enumerate(tree.get("tuple") or tree.get("list") or []), *pairs_of(tree)]:
        try:
            inner = spec.get(key) if isinstance(spec, Mapping) else spec[key]
        except (IndexError, KeyError, TypeError):
            inner = None
        _walk(part, inner, leaves, axes)


def _axes_of(name: str, rank: int, spec: Any) -> dict[int, Any]:
    if isinstance(spec, Mapping):
        entries = dict(spec)
    elif isinstance(spec, (tuple, list)):
        entries = dict(enumerate(spec))
    else:
        entries = {None: spec}
    found = {}
    for axis, dim in entries.items():
        if not isinstance(axis, int) or not -rank <= axis < rank:
            raise InputError(
                f"dynamic_shapes of '{name}' has the entry {axis!r}: {dim!r}; accepted are axes "
                f"from 0 to {rank - 1}, each with a torch.export.Dim"
            )
        if dim is None or isinstance(dim, int) or _hint(dim) == "STATIC":
            continue
        if _hint(dim) or isinstance(dim, str):
            plain = re.sub(r"[^0-9a-zA-Z_]", "_", name)
            dim = Dim(dim if isinstance(dim, str) else f"{plain}_{axis % rank}")
        found[axis % rank] = dim
    return found


def _hint(dim: Any) -> str:
    """Return AUTO, DYNAMIC or STATIC for torch's hints; empty for a named dimension."""
    kind = getattr(dim, "type", None)
    return str(getattr(kind, "name", "")) if type(dim).__name__ == "_DimHint" else ""
