"""How a module's arguments become graph inputs, and graph outputs its result."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, takewhile
from typing import Any

import torch

from lowprec.adapters.torch.trees import Leaf, Tree, builder, flatten, pairs_of
from lowprec.errors import InputError, ModelError

KEY = "lowprec.torch"  # in metadata_props

_NOTHING = object()
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
        ranges: By input name and axis, least, greatest and step of the sizes that are accepted, as
            of a range; None is no bound. Axes that take every size, or one only, are not in it.
        defaults: Of the parameters, where they are None, numbers or texts; and of what else may be
            given if it is just this.
    """

    parameters: tuple[str, ...]
    positional: int
    arguments: Mapping[str, Tree]
    inputs: tuple[str, ...]
    result: Tree
    ranges: Mapping[str, Mapping[str, tuple[int, int | None, int]]]
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-able data."""
        return {
            "parameters": list(self.parameters),
            "positional": self.positional,
            "arguments": dict(self.arguments),
            "inputs": list(self.inputs),
            "result": self.result,
            "ranges": {name: dict(axes) for name, axes in self.ranges.items()},
            "defaults": dict(self.defaults),
        }

    @classmethod
    def from_dict(cls, data: object) -> Binding:
        """Return what `to_dict` wrote; the data may come from a file that nobody checked.

        Raises:
            ModelError: it is something else.
        """
        from lowprec.adapters.torch.stored import checked_binding

        found = checked_binding(data)
        return cls(
            tuple(found["parameters"]),
            found["positional"],
            found["arguments"],
            tuple(found["inputs"]),
            found["result"],
            {
                name: {axis: (least, most, step) for axis, (least, most, step) in axes.items()}
                for name, axes in found["ranges"].items()
            },
            found["defaults"],
        )

    @cached_property
    def _order(self) -> tuple[str, ...] | None:
        """The names of those arguments that are tensors; None where one holds several."""
        trees = [(name, tree) for name, tree in self.arguments.items() if "value" not in tree]
        if any(tree != {"leaf": index} for index, (_, tree) in enumerate(trees)):
            return None
        return tuple(name for name, _ in trees)

    @cached_property
    def _prefix(self) -> int:
        """How many of the tensors are forward's first parameters, in order."""
        first = zip(self._order or (), self.parameters[: self.positional], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], first))

    @cached_property
    def _options(self) -> tuple[dict[str, int], dict[str, Any], frozenset[str]]:
        """Places of the tensors, constants that may be given, and those that must be."""
        places = {name: index for index, name in enumerate(self._order or ())}
        options = {name: self.defaults.get(name) for name in self.parameters if name not in places}
        constants = {n: tree["value"] for n, tree in self.arguments.items() if n not in places}
        must = {n for n, value in constants.items() if not _same(value, self.defaults.get(n))}
        return places, {**options, **constants}, frozenset(must)

    @cached_property
    def _checks(self) -> list[tuple[int, int, int, int | None, int]]:
        """Leaf, axis, and the sizes that it accepts."""
        return [
            (self.inputs.index(name), int(axis), least, greatest, step)
            for name, axes in self.ranges.items()
            for axis, (least, greatest, step) in axes.items()
        ]

    def check_ranges(self, leaves: Sequence[torch.Tensor]) -> None:
        """Raise for sizes that the module does not take, or does something else for.

        Raises:
            InputError: names the input, the axis and the sizes that are accepted.
        """
        for index, axis, least, greatest, step in self._checks:
            size = leaves[index].shape[axis] if axis < leaves[index].ndim else least
            if (
                size < least
                or (greatest is not None and size > greatest)
                or (step > 1 and (size - least) % step)
            ):
                raise InputError(
                    f"'{self.inputs[index]}' has size {size} on axis {axis}; accepted are "
                    f"{_sizes(least, greatest, step)}"
                )

    @cached_property
    def build_result(self) -> Callable[[Sequence[torch.Tensor]], Any]:
        """The function from output tensors to the module's result."""
        return builder(self.result)

    def quick_leaves(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Sequence[Any] | None:
        """Return what is given for the graph's inputs, in order; None where `leaves` must look.

        What is returned may be anything but what it should be: tensors.
        """
        order = self._order
        if order is None:
            return None
        count = len(args)
        places, options, must = self._options
        if count + len(kwargs) == len(order) and count <= self._prefix and not must:
            if not kwargs:
                return args
            with suppress(KeyError):
                return [*args, *[kwargs[name] for name in order[count:]]]
        if count > self.positional or not kwargs.keys().isdisjoint(self.parameters[:count]):
            return None
        found: list[Any] = [None] * len(places)
        seen = 0
        for name, value in chain(zip(self.parameters, args, strict=False), kwargs.items()):
            place = places.get(name)
            if place is not None:
                found[place] = value
            elif _same(value, options.get(name, _NOTHING)):
                seen += name in must
            else:
                return None
        return found if seen == len(must) else None

    def leaves(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """Return the tensors for the graph's inputs, in order.

        Raises:
            InputError: the call differs from the captured one in more than the tensors' values.
        """
        return [tensor for _, tensor in self.named_leaves(args, kwargs)]

    def named_leaves(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Leaf]:
        """Return (name, tensor) for the graph's inputs; as `leaves`."""
        given = self._given(args, kwargs)
        leaves: list[Leaf] = []
        for name, tree in self.arguments.items():
            if name not in given:
                if "value" in tree and _same(tree["value"], self.defaults.get(name)):
                    continue
                raise InputError(
                    f"argument '{name}' is missing; the module was captured with "
                    f"{', '.join(self.arguments)}"
                )
            try:
                found = flatten(given.pop(name), name, leaves)
            except ModelError as error:
                raise InputError(str(error)) from None
            if found != tree:
                raise InputError(
                    f"argument '{name}' is {_describe(found)}, the module was captured with "
                    f"{_describe(tree)}; give the same, or capture it again with these arguments"
                )
        for name, value in given.items():
            if value is not None and not _same(value, self.defaults.get(name)):
                default = f" (it is {self.defaults[name]!r})" if name in self.defaults else ""
                raise InputError(
                    f"argument '{name}' was left out when the module was captured; leave it out"
                    f"{default}, or capture the module again with this argument"
                )
        return leaves

    def is_called_like(self, other: Binding) -> bool:
        """Return whether calls and results of the two have the same form."""
        fields = ("parameters", "positional", "arguments", "result")
        return all(getattr(self, name) == getattr(other, name) for name in fields)

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
            if name not in {*self.parameters, *self.arguments, *self.defaults}:
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


def _same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and not isinstance(value, torch.Tensor) and value == other


def _sizes(least: int, greatest: int | None, step: int) -> str:
    """Return in words the sizes of a range."""
    if least == greatest:
        return f"{least}"
    to = "" if greatest is None else f" to {greatest}"
    if step == 1:
        return f"sizes from {least}{to}" + (" on" if greatest is None else "")
    what = f"multiples of {step}" if least % step == 0 else f"every {step}th size"
    return f"{what} from {least}{to}" + (" on" if greatest is None else "")


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
