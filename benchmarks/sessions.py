"""What a session costs beside its runs: compiling, memory, first calls, new shapes, threads.

    python benchmarks/sessions.py                       # every part
    python benchmarks/sessions.py --part compile --models "PP-OCR rec,light_resnet50"

compile    time from file to session and peak memory beside onnxruntime, a process each, in turns;
           "cold" is without the programs that earlier processes kept (LOWPREC_CACHE)
first      the first call after load against a warm one
shapes     PP-OCR rec in new widths 48 to 640: extra cost of the first run of a width
callers    two sessions in two Python threads against one
leak       memory after many runs

Calls and new shapes are measured in processor time, on one thread: other work on the machine does
not count. Writes out/bench/sessions.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

PARTS = ("compile", "first", "shapes", "callers", "leak")
RUNS = 10_000
CONTESTANTS = ("ours", "ours, cold", "onnxruntime")
Result = dict[str, Any]


# ---- What runs in a process of its own -----------------------------------------------------------
def worker(who: str, path: str, feed_file: str) -> Result:
    """Return seconds of import, session and first runs, and peak memory, of a cold process."""
    feed = dict(np.load(feed_file))
    baseline = peak_kilobytes()
    run: Callable[[], object]
    start, processor = time.perf_counter(), time.process_time()
    if who.startswith("ours"):
        import lowprec

        lowprec.set_num_threads(1)
        imported = time.perf_counter()
        model = lowprec.compile(path)  # imports what it needs
        ready, used = time.perf_counter(), time.process_time()
        run = lambda: model.run(feed)  # noqa: E731
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        imported = time.perf_counter()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        ready, used = time.perf_counter(), time.process_time()
        run = lambda: session.run(None, feed)  # noqa: E731
    after_session = peak_kilobytes()
    calls = []
    for _ in range(8):
        begin = time.process_time()
        run()
        calls.append(time.process_time() - begin)
    return {
        "import": imported - start,
        "session": ready - imported,
        "processor": used - processor,
        "first": calls[0],
        "warm": statistics.median(calls[3:]),
        "baseline": baseline,
        "session_kilobytes": after_session,
        "peak_kilobytes": peak_kilobytes(),
        "held_kilobytes": resident_kilobytes(),
    }


def peak_kilobytes() -> int:
    return status("VmHWM")  # getrusage's would hold the parent's peak


def resident_kilobytes() -> int:
    return status("VmRSS")


def status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise KeyError(key)


def in_process(who: str, path: Path, feed_file: Path) -> Result:
    """Return what `worker` measures; "ours, cold" keeps no compiled programs."""
    command = [sys.executable, __file__, "--worker", who, str(path), str(feed_file)]
    environment = {**os.environ, "LOWPREC_NUM_THREADS": "1"}
    if who == "ours, cold":
        environment["LOWPREC_CACHE"] = "off"
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    result: Result = json.loads(done.stdout)
    return result


# ---- Parts ---------------------------------------------------------------------------------------
def compile_part(choice: argparse.Namespace) -> list[Result]:
    """Return one row per file: ours and onnxruntime's costs (least of the rounds).

    "ours, cold" compiles from the model file; "ours" finds its program kept by an earlier process.
    """
    rows = []
    for name, precision, path, feed_file in files(choice):
        costs: dict[str, list[Result]] = {who: [] for who in CONTESTANTS}
        in_process("ours", path, feed_file)  # keeps it
        for _ in range(choice.rounds):
            for who, list_of in costs.items():
                list_of.append(in_process(who, path, feed_file))
        row: Result = {"model": name, "precision": precision}
        for who, results in costs.items():
            row[who] = {key: min(result[key] for result in results) for key in results[0]}
        rows.append(row)
        print(compile_line(row), flush=True)
    for key, what in (("processor", "processor time, import and session"),
                      ("session", "session, s"), ("total", "from import to first result, s"),
                      ("peak_kilobytes", "peak memory"), ("held_kilobytes", "memory held"),
                      ("own", "peak memory above an empty process")):  # fmt: skip
        for ours in CONTESTANTS[:-1]:
            ratios = [cost(row["onnxruntime"], key) / cost(row[ours], key) for row in rows]
            print(f"{what}: onnxruntime / {ours}, geometric mean {geometric(ratios):.2f}, "
                  f"least {min(ratios):.2f} ({rows[int(np.argmin(ratios))]['model']})")  # fmt: skip
    return rows


def cost(result: Result, key: str) -> float:
    if key == "total":
        return float(result["import"] + result["session"] + result["first"])
    if key == "own":
        return float(result["peak_kilobytes"] - result["baseline"])
    return float(result[key])


def geometric(values: list[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def compile_line(row: Result) -> str:
    cells = [f"{row['model']:18} {row['precision']:5}"]
    for who in CONTESTANTS:
        r = row[who]
        cells.append(
            f"{who}: import {r['import']:.2f} session {r['session']:.3f} s "
            f"(processor {r['processor']:.3f} s), "
            f"peak {r['peak_kilobytes'] / 1024:.0f} held {r['held_kilobytes'] / 1024:.0f} MiB, "
            f"first/warm {1e3 * r['first']:.1f}/{1e3 * r['warm']:.1f} ms"
        )
    return " | ".join(cells)


def first_part(choice: argparse.Namespace) -> list[Result]:
    """Return the first call after load against a warm one, ours, least of the rounds."""
    rows = []
    for name, precision, path, feed_file in files(choice):
        results = [in_process("ours", path, feed_file) for _ in range(choice.rounds)]
        first, warm = (min(result[key] for result in results) for key in ("first", "warm"))
        rows.append({"model": name, "precision": precision, "first": first, "warm": warm})
        print(f"{name:18} {precision:5} first {1e3 * first:8.2f} ms, warm {1e3 * warm:8.2f} ms: "
              f"{first / warm:.2f}", flush=True)  # fmt: skip
    return rows


def shapes_part(choice: argparse.Namespace) -> Result:
    """Return the extra cost of each new width of PP-OCR rec as a share of a warm run."""
    import lowprec

    lowprec.set_num_threads(1)
    result: Result = {}
    for name, precision, path, _ in files(choice, ["PP-OCR rec"]):
        widths = range(48, 641, 16)
        rng = np.random.default_rng(0)
        feeds = [{"x": rng.standard_normal((1, 3, 48, w)).astype(np.float32)} for w in widths]
        extra: dict[int, list[float]] = {width: [] for width in widths}
        warm: dict[int, float] = {}
        for _ in range(choice.rounds):
            model = lowprec.compile(str(path))
            model.run({"x": np.zeros((1, 3, 48, 40), np.float32)})  # weights are packed
            for width, feed in zip(widths, feeds, strict=True):
                times = []
                for _ in range(4):
                    start = time.thread_time()
                    model.run(feed)
                    times.append(time.thread_time() - start)
                warm[width] = min(warm.get(width, 9.0), *times[1:])
                extra[width].append(times[0])
        shares = {w: min(extra[w]) / warm[w] - 1 for w in widths}
        worst = max(shares, key=lambda width: shares[width])
        total = sum(min(extra[w]) for w in widths) / sum(warm.values()) - 1
        result[precision] = {"shares": shares, "mean": total}
        print(f"{name} {precision}: a new width costs {100 * total:.1f} % of a run in the mean, "
              f"worst {100 * shares[worst]:.1f} % at {worst}", flush=True)  # fmt: skip
    return result


def callers_part(choice: argparse.Namespace) -> Result:
    """Return the throughput of two sessions in two Python threads relative to one."""
    import lowprec

    lowprec.set_num_threads(1)
    result: Result = {}
    for name, precision, path, feed_file in files(choice, ["PP-OCR rec", "light_squeezenet"]):
        feed = dict(np.load(feed_file))
        models = [lowprec.compile(str(path)) for _ in range(2)]
        for model in models:
            model.run(feed)
        ratios = []
        for _ in range(max(5, choice.rounds)):
            one = throughput(models[:1], feed)
            ratios.append(throughput(models, feed) / one)
        result[f"{name} {precision}"] = {"median": statistics.median(ratios), "best": max(ratios)}
        print(f"{name} {precision}: two callers {statistics.median(ratios):.2f} x one "
              f"(best round {max(ratios):.2f})", flush=True)  # fmt: skip
    return result


def throughput(models: list[Any], feed: dict[str, Any], seconds: float = 0.6) -> float:
    """Return runs a second of all models together, each in a thread of its own."""
    counts = [0] * len(models)
    end = time.perf_counter() + seconds

    def work(index: int) -> None:
        while time.perf_counter() < end:
            models[index].run(feed)
            counts[index] += 1

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(models))]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start)


def leak_part(choice: argparse.Namespace) -> Result:
    """Return resident memory before and after many runs of changing widths."""
    import lowprec

    lowprec.set_num_threads(1)
    result: Result = {}
    for name, precision, path, _ in files(choice, ["PP-OCR rec"]):
        model = lowprec.compile(str(path))
        feeds = [{"x": np.zeros((1, 3, 48, width), np.float32)} for width in range(8, 88, 8)]
        for index in range(1000):
            model.run(feeds[index % len(feeds)])
        before = resident_kilobytes()
        for index in range(RUNS):
            model.run(feeds[index % len(feeds)])
        grown = resident_kilobytes() - before
        result[precision] = {"before": before, "grown": grown}
        print(f"{name} {precision}: {RUNS} runs, {before} kB, grown by {grown} kB", flush=True)
    return result


# ---- Files ---------------------------------------------------------------------------------------
def files(choice: argparse.Namespace, only: list[str] | None = None) -> Any:
    """Yield (model, precision, path, file of a feed); made by bench_models.py's means."""
    from bench_models import BENCHED
    from our_models import int8_file
    from peer_models import slug, source_file
    from real_models import real_models

    every = {model.name: model for model in real_models()}
    for name in only or choice.models or BENCHED:
        model = every[name]
        source = source_file(model)
        feed_file = Path("out/bench/models") / f"{slug(name)}-feed.npz"
        np.savez(feed_file, **model.timed_feed())
        for precision in choice.precision.split(","):
            path = source if precision == "f32" else int8_file(model, source)
            yield name, precision, path, feed_file


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(worker(*sys.argv[2:5])))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--models", type=lambda text: text.split(","), help="names, by comma")
    parser.add_argument("--precision", default="f32,int8")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/bench/sessions.json"))
    choice = parser.parse_args()
    parts = {
        "compile": compile_part,
        "first": first_part,
        "shapes": shapes_part,
        "callers": callers_part,
        "leak": leak_part,
    }
    result = {}
    for name in choice.part or PARTS:
        print(f"\n{name}\n")
        result[name] = parts[name](choice)
    choice.out.parent.mkdir(parents=True, exist_ok=True)
    choice.out.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
