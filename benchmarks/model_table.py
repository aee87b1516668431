"""Every real model on the engine: float against onnxruntime, int8 against float, operators, speed.

    make bench                                                # all of them
    python benchmarks/model_table.py "PP-OCR det" Magika      # some of them

Prints a table and writes out/bench/model_table.json. One thread; runners take turns. Exit code 1
when a model fails, or its float output is further than 1e-4 from onnxruntime's.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnxruntime
from real_models import Feeds, Outputs, RealModel, real_models

import lowprec

CALIBRATION, ROUNDS = 24, 5
ALLOWED_ERROR = 1e-4

Run = Callable[[Feeds], Outputs]


@dataclass
class Row:
    """What was measured of one model; empty where it failed."""

    model: str
    failure: str = ""
    float_error: float = float(
        "nan"
    )  # worst output: max|ours - onnxruntime's| / max|onnxruntime's|
    sqnr: float = float("nan")  # dB, worst output of int8 against our float
    agreement: float = float("nan")  # share of decisions that int8 and float share
    decision: str = ""
    int8_share: float = float("nan")  # of the multiply-adds
    milliseconds: dict[str, float] = field(default_factory=dict)
    native: list[str] = field(default_factory=list)
    fell_back: list[str] = field(default_factory=list)


def relative_error(ours: Outputs, theirs: Outputs) -> float:
    return max(
        float(np.abs(np.subtract(a, b, dtype=np.float64)).max() / max(np.abs(b).max(), 1e-30))
        for a, b in zip(ours, theirs, strict=True)
    )


def sqnr(exact: Outputs, approximate: Outputs) -> float:
    """Return the worst output's signal to quantisation noise in dB; infinite if nothing differs."""
    worst = float("inf")
    for a, b in zip(exact, approximate, strict=True):
        noise = np.square(np.subtract(a, b, dtype=np.float64)).sum()
        if noise:
            signal = np.square(a, dtype=np.float64).sum()
            worst = min(worst, 10 * np.log10(max(signal, 1e-30) / noise))
    return worst


def operators(session: lowprec.CompiledModel) -> tuple[list[str], list[str]]:
    """Return the operators that ran on our kernels and those that fell back, from the last run."""
    explanation = session.explain()
    native = sorted({step.op for step in explanation.steps if step.native})
    return native, list(explanation.fallbacks)


def onnxruntime_run(source: str | onnx.ModelProto) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        source if isinstance(source, str) else source.SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    return lambda feeds: session.run(None, feeds)


def latencies(runs: dict[str, Run], feeds: Sequence[Feeds]) -> dict[str, float]:
    """Return each runner's median milliseconds; they take turns, the first turn is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS + 1):
        for feed in feeds:
            for name, run in runs.items():
                start = time.perf_counter()
                run(feed)
                if turn:
                    times[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def measure(model: RealModel, row: Row) -> None:
    source = model.load()
    held_out = model.feeds(model.held_out, 2)
    peer = onnxruntime_run(source)
    session = lowprec.compile(source)
    exact = [session.run(feeds) for feeds in held_out]
    row.float_error = max(
        relative_error(ours, peer(feeds)) for ours, feeds in zip(exact, held_out, strict=True)
    )
    row.native, row.fell_back = operators(session)

    quantized = lowprec.quantize(source, model.feeds(CALIBRATION, 1))
    answers = [quantized.run(feeds) for feeds in held_out]
    row.sqnr = min(sqnr(a, b) for a, b in zip(exact, answers, strict=True))
    row.agreement, row.decision = model.agreement(exact, answers), model.decision
    row.int8_share = quantized.report.int8_fraction
    runs: dict[str, Run] = {"float": session.run, "int8": quantized.run, "onnxruntime": peer}
    row.milliseconds = latencies(runs, held_out[:2])


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    heads = (
        "model",
        "float error",
        "int8 SQNR, dB",
        "same decisions",
        "int8 multiply-adds",
        "ms: float",
        "int8",
        "onnxruntime",
        "operators that fell back",
    )
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        if row.failure:
            lines.append(f"| {row.model} | failed: {row.failure} |" + " |" * (len(heads) - 2))
            continue
        cells = (
            row.model,
            f"{row.float_error:.1e}",
            f"{row.sqnr:.1f}",
            f"{row.agreement:.4f} ({row.decision})",
            f"{100 * row.int8_share:.1f} %",
            *(f"{row.milliseconds[name]:.2f}" for name in ("float", "int8", "onnxruntime")),
            ", ".join(row.fell_back) or "none",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", help="names as in the table; all when none is given")
    parser.add_argument("--out", type=Path, default=Path("out/bench/model_table.json"))
    options = parser.parse_args()
    chosen = [m for m in real_models() if not options.models or m.name in options.models]
    rows = []
    for model in chosen:
        row = Row(model.name)
        rows.append(row)
        try:
            measure(model, row)
        except Exception as error:  # one model's failure is a row, the others still run
            row.failure = f"{type(error).__name__}: {error}".splitlines()[0]
            traceback.print_exc()
        print(table([row]).splitlines()[-1], flush=True)
        gc.collect()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(f"\n{table(rows)}\n\nwrote {options.out}")
    return int(any(row.failure or row.float_error > ALLOWED_ERROR for row in rows))


if __name__ == "__main__":
    sys.exit(main())
