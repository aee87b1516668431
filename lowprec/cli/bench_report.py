"""What `lowprec bench` measured: tables, JSON, a picture, a trace."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lowprec.atomic import write_atomically
from lowprec.cli.display import milliseconds, percent, print_table
from lowprec.cli.machine import product_kind
from lowprec.errors import UnsupportedError

if TYPE_CHECKING:
    from lowprec.cli.opening import Feed
    from lowprec.engine import StepTime

INK = {"lowprec": "#1f5fa8"}
OTHERS = "#9aa5b1"


@dataclass(frozen=True)
class Measured:
    """One runner at one number of threads.

    Attributes:
        runner: "lowprec" or a peer.
        threads: How many it used.
        seconds: Median latency of one run.
        relative: Its latency over ours: above 1, ours is faster.
        difference: Worst output's largest difference from ours over its largest value.
    """

    runner: str
    threads: int
    seconds: float
    relative: float
    difference: float


def print_latencies(measured: Sequence[Measured]) -> None:
    """Print one row per runner and number of threads."""
    print_table(
        ("runner", "threads", "median latency", "relative", "outputs differ by"),
        (
            (
                row.runner,
                row.threads,
                milliseconds(row.seconds),
                f"{row.relative:.2f}",
                "" if row.runner == "lowprec" else f"{row.difference:.1e}",
            )
            for row in measured
        ),
        numbers=("threads", "median latency", "relative", "outputs differ by"),
    )


def print_slowest(times: Sequence[StepTime], count: int) -> None:
    """Print the `count` slowest steps."""
    total = sum(step.seconds for step in times)
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
            for step in sorted(times, key=lambda step: -step.seconds)[:count]
        ),
        numbers=("time", "share"),
    )


def print_profile(times: Sequence[StepTime], peaks: Mapping[str, float], count: int | None) -> None:
    """Print every step in order, or the `count` slowest, and what each operator takes together."""
    total = sum(step.seconds for step in times) or 1.0
    shown = times if count is None else sorted(times, key=lambda s: -s.seconds)[:count]
    numbers = ("us", "share", "GOP/s", "of peak", "MB moved", "GB/s")
    print_table(
        ("#", "step", "operator", "kernel", "output", *numbers),
        (
            (
                number,
                step.row.name,
                step.row.op,
                step.row.kernel,
                step.row.output,
                f"{1e6 * step.seconds:.1f}",
                percent(step.seconds / total),
                f"{step.operations_per_second / 1e9:.1f}" if step.row.macs else "",
                _of_peak(step, peaks),
                f"{step.row.moved / 1e6:.3f}",
                f"{step.bytes_per_second / 1e9:.1f}",
            )
            for number, step in enumerate(shown)
        ),
        numbers=numbers,
    )
    by_operator: dict[str, list[StepTime]] = {}
    for step in times:
        by_operator.setdefault(f"{step.row.op}: {step.row.kernel}", []).append(step)
    print_table(
        ("operator: kernel", "steps", "us", "share", "GOP/s"),
        (
            (name, count, f"{1e6 * seconds:.1f}", percent(seconds / total), speed)
            for seconds, name, count, speed in sorted(
                (_together(name, steps) for name, steps in by_operator.items()), reverse=True
            )
        ),
        numbers=("steps", "us", "share", "GOP/s"),
    )
    for kind, peak in peaks.items():
        click.echo(f"peak of {kind} products, measured: {peak / 1e9:.0f} GOP/s")


def _together(name: str, steps: Sequence[StepTime]) -> tuple[float, str, int, str]:
    seconds = sum(step.seconds for step in steps)
    operations = 2 * sum(step.row.macs for step in steps)
    speed = f"{operations / seconds / 1e9:.1f}" if operations and seconds else ""
    return seconds, name, len(steps), speed


def _of_peak(step: StepTime, peaks: Mapping[str, float]) -> str:
    fraction = fraction_of_peak(step, peaks)
    return "" if fraction is None else percent(fraction)


def fraction_of_peak(step: StepTime, peaks: Mapping[str, float]) -> float | None:
    """Return the step's operations a second over the peak of its kind; None without products."""
    kind = product_kind(step.row)
    peak = peaks.get(kind) if kind is not None else None
    return None if peak is None else step.operations_per_second / peak


