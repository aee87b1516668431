"""Conversions and statistics beside their peers: NumPy, ml_dtypes, torch, onnxruntime.

    python benchmarks/bench_conversions.py [--elements 16384 1048576 16777216] [--threads 1 2]
                                           [--only NAME] [--seconds 0.4] [--json FILE]

Ours and every peer take turns in one process, a few milliseconds each, and the best round of each
counts: compare the ratios, not seconds across machines. `copy` is numpy.copyto of an array that
moves as many bytes as the conversion does: (bytes read + bytes written) / 2 are copied. A peer that
is not installed is left out, and said so. Peers write into arrays made before where they can
(`out=`), as ours do.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import lowprec
from lowprec import numerics

SIZES = (16 * 1024, 1024 * 1024, 16 * 1024 * 1024)
THREADS = (1, 2)
ROUND_SECONDS = 0.002
PAUSE = 0.004  # before each round, so that another library's threads stop spinning
Run = Callable[[], object]


def installed(name: str) -> Any:
    """Return the module, or None (said once on stderr) where it is not installed."""
    if name not in installed.seen:
        try:
            installed.seen[name] = __import__(name)
        except ImportError:
            print(f"{name} is not installed: left out", file=sys.stderr)
            installed.seen[name] = None
    return installed.seen[name]


installed.seen = {}


class Case:
    """One row: what we do, what the peers do, and how many bytes move."""

    def __init__(self, name: str, ours: Run, bytes_moved: int, peers: dict[str, Run]) -> None:
        self.name, self.ours, self.bytes_moved, self.peers = name, ours, bytes_moved, peers


def onnx_session(op: str, source: int, target: int, inputs: list[tuple[str, int]], threads: int):
    """Return an onnxruntime session of one operator, or None."""
    runtime = installed("onnxruntime")
    if runtime is None or installed("onnx") is None:
        return None
    from onnx import helper

    names = ["x", *(name for name, _ in inputs)]
    values = [helper.make_tensor_value_info("x", source, [None])]
    values += [helper.make_tensor_value_info(name, kind, []) for name, kind in inputs]
    results = ["y", "y_scale", "y_zero"] if op == "DynamicQuantizeLinear" else ["y"]
    kinds = [target, 1, 2]
    outputs = [
        helper.make_tensor_value_info(name, kind, None)
        for name, kind in zip(results, kinds, strict=False)
    ]
    graph = helper.make_graph([helper.make_node(op, names, results)], "bench", values, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    return runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def cast_cases(x: np.ndarray, threads: int) -> list[Case]:
    """f32 to and from bf16 and f16, and to the 8-bit floats."""
    n = x.size
    torch = installed("torch")
    cases = []
    for name, dtype, to, back in (
        ("bf16", np.dtype(ml_dtypes.bfloat16), numerics.to_bf16, numerics.from_bf16),
        ("f16", np.dtype(np.float16), numerics.to_f16, numerics.from_f16),
    ):
        peer = "ml_dtypes" if name == "bf16" else "numpy"
        small, small_peer = np.empty(n, dtype), np.empty(n, dtype)
        wide, wide_peer = np.empty(n, np.float32), np.empty(n, np.float32)
        to(x, out=small)
        narrowing: dict[str, Run] = {
            peer: lambda a=small_peer: np.copyto(a, x, casting="unsafe"),
        }
        widening: dict[str, Run] = {
            peer: lambda a=wide_peer, b=small: np.copyto(a, b, casting="unsafe"),
        }
        if torch is not None:
            kind = torch.bfloat16 if name == "bf16" else torch.float16
            source = torch.from_numpy(x)
            result, result_wide = torch.empty(n, dtype=kind), torch.empty(n)
            halves = source.to(kind)
            narrowing["torch"] = lambda a=result, b=source: a.copy_(b)
            widening["torch"] = lambda a=result_wide, b=halves: a.copy_(b)
        cases.append(Case(f"f32 -> {name}", lambda to=to, y=small: to(x, out=y), 6 * n, narrowing))
        cases.append(
            Case(f"{name} -> f32", lambda f=back, a=small, y=wide: f(a, out=y), 6 * n, widening)
        )
    for name, dtype, to in (
        ("e4m3", ml_dtypes.float8_e4m3fn, numerics.to_e4m3),
        ("e5m2", ml_dtypes.float8_e5m2, numerics.to_e5m2),
    ):
        small, small_peer = np.empty(n, dtype), np.empty(n, dtype)
        cases.append(
            Case(
                f"f32 -> {name}",
                lambda to=to, y=small: to(x, saturate=False, out=y),
                5 * n,
                {"ml_dtypes": lambda a=small_peer: np.copyto(a, x, casting="unsafe")},
            )
        )
    return cases


def code_cases(x: np.ndarray, threads: int) -> list[Case]:
    """Quantise, dequantise, requantise; per tensor, channel, block; dynamic."""
    n = x.size
    scale, zero = np.float32(0.037), np.uint8(100)
    q, wide = np.empty(n, np.uint8), np.empty(n, np.float32)
    numerics.quantize_linear(x, scale, zero, out=q)

    def numpy_quantize() -> object:
        return np.clip(np.rint(x / scale) + 100, 0, 255).astype(np.uint8)

    def numpy_dequantize() -> object:
        return (q.astype(np.float32) - np.float32(100)) * scale

    quantizing: dict[str, Run] = {"numpy": numpy_quantize}
    dequantizing: dict[str, Run] = {"numpy": numpy_dequantize}
    torch = installed("torch")
    if torch is not None:
        source = torch.from_numpy(x)
        quantized = torch.quantize_per_tensor(source, float(scale), 100, torch.quint8)
        quantizing["torch"] = lambda: torch.quantize_per_tensor(
            source, float(scale), 100, torch.quint8
        )
        dequantizing["torch"] = lambda: quantized.dequantize()
    session = onnx_session("QuantizeLinear", 1, 2, [("scale", 1), ("zero", 2)], threads)
    dynamic: dict[str, Run] = {}
    if session is not None:
        parameters = {"scale": np.asarray(scale), "zero": np.asarray(zero)}
        feed = {"x": x, **parameters}
        quantizing["onnxruntime"] = lambda: session.run(None, feed)
        back = onnx_session("DequantizeLinear", 2, 1, [("scale", 1), ("zero", 2)], threads)
        codes = {"x": q, **parameters}
        dequantizing["onnxruntime"] = lambda: back.run(None, codes)
        ranged = onnx_session("DynamicQuantizeLinear", 1, 2, [], threads)
        dynamic["onnxruntime"] = lambda: ranged.run(None, {"x": x})
    rows = x.reshape(-1, 1024)
    channels, zeros = np.full(1024, scale), np.full(1024, zero)
    q2 = q.reshape(rows.shape)
    blocks, block_zeros = np.full((len(rows), 32), scale), np.zeros((len(rows), 32), np.uint8)
    acc = (x * 10000).astype(np.int32)
    return [
        Case("quantize u8", lambda: numerics.quantize_linear(x, scale, zero, out=q), 5 * n,
             quantizing),
        Case("dequantize u8", lambda: numerics.dequantize_linear(q, scale, zero, out=wide), 5 * n,
             dequantizing),
        Case("requantize u8", lambda: numerics.requantize(acc, np.float32(1e-3), zero, out=q),
             5 * n, {}),
        Case("quantize u8, channels last",
             lambda: numerics.quantize_linear(rows, channels, zeros, axis=1, out=q2), 5 * n,
             {"numpy": lambda: np.clip(np.rint(rows / channels) + zeros.astype(np.float32), 0,
                                       255).astype(np.uint8)}),
        Case("quantize u8, blocks of 32",
             lambda: numerics.quantize_linear(rows, blocks, block_zeros, axis=1, block_size=32,
                                              out=q2), 5 * n, {}),
        Case("dynamic quantize", lambda: numerics.dynamic_quantize_linear(x, out=q), 9 * n,
             dynamic),
        Case("dynamic quantize, rows of 1024",
             lambda: numerics.dynamic_quantize_linear(rows, per_row=True, out=q2), 9 * n, {}),
    ]  # fmt: skip


def statistics_cases(x: np.ndarray, threads: int) -> list[Case]:
    """Histograms of 2048 bins. Only ours has exact moments and extremes as well."""
    n = x.size
    torch = installed("torch")
    fixed: dict[str, Run] = {"numpy": lambda: np.histogram(x, 2048, (-4, 4))}
    if torch is not None:
        source = torch.from_numpy(x)
        fixed["torch"] = lambda: torch.histc(source, 2048, -4, 4)
    grows, ranged = numerics.Histogram(), numerics.Histogram(range=(-4, 4))
    engine = lowprec._ext._core.TensorObserver()
    return [
        Case("histogram, range, moments", lambda: ranged.update(x), 4 * n, fixed),
        Case("histogram, growing, moments", lambda: grows.update(x), 4 * n, fixed),
        Case("histogram, growing", lambda: engine.update(x), 4 * n, fixed),
    ]


def best_seconds(runs: Sequence[Run], seconds: float) -> list[float]:
    """Return the best time of one call of each, measured in turns for `seconds` per run."""
    repeats = []
    for run in runs:
        run()
        start = time.perf_counter()
        run()
        repeats.append(max(1, int(ROUND_SECONDS / (time.perf_counter() - start))))
    best = [float("inf")] * len(runs)
    end = time.perf_counter() + seconds * len(runs)
    rounds = 0
    while rounds < 3 or time.perf_counter() < end:
        for i, (run, repeat) in enumerate(zip(runs, repeats, strict=True)):
            time.sleep(PAUSE)
            start = time.perf_counter()
            for _ in range(repeat):
                run()
            best[i] = min(best[i], (time.perf_counter() - start) / repeat)
        rounds += 1
    return best


def measure(
    sizes: Sequence[int] = SIZES,
    threads: Sequence[int] = THREADS,
    *,
    only: str = "",
    seconds: float = 0.4,
) -> list[dict[str, Any]]:
    """Return a row per conversion, size and number of threads.

    Args:
        sizes: Elements, multiples of 1024.
        threads: Numbers of threads, for us and the peers that have them.
        only: Part of the names to measure.
        seconds: To spend on each of ours and the peers, per row.

    Returns:
        Dicts with name, elements, threads, ours_seconds, peers {name: seconds} and copy_seconds:
        numpy.copyto of as many bytes as the conversion moves.
    """
    rows = []
    before = lowprec.get_num_threads()
    torch = installed("torch")
    warnings.filterwarnings("ignore", message=".*deprecated", category=UserWarning)
    try:
        for elements in sizes:
            x = np.random.default_rng(0).standard_normal(elements).astype(np.float32)
            for count in threads:
                lowprec.set_num_threads(count)
                if torch is not None:
                    torch.set_num_threads(count)
                cases = [*cast_cases(x, count), *code_cases(x, count), *statistics_cases(x, count)]
                for case in cases:
                    if only not in case.name:
                        continue
                    source = np.ones(case.bytes_moved // 2, np.uint8)
                    target = np.ones_like(source)
                    copy: Run = lambda a=target, b=source: np.copyto(a, b)  # noqa: E731
                    ours, copied, *others = best_seconds(
                        [case.ours, copy, *case.peers.values()], seconds
                    )
                    rows.append(
                        {
                            "name": case.name,
                            "elements": elements,
                            "threads": count,
                            "ours_seconds": ours,
                            "peers": dict(zip(case.peers, others, strict=True)),
                            "copy_seconds": copied,
                        }
                    )
    finally:
        lowprec.set_num_threads(before)
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as text: G elements/s, and how many times the peers' and the copy's speed."""
    lines = [f"{'':34}{'elements':>10}{'threads':>8}{'Gel/s':>8}{'/copy':>7}  faster than"]
    for row in rows:
        ours = row["ours_seconds"]
        peers = "  ".join(f"{name} {time / ours:.2f}x" for name, time in row["peers"].items())
        lines.append(
            f"{row['name']:34}{row['elements']:>10}{row['threads']:>8}"
            f"{row['elements'] / ours / 1e9:>8.2f}{row['copy_seconds'] / ours:>7.2f}  {peers}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--elements", type=int, nargs="+", default=SIZES)
    parser.add_argument("--threads", type=int, nargs="+", default=THREADS)
    parser.add_argument("--only", default="", help="part of the names to measure")
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    arguments = parser.parse_args()
    rows = measure(
        arguments.elements, arguments.threads, only=arguments.only, seconds=arguments.seconds
    )
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
