"""What a histogram says about a quantised tensor: quantiles, clipped share, expected error.

Within a bin the values are taken as evenly spread. A histogram is (counts, origin, width): counts
of shape (bins,), `origin` the left edge of the first bin and `width` the width of each, real units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lowprec.numerics import reference

Floats = NDArray[np.float64]
_TOGETHER = 1 << 16  # numbers of a temporary array: what a cache holds


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins of equal width; see the module's text for the fields."""

    counts: NDArray[np.int64]
    origin: float
    width: float

    @cached_property
    def edges(self) -> Floats:
        """Edges of the bins, shape (bins + 1,)."""
        return self.origin + self.width * np.arange(len(self.counts) + 1, dtype=np.float64)

    @cached_property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @cached_property
    def below(self) -> NDArray[np.int64]:
        """Number of values below each edge, shape (bins + 1,)."""
        below = np.zeros(len(self.counts) + 1, np.int64)
        np.cumsum(self.counts, out=below[1:])
        return below

    @cached_property
    def occupied(self) -> Histogram:
        """The same without the empty bins at both ends (one empty bin, if there is no value)."""
        found = np.flatnonzero(self.counts)
        first, last = (int(found[0]), int(found[-1])) if len(found) else (0, 0)
        return Histogram(
            self.counts[first : last + 1], self.origin + first * self.width, self.width
        )

    @cached_property
    def without_zeros(self) -> Histogram:
        """The same without exact zeros: the bin that they are in counts as its neighbours do.

        Zeros are exact in any range, and after a Relu half of all values: spread over a bin they
        would look like noise.
        """
        zero = round(-self.origin / self.width)
        if not 0 <= zero < len(self.counts):
            return self
        beside = [self.counts[i] for i in (zero - 1, zero + 1) if 0 <= i < len(self.counts)]
        counts = self.counts.copy()
        counts[zero] = min(counts[zero], max(beside, default=counts[zero]))
        return Histogram(counts, self.origin, self.width)

    def quantile(self, fraction: float) -> float:
        """Return the value below which `fraction` (0..1) of all lie, interpolated in its bin."""
        wanted = fraction * self.total
        bin_index = int(np.searchsorted(self.below[1:], wanted, side="left"))
        bin_index = min(bin_index, len(self.counts) - 1)
        count = float(self.counts[bin_index])
        inside = (wanted - float(self.below[bin_index])) / count if count else 0.0
        return float(self.origin + self.width * (bin_index + min(max(inside, 0.0), 1.0)))

    def quantile_of_magnitudes(self, fraction: float) -> float:
        """Return the number that `fraction` (0..1) of all |x| lie below, interpolated."""
        knots = np.unique(
            np.abs(np.append(self.edges, 0.0))
        )  # between them both sides are straight
        below = self.number_below(knots) - self.number_below(-knots)
        return float(np.interp(fraction * self.total, below, knots))

    def share_below(self, bound: float) -> float:
        """Return the share of the values below `bound`, 0..1, interpolated in its bin."""
        if not self.total:
            return 0.0
        return float(self.number_below(np.array([bound]))[0] / self.total)

    def number_below(self, bounds: Floats) -> Floats:
        """Return how many values lie below each of `bounds`, interpolated in their bins."""
        place = (np.asarray(bounds, np.float64) - self.origin) / self.width
        place = np.clip(place, 0, len(self.counts))
        bin_index = np.minimum(place.astype(np.int64), len(self.counts) - 1)
        inside = place - bin_index
        number: Floats = self.below[bin_index] + self.counts[bin_index] * inside
        return number

    @cached_property
    def _power(self) -> float:
        used = self.occupied
        cubes = used.edges**3 / 3
        return float((used.counts * np.diff(cubes)).sum() / used.width)

    def power(self) -> float:
        """Return the sum of the squared values."""
        return self._power

    def rebinned(self, edges: Floats) -> NDArray[np.int64]:
        """Return the counts between `edges` (ascending), whole numbers that keep the total.

        Args:
            edges: Shape (n + 1,); what lies outside counts in the first or the last bin.
        """
        below = np.rint(self.number_below(edges)).astype(np.int64)
        below[0], below[-1] = 0, self.total
        return np.diff(below)

    def magnitudes(self, edges: Floats) -> NDArray[np.int64]:
        """Return the counts of |x| between `edges` (ascending from 0), as `rebinned` does."""
        below = np.rint(self.number_below(edges) - self.number_below(-edges)).astype(np.int64)
        below[0], below[-1] = 0, self.total
        return np.diff(below)


def squared_errors(
    histogram: Histogram, steps: Sequence[tuple[float, int, int]]
) -> NDArray[np.float64]:
    """Return the expected sum of squared errors of each way to quantise what `histogram` counted.

    With u = x / scale and n = u rounded to a whole number and clamped to [lowest, highest], the
    error of x is scale * (u - n), and its square integrates to scale^3 * G(u), G(u) = n / 12 + (u -
    n)^3 / 3, which is continuous also where n is clamped.

    Args:
        histogram: Observed values.
        steps: (scale, lowest, highest) each: real units per code, > 0; qmin - zero_point; qmax -
            zero_point.

    Returns:
        Shape (len(steps),).
    """
    used = histogram.occupied
    table = np.array(steps, np.float64).reshape(-1, 3)
    errors = np.empty(len(table))
    counts = used.counts.astype(np.float64)
    rows = max(1, _TOGETHER // len(used.edges))
    for start in range(0, len(table), rows):
        scale, lowest, highest = (column[:, None] for column in table[start : start + rows].T)
        u = used.edges / scale
        n = np.rint(u)
        np.maximum(n, lowest, out=n)
        np.minimum(n, highest, out=n)
        u -= n
        cube = u * u
        cube *= u
        cube /= 3
        n /= 12
        cube += n
        errors[start : start + rows] = scale[:, 0] ** 3 * (np.diff(cube) @ counts)
    return errors / used.width


def squared_error(histogram: Histogram, scale: float, lowest: int, highest: int) -> float:
    """Return the expected sum of squared errors of one way to quantise; see `squared_errors`."""
    return float(squared_errors(histogram, [(scale, lowest, highest)])[0])


def expected_error(
    histogram: Histogram, rmin: float, rmax: float, *, qmin: int, qmax: int, symmetric: bool
) -> float:
    """Return the expected sum of squared errors when [rmin, rmax] is mapped onto [qmin, qmax]."""
    scale, zero_point = reference.choose_qparams(
        np.float32(rmin), np.float32(rmax), qmin, qmax, symmetric
    )
    return squared_error(histogram, float(scale), qmin - int(zero_point), qmax - int(zero_point))
