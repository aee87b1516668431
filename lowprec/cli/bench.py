"""`lowprec bench`: how fast a model runs, beside other runtimes, and where the time goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lowprec.cli.opening import shape_option

if TYPE_CHECKING:
    from lowprec.cli.bench_report import Measured
    from lowprec.cli.opening import Feed
    from lowprec.engine import StepTime
    from lowprec.models import CompiledModel

SLOWEST = 10  # steps that are listed without --profile


@click.command()
@click.argument("model")
@shape_option
@click.option("--data", metavar="X.npz", help="Take the first sample of an .npz file or folder.")
@click.option("--vs", metavar="NAMES", default=None,
              help="Runtimes to measure beside ours, by comma: onnxruntime, openvino, torch. "
              "Default: onnxruntime where it is installed.")  # fmt: skip
@click.option("--threads", metavar="1,2", default="1", show_default=True,
              help="Numbers of threads to measure with, by comma.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0), default=2.0, show_default=True,
              help="How long to measure, for each number of threads.")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=0), default=None,
              help=f"How many of the slowest steps to list; {SLOWEST} if not given, all with "
              "--profile.")  # fmt: skip
@click.option("--profile", "profiled", is_flag=True,
              help="List every step with its operations a second, its share of this machine's "
              "peak, and the bytes that it moves.")  # fmt: skip
@click.option("--json", "json_file", metavar="FILE", type=click.Path(path_type=Path),
              help="Write the figures as JSON.")  # fmt: skip
@click.option("--picture", metavar="FILE.png", type=click.Path(path_type=Path),
              help="Draw the latencies (needs matplotlib, extra 'report').")  # fmt: skip
@click.option("--trace", metavar="FILE.json", type=click.Path(path_type=Path),
              help="Write the steps of one run for chrome://tracing or Perfetto.")  # fmt: skip
def bench(
    model: str,
    shapes: tuple[str, ...],
    data: str | None,
    vs: str | None,
    threads: str,
    seconds: float,
    steps: int | None,
    profiled: bool,
    json_file: Path | None,
    picture: Path | None,
    trace: Path | None,
) -> None:
    """Measure the median latency of MODEL, beside other runtimes in turns, and its steps.

    All of them get the same file, the same feed and the same number of threads.
    """
    from lowprec.cli import bench_report
    from lowprec.cli.opening import open_model, parse_shapes, random_feed, read_feeds
    from lowprec.cli.peers import installed_peers, parse_peers
    from lowprec.threads import get_num_threads, set_num_threads

    counts = _parse_threads(threads)
    peers = installed_peers() if vs is None else parse_peers(vs)
    if picture is not None:
        bench_report.require_matplotlib()
    opened = open_model(model)
    compiled = opened.compiled
    given = parse_shapes(shapes, (info.name for info in compiled.inputs))
    feed = next(read_feeds(data, opened.captured)) if data else random_feed(compiled, given)
    before = get_num_threads()
    measured: list[Measured] = []
    times: list[StepTime] = []
    peaks: dict[str, float] = {}
    try:
        for count in counts:
            set_num_threads(count)
            measured += _measure(compiled, opened.path, feed, peers, count, seconds)
        bench_report.print_latencies(measured)
        if profiled or trace is not None or json_file is not None or steps != 0:
            times = compiled.profile(feed)  # with the last number of threads
        if profiled:
            peaks = _peaks(times, counts[-1])
    finally:
        set_num_threads(before)
    if profiled:
        bench_report.print_profile(times, peaks, steps)
    elif steps != 0 and times:
        bench_report.print_slowest(times, SLOWEST if steps is None else steps)
    fallbacks = compiled.explain().fallbacks
    if fallbacks:
        click.echo(f"slow, without a native kernel: {', '.join(fallbacks)}")
    if json_file is not None:
        bench_report.write_json(json_file, opened.path, feed, measured, times, peaks)
    if trace is not None:
        bench_report.write_trace(trace, opened.path, times)
    if picture is not None:
        bench_report.draw(picture, opened.path, measured)


def _parse_threads(text: str) -> list[int]:
    from lowprec.errors import InputError

    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise InputError(f"--threads {text}: give numbers from 1 on, by comma, for example 1,2")
    return counts


def _measure(
    compiled: CompiledModel,
    path: Path,
    feed: Feed,
    peers: list[str],
    threads: int,
    seconds: float,
) -> list[Measured]:
    """Return one row per runner, ours first."""
    from lowprec.cli.bench_report import Measured
    from lowprec.cli.peers import Refused, difference, peer_run
    from lowprec.timing import PAUSE, median_times

    runs: dict[str, Callable[[], object]] = {"lowprec": lambda: compiled.run(feed)}
    ours = [array.copy() for array in compiled.run(feed)]
    differences = {"lowprec": 0.0}
    for name in peers:
        try:
            run = peer_run(name, path, feed, threads)
        except Refused as reason:
            click.echo(f"note: {name} does not run this model: {reason}", err=True)
            continue
        differences[name] = difference(ours, run())
        runs[name] = run
    times = median_times(runs, seconds=seconds, pause=PAUSE if threads > 1 else 0.0)
    return [
        Measured(name, threads, time, time / times["lowprec"], differences[name])
        for name, time in times.items()
    ]


def _peaks(times: list[StepTime], threads: int) -> dict[str, float]:
    from lowprec.cli.machine import product_kind, product_peak

    kinds = {kind for step in times if (kind := product_kind(step.row)) is not None}
    return {kind: product_peak(kind, threads) for kind in sorted(kinds)}
