"""`lowprec compare`: what a quantised model loses and gains against its original."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import click

from lowprec.errors import ModelError

if TYPE_CHECKING:
    from lowprec.agreement import Agreement
    from lowprec.cli.opening import Feed, OpenModel
    from lowprec.models import CompiledModel


@click.command()
@click.argument("original", metavar="FLOAT")
@click.argument("quantized", metavar="INT8")
@click.option("--data", required=True, metavar="X.npz", help="Inputs: an .npz file or folder.")
@click.option("--min-sqnr", type=float, metavar="DB", help="Exit with 1 if an output is below.")
@click.option(
    "--min-argmax", type=float, metavar="FRACTION", help="Exit with 1 if an output is below."
)
def compare(
    original: str, quantized: str, data: str, min_sqnr: float | None, min_argmax: float | None
) -> int:
    """Compare the outputs, latency and size of two models on the same data.

    Per output: signal to noise in dB, cosine, largest error, share of equal largest entries along
    the last axis. Latencies are medians per sample, measured in turns.
    """
    from lowprec.cli.opening import open_model, read_feeds

    models = (open_model(original), open_model(quantized))
    _check_interfaces(*models)
    comparison = _Comparison(models[0].compiled, models[1].compiled)
    for feed in read_feeds(data, models[0].captured):
        comparison.add(feed)
    agreements = comparison.agreements()
    _print(agreements, comparison, models)
    return 0 if _meets(agreements, min_sqnr, min_argmax) else 1


def _check_interfaces(first: OpenModel, second: OpenModel) -> None:
    for what in ("inputs", "outputs"):
        ours = [(info.name, info.dtype) for info in getattr(first.compiled, what)]
        theirs = [(info.name, info.dtype) for info in getattr(second.compiled, what)]
        if ours != theirs:
            raise ModelError(
                f"'{first.path}' has the {what} {_listed(ours)}, '{second.path}' has "
                f"{_listed(theirs)}; compare models with the same {what}"
            )


def _listed(infos: list[tuple[str, object]]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in infos) or "(none)"


@dataclass
class _Comparison:
    """Runs both models on the same feeds, in turns."""

    original: CompiledModel
    quantized: CompiledModel
    original_times: list[float] = field(default_factory=list)
    quantized_times: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        from lowprec.agreement import AgreementSum

        self._sums = [AgreementSum(info.name) for info in self.original.outputs]
        self._seen: set[tuple[tuple[int, ...], ...]] = set()

    def add(self, feed: Feed) -> None:
        shapes = tuple(array.shape for array in feed.values())
        if shapes not in self._seen:  # the first run of a shape makes the plan
            self._seen.add(shapes)
            self.original.run(feed)
            self.quantized.run(feed)
        start = perf_counter()
        expected = self.original.run(feed)
        middle = perf_counter()
        actual = self.quantized.run(feed)
        end = perf_counter()
        self.original_times.append(middle - start)
        self.quantized_times.append(end - middle)
        for total, a, b in zip(self._sums, expected, actual, strict=True):
            total.update(a, b)

    def agreements(self) -> list[Agreement]:
        return [total.result() for total in self._sums]


def _print(
    agreements: list[Agreement], comparison: _Comparison, models: tuple[OpenModel, OpenModel]
) -> None:
    from lowprec.cli.display import decibels, megabytes, milliseconds, percent, print_table

    click.echo(f"{len(comparison.original_times)} samples")
    print_table(
        ("output", "SQNR", "cosine", "largest error", "of largest value", "arg-max agreement"),
        (
            (
                item.name,
                decibels(item.sqnr),
                f"{item.cosine:.6f}",
                f"{item.max_error:.4g}",
                f"{item.max_value:.4g}",
                percent(item.argmax),
            )
            for item in agreements
        ),
        numbers=("SQNR", "cosine", "largest error", "of largest value", "arg-max agreement"),
    )
    times = [
        statistics.median(series)
        for series in (comparison.original_times, comparison.quantized_times)
    ]
    sizes = [model.file_bytes for model in models]
    print_table(
        ("model", "latency", "file"),
        (
            (model.path, milliseconds(time), megabytes(size))
            for model, time, size in zip(models, times, sizes, strict=True)
        ),
        numbers=("latency", "file"),
    )
    click.echo(
        f"{times[0] / times[1]:.2f} times as fast, {sizes[1] / sizes[0]:.2f} of the size "
        "(one thread; latency is the median per sample)"
    )


def _meets(agreements: list[Agreement], min_sqnr: float | None, min_argmax: float | None) -> bool:
    from lowprec.cli.display import decibels, percent

    missed = [
        f"output '{item.name}': SQNR {decibels(item.sqnr)} is below {min_sqnr} dB"
        for item in agreements
        if min_sqnr is not None and item.sqnr < min_sqnr
    ]
    missed += [
        f"output '{item.name}': arg-max agreement {percent(item.argmax)} is below "
        f"{percent(min_argmax)}"
        for item in agreements
        if min_argmax is not None and item.argmax is not None and item.argmax < min_argmax
    ]
    for line in missed:
        click.echo(line, err=True)
    return not missed
