"""What int8 makes of real models, by what they are for: float, ours, and with --peers the others.

    python benchmarks/bench_accuracy.py                          # every model, default settings
    python benchmarks/bench_accuracy.py lite0 rec --peers        # beside onnxruntime and OpenVINO
    python benchmarks/bench_accuracy.py minilm --precision int8 int8-dynamic auto
    python benchmarks/bench_accuracy.py basic_pitch --config conf.yaml

Every label is exact: photos with their class, drawn words and pages, human similarity ratings,
endings of files, synthetic chords, recordings between gaps of noise. Nothing that calibrates is
measured on, every choice is drawn from a seed. Criteria are those of docs/benchmarks.md. A model
whose data is not installed is skipped, with the name of what to install. Writes
out/bench/accuracy.json. Exit code 1 when a criterion was missed by the default configuration.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from accuracy_pictures import picture_tasks
from accuracy_sounds import sound_tasks
from accuracy_tasks import Answers, Missing, Run, Task
from accuracy_texts import text_tasks
from peer_models import (
    Failed,
    first_line,
    onnxruntime_int8,
    onnxruntime_run,
    openvino_int8,
    openvino_run,
)
from real_models import RealModel
from turns import take_turns

import lowprec
from lowprec.errors import LowprecError

RESULTS = Path("out/bench/accuracy.json")
COLUMNS = 96


def tasks() -> list[Task]:
    return [*picture_tasks(), *text_tasks(), *sound_tasks()]


def find_source(task: Task) -> str:
    """Return the model's path.

    Raises:
        Missing: names the package that is not installed.
    """
    try:
        return task.source()
    except (metadata.PackageNotFoundError, ImportError) as missing:
        raise Missing(f"pip install --no-deps {missing.name}") from None


def measure(task: Task, run: Run, exact: Answers | None = None) -> tuple[Answers, dict[str, float]]:
    """Return the answers of `run` and what they are worth; `exact` are the float model's."""
    answers = task.answer(run)
    return answers, task.measure(answers, exact if exact is not None else answers)


def quantize(task: Task, source: str, precision: str, config: Any) -> tuple[Any, float]:
    """Return our model in `precision`, and the seconds that it took."""
    feeds = task.calibration()
    start = time.perf_counter()
    quantized = lowprec.quantize(source, feeds, precision=precision, config=config)
    return quantized, time.perf_counter() - start


def peer_runs(task: Task, source: str) -> dict[str, Callable[[], Run]]:
    """Return how to make each peer's int8 model; every tool calibrates with the same feeds."""
    model = RealModel(
        f"accuracy {task.key}",
        lambda: source,
        lambda count, seed: task.calibration(),
        is_transformer=task.is_transformer,
    )
    path = Path(source)
    return {
        "onnxruntime": lambda: onnxruntime_run(onnxruntime_int8(model, path), 1),
        "onnxruntime, products only": lambda: onnxruntime_run(
            onnxruntime_int8(model, path, only_products=True), 1
        ),
        "OpenVINO (NNCF)": lambda: openvino_run(openvino_int8(model, path), 1, "f32"),
    }


def bench_task(task: Task, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return everything measured of one task, by runner."""
    source = find_source(task)
    feed = task.calibration()[0]
    original = lowprec.compile(source)
    exact, measures = measure(task, original.run)
    runs: dict[str, Run] = {"float": original.run}
    rows: dict[str, Any] = {"float": {"measures": measures}}
    print(f"\n{task.name}\n" + line("float", rows["float"]), flush=True)
    for precision in arguments.precision or task.precisions:
        try:
            quantized, seconds = quantize(task, source, precision, arguments.config)
        except LowprecError as failure:
            rows[f"ours, {precision}"] = {"failed": str(failure), "held": {"quantised": False}}
            print(line(f"ours, {precision}", rows[f"ours, {precision}"]), flush=True)
            continue
        _, measures = measure(task, quantized.run, exact)
        report = quantized.report
        measures["int8 share"] = report.int8_fraction
        held = {str(c): c.is_met(rows["float"]["measures"], measures) for c in task.criteria}
        row = {"measures": measures, "held": held, "seconds to quantise": seconds}
        row["float layers"] = {
            record.name: record.reason
            for record in report.layers
            if record.precision in ("f32", "bf16") and record.macs
        }
        rows[f"ours, {precision}"], runs[f"ours, {precision}"] = row, quantized.run
        print(line(f"ours, {precision}", row), flush=True)
        for name, reason in row["float layers"].items():
            print(f"      float: {name}: {reason}"[:COLUMNS])
    times = take_turns(
        {name: lambda run=run: run(feed) for name, run in runs.items()}, arguments.rounds, 1
    )
    for name, seconds in times.items():
        rows[name]["ms"] = 1e3 * seconds
    print(
        "    ms of the first sample: " + ", ".join(f"{n} {1e3 * s:.3f}" for n, s in times.items())
    )
    if arguments.peers:
        for name, make in peer_runs(task, source).items():
            try:
                _, measures = measure(task, make(), exact)
            except Failed as failure:
                rows[name] = {"failed": str(failure)}
            except Exception as error:  # a peer's errors have no common base
                rows[name] = {"failed": first_line(error)}
            else:
                held = {
                    str(c): c.is_met(rows["float"]["measures"], measures)
                    for c in task.criteria
                    if c.metric in measures
                }
                rows[name] = {"measures": measures, "held": held}
            print(line(name, rows[name]), flush=True)
    return rows


def line(name: str, row: dict[str, Any]) -> str:
    """Return one runner's line of the table."""
    if "failed" in row:
        return f"  {name:28} {row['failed']}"[:COLUMNS]
    values = ", ".join(
        f"{metric} {value:.1f} dB" if metric.startswith("SQNR") else f"{metric} {value:.4f}"
        for metric, value in row["measures"].items()
    )
    missed = [criterion for criterion, is_met in row.get("held", {}).items() if not is_met]
    verdict = f"  MISSED: {'; '.join(missed)}" if missed else "  holds" if "held" in row else ""
    seconds = f", {row['seconds to quantise']:.1f} s" if "seconds to quantise" in row else ""
    return f"  {name:28} {values}{seconds}{verdict}"


def main() -> int:
    known = {task.key: task for task in tasks()}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(known)}")
    parser.add_argument("--precision", nargs="+", help="ours; default: what the model has to hold")
    parser.add_argument("--config", help="a YAML file for ours")
    parser.add_argument("--peers", action="store_true", help="onnxruntime and OpenVINO as well")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="of timing in turns")
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.models if name not in known]
    if unknown:
        parser.error(f"unknown model {unknown[0]}; known are {', '.join(known)}")
    lowprec.set_num_threads(arguments.threads)
    results: dict[str, Any] = {}
    if arguments.json.exists():  # of the models that are not measured now
        results = json.loads(arguments.json.read_text())
    missed = False
    for name in arguments.models or known:
        try:
            results[name] = bench_task(known[name], arguments)
        except Missing as missing:
            print(f"\n{known[name].name}: skipped: {missing}", flush=True)
            continue
        missed |= not all(
            all(row.get("held", {}).values())
            for who, row in results[name].items()
            if who.startswith("ours")
        )
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
