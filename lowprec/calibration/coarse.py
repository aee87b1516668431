"""A histogram small enough to be shown: what a tensor's values look like, for reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lowprec.calibration.protocol import TensorStatistics, histogram_of

BINS = 64


def coarse_histogram(tensor: TensorStatistics, bins: int = BINS) -> dict[str, Any]:
    """Return `{"low", "high", "counts"}`: `bins` bins of equal width over what was observed.

    A bin of the fine histogram that lies across a border is shared in proportion. Two digits of
    each count are kept: the report goes into the model's file.

    Args:
        tensor: An observer that has seen values.
        bins: How many counts.
    """
    fine = histogram_of(tensor)
    low, high = float(tensor.minimum), float(tensor.maximum)
    below = np.concatenate([[0], np.cumsum(fine.counts)]).astype(np.float64)
    inner = np.linspace(low, high, bins + 1)[1:-1]
    # Everything was observed between low and high, whatever the outer bins' edges.
    at = np.interp(inner, fine.edges, below) if high > low else np.zeros(bins - 1)
    borders = np.rint(np.concatenate([[0], at, [below[-1]]])).astype(np.int64)
    counts = [_two_digits(count) for count in np.diff(borders).tolist()]
    return {"low": low, "high": high, "counts": counts}


def _two_digits(count: int) -> int:
    unit: int = 10 ** max(len(str(count)) - 2, 0)
    return round(count / unit) * unit


def coarse_histograms(
    observers: Mapping[str, TensorStatistics], names: Iterable[str | None]
) -> dict[str, dict[str, Any]]:
    """Return the coarse histograms of the tensors named, by name; those without values left out."""
    return {
        name: coarse_histogram(observers[name])
        for name in dict.fromkeys(names)
        if name is not None and name in observers and histogram_of(observers[name]).total
    }
