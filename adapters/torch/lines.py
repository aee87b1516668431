"""The line of a user's file that a refusal is about."""

from __future__ import annotations

import linecache
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

import torch

# Files of these are never what a user wrote. transformers is: its line tells what a model does.
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_STANDARD = sysconfig.get_paths()["stdlib"] + os.sep
_STACK_LINE = re.compile(r'File "([^"]+)", line (\d+), in (\w+)')


@dataclass(frozen=True)
class Line:
    """A place in a source file.

    Attributes:
        file: Its path.
        number: Of the line, from 1.
    """

    file: str
    number: int

    def __str__(self) -> str:
        """Return file:line, and the code that stands there."""
        code = linecache.getline(self.file, self.number).strip()
        where = f"{self.file}:{self.number}"
        return f"{where}: `{code}`" if code else where


@dataclass(frozen=True)
class Decision:
    """A condition on sizes that a trace relied on.

    Attributes:
        holds: Whether it is true for sizes given by (leaf, axis); sizes that are not given are as
            they were traced.
        line: Where it was made; None where no line of a user leads to it.
    """

    holds: Callable[[dict[tuple[int, int], int]], bool]
    line: Line | None


def line_of_error(error: BaseException) -> Line | None:
    """Return the innermost line outside of torch that an exception came through."""
    found: Line | None = None
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and found is None:
        seen.add(id(current))
        found = _innermost(current.__traceback__) or line_in_stack(str(current))
        current = current.__cause__ or current.__context__
    return found


def line_in_stack(text: str) -> Line | None:
    """Return the innermost line outside of torch in a printed stack."""
    lines = [Line(file, int(number)) for file, number, _ in _STACK_LINE.findall(text)]
    return next((line for line in reversed(lines) if _is_users(line.file)), None)


def line_of_caller() -> Line | None:
    """Return the innermost line outside of torch that is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _is_users(frame.f_code.co_filename):
            return Line(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return None


def decisions_of(
    module: torch.nn.Module, leaves: Sequence[torch.Tensor], axes: Sequence[Sequence[int]]
) -> list[Decision]:
    """Return what a trace of `module` assumes of the sizes of `axes`, and which lines made it.

    An empty list where this torch does not tell: it is asked by the names of its internals.

    Args:
        module: Called with `leaves`.
        leaves: What to trace with.
        axes: For each leaf the axes that may change.
    """
    from torch.export import Dim

    shapes = (tuple(dict.fromkeys(found, Dim.AUTO) or None for found in axes),)
    try:
        with _watched_guards() as seen:
            torch.export.export(module, tuple(leaves), dynamic_shapes=shapes)
    except Exception:  # whatever torch raises: this only looks for a line to name
        return []
    return [
        Decision(_condition(environment, guard), line)
        for environment, guard, line in seen
        if line is not None
    ]


@contextmanager
def _watched_guards() -> Iterator[list[tuple[Any, Any, Line | None]]]:
    """Yield the list of (shape environment, guard, line) that is filled while torch traces."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    original = ShapeEnv._log_guard
    seen: list[tuple[Any, Any, Line | None]] = []

    def log_guard(self: Any, prefix: str, guard: Any, forcing_spec: bool) -> None:
        seen.append((self, guard, line_of_caller()))
        original(self, prefix, guard, forcing_spec)

    ShapeEnv._log_guard = log_guard  # type: ignore[assignment, method-assign]
    try:
        yield seen
    finally:
        ShapeEnv._log_guard = original  # type: ignore[method-assign]


_SOURCE = re.compile(r"\[(\d+)\]\.size\(\)\[(\d+)\]$")


def _condition(environment: Any, guard: Any) -> Callable[[dict[tuple[int, int], int]], bool]:
    def holds(sizes: dict[tuple[int, int], int]) -> bool:
        values = {}
        for symbol, sources in environment.var_to_sources.items():
            values[symbol] = environment.backed_var_to_val.get(symbol)
            for source in sources:
                found = _SOURCE.search(_name_of(source))
                if found:
                    axis = (int(found[1]), int(found[2]))
                    values[symbol] = sizes.get(axis, values[symbol])
        known = {symbol: value for symbol, value in values.items() if value is not None}
        return str(guard.subs(known)) != "False"  # a sympy expression: perhaps undecided

    return holds


def _name_of(source: Any) -> str:
    name = source.name
    return str(name() if callable(name) else name)


def _innermost(traceback: TracebackType | None) -> Line | None:
    found = None
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if _is_users(file):
            found = Line(file, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


def _is_users(file: str) -> bool:
    if file.startswith((_OURS, _TORCH, "<")):
        return False
    return not file.startswith(_STANDARD) or "site-packages" in file
