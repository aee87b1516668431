"""What calibration costs: ResNet-50 quantised with 100 images, beside running them in float.

    python benchmarks/bench_calibration.py                      # ours: entropy, percentile, auto
    python benchmarks/bench_calibration.py --peers              # beside onnxruntime (needs 12 GiB)
    python benchmarks/bench_calibration.py --profile entropy    # where the time goes

Every measurement is a process of its own that reads the images one by one from a mapped file; the
processes take turns, and the fastest round of each counts. "float" is the whole job of running the
images: import, load, compile, run; "images" is the running alone. The others are the whole call of
`lowprec.quantize()`: the same, calibrating, rounding, comparing outputs and latency with the float
model. Goals: 1.3 times the time of the float job, 1.2 times its memory; onnxruntime's
quantize_static takes 8 times as long and 15 times the memory. Writes out/bench/calibration.json.
Exit code 1 when a goal was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from light_models import LIGHT_FOLDER, pictures, with_random_weights
from numpy.typing import NDArray

FOLDER = Path("out/bench/calibration")
RESULTS = Path("out/bench/calibration.json")
MODEL, IMAGES = FOLDER / "resnet50.onnx", FOLDER / "images.npy"
COUNT = 100
METHODS = ("entropy", "percentile", "auto")
GOALS = {"entropy", "percentile"}
MOST_TIME, MOST_MEMORY = 1.3, 1.2
LEAST_TIME_RATIO, LEAST_MEMORY_RATIO = 8, 15
NEEDED = 12 << 30  # bytes that onnxruntime's calibration of this model takes


def make_files() -> None:
    """Write the model, 25.5 million seeded weights, and the images, once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not MODEL.exists():
        model = with_random_weights(LIGHT_FOLDER / "light_resnet50.onnx")
        MODEL.write_bytes(model.SerializeToString(deterministic=True))
    if not IMAGES.exists():
        np.save(IMAGES, np.concatenate(pictures(COUNT, 1)))


def images() -> Iterator[NDArray[np.float32]]:
    """Yield images of shape (1, 3, 224, 224); no two of them are in memory at once."""
    whole = np.load(IMAGES, mmap_mode="r")
    for index in range(len(whole)):
        yield np.array(whole[index : index + 1])


