"""Which parts of a module can be captured, when the whole cannot: the largest ones."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lowprec.adapters.torch.capture import capture_calls
from lowprec.adapters.torch.examples import Example
from lowprec.adapters.torch.refusals import Refusal
from lowprec.adapters.torch.trees import flatten
from lowprec.adapters.torch.untouched import untouched
from lowprec.errors import LowprecError, ModelError
from lowprec.hookspecs import Captured

CALLS_KEPT = 3  # of each part, to capture it with

# A region without any of these is faster where it is.
_WORTH = {"Attention", "Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN"}


@dataclass(frozen=True)
class Region:
    """A part of a module that is captured.

    Attributes:
        path: Of the part in the module; of the nn.Sequential that it is a piece of.
        children: Names of the piece's children in that nn.Sequential; none for a whole part.
        captured: The part itself.
    """

    path: str
    children: tuple[str, ...]
    captured: Captured

    @property
    def name(self) -> str:
        """The path, with the names of the first and the last of the children."""
        return _name_of(self.path, self.children)

    @property
    def place(self) -> str:
        """The path of what is called for the region."""
        return _joined(self.path, self.children[0]) if self.children else self.path

    def of(self, module: nn.Module) -> nn.Module:
        """Return the region's own part of `module`."""
        part = module.get_submodule(self.path)
        return _piece_of(part, self.children) if self.children else part

    def replace(self, module: nn.Module, made: nn.Module) -> None:
        """Put `made` into the region's place in `module`, wherever that occurs in it."""
        part = module.get_submodule(self.path)
        if self.children:
            for name in self.children:
                part._modules[name] = nn.Identity()
            part._modules[self.children[0]] = made
            return
        for owner in module.modules():
            for name, child in owner._modules.items():
                if child is part:
                    owner._modules[name] = made


@dataclass(frozen=True)
class Kept:
    """A part whose forward stays in PyTorch, and why."""

    path: str
    why: LowprecError


