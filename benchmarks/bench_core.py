"""Our kernels beside the peers': products of real layers, conversions, call overhead.

    make bench-core                                     # everything, 1 and 2 threads
    python benchmarks/bench_core.py --kind "u8s8 to u8" --threads 1 --name bert

Ours and the peers take turns in one process, as do loops of the bare instruction, whose speed is
the machine's peak in that minute. Figures are medians of rounds; a ratio above 1 means that ours is
faster. Writes out/bench/core.json and core.png. A peer that is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import csv
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
from peaks import instruction_peak, read_bandwidth
from product_peers import KINDS, SCALES, Call, Missing, Problem

import lowprec
from lowprec import numerics

SHAPES = Path(__file__).with_name("shapes") / "products.csv"
BURST = 0.002  # seconds: a timed burst repeats a call to last at least this long
Middle = Callable[[Sequence[float]], float]
PAUSE = 0.004  # seconds before each burst, so that another library's threads stop spinning


@dataclass
class Row:
    """One product, one type, one number of threads."""

    kind: str
    name: str
    shape: tuple[int, int, int, int]
    threads: int
    macs: int
    ours: float  # seconds
    peak: float | None  # seconds that the bare instructions of as many multiply-adds take
    peers: dict[str, float] = field(default_factory=dict)

    @property
    def best_peer(self) -> str:
        return min(self.peers, key=lambda name: self.peers[name], default="")

    @property
    def ratio(self) -> float:
        return self.peers[self.best_peer] / self.ours if self.peers else float("nan")

    @property
    def of_peak(self) -> float:
        return self.peak / self.ours if self.peak else float("nan")


def problems() -> Iterator[Problem]:
    with SHAPES.open(newline="") as file:
        for row in csv.DictReader(file):
            sizes = (int(row[key]) for key in ("batch", "M", "N", "K"))
            yield Problem(row["name"], *sizes)


# ---------------------------------------------------------------------------------------- timing
def repeats(call: Call) -> int:
    """Return how often to repeat a call in one burst; warms it up."""
    for _ in range(3):
        call()
    start = time.perf_counter()
    call()
    return max(1, int(BURST / max(time.perf_counter() - start, 1e-7)))


def take_turns(
    calls: Mapping[str, Call], rounds: int, threads: int, middle: Middle = statistics.median
) -> dict[str, float]:
    """Return the seconds of one call of each: the median of all rounds, or another `middle`."""
    counts = {name: repeats(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for turn in range(rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            call, count = calls[name], counts[name]
            if threads > 1:
                time.sleep(PAUSE)
            call()
            start = time.perf_counter()
            for _ in range(count):
                call()
            times[name].append((time.perf_counter() - start) / count)
    return {name: middle(series) for name, series in times.items()}


# ------------------------------------------------------------------------------------------- ours
def our_call(problem: Problem, kind: str) -> Call:
    """Return a call of lowprec.numerics: packed weights, or two changing operands for a batch."""
    a, b = problem.operands(*KINDS[kind].operands)
    form = KINDS[kind].form
    if kind == "bf16":
        a, b = a.astype(ml_dtypes.bfloat16), b.astype(ml_dtypes.bfloat16)
    dtype = {"s32": np.int32, "u8": np.uint8}.get(
        form, ml_dtypes.bfloat16 if kind == "bf16" else np.float32
    )
    out = np.empty((*a.shape[:-1], problem.n), dtype)
    zeros = {np.dtype(np.uint8): np.uint8(128), np.dtype(np.int8): np.int8(0)}
    if form == "float":
        product = numerics.gemm_bf16 if kind == "bf16" else numerics.gemm_f32
        second = numerics.pack_weights(b) if problem.batch == 1 else b
        return functools.partial(product, a, second, out=out, out_dtype=out.dtype)
    a_zero, b_zero = zeros[a.dtype], zeros[b.dtype]
    if form == "s32":
        if problem.batch == 1:
            packed = numerics.pack_weights(b, zero_point=b_zero)
            return functools.partial(numerics.matmul_integer, a, packed, a_zero, out=out)
        return functools.partial(numerics.matmul_integer, a, b, a_zero, b_zero, out=out)
    scales = {name: np.float32(scale) for name, scale in SCALES.items()}
    second = (b, scales["b"], b_zero)
    if problem.batch == 1:
        second = (numerics.pack_weights(b, zero_point=b_zero, scale=scales["b"]), None, None)
    first = (a, scales["a"], a_zero)
    last = (scales["y"], np.uint8(128))
    return functools.partial(numerics.qlinear_matmul, *first, *second, *last, out=out)


def measure_product(
    problem: Problem, kind: str, threads: int, rounds: int, middle: Middle = statistics.median
) -> tuple[Row, set[str]]:
    lowprec.set_num_threads(threads)
    calls: dict[str, Call] = {"ours": our_call(problem, kind)}
    missing = set()
    for name, make in KINDS[kind].peers.items():
        try:
            calls[name] = make(problem, kind, threads)
        except Missing as reason:
            missing.add(f"{kind}: {name}: {reason}")
    peak = instruction_peak(KINDS[kind].peak)
    if peak is not None:
        calls["peak"] = peak[0]
    times = take_turns(calls, rounds, threads, middle)
    ours = times.pop("ours")
    per_mac = times.pop("peak") / (peak[1] * threads) if peak is not None else None
    shape = (problem.batch, problem.m, problem.n, problem.k)
    floor = None if per_mac is None else per_mac * problem.macs
    return Row(kind, problem.name, shape, threads, problem.macs, ours, floor, times), missing


def measure_threads(problem: Problem, kind: str, rounds: int) -> float:
    """Return how many times as fast two threads are as one; both numbers take turns."""
    call = our_call(problem, kind)
    times: dict[int, list[float]] = {1: [], 2: []}
    count = repeats(call)
    for _ in range(rounds):
        for threads, series in times.items():
            lowprec.set_num_threads(threads)
            call()
            start = time.perf_counter()
            for _ in range(count):
                call()
            series.append((time.perf_counter() - start) / count)
    return statistics.median(times[1]) / statistics.median(times[2])


# ----------------------------------------------------------------------------------------- output
def geometric_mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values)))) if values else float("nan")


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table of one kind and number of threads."""
    peers = list(dict.fromkeys(name for row in rows for name in row.peers))
    heads = ["shape", "ours, GOP/s", "of peak", *peers, "best peer / ours"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        speeds = [
            f"{2e-9 * row.macs / row.peers[name]:.0f}" if name in row.peers else ""
            for name in peers
        ]
        size = " x ".join(str(x) for x in row.shape[1:])
        size = f"{row.shape[0]} x ({size})" if row.shape[0] > 1 else size
        cells = [f"{row.name}: {size}", f"{2e-9 * row.macs / row.ours:.0f}", f"{row.of_peak:.2f}"]
        lines.append("| " + " | ".join([*cells, *speeds, f"{row.ratio:.2f}"]) + " |")
    ratios = [row.ratio for row in rows if row.peers]
    lines.append(f"geometric mean {geometric_mean(ratios):.2f}, least {min(ratios, default=0):.2f}")
    return "\n".join(lines)


def picture(rows: Sequence[Row], bandwidth: float | None, path: Path) -> None:
    """Draw the products of one thread under the machine's roofs: multiply-adds a byte, speed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6))
    one_thread = [row for row in rows if row.threads == 1]
    intensities = np.geomspace(0.5, 2000, 200)
    for index, kind in enumerate(dict.fromkeys(row.kind for row in one_thread)):
        chosen = [row for row in one_thread if row.kind == kind]
        colour = f"C{index}"
        points = [(intensity(row), 2e-9 * row.macs / row.ours) for row in chosen]
        axes.scatter(*zip(*points, strict=True), color=colour, s=18, label=kind)
        best = [
            (intensity(row), 2e-9 * row.macs / row.peers[row.best_peer])
            for row in chosen
            if row.peers
        ]
        if best:
            axes.scatter(*zip(*best, strict=True), color=colour, s=18, marker="x", alpha=0.6)
        peaks = [row.macs / row.peak for row in chosen if row.peak]
        if peaks and bandwidth:
            roof = np.minimum(2e-9 * statistics.median(peaks), 2e-9 * bandwidth * intensities)
            axes.plot(intensities, roof, color=colour, linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="multiply-adds a byte of operands and result")
    axes.set(
        ylabel="GOP/s, one thread", title="dots: lowprec, crosses: the best peer, lines: roofs"
    )
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def intensity(row: Row) -> float:
    """Return the multiply-adds for each byte of operands and result."""
    batch, m, n, k = row.shape
    element = {"f32": 4, "bf16": 2}.get(row.kind, 1)
    out = 1 if row.kind.endswith("to u8") else 4
    return row.macs / (batch * (element * (m * k + k * n) + out * m * n))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="default: all")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, by comma")
    parser.add_argument("--name", default="", help="only shapes whose name holds this text")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--least",
        action="store_true",
        help="least of the rounds, not the median: for a busy machine",
    )
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    choice = parser.parse_args()
    shapes = [problem for problem in problems() if choice.name in problem.name]
    rows: list[Row] = []
    absent: set[str] = set()
    for threads in (int(text) for text in choice.threads.split(",")):
        for kind in choice.kind or KINDS:
            part = []
            for problem in shapes:
                row, missing = measure_product(
                    problem,
                    kind,
                    threads,
                    choice.rounds,
                    min if choice.least else statistics.median,
                )
                part.append(row)
                absent |= missing
            print(f"\n{kind}, {threads} thread{'s' * (threads > 1)}\n\n{table(part)}", flush=True)
            rows += part
    for line in sorted(absent):
        print(f"not compared: {line}")
    choice.out.mkdir(parents=True, exist_ok=True)
    bandwidth = read_bandwidth()
    result = {
        "cpu": lowprec.cpu_info()["brand"],
        "bandwidth": bandwidth,
        "rows": [asdict(row) for row in rows],
    }
    (choice.out / "core.json").write_text(json.dumps(result, indent=1))
    picture(rows, bandwidth, choice.out / "core.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