# ---- Files ---------------------------------------------------------------------------------------
def write_json(
    path: Path,
    model: Path,
    feed: Feed,
    measured: Sequence[Measured],
    times: Sequence[StepTime],
    peaks: Mapping[str, float],
) -> None:
    """Write everything that was measured: seconds, operations and bytes a second."""
    from lowprec import cpu_info

    _write(path, {
        "model": model.name,
        "cpu": cpu_info()["brand"],
        "inputs": {name: list(array.shape) for name, array in feed.items()},
        "latencies": [asdict(row) for row in measured],
        "peaks": dict(peaks),
        "steps": [
            {**asdict(step.row), "seconds": step.seconds, "of_peak": fraction_of_peak(step, peaks)}
            for step in times
        ],
    })  # fmt: skip


def trace_events(model: str, times: Sequence[StepTime]) -> list[dict[str, Any]]:
    """Return Chrome's trace events: steps end to end, each as long as its median."""
    events: list[dict[str, Any]] = [
        {"name": "process_name", "ph": "M", "pid": 1, "args": {"name": f"lowprec {model}"}},
        {"name": "thread_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": "steps"}},
    ]
    start = 0.0
    for step in times:
        row = step.row
        arguments = {"node": row.name, "kernel": row.kernel, "isa": row.isa, "output": row.output,
                     "macs": row.macs, "bytes": row.moved, "refused": row.refused,
                     "GOP/s": step.operations_per_second / 1e9}  # fmt: skip
        events.append({"name": row.op, "cat": "native" if row.native else "fall-back", "ph": "X",
                       "pid": 1, "tid": 1, "ts": start, "dur": 1e6 * step.seconds,
                       "args": arguments})  # fmt: skip
        start += 1e6 * step.seconds
    return events


def write_trace(path: Path, model: Path, times: Sequence[StepTime]) -> None:
    """Write a file for chrome://tracing or ui.perfetto.dev."""
    _write(path, {"displayTimeUnit": "ms", "traceEvents": trace_events(model.name, times)})


def _write(path: Path, content: object) -> None:
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def require_matplotlib() -> None:
    """Raise UnsupportedError where matplotlib is missing: before anything is measured."""
    if find_spec("matplotlib") is None:
        raise UnsupportedError(
            "--picture needs matplotlib, which is not installed: pip install 'lowprec[report]'"
        )


def draw(path: Path, model: Path, measured: Sequence[Measured]) -> None:
    """Draw the latencies as bars, one group per number of threads."""
    from matplotlib.figure import Figure

    counts = list(dict.fromkeys(row.threads for row in measured))
    figure = Figure(figsize=(1.6 + 0.9 * len(measured), 3.2), layout="constrained")
    axes = figure.add_subplot()
    labels: list[tuple[float, str]] = []
    place = 0.0
    for row in measured:
        if labels and row.runner == "lowprec":
            place += 0.6
        axes.bar(place, 1e3 * row.seconds, color=INK.get(row.runner, OTHERS), width=0.8)
        text = f"{1e3 * row.seconds:.3g}" if row.seconds < 1 else f"{1e3 * row.seconds:.0f}"
        axes.annotate(text, (place, 1e3 * row.seconds), ha="center",
                      va="bottom", fontsize=8)  # fmt: skip
        several = "s" if row.threads > 1 else ""
        labels.append((place, f"{row.runner}\n{row.threads} thread{several}"))
        place += 1
    axes.set_xticks([at for at, _ in labels], [text for _, text in labels], fontsize=8)
    axes.set_ylabel("median latency, ms")
    axes.set_title(f"{model.name}", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
    figure.set_size_inches(max(3.0, 1.4 + 0.85 * len(measured) + 0.3 * len(counts)), 3.2)
    content = BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_atomically(path, content.getvalue())