# ---- in a process of its own ---------------------------------------------------------------------
class Clock:
    """Counts from its making: seconds, and processor seconds of this process's threads."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        now = time.perf_counter(), time.process_time()
        seconds, cpu = (end - start for end, start in zip(now, self._start, strict=True))
        return {"seconds": seconds, "cpu": cpu}


def run_float() -> dict[str, float]:
    import lowprec

    clock = Clock()
    compiled = lowprec.compile(str(MODEL))
    running = Clock()
    for image in images():
        compiled(image)
    alone = {f"{key} of images": seconds for key, seconds in running.read().items()}
    return {**clock.read(), **alone}


def run_quantize(method: str) -> dict[str, float]:
    import lowprec

    clock = Clock()
    quantized = lowprec.quantize(
        str(MODEL), images(), config={"calibration": {"method": method, "samples": COUNT}}
    )
    seconds = clock.read()
    sqnr = min(agreement["sqnr"] for agreement in quantized.report.agreement)
    return {**seconds, "SQNR": sqnr, "samples": quantized.report.samples}


def run_onnxruntime(method: str) -> dict[str, float]:
    """Quantise with onnxruntime: its preprocessing, QDQ, u8, s8 per channel."""
    tool = import_module("onnxruntime.quantization")
    prepare = import_module("onnxruntime.quantization.shape_inference").quant_pre_process
    (name,) = (
        value.name
        for value in import_module("onnx").load(str(MODEL), load_external_data=False).graph.input
    )

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.images = images()

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self.images, None)
            return None if image is None else {name: image}

    prepared, made = FOLDER / "prepared.onnx", FOLDER / "onnxruntime.onnx"
    clock = Clock()
    prepare(str(MODEL), str(prepared))
    tool.quantize_static(
        str(prepared),
        str(made),
        Reader(),
        quant_format=tool.QuantFormat.QDQ,
        activation_type=tool.QuantType.QUInt8,
        weight_type=tool.QuantType.QInt8,
        per_channel=True,
        calibrate_method=getattr(tool.CalibrationMethod, method.capitalize()),
    )
    return clock.read()


def work(what: str) -> dict[str, float]:
    """Do one job in this process; return its seconds and the process's peak memory in MiB."""
    who, _, method = what.partition(" ")
    if who == "float":
        found = run_float()
    elif who == "ours":
        found = run_quantize(method)
    else:
        found = run_onnxruntime(method)
    found["MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


# ---- taking turns --------------------------------------------------------------------------------
def measure(what: str, threads: int) -> dict[str, float]:
    environment = {
        **os.environ,
        "LOWPREC_NUM_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        "LOWPREC_CACHE": "off",  # every process starts from the model file
    }
    command = [sys.executable, __file__, "--work", what]
    done = subprocess.run(command, check=True, env=environment, capture_output=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return the least of every figure."""
    return {key: min(found[key] for found in rounds) for key in rounds[0]}


def available_memory() -> int:
    """Return bytes that can be had without swapping; 0 where nobody says."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))


def line(what: str, found: dict[str, float], base: dict[str, float]) -> str:
    shown = ("SQNR", "seconds of images", "cpu of images")
    more = "".join(f", {key} {found[key]:.1f}" for key in shown if key in found)
    return (
        f"  {what:24} {found['seconds']:7.2f} s  ({found['seconds'] / base['seconds']:5.2f})"
        f"  {found['cpu']:7.2f} cpu s  ({found['cpu'] / base['cpu']:5.2f})"
        f"  {found['MiB']:8.0f} MiB  ({found['MiB'] / base['MiB']:5.2f}){more}"
    )


def bench(arguments: argparse.Namespace) -> int:
    make_files()
    jobs = ["float", *(f"ours {method}" for method in arguments.methods)]
    rounds: dict[str, list[dict[str, float]]] = {job: [] for job in jobs}
    for turn in range(arguments.rounds):
        for job in jobs[turn % len(jobs) :] + jobs[: turn % len(jobs)]:
            rounds[job].append(measure(job, arguments.threads))
            print(f"  round {turn + 1}: {job}: {rounds[job][-1]}", file=sys.stderr, flush=True)
    results: dict[str, Any] = {job: best(found) for job, found in rounds.items()}
    base, missed = results["float"], []
    for job in jobs:
        print(line(job, results[job], base), flush=True)
        if job.partition(" ")[2] in GOALS:
            if results[job][arguments.clock] > MOST_TIME * base[arguments.clock]:
                missed.append(f"{job}: more than {MOST_TIME} times the float run's time")
            if results[job]["MiB"] > MOST_MEMORY * base["MiB"]:
                missed.append(f"{job}: more than {MOST_MEMORY} times the float run's memory")
    if arguments.peers:
        missed += bench_peers(arguments, results, base)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps({"threads": arguments.threads, **results}, indent=1))
    print("\n".join(f"MISSED: {text}" for text in missed) or "all goals met")
    return int(bool(missed))


def bench_peers(
    arguments: argparse.Namespace, results: dict[str, Any], base: dict[str, float]
) -> list[str]:
    """Run onnxruntime once per method; return the goals that are missed beside it."""
    missed = []
    for method in arguments.methods:
        if method not in GOALS:
            continue
        if available_memory() < NEEDED:
            print(f"  onnxruntime {method}: skipped: needs {NEEDED >> 30} GiB of free memory")
            continue
        found = results[f"onnxruntime {method}"] = measure(
            f"onnxruntime {method}", arguments.threads
        )
        print(line(f"onnxruntime {method}", found, base), flush=True)
        ours = results[f"ours {method}"]
        for key, least in ((arguments.clock, LEAST_TIME_RATIO), ("MiB", LEAST_MEMORY_RATIO)):
            ratio = found[key] / ours[key]
            print(f"    {key}: {ratio:.1f} times ours (at least {least})")
            if ratio < least:
                missed.append(f"onnxruntime {method}: {key} only {ratio:.1f} times ours")
    return missed


def profile(method: str) -> int:
    """Print where one call of `quantize()` spends its processor time."""
    import cProfile
    import pstats

    make_files()
    os.environ["LOWPREC_CACHE"] = "off"
    profiler = cProfile.Profile(time.process_time)
    profiler.enable()
    found = run_quantize(method)
    profiler.disable()
    print(found)
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(60)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--clock",
        choices=("seconds", "cpu"),
        default="seconds",
        help="what the goals are about; cpu: on a machine with other work",
    )
    parser.add_argument("--peers", action="store_true", help="onnxruntime's quantize_static, once")
    parser.add_argument("--profile", metavar="METHOD", help="print a profile of one call instead")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work)))
        return 0
    return profile(arguments.profile) if arguments.profile else bench(arguments)


if __name__ == "__main__":
    sys.exit(main())
