"""Our kernels beside the peers: products of real layers, types, instruction sets, threads.

    make bench                                                 # everything, 1 and 2 threads
    python benchmarks/bench_core.py --kind "u8s8 to u8" --threads 1 --name bert
    python benchmarks/bench_core.py --part types --part threads

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
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import bench_conversions
import ml_dtypes
import numpy as np
from call_overhead import measure_call_overhead
from core_report import Row, picture, ratio_table, table
from peaks import instruction_peak, read_bandwidth
from product_peers import KINDS, SCALES, Missing, Problem
from turns import Call, Middle, take_turns

import lowprec
from lowprec import numerics
from lowprec._ext import _core

SHAPES = Path(__file__).with_name("shapes") / "products.csv"
PARTS = ("products", "types", "isas", "threads", "conversions", "overhead")
LARGE = 50_000_000  # multiply-adds


@dataclass(frozen=True)
class Way:
    """How to measure: rounds of turns, and which of them counts."""

    rounds: int
    middle: Middle


def problems() -> Iterator[Problem]:
    with SHAPES.open(newline="") as file:
        for row in csv.DictReader(file):
            sizes = (int(row[key]) for key in ("batch", "M", "N", "K"))
            yield Problem(row["name"], *sizes)


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


def measure_product(problem: Problem, kind: str, threads: int, way: Way) -> tuple[Row, set[str]]:
    """Return one row of a table, and which peers were missing."""
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
    times = take_turns(calls, way.rounds, threads, way.middle)
    ours = times.pop("ours")
    per_mac = times.pop("peak") / (peak[1] * threads) if peak is not None else None
    shape = (problem.batch, problem.m, problem.n, problem.k)
    floor = None if per_mac is None else per_mac * problem.macs
    return Row(kind, problem.name, shape, threads, problem.macs, ours, floor, times), missing


def compare_types(problem: Problem, way: Way) -> dict[str, float]:
    """Return the speed of s8 x s8 and u8 x u8 relative to u8 x s8, to int32, one thread."""
    lowprec.set_num_threads(1)
    kinds = ("u8s8 to s32", "s8s8 to s32", "u8u8 to s32")
    times = take_turns({kind: our_call(problem, kind) for kind in kinds}, way.rounds, 1, way.middle)
    return {kind: times["u8s8 to s32"] / times[kind] for kind in kinds[1:]}


def compare_isas(problem: Problem, way: Way) -> dict[str, float]:
    """Return the speed of each instruction set relative to the best one, u8 x s8 to int32."""
    lowprec.set_num_threads(1)
    a, b = problem.operands(np.uint8, np.int8)
    packed = numerics.pack_weights(b)
    y = np.empty((1, problem.m, problem.n), np.int32)
    names = [name for name in _core.available_isas() if name != "scalar"]
    calls: dict[str, Call] = {
        name: functools.partial(_core.linear, a[None], packed, y, with_bias=False, isa=name)
        for name in names
    }
    times = take_turns(calls, way.rounds, 1, way.middle)
    best = min(times.values())
    return {name: best / seconds for name, seconds in times.items()}


def compare_threads(problem: Problem, kind: str, way: Way) -> float:
    """Return how many times as fast two threads are as one; both numbers take turns."""
    call = our_call(problem, kind)

    def with_threads(threads: int) -> None:
        lowprec.set_num_threads(threads)
        for _ in range(2):
            call()

    calls: dict[str, Call] = {str(n): functools.partial(with_threads, n) for n in (1, 2)}
    times = take_turns(calls, way.rounds, 1, way.middle)
    return times["1"] / times["2"]


def run_products(choice: argparse.Namespace, shapes: list[Problem], way: Way) -> list[Row]:
    rows: list[Row] = []
    absent: set[str] = set()
    for threads in (int(text) for text in choice.threads.split(",")):
        for kind in choice.kind or KINDS:
            part = []
            for problem in shapes:
                row, missing = measure_product(problem, kind, threads, way)
                part.append(row)
                absent |= missing
            print(f"\n{kind}, {threads} thread{'s' * (threads > 1)}\n\n{table(part)}", flush=True)
            rows += part
    for line in sorted(absent):
        print(f"not compared: {line}")
    return rows


def run_comparisons(
    choice: argparse.Namespace, shapes: list[Problem], way: Way
) -> dict[str, object]:
    """Return, by part and shape, our kernels relative to each other."""
    result: dict[str, object] = {}
    one_entry = [problem for problem in shapes if problem.batch == 1]
    large = [problem for problem in one_entry if problem.macs >= LARGE and problem.m >= 48]
    if "types" in choice.part:
        types = {problem.name: compare_types(problem, way) for problem in large}
        print(f"\ntypes, relative to u8 x s8\n\n{ratio_table(types)}", flush=True)
        result["types"] = types
    if "isas" in choice.part:
        isas = {problem.name: compare_isas(problem, way) for problem in large}
        print(f"\ninstruction sets, relative to the best\n\n{ratio_table(isas)}", flush=True)
        result["isas"] = isas
    if "threads" in choice.part:
        kinds = choice.kind or KINDS
        threads = {
            problem.name: {kind: compare_threads(problem, kind, way) for kind in kinds}
            for problem in shapes
            if problem.macs >= LARGE
        }
        print(f"\ntwo threads, relative to one\n\n{ratio_table(threads)}", flush=True)
        result["threads"] = threads
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="default: all")
    parser.add_argument("--threads", default="1,2", help="of products: numbers, by comma")
    parser.add_argument("--name", default="", help="only shapes whose name holds this text")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--least",
        action="store_true",
        help="least of the rounds, not the median: for a busy machine",
    )
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    choice = parser.parse_args()
    choice.part = choice.part or list(PARTS)
    way = Way(choice.rounds, min if choice.least else statistics.median)
    shapes = [problem for problem in problems() if choice.name in problem.name]
    result: dict[str, object] = {"cpu": lowprec.cpu_info()["brand"]}
    choice.out.mkdir(parents=True, exist_ok=True)
    if "products" in choice.part:
        rows = run_products(choice, shapes, way)
        bandwidth = read_bandwidth()
        result |= {"bandwidth": bandwidth, "rows": [asdict(row) for row in rows]}
        picture(rows, bandwidth, choice.out / "core.png")
    result |= run_comparisons(choice, shapes, way)
    if "conversions" in choice.part:
        conversions = bench_conversions.measure()
        print(f"\nconversions and statistics\n\n{bench_conversions.table(conversions)}", flush=True)
        result["conversions"] = conversions
    if "overhead" in choice.part:
        result["overhead"] = overhead = measure_call_overhead(choice.rounds, way.middle)
        print("\none small call, microseconds\n")
        for name, seconds in overhead.items():
            print(f"{name:28} {1e6 * seconds:6.2f}")
    (choice.out / "core.json").write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
