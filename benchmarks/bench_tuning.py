"""Tune PP-OCR's recogniser from "everything int8": met, killed and resumed, and an impossible goal.

The configuration asks for int8 in every layer that has an integer form: no policy keeps any of them
in float. The criterion allows half a per cent of the words that float reads exactly. Searches:

    everything int8   with the algorithms and ranges that are the default
    bare              without any help: no algorithm, ranges from the extremes, one scale per tensor
    resumed           `bare` in another process, killed (SIGKILL) in the middle of a trial, then
                      run again: the same trials, scores and answer
    impossible        a metric that takes a point off whatever is not the float model: the best so
                      far is returned, and said

The words are the demo's of seed 3, the hardest of its three. --trials and --words make it shorter.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from recognition import as_runner, draw_words, model_path, read_characters, read_words, to_input

import lowprec
from lowprec.api import capture, open_workbench
from lowprec.config import Config
from lowprec.tuning import TuningResult, tune

SEED = 3
CALIBRATION_WORDS = 128
RELATIVE = 0.005
EVERYTHING = {"layers": [{"match": "*", "precision": "int8"}]}
BARE = {
    **EVERYTHING,
    "calibration": {"method": "minmax"},
    "weights": {"granularity": "per_tensor"},
    "algorithms": {
        "equalization": False,
        "bias_absorption": False,
        "smoothing": False,
        "bias_correction": False,
        "rounding": "nearest",
    },
}
KILLED_AT = 4  # evaluation during which the process of `resumed` is killed
IMPOSSIBLE_TRIALS = 12


class Reader:
    """Scores a model by the share of words that it reads exactly."""

    def __init__(self, words: int, killed_at: int | None = None, penalty: float = 0.0) -> None:
        _, self._words = draw_words(SEED, CALIBRATION_WORDS, words)
        self._characters = read_characters(model_path())
        self._killed_at = killed_at
        self._penalty = penalty  # of what is not the float model
        self.calls = 0

    def __call__(self, model: lowprec.CompiledModel) -> float:
        self.calls += 1
        if self.calls == self._killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        exact = read_words(as_runner(model), self._words, self._characters).exact
        return exact - self._penalty * isinstance(model, lowprec.QuantizedModel)


def search(
    start: dict[str, object], reader: Reader, trials: int, log: str | None = None
) -> TuningResult:
    """Return the result of one search from the configuration `start`."""
    goal = {"accuracy": {"relative": RELATIVE}, "max_trials": trials, "log": log}
    config = Config.of({**start, "tuning": goal})
    calibration, _ = draw_words(SEED, CALIBRATION_WORDS, 1)
    captured = capture(model_path())
    workbench = open_workbench(captured, [to_input(word) for word in calibration], config)
    return tune(workbench, config, reader)


def summary(result: TuningResult) -> dict[str, object]:
    """Return what must be the same in a search that went on from its log."""
    return {
        "met": result.met,
        "best": result.best.number,
        "change": result.best.change,
        "trials": [[trial.change, trial.scores] for trial in result.trials],
    }


def print_result(title: str, result: TuningResult, calls: int, seconds: float) -> None:
    """Print the trials of one search and its verdict."""
    print(f"\n{title}: {seconds:.0f} s, {calls} evaluations")
    for trial in result.trials:
        score = next(iter(trial.scores.values()), float("nan"))
        print(
            f"  {trial.number:3} {score:8.4f} loss {100 * trial.loss:6.2f} %"
            f"  {trial.latency_ratio:5.2f} x float's time  {'met' if trial.met else '   '}"
            f"  {'as ' + str(trial.same_as) + ': ' if trial.same_as else ''}{trial.change}"
            f"{trial.error}"
        )
    print(f"  {next(n for n in result.model.report.notes if n.startswith('tuning:'))}")
    print(f"  {100 * result.model.report.int8_fraction:.1f} % of the multiply-adds in int8")


def run_elsewhere(options: argparse.Namespace, log: str, killed_at: int | None) -> str | None:
    """Return what the search printed in another process; None when it was killed."""
    command = [sys.executable, __file__, "--one", log, "--words", str(options.words)]
    command += ["--trials", str(options.trials)]
    if killed_at is not None:
        command += ["--kill", str(killed_at)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == -signal.SIGKILL:
        return None
    if done.returncode:
        raise SystemExit(f"the search in another process failed with {done.returncode}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--words", type=int, default=300, help="words that a trial reads")
    parser.add_argument("--trials", type=int, default=25)
    parser.add_argument("--one", metavar="LOG", help=argparse.SUPPRESS)
    parser.add_argument("--kill", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        reader = Reader(options.words, options.kill)
        print(json.dumps(summary(search(BARE, reader, options.trials, options.one))))
        return

    results = []
    for title, start, trials, penalty in (
        ("everything int8", EVERYTHING, options.trials, 0.0),
        ("bare", BARE, options.trials, 0.0),
        ("impossible", BARE, min(options.trials, IMPOSSIBLE_TRIALS), 0.01),
    ):
        begin = perf_counter()
        reader = Reader(options.words, penalty=penalty)
        results.append(search(start, reader, trials))
        print_result(title, results[-1], reader.calls, perf_counter() - begin)
    everything, bare, impossible = results

    with tempfile.TemporaryDirectory() as folder:
        log = str(Path(folder) / "trials.jsonl")
        if run_elsewhere(options, log, KILLED_AT) is not None:
            raise SystemExit("the search was over before it was killed")
        kept = sum('"record": "trial"' in line for line in Path(log).read_text().splitlines())
        resumed = run_elsewhere(options, log, None)
    same = resumed is not None and json.loads(resumed) == json.loads(json.dumps(summary(bare)))
    print(f"\nbare, killed with {kept} trials in the log, then resumed: the same result: {same}")
    if not (everything.met and bare.met and same) or impossible.met:
        raise SystemExit("not what was to be shown")


if __name__ == "__main__":
    main()
