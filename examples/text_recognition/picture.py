"""A picture of some words with what each model read: what people look at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from words import Word

COLUMNS, ROWS = 4, 7
RIGHT, WRONG = "#1a6e2e", "#b3261e"
BLANK = "\N{OPEN BOX}"  # a blank that was read where there is none would not show otherwise


def choose_words(words: Sequence[Word], readings: Mapping[str, Sequence[str]]) -> list[int]:
    """Return the indices of the words to show: those that some model misread first, then others."""
    wrong = [
        index
        for index, word in enumerate(words)
        if any(texts[index] != word.text for texts in readings.values())
    ]
    others = [index for index in range(len(words)) if index not in set(wrong)]
    return (wrong + others)[: COLUMNS * ROWS]


def draw_readings(
    words: Sequence[Word], readings: Mapping[str, Sequence[str]], title: str, path: Path
) -> None:
    """Write a PNG with some words; under each, what every model read, red where it is wrong.

    Args:
        words: The words that were read.
        readings: By model name, one text per word.
        title: Stands above the picture.
        path: Of the PNG; its folder exists.
    """
    figure = Figure(figsize=(COLUMNS * 2.7, ROWS * (0.75 + 0.24 * len(readings)) + 0.7))
    figure.suptitle(title, fontsize=12)
    axes = figure.subplots(ROWS, COLUMNS)
    for panel in axes.flat:
        panel.set_axis_off()
    for panel, index in zip(axes.flat, choose_words(words, readings), strict=False):
        panel.imshow(words[index].pixels[..., ::-1])  # blue-green-red to red-green-blue
        for line, (name, texts) in enumerate(readings.items()):
            panel.annotate(
                f"{name}: {texts[index].replace(' ', BLANK) or '(nothing)'}",
                (0.5, 0),
                (0, -9 - 12 * line),
                xycoords="axes fraction",
                textcoords="offset points",
                horizontalalignment="center",
                verticalalignment="center",
                fontsize=9,
                parse_math=False,
                color=RIGHT if texts[index] == words[index].text else WRONG,
            )
    figure.subplots_adjust(0.02, 0.06, 0.98, 0.93, wspace=0.08, hspace=0.75)
    figure.savefig(path, dpi=110)
