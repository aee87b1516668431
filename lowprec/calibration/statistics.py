"""What a histogram says about a quantised tensor: quantiles, clipped share, expected error.

Within a bin the values are taken as evenly spread. A histogram is (counts, origin, width): counts
of shape (bins,) int64, `origin` the left edge of the first bin and `width` the width of each, real
units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowprec.numerics import reference


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins of equal width; see the module's text for the fields."""

    counts: NDArray[np.int64]
    origin: float
    width: float

    @property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the bins, shape (bins + 1,)."""
        return self.origin + self.width * np.arange(len(self.counts) + 1, dtype=np.float64)

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    def quantile(self, fraction: float) -> float:
        """Return the value below which `fraction` (0..1) of all lie, interpolated in its bin."""
        wanted = fraction * self.total
        below = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.float64)
        bin_index = int(np.searchsorted(below[1:], wanted, side="left"))
        bin_index = min(bin_index, len(self.counts) - 1)
        count = float(self.counts[bin_index])
        inside = (wanted - below[bin_index]) / count if count else 0.0
        return float(self.origin + self.width * (bin_index + min(max(inside, 0.0), 1.0)))

    def share_below(self, bound: float) -> float:
        """Return the share of the values below `bound`, 0..1, interpolated in its bin."""
        if not self.total:
            return 0.0
        inside = np.clip((bound - self.edges[:-1]) / self.width, 0, 1)
        return float((self.counts * inside).sum() / self.total)

    def power(self) -> float:
        """Return the sum of the squared values."""
        cubes = self.edges**3 / 3
        return float((self.counts * np.diff(cubes)).sum() / self.width)


def squared_error(histogram: Histogram, scale: float, lowest: int, highest: int) -> float:
    """Return the expected sum of squared errors of quantising what `histogram` counted.

    With u = x / scale and n = u rounded to a whole number and clamped to [lowest, highest], the
    error of x is scale * (u - n), and its square integrates to scale^3 * G(u), G(u) = n / 12 + (u -
    n)^3 / 3, which is continuous also where n is clamped.

    Args:
        histogram: Observed values.
        scale: Real units per code, > 0.
        lowest: qmin - zero_point.
        highest: qmax - zero_point.
    """
    u = histogram.edges / scale
    n = np.clip(np.rint(u), lowest, highest)
    integral = n / 12 + (u - n) ** 3 / 3
    return float(scale**3 * (histogram.counts * np.diff(integral)).sum() / histogram.width)


def expected_error(
    histogram: Histogram, rmin: float, rmax: float, *, qmin: int, qmax: int, symmetric: bool
) -> float:
    """Return the expected sum of squared errors when [rmin, rmax] is mapped onto [qmin, qmax]."""
    scale, zero_point = reference.choose_qparams(
        np.float32(rmin), np.float32(rmax), qmin, qmax, symmetric
    )
    return squared_error(histogram, float(scale), qmin - int(zero_point), qmax - int(zero_point))
