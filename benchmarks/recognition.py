"""The demo's recogniser and words, for benchmarks: the one place that knows where they stand."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples" / "text_recognition"))

from demo import CALIBRATION_WORDS, TEST_WORDS, as_runner, onnxruntime_runner  # noqa: E402
from recognizer import INPUT, decode, model_path, read_characters, read_words  # noqa: E402
from words import Word, draw_words, to_input  # noqa: E402

import lowprec  # noqa: E402

__all__ = [
    "CALIBRATION_WORDS",
    "INPUT",
    "TEST_WORDS",
    "Word",
    "as_runner",
    "decode",
    "draw_words",
    "model_path",
    "onnxruntime_runner",
    "quantize_recognizer",
    "read_characters",
    "read_words",
    "to_input",
]


def quantize_recognizer(path: Path, seed: int = 1) -> list[Word]:
    """Write the demo's int8 recogniser to `path`; return the test words that go with it."""
    calibration, words = draw_words(seed, CALIBRATION_WORDS, TEST_WORDS)
    path.parent.mkdir(parents=True, exist_ok=True)
    lowprec.quantize(model_path(), (to_input(word) for word in calibration)).save(path)
    return words
