"""Open what a command names: a model on the engine, its file's size, and data for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from lowprec.errors import DataError, InputError

if TYPE_CHECKING:
    from lowprec.hookspecs import Captured
    from lowprec.models import CompiledModel

Array = NDArray[np.generic]
Feed = dict[str, Array]

shape_option = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=1,3,48,320",
    help="Sizes of an input whose model leaves them open; may be repeated.",
)


@dataclass(frozen=True)
class OpenModel:
    """A model file on the engine."""

    path: Path
    captured: Captured
    compiled: CompiledModel

    @property
    def file_bytes(self) -> int:
        """Size of the file and of its external data."""
        import onnx_ir as ir

        from lowprec.cli.display import size_on_disk

        outside = (
            value.const_value.nbytes
            for graph in self.captured.graph.graphs()
            for value in graph.initializers.values()
            if isinstance(value.const_value, ir.ExternalTensor)
        )
        return size_on_disk(self.path) + sum(outside)


def open_model(path: str) -> OpenModel:
    """Return the model at `path`, compiled."""
    from lowprec.api import capture, compile_captured

    captured = capture(path)
    return OpenModel(Path(path), captured, compile_captured(captured))


def read_feeds(data: str, captured: Captured) -> Iterator[Feed]:
    """Yield the feeds in an .npz file or folder; notes go to stderr."""
    from lowprec.plugins import active_plugins

    batches = active_plugins().hook.lowprec_batches(data=data, captured=captured)
    if batches is None:
        raise DataError(f"'{data}' is not data that an adapter accepts; give an .npz file")
    yield from batches
    print_notes(batches)


def print_notes(batches: Iterable[Any]) -> None:
    """Print what an adapter said about its data to stderr."""
    for note in getattr(batches, "notes", ()):
        click.echo(f"note: {note}", err=True)


def parse_shapes(shapes: tuple[str, ...], names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Return {'x': (1, 3)} for ('x=1,3',).

    Raises:
        InputError: a text of another form, or a name that is not an input.
    """
    parsed = {}
    known = list(names)
    for text in shapes:
        name, separator, sizes = text.rpartition("=")
        try:
            shape = tuple(int(size) for size in sizes.replace("x", ",").split(",") if size)
        except ValueError:
            shape = ()
        if not separator or any(size < 1 for size in shape) or (sizes and not shape):
            raise InputError(f"--shape {text}: give NAME=SIZE,SIZE,..., for example x=1,3,48,320")
        if name not in known:
            raise InputError(f"--shape {text}: the model's inputs are {', '.join(known)}")
        parsed[name] = shape
    return parsed


def random_feed(model: CompiledModel, shapes: Mapping[str, tuple[int, ...]]) -> Feed:
    """Return one feed: normal floats from seed 0, zero for other types.

    Raises:
        InputError: a size is open and `shapes` does not give it (a leading one counts as batch 1).
    """
    rng = np.random.default_rng(0)
    feed: Feed = {}
    for info in model.inputs:
        shape = shapes.get(info.name)
        if shape is None:
            declared = list(info.shape or ())
            if declared and not isinstance(declared[0], int):
                declared[0] = 1
            if info.shape is None or not all(isinstance(size, int) for size in declared):
                raise InputError(
                    f"input '{info.name}' leaves sizes open ({_sizes(info.shape)}); give them with "
                    f"--shape {info.name}=... or give --data"
                )
            shape = tuple(size for size in declared if isinstance(size, int))
        if info.dtype.kind == "f":
            feed[info.name] = rng.standard_normal(shape).astype(info.dtype)
        else:
            feed[info.name] = np.zeros(shape, info.dtype)
    return feed


def _sizes(shape: tuple[int | str | None, ...] | None) -> str:
    from lowprec.cli.display import shape_text

    return shape_text(shape)
