"""The methods that search for a range: entropy, mse, l2.

| method  | range                                                                                |
|---------|--------------------------------------------------------------------------------------|
| entropy | the window around 0 whose merged histogram diverges least from all values            |
| mse     | the range with the least expected squared error on the codes that the tensor will get |
| l2      | both ends move inwards while the squared error of evenly spread codes does not grow  |
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lowprec.calibration.codes import Codes, codes_of
from lowprec.calibration.entropy import divergences
from lowprec.calibration.protocol import (
    TensorStatistics,
    WholeRule,
    clamped,
    describe_range,
    histogram_of,
)
from lowprec.calibration.ranges import Range
from lowprec.calibration.settings import Settings, settings_of
from lowprec.calibration.statistics import Histogram, squared_errors

if TYPE_CHECKING:
    pass

ENTROPY_STRIDE = 4
"""Bins from one candidate to the next on our own grid (presets try every bin)."""
_SHRINKINGS = 2.0 ** (-np.arange(41) / 4)
_FINE = 2.0 ** (np.arange(-3, 4) / 16)
MASS_STEP = 1e-5
"""Share of the values by which the l2 method moves an end, as torch's HistogramObserver."""


class Entropy(WholeRule):
    """The window with the least Kullback-Leibler divergence."""

    def range(self, tensor: TensorStatistics) -> Range:
        """Return the winning window, cut to what was observed."""
        if tensor.minimum == tensor.maximum:
            return describe_range(tensor, tensor.minimum, tensor.maximum, "entropy", self._config)
        settings = settings_of(self._config)
        find = {"magnitudes": _of_magnitudes, "both sides": _of_both_sides}.get(
            settings.grid, partial(_of_own_bins, symmetric=codes_of(self._config).symmetric)
        )
        rmin, rmax = clamped(tensor, *find(histogram_of(tensor), settings))
        return describe_range(tensor, rmin, rmax, "entropy", self._config)


def _of_own_bins(
    histogram: Histogram, settings: Settings, *, symmetric: bool
) -> tuple[float, float]:
    """Search windows [-k, k) of our own bins, cut to the observed ones unless symmetric.

    Exact zeros are exact in any range; the bin that holds them counts as its neighbours do.
    """
    used = histogram.occupied.without_zeros
    first = round(used.origin / used.width)  # bin 0 starts at 0
    last = first + len(used.counts)
    half = max(-first, last, 1)
    low, high = (-half, half) if symmetric else (min(first, 0), max(last, 1))
    counts = np.zeros(high - low, np.int64)
    counts[first - low : last - low] = used.counts
    if not counts.any():
        return used.origin, used.origin + len(used.counts) * used.width

    k = np.arange(half, 0, -ENTROPY_STRIDE)[::-1]
    starts, ends = np.maximum(-k, low) - low, np.minimum(k, high) - low
    wide = ends - starts >= max(settings.window, settings.entropy.levels)
    wide[-1] = True  # nothing clipped
    found = divergences(counts, starts[wide], ends[wide], settings.entropy)
    best = k[wide][int(np.argmin(found))] if np.isfinite(found).any() else half
    return float(-best * used.width), float(best * used.width)


def _of_magnitudes(histogram: Histogram, settings: Settings) -> tuple[float, float]:
    """TensorRT: windows [0, i) of |x|; the limit is the middle of the bin behind the winner."""
    largest = _largest(histogram)
    width = largest / settings.bins
    counts = histogram.magnitudes(np.linspace(0, largest, settings.bins + 1))
    ends = np.arange(max(settings.window, settings.entropy.levels), settings.bins)
    found = divergences(counts, np.zeros_like(ends), ends, settings.entropy)
    if not np.isfinite(found).any():
        return -largest, largest
    limit = (float(ends[int(np.argmin(found))]) + 0.5) * width
    return -limit, limit


