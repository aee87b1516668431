"""How a module's arguments become graph inputs, and graph outputs its result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from lowprec.adapters.torch.trees import Leaf, Tree, builder, flatten, pairs_of
from lowprec.errors import InputError

KEY = "lowprec.torch"  # in metadata_props

_KINDS = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Binding:
    """What was captured of a call: plain data, so that it can stand in a file.

    Attributes:
        parameters: Names of forward's parameters, in order; those that were left to their default
            too.
        positional: How many of them may be given by position.
        arguments: For each parameter that was given, its tree; the leaves are the graph's inputs.
        inputs: Names of the graph inputs, by leaf.
        result: The result's tree; the leaves are the graph's outputs.
        ranges: By input name and axis, (least, greatest) size; None is no bound.
    """

    parameters: tuple[str, ...]
    positional: int
    arguments: Mapping[str, Tree]
    inputs: tuple[str, ...]
    result: Tree
    ranges: Mapping[str, Mapping[str, tuple[int | None, int | None]]]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {
            "parameters": list(self.parameters),
            "positional": self.positional,
            "arguments": dict(self.arguments),
            "inputs": list(self.inputs),
            "result": self.result,
            "ranges": {name: dict(axes) for name, axes in self.ranges.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Binding:
        """Return what `to_dict` wrote."""
        return cls(
            tuple(data["parameters"]),
            data["positional"],
            data["arguments"],
            tuple(data["inputs"]),
            data["result"],
            {
                name: {axis: (low, high) for axis, (low, high) in axes.items()}
                for name, axes in data["ranges"].items()
            },
        )

    @cached_property
    def _is_plain(self) -> bool:
        """Whether the leaves are the first parameters themselves, in order."""
        return len(self.arguments) == len(self.inputs) and all(
            name == parameter and tree == {"leaf": index}
            for index, (parameter, (name, tree)) in enumerate(
                zip(self.parameters, self.arguments.items(), strict=False)
            )
        )

    @cached_property
    def build_result(self) -> Callable[[Sequence[torch.Tensor]], Any]:
        """The function from output tensors to the module's result."""
        return builder(self.result)

    def leaves(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """Return the tensors for the graph's inputs, in order.

        Raises:
            InputError: the call differs from the captured one in more than the tensors' values.
        """
        if (
            not kwargs
            and self._is_plain
            and len(args) == len(self.inputs)
            and all(isinstance(value, torch.Tensor) for value in args)
        ):
            return list(args)
        return [tensor for _, tensor in self.named_leaves(args, kwargs)]

    def named_leaves(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Leaf]:
        """Return (name, tensor) for the graph's inputs; as `leaves`."""
        given = self._given(args, kwargs)
        leaves: list[Leaf] = []
        for name, tree in self.arguments.items():
            if name not in given:
                if tree == {"value": None}:
                    continue
                raise InputError(
                    f"argument '{name}' is missing; the module was captured with "
                    f"{', '.join(self.arguments)}"
                )
            found = flatten(given.pop(name), name, leaves)
            if found != tree:
                raise InputError(
                    f"argument '{name}' is {_describe(found)}, the module was captured with "
                    f"{_describe(tree)}; give the same, or capture it again with these arguments"
                )
        for name, value in given.items():
            if value is not None:
                raise InputError(
                    f"argument '{name}' was left out when the module was captured; leave it out, "
                    "or capture it again with these arguments"
                )
        return leaves

    def _given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if len(args) > self.positional:
            raise InputError(
                f"{len(args)} positional arguments were given, forward takes {self.positional}: "
                f"{', '.join(self.parameters[: self.positional])}"
            )
        given = dict(zip(self.parameters, args, strict=False))
        for name, value in kwargs.items():
            if name in given:
                raise InputError(f"argument '{name}' was given twice")
            if name not in self.parameters and name not in self.arguments:
                raise InputError(
                    f"forward has no argument '{name}'; it has {', '.join(self.parameters)}"
                )
            given[name] = value
        return given


def parameters_of(signature: inspect.Signature) -> tuple[tuple[str, ...], int]:
    """Return forward's parameter names, and how many may be given by position."""
    plain = [p for p in signature.parameters.values() if p.kind != inspect.Parameter.VAR_KEYWORD]
    named = [p for p in plain if p.kind != inspect.Parameter.VAR_POSITIONAL]
    return tuple(p.name for p in named), sum(p.kind in _KINDS for p in named)


def _describe(tree: Tree) -> str:
    if "leaf" in tree:
        return "a tensor"
    if "value" in tree:
        return repr(tree["value"])
    for kind in ("tuple", "list"):
        if kind in tree:
            return f"a {kind} of {len(tree[kind])}"
    names = ", ".join(str(key) for key, _ in pairs_of(tree))
    return f"a {tree['type'].rpartition(':')[2] or 'dict'} of {names}"
