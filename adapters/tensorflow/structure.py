"""Nested arguments and results as plain data: lists, tuples and dicts of numbered leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lowprec.errors import ModelError, UnsupportedError

Tree = Any  # int: number of a leaf; {"list" | "tuple" | "dict": ...}


def described(nested: Any, leaves: list[Any]) -> Tree:
    """Return the structure of `nested` as JSON, and append its leaves as TensorFlow flattens them.

    Dicts keep the order of their keys, but their leaves are numbered in alphabetical order: so do
    tf.nest and Keras, whatever order a dict was written in.

    Raises:
        UnsupportedError: it holds something else than lists, tuples and dicts with string keys.
    """
    if isinstance(nested, Mapping):
        if not all(isinstance(key, str) for key in nested):
            raise UnsupportedError("the model takes or returns a dict whose keys are not strings")
        parts = {key: described(nested[key], leaves) for key in sorted(nested)}
        return {"dict": {key: parts[key] for key in nested}}
    if isinstance(nested, (list, tuple)):
        kind = "tuple" if isinstance(nested, tuple) else "list"
        return {kind: [described(value, leaves) for value in nested]}
    leaves.append(nested)
    return len(leaves) - 1


def packed(tree: Tree, leaves: Sequence[Any]) -> Any:
    """Return the leaves in the structure of `tree`.

    Raises:
        ModelError: `tree` is not what `described` makes.
    """
    if isinstance(tree, int) and 0 <= tree < len(leaves):
        return leaves[tree]
    if isinstance(tree, Mapping) and len(tree) == 1:
        kind, inner = next(iter(tree.items()))
        if kind == "dict" and isinstance(inner, Mapping):
            return {key: packed(value, leaves) for key, value in inner.items()}
        if kind in ("list", "tuple") and isinstance(inner, (list, tuple)):
            values = [packed(value, leaves) for value in inner]
            return values if kind == "list" else tuple(values)
    raise ModelError("the description of the model's arguments is damaged; save the model again")


def leaves_like(tree: Tree, nested: Any, names: Sequence[str]) -> list[Any]:
    """Return the leaves of `nested` in the order of `tree`.

    Where they differ in form only, it is taken for what it holds: a list for a tuple, the leaves in
    order or by name for any structure.

    Raises:
        KeyError: a name is missing.
        ValueError: there are too few or too many leaves.
    """
    if isinstance(tree, Mapping) and "dict" not in tree and isinstance(nested, Mapping):
        return [nested[name] for name in names]
    if isinstance(tree, Mapping) and "dict" in tree and isinstance(nested, Mapping):
        found: dict[int, Any] = {}
        _match(tree, nested, found)
        return [found[index] for index in range(len(names))]
    leaves: list[Any] = []
    described(nested, leaves)
    if len(leaves) != len(names):
        raise ValueError(f"{len(leaves)} values for {len(names)} inputs")
    return leaves


def _match(tree: Tree, nested: Any, found: dict[int, Any]) -> None:
    if isinstance(tree, int):
        found[tree] = nested
    elif "dict" in tree:
        for key, inner in tree["dict"].items():
            _match(inner, nested[key], found)
    else:
        inner = next(iter(tree.values()))
        for part, value in zip(inner, nested, strict=True):
            _match(part, value, found)
