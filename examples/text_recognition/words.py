"""Pictures of words with exact labels, from nothing but Python and matplotlib.

The words come from the language reference in the standard library (`pydoc_data.topics`), the
typefaces are the DejaVu fonts that matplotlib carries: nothing is downloaded. The words differ a
little between Python versions, as the language reference does.
"""

from __future__ import annotations

import os
import pydoc_data.topics
import re
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray

HEIGHT = 48  # rows: what the recogniser was trained on
FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
)
LARGEST_ANGLE = 2.5  # degrees, either way

# A word of a sentence, 3 to 12 letters: no identifier, no attribute name, no call.
WORD = re.compile(r"(?<![\w.])[A-Za-z]{3,12}(?![\w(])")


@dataclass(frozen=True)
class Word:
    """One picture: `pixels` is (48, width, 3) uint8, blue-green-red; `text` is what it says."""

    text: str
    pixels: NDArray[np.uint8]


def vocabulary() -> list[str]:
    """Return the words of the language reference, sorted: "after", "After", "AND", not "iOS"."""
    found = {word for text in pydoc_data.topics.topics.values() for word in WORD.findall(text)}
    return sorted(word for word in found if word in (word.lower(), word.capitalize(), word.upper()))


def draw_words(seed: int, *counts: int) -> list[list[Word]]:
    """Return one list of pictures per count; no word is in two of them.

    Args:
        seed: Decides the choice of words and everything about their pictures.
        counts: How many words each list holds, for example 128 to calibrate and 300 to test.

    Raises:
        ValueError: the vocabulary has fewer words than all counts together.
    """
    rng = np.random.default_rng(seed)
    texts = vocabulary()
    if sum(counts) > len(texts):
        raise ValueError(f"{sum(counts)} words asked for, the vocabulary has {len(texts)}")
    rng.shuffle(texts)
    ends = np.cumsum(counts)
    return [
        [draw_word(text, rng) for text in texts[end - count : end]]
        for count, end in zip(counts, ends, strict=True)
    ]


def draw_word(text: str, rng: np.random.Generator) -> Word:
    """Return `text` as a camera might see it: a little rotated, in uneven light, with noise."""
    face = FACES[rng.integers(len(FACES))]
    angle = rng.uniform(-LARGEST_ANGLE, LARGEST_ANGLE)
    ink_mask = rasterize(text, face, HEIGHT - int(rng.integers(2, 9)), angle)
    rows, columns = ink_mask.shape
    above = int(np.clip((HEIGHT - rows) // 2 + rng.integers(-3, 4), 0, HEIGHT - rows))
    width = max(HEIGHT, -(-(columns + 2) // 8) * 8)
    left = (width - columns) // 2
    cover = np.zeros((HEIGHT, width, 1))
    cover[above : above + rows, left : left + columns, 0] = ink_mask / 255.0

    paper = rng.uniform(185, 250) + rng.uniform(-12, 12, 3)
    ink = rng.uniform(5, 75) + rng.uniform(-5, 25, 3)
    light = np.linspace(*rng.uniform(0.88, 1.0, 2), width)[None, :, None]
    pixels = (paper * (1 - cover) + ink * cover) * light
    pixels += rng.normal(0, rng.uniform(2, 9), pixels.shape)
    return Word(text, np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


def rasterize(text: str, face: str, height: int, angle: float) -> NDArray[np.uint8]:
    """Return the ink of `text`, (rows, columns) uint8, 255 = full, at most `height` rows high.

    Args:
        text: Letters.
        face: File name of a font of matplotlib's, without ending.
        height: Rows that the ink may take; a word that needs more is drawn smaller.
        angle: Degrees, anticlockwise.
    """
    font = FT2Font(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf"))
    size = 0.95 * height
    while True:
        font.set_size(size, 72)
        font.set_text(text, angle)
        font.draw_glyphs_to_bitmap(antialiased=True)
        ink = np.asarray(font.get_image())
        ink = ink[ink.any(axis=1)][:, ink.any(axis=0)]
        if len(ink) <= height:
            return ink
        size *= 0.97


def to_input(word: Word) -> NDArray[np.float32]:
    """Return the recogniser's input for one word: (1, 3, 48, width) float32 in [-1, 1]."""
    scaled = (word.pixels.astype(np.float32) / 255 - 0.5) / 0.5
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])
