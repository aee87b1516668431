"""A module's state, kept while the module is run and traced, and put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class KeptState:
    """What every part of a module held: training flags, buffers, attributes, hooks."""

    def __init__(self, module: torch.nn.Module) -> None:
        """Remember it; the buffers' values are copied."""
        self._parts = [(part, _contents(vars(part))) for part in module.modules()]
        self._buffers = [(name, t, t.clone(), t._version) for name, t in module.named_buffers()]

    def changed_buffers(self) -> list[str]:
        """Return the names of the buffers that were written to or replaced."""
        return [name for name, tensor, _, version in self._buffers if tensor._version != version]

    def has_changed(self) -> bool:
        """Return whether a buffer was written to, or an attribute of a part set."""
        return bool(self.changed_buffers()) or any(
            not _is_same(vars(part), kept) for part, kept in self._parts
        )

    def restore(self) -> None:
        """Put everything back."""
        for part, kept in self._parts:
            if not _is_same(vars(part), kept):
                _put_back(vars(part), kept)
        with torch.no_grad():
            for _, tensor, values, version in self._buffers:
                if tensor._version != version:
                    tensor.copy_(values)
                    _set_version(tensor, version)


@contextmanager
def untouched(module: torch.nn.Module) -> Iterator[KeptState]:
    """Put every part into evaluation, with no gradients and no autocast; all back afterwards.

    The random numbers that are drawn in between are not missing afterwards.
    """
    before = KeptState(module)
    for part in module.modules():
        part.training = False
    inside = KeptState(module)
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
            torch.autocast("cpu", enabled=False),
        ):
            yield inside
    finally:
        before.restore()


def _contents(values: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return each value, with a copy of what it holds where that is a list, a dict or a set."""
    return {
        name: (value, value.copy() if isinstance(value, (list, dict, set)) else None)
        for name, value in values.items()
    }


def _is_same(values: dict[str, Any], kept: dict[str, tuple[Any, Any]]) -> bool:
    if values.keys() != kept.keys():
        return False
    for name, (value, copied) in kept.items():
        if values[name] is not value or (copied is not None and not _equal(value, copied)):
            return False
    return True


def _equal(one: Any, other: Any) -> bool:
    """Return whether two containers hold the same objects."""
    if len(one) != len(other):
        return False
    if isinstance(one, dict):
        return all(key in other and value is other[key] for key, value in one.items()) and list(
            one
        ) == list(other)
    if isinstance(one, set):
        return bool(one == other)
    return all(a is b for a, b in zip(one, other, strict=True))


def _put_back(values: dict[str, Any], kept: dict[str, tuple[Any, Any]]) -> None:
    for name in [name for name in values if name not in kept]:
        del values[name]
    for name, (value, copied) in kept.items():
        values[name] = value
        if copied is None or _equal(value, copied):
            continue
        value.clear()
        if isinstance(value, list):
            value.extend(copied)
        else:
            value.update(copied)


def _set_version(tensor: torch.Tensor, version: int) -> None:
    set_versions = getattr(torch._C._autograd, "_unsafe_set_version_counter", None)
    if set_versions is not None:
        set_versions((tensor,), (version,))