def shared_copy(module: nn.Module) -> nn.Module:
    """Return a copy of `module`'s structure over the same tensors.

    Raises:
        ModelError: something in it cannot be copied.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for tensor in [*part._parameters.values(), *part._buffers.values(), *vars(part).values()]:
            if isinstance(tensor, torch.Tensor):
                memo[id(tensor)] = tensor
    try:
        made: nn.Module = copy.deepcopy(module, memo)
    except Exception as error:  # whatever the parts' own __deepcopy__ raises
        raise ModelError(f"the module cannot be copied: {type(error).__name__}: {error}") from error
    return made


class Calls:
    """How the parts of a module are called."""

    def __init__(self, module: nn.Module, examples: Sequence[Example]) -> None:
        """Run `module`, which is a copy, for `examples` and keep a few calls of every part."""
        self._calls: dict[int, list[Example]] = {}
        self._trees: dict[int, set[str]] = {}
        for example in examples:
            with untouched(module), _hooked(module, self._see):
                module(*example.args, **example.kwargs)

    def of(self, part: nn.Module) -> list[Example]:
        """Return a few calls of `part`; none where it is not called, or in different ways.

        Raises:
            Refusal: it is called in different ways.
        """
        if len(self._trees.get(id(part), ())) > 1:
            raise Refusal("it is called in different ways", None)
        return self._calls.get(id(part), [])

    def _see(self, part: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            tree = json.dumps([flatten(value, "", []) for value in [*args, *kwargs.items()]])
        except (ModelError, TypeError, ValueError):
            tree = f"not to be captured: {len(self._trees)}"
        self._trees.setdefault(id(part), set()).add(tree)
        calls = self._calls.setdefault(id(part), [])
        if len(calls) < CALLS_KEPT:
            calls.append(Example(args, kwargs))


class RegionFinder:
    """Looks for regions from the top of a module down."""

    def __init__(self, module: nn.Module, calls: Calls, avoided: set[str]) -> None:
        """Take a copy of the module and how its parts are called.

        Args:
            module: Its parts are captured; itself it was refused.
            calls: Of its parts.
            avoided: Names of regions that must not be one, because others look into them.
        """
        self.regions: list[Region] = []
        self.kept: list[Kept] = []
        self._calls = calls
        self._avoided = avoided
        self._seen: set[int] = set()
        self._visit(module, "")

    def _visit(self, part: nn.Module, path: str) -> None:
        """Look into the parts of a part that cannot be captured."""
        if _is_plain_sequence(part):
            self._pieces(part, path)
            return
        for name, child in part.named_children():
            self._take(child, _joined(path, name))

    def _take(self, part: nn.Module, path: str) -> None:
        if id(part) in self._seen or not any(p.ndim > 1 for p in part.parameters()):
            return
        self._seen.add(id(part))
        captured = self._capture(part, path, part)
        if captured is None:
            self._visit(part, path)
        elif _is_worth(captured):
            self._found(Region(path, (), captured))

    def _pieces(self, sequence: nn.Module, path: str) -> None:
        """Find the runs of children of an nn.Sequential that can be captured, by halving."""
        names = tuple(sequence._modules)
        runs: list[tuple[str, ...]] = []

        def halve(some: tuple[str, ...]) -> None:
            if some != names and self._capture_piece(sequence, path, some) is not None:
                follows = runs and names.index(runs[-1][-1]) + 1 == names.index(some[0])
                runs[-1:] = [runs[-1] + some] if follows else [*runs[-1:], some]
            elif len(some) > 1:
                halve(some[: len(some) // 2])
                halve(some[len(some) // 2 :])
            else:
                self._visit(sequence.get_submodule(some[0]), _joined(path, some[0]))

        halve(names)
        for some in runs:
            captured = self._capture_piece(sequence, path, some)
            if captured is not None and _is_worth(captured):
                self._found(Region(path, some, captured))

    def _capture_piece(
        self, sequence: nn.Module, path: str, names: tuple[str, ...]
    ) -> Captured | None:
        entry = sequence.get_submodule(names[0])
        return self._capture(_piece_of(sequence, names), _name_of(path, names), entry)

    def _found(self, region: Region) -> None:
        """Keep a region, its nodes named as in the whole."""
        prefix = region.place if len(region.children) < 2 else region.path
        nodes = [*region.captured.graph.graph.all_nodes()]
        source = region.captured.source
        if isinstance(source, nn.Module) and not source._modules:  # one layer: it has the name
            first = next(node for node in nodes if node.op_type in _WORTH)
            first.name = ""
        for node in nodes:
            name = str(node.name or "")
            of_part = name.startswith("module/")
            node.name = f"{prefix}{name[6:]}" if of_part else _joined(prefix, name).rstrip(".")
        self.regions.append(region)

    def _capture(self, part: nn.Module, path: str, entry: nn.Module) -> Captured | None:
        if path in self._avoided:
            return None
        try:
            calls = self._calls.of(entry)
            return capture_calls(part, calls, None) if calls else None
        except LowprecError as why:
            self.kept.append(Kept(path, why))
            return None


class Stand(nn.Module):
    """In the place of a region while it is found out whether others look into it."""

    def __init__(self, name: str, part: nn.Module, asked: Callable[[str], None]) -> None:
        """Call `part` only; tell `asked` its name when something else is wanted of it."""
        super().__init__()
        self.training = False
        self._name = name
        self._part = [part]
        self._asked = asked

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Do what the part does."""
        return self._part[0](*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Note that the part's own attribute is wanted, and raise."""
        values = self.__dict__
        if "_asked" in values and "_part" in values and hasattr(values["_part"][0], name):
            values["_asked"](values["_name"])
        return super().__getattr__(name)


def looked_into(
    module: nn.Module, regions: Sequence[Region], example: Example
) -> tuple[set[str], Any]:
    """Return the names of the regions of which the rest wants more than a call, and the result.

    The result is None where the rest fails without.
    """
    trial = shared_copy(module)
    asked: set[str] = set()
    stands = [Stand(region.name, region.of(trial), asked.add) for region in regions]
    for region, stand in zip(regions, stands, strict=True):
        region.replace(trial, stand)
    try:
        with untouched(trial):
            result = trial(*example.args, **example.kwargs)
    except Exception:  # the module's own: it wants something that is no more there
        return asked or {region.name for region in regions}, None
    return asked, result


@contextmanager
def _hooked(module: nn.Module, see: Any) -> Iterator[None]:
    handles = [
        part.register_forward_pre_hook(
            lambda part, args, kwargs: see(part, args, kwargs), prepend=True, with_kwargs=True
        )
        for part in module.modules()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def entered(entries: Mapping[str, nn.Module], see: Any) -> Iterator[None]:
    """Call `see(name, args, kwargs)` whenever one of `entries` is called."""

    def hook_for(name: str) -> Any:
        return lambda part, args, kwargs: see(name, args, kwargs)

    handles = [
        part.register_forward_pre_hook(hook_for(name), prepend=True, with_kwargs=True)
        for name, part in entries.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _piece_of(sequence: nn.Module, names: tuple[str, ...]) -> nn.Module:
    """Return the children of these names, one after the other."""
    if len(names) == 1:
        return sequence.get_submodule(names[0])
    return nn.Sequential(OrderedDict((name, sequence.get_submodule(name)) for name in names))


def _name_of(path: str, children: tuple[str, ...]) -> str:
    if not children:
        return path
    return _joined(path, "-".join(dict.fromkeys((children[0], children[-1]))))


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is_plain_sequence(part: nn.Module) -> bool:
    return (
        isinstance(part, nn.Sequential)
        and type(part).forward is nn.Sequential.forward
        and len(part) > 0
        and len({id(child) for child in part}) == len(part)
    )


def _is_worth(captured: Captured) -> bool:
    return any(node.op_type in _WORTH for node in captured.graph.graph.all_nodes())
