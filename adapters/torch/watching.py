"""Looking at every operator that a module runs, and at the line that called it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lowprec.adapters.torch.lines import Line, line_of_caller


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, `see(line, operator, result)` is called after each operator."""

    def __init__(self, see: Callable[[Line | None, Any, Any], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._see = see

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator, then tell of it."""
        result = func(*args, **(kwargs or {}))
        self._see(line_of_caller(), func, result)
        return result


def line_that_draws(call: Callable[[], Any]) -> Line | None:
    """Return the line at which `call` first draws random numbers."""
    before = torch.get_rng_state()
    return _line_after(call, lambda: not torch.equal(before, torch.get_rng_state()))


def line_that_writes(call: Callable[[], Any], tensors: list[torch.Tensor]) -> Line | None:
    """Return the line at which `call` first writes to one of `tensors`."""
    versions = [tensor._version for tensor in tensors]
    return _line_after(call, lambda: [tensor._version for tensor in tensors] != versions)


def first_difference(one: Callable[[], Any], other: Callable[[], Any]) -> Line | None:
    """Return the first line at which `one` computes something else, or of another rank."""
    for (line, what), (_, expected) in zip(_steps(one), _steps(other), strict=False):
        if what != expected:
            return line
    return None


def _steps(call: Callable[[], Any]) -> list[tuple[Line | None, object]]:
    found: list[tuple[Line | None, object]] = []

    def see(line: Line | None, operator: Any, result: Any) -> None:
        rank = result.ndim if isinstance(result, torch.Tensor) else None
        found.append((line, (str(operator), rank)))

    try:
        with Watch(see):
            call()
    except Exception:  # the module's own; what came before it is what we want
        pass
    return found


def _line_after(call: Callable[[], Any], has_happened: Callable[[], bool]) -> Line | None:
    last: list[Line | None] = [None]
    found: list[Line | None] = []

    def see(line: Line | None, operator: Any, result: Any) -> None:
        # A write is counted when the operator has returned to its caller: seen one operator later.
        if not found and has_happened():
            found.append(line if last[0] is None else last[0])
        last[0] = line

    with Watch(see):
        call()
    if not found and has_happened():
        found.append(last[0])
    return found[0] if found else None
