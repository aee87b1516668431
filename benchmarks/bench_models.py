"""Whole models beside the peers: float, bf16 and int8, one and two threads, any batch.

    make bench-models                                             # the whole list, 1 and 2 threads
    python benchmarks/bench_models.py --models "PP-OCR rec,Magika" --threads 1 --precision int8
    python benchmarks/bench_models.py --only-ours --rounds 5      # while working on the engine

Everyone takes turns in one process, figures are medians of rounds, a ratio above 1 means that ours
is faster. Peers: onnxruntime (int8: its static quantiser, QDQ, u8 activations, per channel; only
the products where quantising everything ruins the model) and OpenVINO (int8: NNCF's quantisation;
the better of its f32 and its default precision). Everyone calibrates with the same samples. A peer
whose int8 disagrees with its own float is "no peer" there; its time stands in brackets. Peers'
files are made once and kept in out/bench. Writes out/bench/models.json and models.md.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import median

import numpy as np
from models_report import Accuracy, Row, accuracy_table, speed_table, summary
from our_models import our_bf16, our_float, our_int8
from peer_models import (
    FOLDER,
    Failed,
    Run,
    answers,
    first_line,
    onnxruntime_int8,
    onnxruntime_run,
    openvino_int8,
    openvino_run,
    source_file,
)
from real_models import Feeds, Outputs, RealModel, real_models
from turns import Middle, take_turns

import lowprec

BENCHED = (
    "PP-OCR det",
    "PP-OCR rec",
    "EfficientNet-Lite0",
    "MiniLM 16",
    "MiniLM 128",
    "light_resnet50",
    "light_vgg19",
    "light_bvlc_alexnet",
    "light_densenet121",
    "light_squeezenet",
    "light_shufflenet",
    "Silero sequence",
    "Magika",
)
LEAST_AGREEMENT = 0.96  # of int8 and float decisions; below, a trained model is lost
LEAST_SQNR = 3.0  # dB; below, even random weights are
LONG_CALL = 0.1  # seconds: from here on a third of the rounds is enough

Make = Callable[[int, Feeds | None], Run]


@dataclass(frozen=True)
class Runner:
    """One way to run a model.

    Attributes:
        who: "ours", "onnxruntime", "openvino".
        precision: "f32", "bf16", "int8".
        variant: Tells apart several of the same tool and precision.
        make: (threads, feed whose shapes are fixed or None) -> a run.
        file: What is run; its accuracy is known from an earlier run. Empty: measured anew.
    """

    who: str
    precision: str
    variant: str
    make: Make
    file: str = ""

    @property
    def name(self) -> str:
        return f"{self.who} {self.precision}{' ' if self.variant else ''}{self.variant}"


@dataclass
class Bench:
    """One model: who can run it, how accurately, how fast."""

    model: RealModel
    precisions: set[str]
    only_ours: bool
    runners: list[Runner] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    accuracies: dict[str, Accuracy] = field(default_factory=dict)

    def attempt(self, what: str, make: Callable[[], Runner]) -> Runner | None:
        try:
            runner = make()
        except (Failed, lowprec.errors.LowprecError) as error:
            self.notes.append(f"{self.model.name}: {what}: {first_line(error)}")
            return None
        self.runners.append(runner)
        return runner

    def collect(self, source: Path) -> None:
        """Find or make the files of all runners."""
        model = self.model
        ours = {
            "f32": lambda: our_float(source),
            "bf16": lambda: our_bf16(source),
            "int8": lambda: our_int8(model, source),
        }
        for precision, make in ours.items():
            if precision in self.precisions | {"f32"}:  # int8 is compared with our f32, too
                self.attempt(
                    f"ours {precision}",
                    functools.partial(_ours, precision, make),
                )
        if self.only_ours:
            return
        if "f32" in self.precisions:
            self.runners += [
                Runner("onnxruntime", "f32", "", functools.partial(onnxruntime_run, source)),
                _openvino(source, "f32", "f32"),
            ]
        if "bf16" in self.precisions:
            self.runners.append(_openvino(source, "bf16", None))
        if "int8" in self.precisions:
            self._collect_int8(source)

    def _collect_int8(self, source: Path) -> None:
        for only_products in (False, True):
            file = functools.partial(
                onnxruntime_int8, self.model, source, only_products=only_products
            )
            variant = "products" if only_products else ""
            runner = self.attempt(
                f"onnxruntime int8 {variant}", functools.partial(_onnxruntime_int8, file, variant)
            )
            if runner is not None and self.accuracy(runner, source).holds:
                break
        try:
            file_of_nncf = openvino_int8(self.model, source)
        except Failed as error:
            self.notes.append(f"{self.model.name}: openvino int8: {error}")
            return
        self.runners += [
            _openvino(file_of_nncf, "int8", "f32", "f32"),
            _openvino(file_of_nncf, "int8", None, "default"),
        ]

    # ---- accuracy --------------------------------------------------------------------------------
    def accuracy(self, runner: Runner, source: Path) -> Accuracy:
        """Return how far `runner` is from its own tool's float; peers' answers are kept on disk."""
        if runner.name in self.accuracies:
            return self.accuracies[runner.name]
        kept = FOLDER / "accuracy.json"
        key = f"{runner.file} {runner.variant} {self.model.held_out}"
        known = json.loads(kept.read_text()) if kept.exists() else {}
        if runner.file and key in known:
            sqnr, agreement = known[key]
        else:
            feeds = self.model.feeds(self.model.held_out, 2)
            exact = answers(self._own_float(runner, source)(1, None), feeds)
            made = answers(runner.make(1, None), feeds)
            sqnr = min(signal_to_noise(a, b) for a, b in zip(exact, made, strict=True))
            agreement = self.model.agreement(exact, made)
            if runner.file:
                known[key] = (sqnr, agreement)
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(known, indent=1))
        holds = sqnr >= LEAST_SQNR if not self.model.trained else agreement >= LEAST_AGREEMENT
        accuracy = Accuracy(self.model.name, runner.name, sqnr, agreement, holds)
        self.accuracies[runner.name] = accuracy
        return accuracy

    def _own_float(self, runner: Runner, source: Path) -> Make:
        if runner.who == "onnxruntime":
            return functools.partial(onnxruntime_run, source)
        if runner.who == "openvino":
            return _openvino(source, "f32", "f32").make
        return next(r.make for r in self.runners if (r.who, r.precision) == ("ours", "f32"))

    # ---- speed -----------------------------------------------------------------------------------
    def measure(
        self, source: Path, threads: int, batch: int, rounds: int, middle: Middle = median
    ) -> Row:
        """Return everybody's median seconds (or another `middle` of the rounds), in turns."""
        lowprec.set_num_threads(threads)
        feed = self.model.timed_feed(batch)
        calls = {}
        row = Row(self.model.name, threads, batch)
        for runner in self.runners:
            try:
                run = runner.make(threads, feed)
                run(feed)
            except Exception as error:  # one that refuses this batch is left out
                self.notes.append(
                    f"{self.model.name}, batch {batch}: {runner.name}: {first_line(error)}"
                )
                continue
            calls[runner.name] = functools.partial(run, feed)
            if runner.precision != "f32":
                row.holds[runner.name] = self.accuracy(runner, source).holds
        if calls:
            slow = max(take_turns(calls, 1, 1).values()) > LONG_CALL
            rounds = max(3, rounds // 3) if slow else rounds
            row.seconds = take_turns(calls, rounds, threads, middle)
        return row


def _ours(precision: str, make: Callable[[], Callable[[Feeds], Outputs]]) -> Runner:
    run = make()
    return Runner("ours", precision, "", lambda threads, shapes: run)


def _onnxruntime_int8(file: Callable[[], Path], variant: str) -> Runner:
    path = file()
    make = functools.partial(onnxruntime_run, path)
    make(1, None)  # its quantiser also writes files that it cannot open
    return Runner("onnxruntime", "int8", variant, make, path.name)


def _openvino(path: Path, precision: str, hint: str | None, variant: str = "") -> Runner:
    def make(threads: int, shapes: Feeds | None) -> Run:
        return openvino_run(path, threads, hint, shapes)

    return Runner("openvino", precision, variant, make, path.name)


def signal_to_noise(exact: Outputs, approximate: Outputs) -> float:
    """Return the worst output's signal to quantisation noise in dB, 99 if nothing differs."""
    worst = 99.0
    for a, b in zip(exact, approximate, strict=True):
        noise = np.square(np.subtract(a, b, dtype=np.float64)).sum()
        if noise:
            signal = np.square(a, dtype=np.float64).sum()
            worst = min(worst, float(10 * np.log10(max(signal, 1e-30) / noise)))
    return worst


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", default=",".join(BENCHED), help="names, by comma")
    parser.add_argument("--threads", type=numbers, default=[1, 2], help="by comma")
    parser.add_argument("--batch", type=numbers, default=[1], help="by comma")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--precision", default="f32,bf16,int8", help="by comma")
    parser.add_argument(
        "--least", action="store_true", help="least of the rounds, for a busy machine"
    )
    parser.add_argument("--only-ours", action="store_true", help="leave the peers out")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    choice = parser.parse_args()
    every = {model.name: model for model in real_models()}
    unknown = [name for name in choice.models.split(",") if name not in every]
    if unknown:
        parser.error(f"no model '{unknown[0]}'; there are: {', '.join(every)}")
    rows: list[Row] = []
    accuracies: list[Accuracy] = []
    notes: list[str] = []
    for name in choice.models.split(","):
        bench = Bench(every[name], set(choice.precision.split(",")), choice.only_ours)
        try:
            source = source_file(bench.model)
            bench.collect(source)
        except metadata.PackageNotFoundError as missing:
            notes.append(f"{name}: package {missing.name} is not installed (extra `bench`)")
            print(f"not measured: {notes[-1]}", flush=True)
            continue
        for batch in choice.batch:
            if batch > 1 and not bench.model.has_batch:
                continue
            for threads in choice.threads:
                middle: Middle = min if choice.least else median
                rows.append(bench.measure(source, threads, batch, choice.rounds, middle))
                print(speed_table(rows[-1:]), flush=True)
        accuracies += bench.accuracies.values()
        notes += bench.notes
        del bench
        gc.collect()
    text = "\n\n".join(
        (
            speed_table(rows),
            accuracy_table(accuracies),
            summary(rows),
            "\n".join(f"- {note}" for note in notes),
        )
    )
    print(f"\n{text}")
    choice.out.mkdir(parents=True, exist_ok=True)
    (choice.out / "models.md").write_text(text + "\n")
    result = {
        "cpu": lowprec.cpu_info()["brand"],
        "rows": [asdict(row) for row in rows],
        "accuracy": [asdict(accuracy) for accuracy in accuracies],
        "notes": notes,
    }
    (choice.out / "models.json").write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
