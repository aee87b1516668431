"""What one tensor's values look like, in constant memory.

Bins are anchored at 0 and as wide as a power of two: a value x is in bin floor(x / width). When the
range outgrows the bins, the width doubles and neighbours merge, which is exact. So the counts do
not depend on the order or the cutting of the data, and histograms of parts merge into the histogram
of the whole.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowprec._ext import _core
from lowprec.errors import DataError, InputError
from lowprec.numerics import _kernels
from lowprec.numerics._arguments import real_array


class Histogram:
    """A streaming histogram of float32 values with exact extremes.

    The width is the smallest power of two (at least 2**-126) for which all values and 0 fit into
    `bins` bins. NaN and infinity are counted in `nonfinite` and nowhere else.

    Args:
        bins: Number of bins, 16 to 65536.

    Raises:
        InputError: `bins` out of range.

    Example:
        >>> histogram = Histogram()
        >>> histogram.update(np.arange(101, dtype=np.float32))
        >>> histogram.maximum, histogram.count, histogram.width
        (100.0, 101, 0.0625)
    """

    def __init__(self, bins: int = 2048) -> None:
        low, high = _core.TensorObserver.MIN_BINS, _core.TensorObserver.MAX_BINS
        if not low <= bins <= high:
            raise InputError(f"bins is {bins}; expected {low} to {high}")
        self._observer = _kernels.new_observer(bins)

    def update(self, x: ArrayLike) -> None:
        """Count the values of `x`, any shape and size.

        Raises:
            InputError: `x` does not hold floats.
        """
        self._observer.update(real_array(x, "x").reshape(-1))

    def merge(self, other: Histogram) -> None:
        """Count what `other` counted too; it stays as it is.

        Raises:
            InputError: `other` has another number of bins.
        """
        if other.bins != self.bins:
            raise InputError(
                f"the other histogram has {other.bins} bins; expected {self.bins}, as many as here"
            )
        self._observer.merge(other._observer)

    @property
    def bins(self) -> int:
        """Number of bins."""
        return self._observer.bins

    @property
    def count(self) -> int:
        """Number of finite values seen."""
        return self._observer.count

    @property
    def nonfinite(self) -> int:
        """Number of NaN and infinite values seen."""
        return self._observer.nonfinite

    @property
    def minimum(self) -> float:
        """Smallest finite value seen; +inf before the first. A zero is +0."""
        return self._observer.minimum

    @property
    def maximum(self) -> float:
        """Largest finite value seen; -inf before the first. A zero is +0."""
        return self._observer.maximum

    @property
    def counts(self) -> NDArray[np.int64]:
        """Values per bin, shape (bins,); bin i begins at origin + i * width."""
        return self._observer.histogram()[0]

    @property
    def origin(self) -> float:
        """Left edge of the first bin in real units: 0, or less where negative values were seen."""
        _, first, width = self._observer.histogram()
        return first * width

    @property
    def width(self) -> float:
        """Width of a bin in real units, a power of two."""
        return self._observer.histogram()[2]

    @property
    def edges(self) -> NDArray[np.float64]:
        """The bins + 1 borders in real units, exact."""
        _, first, width = self._observer.histogram()
        return np.asarray((first + np.arange(self.bins + 1)) * width, np.float64)

    def percentile(self, p: ArrayLike) -> NDArray[np.float64]:
        """Return the value below which `p` percent of the finite values lie.

        Values are taken as evenly spread inside their bin, so the result is off by at most one
        width; 0 and 100 give the exact extremes.

        Args:
            p: Percentages in [0, 100], any shape.

        Returns:
            float64 of `p`'s shape, real units, within [minimum, maximum].

        Raises:
            DataError: nothing finite has been seen.
            InputError: a percentage outside [0, 100].
        """
        percent = np.asarray(p, np.float64)
        if not ((percent >= 0) & (percent <= 100)).all():
            raise InputError(f"percentage {p!r} is out of range; expected 0 to 100")
        if self.count == 0:
            raise DataError(
                "the histogram holds no finite value yet: call update() with data first"
            )
        counts, first, width = self._observer.histogram()
        total = np.cumsum(counts)
        wanted = percent / 100 * self.count
        bin_ = np.searchsorted(total, wanted, side="left").clip(0, self.bins - 1)
        # An empty first bin can only be chosen for p = 0, which is the minimum anyway.
        inside = (wanted - (total[bin_] - counts[bin_])) / np.maximum(counts[bin_], 1)
        value = (first + bin_ + inside) * width
        value = np.where(percent == 0, self.minimum, np.where(percent == 100, self.maximum, value))
        return np.clip(value, self.minimum, self.maximum)

    def __repr__(self) -> str:
        """Say what was seen, in one line."""
        if self.count == 0:
            return f"Histogram(bins={self.bins}, empty)"
        return (
            f"Histogram(bins={self.bins}, count={self.count}, minimum={self.minimum:g}, "
            f"maximum={self.maximum:g}, width={self.width:g})"
        )
