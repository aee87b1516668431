"""From the arguments of a call to the model's inputs, and from its outputs to the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.structure import leaves_like, packed
from lowprec.errors import InputError


def arguments_of(binding: Binding, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return what the inputs are given, in their order.

    Args:
        binding: Of a function, a SavedModel or a graph: `arguments` is a dict by parameter.
        args: Given in order; or one dict by parameter.
        kwargs: Given by name.

    Raises:
        InputError: they do not fit.
    """
    trees: Mapping[str, Any] = binding.arguments["dict"]
    constants: Mapping[str, Any] = binding.details.get("constants", {})
    order = binding.details.get("parameters") or list(trees)
    first = next(iter(args), None)
    if len(args) == 1 and not kwargs and isinstance(first, Mapping) and set(first) == set(trees):
        args, kwargs = (), first
    if len(args) > len(order):
        raise InputError(
            f"{len(args)} arguments were given, the model takes {len(order)}: {', '.join(order)}"
        )
    values = dict(zip(order, args, strict=False))
    for name, value in kwargs.items():
        if name in values:
            raise InputError(f"argument '{name}' was given both by position and by name")
        if name not in trees and name not in constants:
            raise InputError(f"the model has no argument '{name}'; it takes {', '.join(order)}")
        values[name] = value
    for name, fixed in constants.items():
        if name in values and values[name] != fixed:
            raise InputError(
                f"argument '{name}' is {values[name]!r}, the model was captured with {fixed!r}; "
                "capture it with the other value, or leave the argument out"
            )
    leaves: list[Any] = [None] * len(binding.inputs)
    for name, tree in trees.items():
        if name not in values:
            raise InputError(f"argument '{name}' is missing; the model takes {', '.join(order)}")
        _place(tree, values[name], name, leaves)
    return leaves


def result_of(binding: Binding, leaves: Sequence[Any]) -> Any:
    """Return the outputs in the structure that the model returns."""
    return packed(binding.returned, leaves)


def _place(tree: Any, value: Any, name: str, leaves: list[Any]) -> None:
    if isinstance(tree, int):
        leaves[tree] = value
        return
    numbers = sorted(_numbers(tree))  # in the order in which leaves are flattened
    try:
        local = leaves_like(_renumbered(tree, numbers), value, [str(number) for number in numbers])
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"argument '{name}' does not have the structure that the model was captured with: "
            f"{' '.join(str(error).split())}"
        ) from None
    for number, leaf in zip(numbers, local, strict=True):
        leaves[number] = leaf


def _numbers(tree: Any) -> list[int]:
    if isinstance(tree, int):
        return [tree]
    inner = next(iter(tree.values()))
    parts = inner.values() if isinstance(inner, Mapping) else inner
    return [number for part in parts for number in _numbers(part)]


def _renumbered(tree: Any, numbers: Sequence[int]) -> Any:
    """Return the tree with the leaves `numbers` counted from 0."""
    if isinstance(tree, int):
        return numbers.index(tree)
    kind, inner = next(iter(tree.items()))
    if isinstance(inner, Mapping):
        return {kind: {key: _renumbered(part, numbers) for key, part in inner.items()}}
    return {kind: [_renumbered(part, numbers) for part in inner]}
