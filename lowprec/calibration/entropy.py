"""The entropy method: the range whose coarser histogram says least wrongly what was observed.

For each candidate window of bins, P is the window's counts with everything outside added to its
outermost bins, and Q what is left of the window's own counts (without what lies outside) when they
are merged into `levels` groups and each group is spread evenly again over its bins that P does not
leave empty. The window with the least Kullback-Leibler divergence of Q from P wins, the first of
equals. (Migacz, "8-bit Inference with TensorRT", GTC 2017, S7310.) Both get `smoothing`: an empty
bin counts that much, and the others give it up.

The tools that use this idea differ in grid, levels, merging and rounding, and so do their results;
`Variant` names the differences.

Cost: a group's share of the divergence follows from running sums, so a candidate takes `levels`
logarithms instead of one per bin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_TOGETHER = 1 << 16  # numbers of a temporary array: what a cache holds


@dataclass(frozen=True)
class Variant:
    """What is open in the definition.

    Attributes:
        levels: Groups that a window is merged into.
        smoothing: What an empty bin counts; 0: a window that leaves Q empty where P is not is out
            of the question.
        whole_bins: Every group has as many whole bins, and the rest of a window goes into the last
            one (MXNet, onnxruntime); False: borders are rounded down one by one.
        spread_rest: The last group is spread over the rest of the window, too; False (onnxruntime):
            the rest stays empty in Q.
        only_filled: Q stays empty where P is; False (onnxruntime): a group fills all of its bins.
        truncate: Q is rounded down to whole numbers (onnxruntime).
    """

    levels: int
    smoothing: float = 1e-4
    whole_bins: bool = False
    spread_rest: bool = True
    only_filled: bool = True
    truncate: bool = False


def divergences(
    counts: NDArray[np.int64], starts: Integers, ends: Integers, variant: Variant
) -> Floats:
    """Return the divergence of each window [start, end) of `counts`, shape (windows,), in nats.

    Infinite where a window has fewer bins than levels, or is too empty to be smoothed.

    Args:
        counts: Shape (bins,).
        starts: First bin of each window.
        ends: The bin behind its last one.
        variant: See there.
    """
    sums = _RunningSums(counts.astype(np.float64))
    rows = max(1, _TOGETHER // (variant.levels + 1))
    parts = [
        _divergences(sums, starts[i : i + rows], ends[i : i + rows], variant)
        for i in range(0, len(starts), rows)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


class _RunningSums:
    """Sums over the bins before each border, shape (bins + 1,), of what the divergence needs."""

    def __init__(self, counts: Floats) -> None:
        filled = counts > 0
        logs = np.log(np.where(filled, counts, 1.0))
        self.counts = counts
        self.number = _running(counts)
        self.filled = _running(filled)
        self.count_logs = _running(counts * logs)
        self.logs = _running(logs)
        self.inverses = _running(filled / np.where(filled, counts, 1.0))


def _running(values: NDArray[np.generic]) -> Floats:
    sums = np.zeros(len(values) + 1)
    np.cumsum(values, out=sums[1:], dtype=np.float64)
    return sums


def _divergences(sums: _RunningSums, starts: Integers, ends: Integers, variant: Variant) -> Floats:
    levels, smoothing = variant.levels, variant.smoothing
    size = ends - starts
    order = np.arange(levels + 1)
    if variant.whole_bins:
        borders = starts[:, None] + order * (size // levels)[:, None]
    else:
        borders = starts[:, None] + order * size[:, None] // levels
    merged = borders.copy()  # of what is summed up
    merged[:, -1] = ends
    if variant.spread_rest:
        borders = merged

    left, right = sums.number[starts], sums.number[-1] - sums.number[ends]
    first, last = sums.counts[starts], sums.counts[ends - 1]
    new_left, new_right = (left > 0) & (first == 0), (right > 0) & (last == 0)
    # P, group by group: numbers, and bins that are not empty.
    mass = np.diff(sums.number[borders], axis=1)
    filled = np.diff(sums.filled[borders], axis=1)
    mass[:, 0] += left
    filled[:, 0] += new_left
    has_rest = borders[:, -1] < ends  # then the right end is in no group
    mass[:, -1] += np.where(has_rest, 0, right)
    filled[:, -1] += np.where(has_rest, 0, new_right)

    total = sums.number[-1]
    all_filled = sums.filled[ends] - sums.filled[starts] + new_left + new_right
    with np.errstate(divide="ignore", invalid="ignore"):
        own = np.diff(sums.number[merged], axis=1)
        q = np.where(filled > 0, own / filled, 0.0)
        if variant.truncate:
            q = np.floor(q)
        width = filled if variant.only_filled else np.diff(borders, axis=1).astype(np.float64)
        q_filled = (width * (q > 0)).sum(axis=1)
        q_total = (width * q).sum(axis=1)
        p_gives = smoothing * (size - all_filled) / all_filled
        q_gives = smoothing * (size - q_filled) / q_filled

        # Sum of p log p after smoothing (two terms of its series in what is given up, which is
        # small beside a count); the ends, which hold the outliers, one by one.
        inner = sums.count_logs[ends - 1] - sums.count_logs[starts + 1]
        inner_logs = sums.logs[ends - 1] - sums.logs[starts + 1]
        inner_filled = sums.filled[ends - 1] - sums.filled[starts + 1]
        inner_inverses = sums.inverses[ends - 1] - sums.inverses[starts + 1]
        entropy = inner - p_gives * (inner_logs + inner_filled) + p_gives**2 / 2 * inner_inverses
        for end in (first + left, last + right):
            smooth = np.where(end > 0, end - p_gives, smoothing)
            entropy += _x_log_x(smooth)
        inner_empty = np.maximum(size - 2 - inner_filled, 0)
        entropy += inner_empty * _x_log_x(np.array(smoothing))

        # sum of p log q after smoothing.
        log_q = np.log(np.where(q > 0, q - q_gives[:, None], smoothing))
        cross = _times(mass - p_gives[:, None] * filled, log_q).sum(axis=1)
        empty = np.diff(borders, axis=1) - filled
        log_empty = log_q if not variant.only_filled else np.log(np.array(smoothing))
        cross += _times(smoothing * empty, log_empty).sum(axis=1)
        rest = total - mass.sum(axis=1)
        rest_filled = all_filled - filled.sum(axis=1)
        rest_empty = ends - borders[:, -1] - rest_filled
        rest_mass = rest - p_gives * rest_filled + smoothing * rest_empty
        cross += _times(rest_mass, np.log(np.array(smoothing)))

        result = (entropy - cross) / total - np.log(total) + np.log(q_total)
    usable = (size >= levels) & (p_gives < 1) & (q_gives < 1) & (q_filled > 0)
    return np.where(usable & ~np.isnan(result), result, np.inf)


def _x_log_x(x: Floats) -> Floats:
    return np.where(x > 0, x * np.log(np.where(x > 0, x, 1.0)), 0.0)


def _times(mass: Floats, logarithm: Floats) -> Floats:
    """Return the product, 0 where the mass is: nothing times minus infinity is nothing."""
    return np.where(mass > 0, mass * np.where(mass > 0, logarithm, 0.0), 0.0)
