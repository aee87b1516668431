"""Tables and numbers as the commands print them."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

PIPED_WIDTH = 200  # columns, where nobody's window limits it


def console(*, stderr: bool = False) -> Console:
    """Return where to print: a terminal as wide as it is, a pipe wide enough for any table."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_WIDTH
    return Console(file=stream, width=width, highlight=False, emoji=False, markup=False)


def print_table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[str] = ()
) -> None:
    """Print rows of text below `heads`; the columns named in `numbers` are right-aligned."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    right = set(numbers)
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console().print(table)


def decibels(value: float) -> str:
    """Return '41.3 dB', or 'equal' for an infinite ratio."""
    return "equal" if value == math.inf else f"{value:.1f} dB"


def milliseconds(seconds: float) -> str:
    """Return '3.21 ms'."""
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def megabytes(size: int) -> str:
    """Return '2.71 MB' (10^6 bytes), or kB for small files."""
    return f"{size / 1e6:.2f} MB" if size >= 1e5 else f"{size / 1e3:.2f} kB"


def is_saved_model(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is the folder of a TensorFlow SavedModel."""
    return (Path(path) / "saved_model.pb").is_file()


def size_on_disk(path: str | os.PathLike[str]) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    place = Path(path)
    files = (file for file in place.rglob("*") if file.is_file()) if place.is_dir() else (place,)
    return sum(file.stat().st_size for file in files)


def percent(fraction: float | None) -> str:
    """Return '99.3 %', or a dash for None."""
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


def shape_text(shape: Sequence[object] | None) -> str:
    """Return '1 x 3 x ? x ?' for sizes, names and unknowns."""
    if shape is None:
        return "?"
    return " x ".join("?" if size is None else str(size) for size in shape) or "scalar"
