"""What a model is for, as numbers: the shape of a task of `bench_accuracy.py`, and measures.

A task holds a model, what calibrates it, a way to get answers out of any runner of it, and what the
answers are worth beside the labels and beside the float model's answers. Nothing that calibrates
is measured on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Feeds = dict[str, NDArray[np.generic]]
Outputs = Sequence[NDArray[np.generic]]
Run = Callable[[Feeds], Outputs]
Answers = Mapping[str, NDArray[np.generic]]

CALIBRATION = 64
"""Samples that calibrate a model, where it has as many."""


class Missing(Exception):
    """Data or a package is not installed; the message says what to install."""


@dataclass(frozen=True)
class Criterion:
    """What int8 has to hold.

    Attributes:
        metric: Name of a measure of the task; larger is better.
        within: How far it may fall below the float model's.
        at_least: Or how large it has to be.
    """

    metric: str
    within: float | None = None
    at_least: float | None = None

    def is_met(self, exact: Mapping[str, float], measured: Mapping[str, float]) -> bool:
        """Return whether `measured` holds it; `exact` are the float model's measures."""
        value = measured[self.metric]
        if self.at_least is not None and not value >= self.at_least:
            return False
        return self.within is None or bool(value >= exact[self.metric] - self.within)

    def __str__(self) -> str:
        if self.within is not None:
            return f"{self.metric} within {self.within:g}"
        return f"{self.metric} >= {self.at_least:g}"


@dataclass(frozen=True)
class Task:
    """A model and how well it does what it is for.

    Attributes:
        key: Name on the command line.
        name: Name in tables.
        source: Path of its ONNX file or SavedModel; raises Missing.
        calibration: Feeds that calibrate it; raises Missing.
        answer: Run the model on everything that is measured on; keep what `measure` needs.
        measure: (answers, the float model's answers) -> measures by name, larger is better.
        criteria: What int8 has to hold.
        precisions: Which precisions of ours have to hold it.
        is_transformer: For tools that want to know.
    """

    key: str
    name: str
    source: Callable[[], str]
    calibration: Callable[[], list[Feeds]]
    answer: Callable[[Run], Answers]
    measure: Callable[[Answers, Answers], dict[str, float]]
    criteria: tuple[Criterion, ...]
    precisions: tuple[str, ...] = ("int8",)
    is_transformer: bool = False


# ---- measures ------------------------------------------------------------------------------------
def signal_to_noise(exact: NDArray[np.generic], answer: NDArray[np.generic]) -> float:
    """Return the SQNR of `answer` beside `exact` in dB; 200 for equal arrays."""
    signal = np.asarray(exact, np.float64)
    noise = np.square(np.asarray(answer, np.float64) - signal).sum()
    return float(10 * np.log10(np.square(signal).sum() / noise)) if noise else 200.0


def ranks(values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return 1-based ranks, the mean rank for ties."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean_ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[where]
    return mean_ranks


def pearson(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return float(np.corrcoef(np.asarray(a, np.float64), np.asarray(b, np.float64))[0, 1])


def spearman(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return pearson(ranks(a), ranks(b))


def area_under_curve(is_positive: NDArray[np.bool_], scores: NDArray[np.generic]) -> float:
    """Return the ROC AUC: how often a positive has the larger score; ties count half."""
    positives = int(is_positive.sum())
    negatives = len(is_positive) - positives
    wins = ranks(scores)[is_positive].sum() - positives * (positives + 1) / 2
    return float(wins / (positives * negatives))


def f1_score(hits: float, wanted: float, found: float) -> float:
    """Return F1 of `hits` right ones of `found`, where `wanted` should be found."""
    return 2 * hits / (wanted + found) if wanted + found else 1.0
