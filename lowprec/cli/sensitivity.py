"""`lowprec inspect --sensitivity`: a table of the layers by harm, and what to do about it."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from lowprec.errors import DataError

if TYPE_CHECKING:
    from lowprec.config import Config
    from lowprec.report import LayerRecord, Report

BLOCKS = "▁▂▃▄▅▆▇█"
SPARK = 16  # letters of a histogram
MOST_ROWS = 40  # layers that a terminal shows; the page and JSON have all


@dataclass(frozen=True)
class Question:
    """What the command line asks for."""

    model: str
    calibration: str | None
    config: str | None
    precision: str
    feeds: int
    evaluate: str | None


def print_sensitivity(question: Question, html: str | None, as_json: bool) -> None:
    """Answer on the terminal, or as JSON, and as a page where one is asked for."""
    from lowprec.atomic import resolve_target

    if html is not None:
        resolve_target(html)  # what cannot be written is said before the work, not after it
    report = find_report(question)
    if html is not None:
        report.to_html(html)
    if as_json:
        click.echo(report.to_json(times=True))
        return
    _print_table(report)
    _print_advice(report.advice)
    if html is not None:
        click.echo(f"wrote {html}")


def find_report(question: Question) -> Report:
    """Return the analysis, from the cache where the very same was made before."""
    from lowprec import api
    from lowprec.compat import read_config
    from lowprec.config import Config
    from lowprec.progress import progress_bar
    from lowprec.sensitivity import content_key, examine, keep_analysis, read_analysis
    from lowprec.sources import find_data

    settings = Config() if question.config is None else read_config(question.config)[0]
    settings = api.with_precision(settings, question.precision)
    data = find_data(question.calibration or settings.data.calibration, "--calibration")
    if data is None:
        raise DataError(
            "--sensitivity measures on data: give --calibration, an .npz file, a folder of them, "
            "or module:function; a few typical samples are enough"
        )
    functions = _functions(question.evaluate)
    # Contents of files are hashed without a look into them: the second time, nothing is loaded.
    content = content_key(question.model, data) if isinstance(data, str) else None
    if content is not None and not functions:
        report = read_analysis(_key(content, question, settings))
        if report is not None:
            return report
    captured = api.capture(question.model)
    workbench = api.open_workbench(captured, data, settings)
    key = None
    if not functions:  # what a user's function says may change
        key = _key(content or workbench.key(settings.calibration.samples), question, settings)
        report = read_analysis(key) if content is None else None
        if report is not None:
            return report
    with progress_bar("layers") as progress:
        report = examine(
            workbench, settings, feeds=question.feeds, evaluate=functions, progress=progress
        )
    if key is not None:
        keep_analysis(key, report)
    return report


def _key(content: str, question: Question, settings: Config) -> str:
    from lowprec.sensitivity import analysis_key

    values = json.dumps(settings.to_dict(), sort_keys=True)
    return analysis_key(content, values, str(question.feeds), question.model)


def _functions(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    from lowprec.functions import find_functions

    return find_functions(text, "--evaluate")


# ---- The table -----------------------------------------------------------------------------------


def _print_table(report: Report) -> None:
    from lowprec.cli.display import print_table

    click.echo(str(report).splitlines()[0])
    rows = report.sensitivity[:MOST_ROWS]
    if not rows:
        click.echo("no layer is quantised; `lowprec quantize` prints the reasons")
        return
    records = {record.name: record for record in report.layers}
    total = report.total_macs or 1
    low = report.precision
    print_table(
        (
            "layer",
            "operator",
            "in",
            "share",
            "reads",
            "dB alone",
            "dB so far",
            "dB to win",
            "ms float",
            f"ms {low}",
        ),
        (
            (
                row["name"],
                row["op_type"],
                row["precision"],
                "" if row["macs"] is None else f"{100 * row['macs'] / total:.1f} %",
                _reads(records.get(row["name"]), report.histograms),
                _decibels(row["isolated"]),
                _decibels(row["accumulated"]),
                _decibels(row["gain"], sign=True),
                _figure(row["float_ms"]),
                _figure(row["int8_ms"]),
            )
            for row in rows
        ),
        numbers=("share", "dB alone", "dB so far", "dB to win", "ms float", f"ms {low}"),
    )
    if len(report.sensitivity) > len(rows):
        click.echo(f"... and {len(report.sensitivity) - len(rows)} more; --html shows all")
    click.echo(
        "alone: outputs when only this layer is quantised; so far: this layer's output in the "
        "quantised model; to win: outputs when it goes back to float"
    )


def _reads(record: LayerRecord | None, histograms: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what a layer reads as a little picture between the ends of its range."""
    if record is None or record.rmin is None or record.rmax is None:
        return ""
    histogram = histograms.get(record.tensor or "")
    picture = sparkline(histogram["counts"]) if histogram else ""
    return f"{record.rmin:.3g} {picture} {record.rmax:.3g}".replace("  ", " ")


def sparkline(counts: list[int], width: int = SPARK) -> str:
    """Return a histogram as `width` letters, their heights logarithms of the counts."""
    edges = [len(counts) * n // width for n in range(width + 1)]
    sums = [sum(counts[a:b]) for a, b in itertools.pairwise(edges)]
    top = math.log1p(max(sums, default=0)) or 1.0
    steps = len(BLOCKS) - 1
    return "".join(" " if n <= 0 else BLOCKS[round(steps * math.log1p(n) / top)] for n in sums)


def _decibels(value: object, *, sign: bool = False) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return "equal" if value == "inf" else value
    return f"{value:+.1f}" if sign else f"{value:.1f}"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _print_advice(advice: Mapping[str, Any]) -> None:
    if not advice:
        return
    click.echo("")
    click.echo(f"advice: {advice['sentence']}")
    for name in advice["layers"]:
        click.echo(f"  {name}")
    for line in advice["lines"][1:]:
        click.echo(f"  or {line}")
    if advice["yaml"]:
        click.echo("as a configuration (after other rules):")
        click.echo(advice["yaml"].rstrip())
