"""What each precision costs and gives: file, memory, latency with one and two threads, and dB.

    python benchmarks/bench_precisions.py                       # the table of docs/quantization.md
    python benchmarks/bench_precisions.py --models "MiniLM 16" --precisions int8-dynamic --threads 1

Every precision is the default configuration with that `precision` on the whole model; static int8
calibrates with 24 samples, the others see no data. dB: signal to noise of all outputs against
float on held-out samples; kept: the share of decisions that stay, or what the model is judged by
(bench_models.py). Memory: what a process grows by when it loads the file and runs it once.
Latencies are the fastest of rounds taken in turns, with one thread in processor time. Beside ours:
onnxruntime in float and with its own dynamic quantiser (s8 weights, per channel). Writes
out/bench/precisions.json and .md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from peer_models import (
    CALIBRATION,
    Failed,
    onnxruntime_dynamic,
    onnxruntime_run,
    slug,
    source_file,
)
from real_models import Outputs, RealModel, real_models
from turns import Call, take_turns

import lowprec

MODELS = ("MiniLM 16", "MiniLM 128", "EfficientNet-Lite0", "PP-OCR rec")
PRECISIONS = ("int8", "int8-dynamic", "int8-weight-only", "bf16", "f16-weight-only")
FOLDER = Path("out/bench/precisions")
SAMPLES = 48
ROUNDS = 25


@dataclass
class Row:
    """One model in one precision: megabytes, dB and decisions (None: the measure), seconds."""

    model: str
    precision: str
    file: float
    memory: float | None = None
    sqnr: float | None = None
    kept: float | None = None
    seconds: dict[int, float] = field(default_factory=dict)


def quantized_file(model: RealModel, source: Path, precision: str) -> Path:
    """Return the file of `model` in `precision`, made anew."""
    path = FOLDER / f"{slug(model.name)}-{precision}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    data = model.feeds(CALIBRATION, 1) if precision == "int8" else None
    lowprec.quantize(str(source), data, precision=precision).save(path)
    return path


def decibels(exact: Sequence[Outputs], answers: Sequence[Outputs]) -> float:
    signal = noise = 0.0
    for wanted, made in zip(exact, answers, strict=True):
        for a, b in zip(wanted, made, strict=True):
            signal += float(np.square(a, dtype=np.float64).sum())
            noise += float(np.square(a.astype(np.float64) - b).sum())
    return float(10 * np.log10(signal / noise))


MEMORY_OF = """
import resource, sys
from pathlib import Path
import numpy
import lowprec, lowprec.engine.session

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6

feed = dict(numpy.load(sys.argv[2]))
before = resident()
model = lowprec.load(sys.argv[1])
model.run(feed)
print(resident() - before)
"""


def grown_memory(path: Path, feed: Path) -> float:
    """Return the megabytes by which a new process grows when it loads and runs `path`."""
    command = [sys.executable, "-c", MEMORY_OF, str(path), str(feed)]
    for _ in range(2):  # the first one may have to import onnx, the second finds a kept program
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(model: RealModel, precisions: Sequence[str], threads: Sequence[int]) -> list[Row]:
    source = source_file(model)
    held_out = model.feeds(SAMPLES, 2)
    rows = [Row(model.name, "f32", source.stat().st_size / 1e6)]
    ours = {"f32": lowprec.compile(str(source))}
    exact = [ours["f32"].run(feed) for feed in held_out]
    files = {"f32": source}
    for precision in precisions:
        files[precision] = quantized_file(model, source, precision)
        ours[precision] = lowprec.load(files[precision])
        answers = [ours[precision].run(feed) for feed in held_out]
        rows.append(Row(model.name, precision, files[precision].stat().st_size / 1e6))
        rows[-1].sqnr, rows[-1].kept = decibels(exact, answers), model.agreement(exact, answers)
    feed = model.timed_feed()
    kept_feed = FOLDER / f"{slug(model.name)}-feed.npz"
    np.savez(kept_feed, **feed)
    for row in rows:
        row.memory = grown_memory(files[row.precision], kept_feed)
    peers = {"onnxruntime f32": source}
    try:
        peers["onnxruntime int8-dynamic"] = onnxruntime_dynamic(model, source)
    except Failed as error:
        print(f"{model.name}: onnxruntime's dynamic quantiser: {error}", file=sys.stderr)
    for name, path in list(peers.items()):
        try:
            run = onnxruntime_run(path, threads[0], None)
            row = Row(model.name, name, path.stat().st_size / 1e6)
            answers = [run(sample) for sample in held_out]
            row.sqnr, row.kept = decibels(exact, answers), model.agreement(exact, answers)
        except Exception as error:  # onnxruntime's own kinds: a model that it refuses
            print(f"{model.name}: {name}: {str(error)[:160]}", file=sys.stderr)
            del peers[name]
            continue
        rows.append(row)
    for count in threads:
        lowprec.set_num_threads(count)
        calls: dict[str, Call] = {
            name: lambda session=session: session.run(feed) for name, session in ours.items()
        }
        for name, path in peers.items():
            run = onnxruntime_run(path, count, None)
            calls[name] = lambda run=run: run(feed)
        clock = time.process_time if count == 1 else time.perf_counter
        seconds = take_turns(calls, ROUNDS, count, min, clock)
        for row in rows:
            row.seconds[count] = seconds[row.precision]
    return rows


def table(rows: Sequence[Row], threads: Sequence[int]) -> str:
    heads = [f"{n} thread{'s' * (n > 1)}, ms (against f32)" for n in threads]
    lines = [
        "| model | precision | file, MB | memory, MB | dB | kept | " + " | ".join(heads) + " |",
        "|---|---|---|---|---|---|" + "---|" * len(threads),
    ]
    for row in rows:
        (base,) = (r for r in rows if (r.model, r.precision) == (row.model, "f32"))
        times = [
            f"{1e3 * row.seconds[n]:.2f} ({base.seconds[n] / row.seconds[n]:.2f}x)" for n in threads
        ]
        memory = "" if row.memory is None else f"{row.memory:.0f}"
        sqnr = "" if row.sqnr is None else f"{min(row.sqnr, 999):.1f}"
        same = "" if row.kept is None else f"{row.kept:.3f}"
        cells = [row.model, row.precision, f"{row.file:.1f}", memory, sqnr, same, *times]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--threads", default="1,2")
    options = parser.parse_args()
    wanted = options.models.split(",")
    models = [model for model in real_models() if model.name in wanted]
    threads = [int(count) for count in options.threads.split(",")]
    rows: list[Row] = []
    for model in sorted(models, key=lambda model: wanted.index(model.name)):
        rows += measure(model, options.precisions.split(","), threads)
        print(table([row for row in rows if row.model == model.name], threads), flush=True)
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    FOLDER.with_suffix(".json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    FOLDER.with_suffix(".md").write_text(table(rows, threads))
    return 0


if __name__ == "__main__":
    sys.exit(main())
