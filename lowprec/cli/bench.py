"""`lowprec bench`: how fast a model runs, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lowprec.cli.opening import shape_option

if TYPE_CHECKING:
    from lowprec.cli.opening import Feed
    from lowprec.models import CompiledModel


@click.command()
@click.argument("model")
@shape_option
@click.option("--data", metavar="X.npz", help="Take the first sample of an .npz file or folder.")
@click.option("--seconds", type=click.FloatRange(min=0), default=2.0, show_default=True,
              help="How long to measure.")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=0), default=10, show_default=True,
              help="How many of the slowest steps to list.")  # fmt: skip
def bench(
    model: str, shapes: tuple[str, ...], data: str | None, seconds: float, steps: int
) -> None:
    """Measure the median latency of MODEL on one thread, and its slowest steps.

    Where onnxruntime is installed it is measured beside ours, in turns.
    """
    from lowprec.cli.display import milliseconds, print_table
    from lowprec.cli.opening import open_model, parse_shapes, random_feed, read_feeds
    from lowprec.timing import median_times

    opened = open_model(model)
    compiled = opened.compiled
    given = parse_shapes(shapes, (info.name for info in compiled.inputs))
    feed = next(read_feeds(data, opened.captured)) if data else random_feed(compiled, given)
    runs: dict[str, Callable[[], object]] = {"lowprec": lambda: compiled.run(feed)}
    peer = _onnxruntime(opened.path, feed)
    if peer is not None:
        runs["onnxruntime"] = peer
    times = median_times(runs, seconds=seconds)
    print_table(
        ("runner", "median latency", "relative"),
        (
            (name, milliseconds(time), f"{time / times['lowprec']:.2f}")
            for name, time in times.items()
        ),
        numbers=("median latency", "relative"),
    )
    if steps:
        _print_steps(compiled, feed, steps)


def _onnxruntime(path: Path, feed: Feed) -> Callable[[], object] | None:
    """Return a run of the peer on one thread; None where it is missing or refuses the model."""
    if find_spec("onnxruntime") is None:
        return None
    peer = import_module("onnxruntime")
    options = peer.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = peer.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        session.run(None, feed)
    except Exception as error:  # its exceptions have no common public base
        reason = " ".join(str(error).split())[:200]
        click.echo(f"note: onnxruntime does not run this model: {reason}", err=True)
        return None
    return lambda: session.run(None, feed)


def _print_steps(compiled: CompiledModel, feed: Feed, steps: int) -> None:
    from lowprec.cli.display import milliseconds, percent, print_table

    profile = compiled.profile(feed)
    total = sum(step.seconds for step in profile)
    slowest = sorted(profile, key=lambda step: -step.seconds)[:steps]
    print_table(
        ("step", "operator", "kernel", "output", "time", "share"),
        (
            (
                step.row.name,
                step.row.op,
                step.row.kernel,
                step.row.output,
                milliseconds(step.seconds),
                percent(step.seconds / total if total else 0.0),
            )
            for step in slowest
        ),
        numbers=("time", "share"),
    )
    fallbacks = compiled.explain().fallbacks
    if fallbacks:
        click.echo(f"slow, without a native kernel: {', '.join(fallbacks)}")