def _of_both_sides(histogram: Histogram, settings: Settings) -> tuple[float, float]:
    """MXNet and onnxruntime: windows around the middle bin of +-max |x|."""
    largest = _largest(histogram)
    edges = np.linspace(-largest, largest, settings.bins + 1)
    counts = histogram.rebinned(edges)
    middle = settings.bins // 2
    half = np.arange(settings.window // 2, middle + 1)
    starts, ends = middle - half, np.minimum(middle + half + 1, settings.bins)
    found = divergences(counts, starts, ends, settings.entropy)
    if not np.isfinite(found).any():
        return -largest, largest
    best = int(np.argmin(found))
    return float(edges[starts[best]]), float(edges[ends[best]])


def _largest(histogram: Histogram) -> float:
    edges = histogram.occupied.edges
    return float(max(-edges[0], edges[-1]))


class SquaredError(WholeRule):
    """The range with the least expected squared error."""

    def range(self, tensor: TensorStatistics) -> Range:
        """Return the best range: both ends shrunk alike, then each end by itself."""
        rmin, rmax = least_squares(tensor, codes_of(self._config))
        return describe_range(tensor, rmin, rmax, "mse", self._config)


def least_squares(tensor: TensorStatistics, codes: Codes) -> tuple[float, float]:
    """Return the range with the least expected squared error on `codes`.

    Both ends are shrunk by the same powers of 2^(1/4), down to 1/1024; then each end by itself is
    moved by steps of 2^(1/16) around the best.
    """
    histogram = histogram_of(tensor).without_zeros
    low, high = min(tensor.minimum, 0.0), max(tensor.maximum, 0.0)
    candidates = [(low * f, high * f) for f in _SHRINKINGS]
    best = _least(histogram, candidates, codes)
    for _ in range(2):
        for side in (0, 1):
            if best[side] == 0:
                continue
            moved = [(best[0] * f, best[1]) if side == 0 else (best[0], best[1] * f) for f in _FINE]
            inside = [(max(a, low), min(b, high)) for a, b in moved]
            best = _least(histogram, [best, *inside], codes)
    return best


def _least(
    histogram: Histogram, candidates: list[tuple[float, float]], codes: Codes
) -> tuple[float, float]:
    errors = squared_errors(histogram, [codes.steps(a, b) for a, b in candidates])
    return candidates[int(np.argmin(errors))]


class L2(WholeRule):
    """torch's search: the end that drops more bins moves, until the error grows."""

    def range(self, tensor: TensorStatistics) -> Range:
        """Return the edges of the bins that are left, cut to what was observed."""
        settings = settings_of(self._config)
        histogram = histogram_of(tensor).occupied
        counts, origin, width = histogram.counts, histogram.origin, histogram.width
        if settings.grid == "extremes" and tensor.minimum < tensor.maximum:
            edges = np.linspace(tensor.minimum, tensor.maximum, settings.bins + 1)
            counts, origin, width = histogram.rebinned(edges), edges[0], edges[1] - edges[0]
        first, last = narrowed(counts, settings.entropy.levels)
        rmin, rmax = clamped(tensor, origin + first * width, origin + (last + 1) * width)
        return describe_range(tensor, rmin, rmax, "l2", self._config)


def narrowed(counts: NDArray[np.int64], levels: int) -> tuple[int, int]:
    """Return the first and the last bin that the l2 search keeps.

    From both ends, MASS_STEP of the values at a time: the end that would drop more bins moves, as
    long as the error of the rest on `levels` evenly spread codes does not grow. (PyTorch,
    torch/ao/quantization/observer.py, HistogramObserver.)

    Args:
        counts: Shape (bins,), bins of equal width.
        levels: Codes.
    """
    total = float(counts.sum())
    below = np.cumsum(counts).astype(np.float64)
    first, last = 0, len(counts) - 1
    alpha, beta, least = 0.0, 1.0, np.inf
    while alpha < beta:
        next_alpha, next_beta = alpha + MASS_STEP, beta - MASS_STEP
        left = max(first, min(int(np.searchsorted(below, next_alpha * total)), last))
        right = min(last, max(int(np.searchsorted(below, next_beta * total, "right")) - 1, first))
        if left - first > last - right:
            alpha, new = next_alpha, (left, last)
        else:
            beta, new = next_beta, (first, right)
        if new == (first, last):
            # A bin that holds many steps' mass: all of them but the last at once.
            beta -= max(int((beta - below[last] / total) / MASS_STEP) - 1, 0) * MASS_STEP
            continue
        error = _even_error(counts, *new, levels)
        if error > least:
            break
        least, (first, last) = error, new
    return first, last


def _even_error(counts: NDArray[np.int64], first: int, last: int, levels: int) -> float:
    """Return the squared error, in bins, when [first, last] is cut into `levels` equal steps."""
    step = (last - first + 1) / levels
    begin = np.arange(len(counts), dtype=np.float64) - first
    end = begin + 1
    code_of_begin = np.clip(np.floor(begin / step), 0, levels - 1)
    code_of_end = np.clip(np.floor(end / step), 0, levels - 1)
    from_begin = begin - (code_of_begin + 0.5) * step
    from_end = end - (code_of_end + 0.5) * step
    half = step / 2
    cubes = half**3 - from_begin**3
    cubes += (code_of_end - code_of_begin - 1) * 2 * half**3
    cubes += from_end**3 + half**3
    return float((counts * cubes).sum() / 3)
