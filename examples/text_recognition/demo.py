"""Quantise a real text recogniser and print float against int8: words read, latency, size.

The model is ch_PP-OCRv4_rec from the package rapidocr-onnxruntime, of which only this file is read.
128 drawn words calibrate it; 300 others test it. A stock tool that quantises every operator ruins
this model: 0.99 of the words read exactly become 0.56.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

from measure import median_latencies
from picture import draw_readings
from recognizer import INPUT, Reading, Runner, model_path, read_characters, read_words
from words import Word, draw_words, to_input

import lowprec

SEEDS = (1, 2, 3)  # frozen: the figures in docs/benchmarks.md are of these words
CALIBRATION_WORDS, TEST_WORDS = 128, 300
TIMED_WORDS = 60
OURS, INT8, PEER = "float, lowprec", "int8, lowprec", "float, onnxruntime"


@dataclass(frozen=True)
class Trial:
    """One seed: its test words, the int8 model that its calibration words gave, what was read."""

    seed: int
    words: list[Word]
    quantized: lowprec.QuantizedModel
    seconds: float  # to calibrate and quantise
    float_reading: Reading
    int8_reading: Reading


@dataclass(frozen=True)
class Row:
    """What was measured of one model on one runner."""

    name: str
    exact: float
    character_errors: float
    milliseconds: float
    file_bytes: int


def as_runner(session: lowprec.CompiledModel) -> Runner:
    return lambda pixels: session.run({INPUT: pixels})[0]


def onnxruntime_runner(path: Path) -> Runner | None:
    """Return onnxruntime on one thread, or None where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {INPUT: pixels})[0]


def try_seed(seed: int, path: Path, float_run: Runner, characters: list[str]) -> Trial:
    calibration, words = draw_words(seed, CALIBRATION_WORDS, TEST_WORDS)
    start = time.perf_counter()
    quantized = lowprec.quantize(path, (to_input(word) for word in calibration))
    seconds = time.perf_counter() - start
    return Trial(
        seed,
        words,
        quantized,
        seconds,
        read_words(float_run, words, characters),
        read_words(as_runner(quantized), words, characters),
    )


def compare_models(trial: Trial, path: Path, int8_path: Path, float_run: Runner) -> list[Row]:
    """Return a row for our float, our int8 and, where installed, onnxruntime's float."""
    runners = {OURS: float_run, INT8: as_runner(trial.quantized)}
    readings = {OURS: trial.float_reading, INT8: trial.int8_reading}
    peer = onnxruntime_runner(path)
    if peer is not None:
        runners[PEER] = peer
        readings[PEER] = read_words(peer, trial.words, read_characters(path))
    latencies = median_latencies(runners, trial.words[:TIMED_WORDS])
    return [
        Row(
            name,
            readings[name].exact,
            readings[name].character_errors,
            latencies[name],
            (int8_path if name == INT8 else path).stat().st_size,
        )
        for name in runners
    ]


def print_rows(rows: list[Row]) -> None:
    """Print what was measured, and the three ratios that matter."""
    print(f"{'':20}{'words exact':>12}{'character errors':>18}{'ms per word':>13}{'file MB':>9}")
    for row in rows:
        print(
            f"{row.name:20}{row.exact:12.4f}{100 * row.character_errors:16.2f} %"
            f"{row.milliseconds:13.2f}{row.file_bytes / 1e6:9.2f}"
        )
    print()
    by_name = {row.name: row for row in rows}
    ours, int8, peer = by_name[OURS], by_name[INT8], by_name.get(PEER)
    print(f"{ours.milliseconds / int8.milliseconds:.2f} x  our int8's speed against our float's")
    if peer is not None:
        print(f"{peer.milliseconds / int8.milliseconds:.2f} x  our int8's speed against {PEER}'s")
        print(f"{peer.milliseconds / ours.milliseconds:.2f} x  our float's speed against {PEER}'s")
    print(
        f"{int8.file_bytes / ours.file_bytes:.2f} x  the int8 file's size against the float file's"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=SEEDS,
        help="which words (1 2 3); the first in detail",
    )
    parser.add_argument("--out", type=Path, default=Path("out/text_recognition"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    path = model_path()
    characters = read_characters(path)
    float_run = as_runner(lowprec.compile(path))
    print(
        f"{path.name}: {CALIBRATION_WORDS} words to calibrate, {TEST_WORDS} others to test,"
        " one thread"
    )
    for position, seed in enumerate(options.seeds):
        trial = try_seed(seed, path, float_run, characters)
        difference = trial.int8_reading.exact - trial.float_reading.exact
        print(
            f"words of seed {seed}: quantised in {trial.seconds:.1f} s; read exactly: "
            f"float {trial.float_reading.exact:.4f}, int8 {trial.int8_reading.exact:.4f} "
            f"({difference:+.4f})",
            flush=True,
        )
        if position == 0:
            first = trial

    int8_path = options.out / "rec.int8.onnx"
    first.quantized.save(int8_path)
    report = first.quantized.report
    (options.out / "report.json").write_text(report.to_json())
    draw_readings(
        first.words,
        {"float": first.float_reading.texts, "int8": first.int8_reading.texts},
        f"{path.stem}, words of seed {first.seed}: those that a model misread, then others",
        options.out / "words.png",
    )
    print(f"\nSeed {first.seed} in detail\n")
    print_rows(compare_models(first, path, int8_path, float_run))
    print(f"{report.int8_fraction:.2f} x  multiply-adds in int8 against all of them")
    print(f"\nwrote rec.int8.onnx, report.json and words.png to {options.out}")


if __name__ == "__main__":
    main()
