"""What a tensor's values look like, in constant memory: extremes, counts, moments, a histogram.

Without a given range, bins are anchored at 0 and as wide as a power of two: a value x is in bin
floor(x / width). When the values outgrow the bins, the width doubles and neighbours merge, which is
exact. Sums are exact too. So nothing depends on the order or the cutting of the data, on threads or
on the instruction set, and histograms of parts merge into the histogram of the whole, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowprec._ext import _core
from lowprec.errors import DataError, InputError
from lowprec.numerics import _kernels
from lowprec.numerics._arguments import float_source, normalised_axis

T = TypeVar("T")


class Histogram:
    """A streaming histogram of float32 values, with exact extremes and moments.

    NaN and infinity are counted in `nan` and `infinite` and are in no other number.

    With `axis`, each index along that axis of the data (channel) has a histogram of its own, and
    every property and result is an array with the channels first.

    Args:
        bins: Number of bins, 16 to 65536; with `range` from 1 on.
        range: (low, high) fixes the bins as numpy.histogram does for float32: the edges are
            numpy.linspace(low, high, bins + 1) rounded to float32; a value belongs to the bin whose
            edges it lies between, the left one included, in the last bin the right one too. None:
            the width is the smallest power of two (at least 2**-126) for which all values and 0 fit
            into the bins.
        axis: The channel axis of every array that will come; None for one histogram of all.

    Raises:
        InputError: `bins` out of range; `range` not finite, empty, or too narrow for so many
            different float32 edges.

    Example:
        >>> histogram = Histogram()
        >>> histogram.update(np.arange(101, dtype=np.float32))
        >>> histogram.maximum, histogram.count, histogram.width, histogram.mean
        (100.0, 101, 0.0625, 50.0)
    """

    def __init__(
        self,
        bins: int = 2048,
        *,
        range: tuple[float, float] | None = None,
        axis: int | None = None,
    ) -> None:
        low, high = _core.TensorObserver.MIN_BINS, _core.TensorObserver.MAX_BINS
        if not (low if range is None else 1) <= bins <= high:
            raise InputError(f"bins is {bins}; expected {low} to {high} (from 1 with range=)")
        self._bins = bins
        self._axis = axis
        self._range = None if range is None else (float(range[0]), float(range[1]))
        self._edges = None if self._range is None else _fixed_edges(self._range, bins)
        # One per channel, made when the first array says how many there are.
        self._observers = [] if axis is not None else [self._new()]

    def _new(self) -> _core.TensorObserver:
        return _kernels.new_observer(self._bins, moments=True, edges=self._edges)

    def update(self, x: ArrayLike) -> None:
        """Count the values of `x`, any shape, strides and size; float32 after rounding to it.

        Raises:
            InputError: `x` does not hold floats, has no such axis, or other channels than before.
        """
        source = float_source(x, "x")
        if self._axis is None:
            self._observers[0].update(source)
            return
        axis = normalised_axis(self._axis, source.ndim)
        channels = source.shape[axis]
        if not self._observers:
            self._observers = [self._new() for _ in np.empty(channels)]
        if channels != len(self._observers):
            raise InputError(
                f"x has {channels} channels along axis {self._axis}; expected "
                f"{len(self._observers)}, as many as in the arrays before"
            )
        if source.size:
            first = np.moveaxis(source, axis, 0)[:1]
            _core.observe_channels(self._observers, first, source.strides[axis])

    def merge(self, other: Histogram) -> None:
        """Count what `other` counted too; it stays as it is.

        Raises:
            InputError: `other` has other bins, another range, axis or number of channels.
        """
        for name, here, there in (
            ("bins", self._bins, other._bins),
            ("range", self._range, other._range),
            ("axis", self._axis, other._axis),
        ):
            if here != there:
                raise InputError(
                    f"the other histogram has {name}={there}; expected {here}, the same as here"
                )
        if not other._observers:
            return
        if not self._observers:
            self._observers = [self._new() for _ in other._observers]
        if len(self._observers) != len(other._observers):
            raise InputError(
                f"the other histogram has {len(other._observers)} channels; expected "
                f"{len(self._observers)}, as many as here"
            )
        for mine, its in zip(self._observers, other._observers, strict=True):
            mine.merge(its)

    def _each(self, value: Callable[[_core.TensorObserver], T], dtype: Any) -> Any:
        """Return `value` of the one observer, or an array of all of them, channels first."""
        if self._axis is None:
            return value(self._observers[0])
        return np.array([value(observer) for observer in self._observers], dtype)

    @property
    def bins(self) -> int:
        """Number of bins."""
        return self._bins

    @property
    def range(self) -> tuple[float, float] | None:
        """The range that was given, or None where bins grow."""
        return self._range

    @property
    def axis(self) -> int | None:
        """The channel axis of the data, or None."""
        return self._axis

    @property
    def count(self) -> Any:
        """Number of finite values seen."""
        return self._each(lambda o: o.count, np.int64)

    @property
    def nonfinite(self) -> Any:
        """Number of NaN and infinite values seen."""
        return self._each(lambda o: o.nonfinite, np.int64)

    @property
    def nan(self) -> Any:
        """Number of NaN seen."""
        return self._each(lambda o: o.nan, np.int64)

    @property
    def infinite(self) -> Any:
        """Number of infinite values seen."""
        return self._each(lambda o: o.nonfinite - o.nan, np.int64)

    @property
    def below(self) -> Any:
        """Number of finite values below the range; 0 without one."""
        return self._each(lambda o: o.below, np.int64)

    @property
    def above(self) -> Any:
        """Number of finite values above the range; 0 without one."""
        return self._each(lambda o: o.above, np.int64)

    @property
    def minimum(self) -> Any:
        """Smallest finite value seen; +inf before the first. A zero is +0."""
        return self._each(lambda o: o.minimum, np.float64)

    @property
    def maximum(self) -> Any:
        """Largest finite value seen; -inf before the first. A zero is +0."""
        return self._each(lambda o: o.maximum, np.float64)

    @property
    def absolute_maximum(self) -> Any:
        """Largest magnitude of a finite value seen; 0 before the first."""
        return self._each(lambda o: max(-o.minimum, o.maximum, 0.0), np.float64)

    @property
    def sum(self) -> Any:
        """Sum of the finite values, exact, then rounded once to float64."""
        return self._each(lambda o: float(_sums(o)[0]), np.float64)

    @property
    def sum_of_squares(self) -> Any:
        """Sum of the squares of the finite values, exact, then rounded once to float64."""
        return self._each(lambda o: float(_sums(o)[1]), np.float64)

    @property
    def mean(self) -> Any:
        """Exact mean of the finite values, rounded once to float64; NaN before the first."""
        return self._each(lambda o: float(_sums(o)[0] / o.count) if o.count else math.nan, float)

    @property
    def variance(self) -> Any:
        """Exact mean of (x - mean)**2, rounded once to float64; NaN before the first value."""
        return self._each(_variance, np.float64)

    @property
    def standard_deviation(self) -> Any:
        """Square root of `variance`."""
        return self._each(lambda o: math.sqrt(_variance(o)), np.float64)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Values per bin, shape (bins,); bin i begins at edges[i]."""
        counts = [observer.histogram()[0] for observer in self._observers]
        return counts[0] if self._axis is None else np.reshape(counts, (-1, self._bins))

    @property
    def origin(self) -> Any:
        """Left edge of the first bin in real units; 0, or less with negative values, if growing."""
        return self._each(lambda o: float(self._edges_of(o)[0]), np.float64)

    @property
    def width(self) -> Any:
        """Width of a bin in real units: a power of two or, with a range, (high - low) / bins."""
        if self._range is None:
            return self._each(lambda o: o.histogram()[2], np.float64)
        low, high = self._range
        return self._each(lambda o: (high - low) / self._bins, np.float64)

    @property
    def edges(self) -> NDArray[np.float64]:
        """The bins + 1 borders in real units, exact."""
        edges = [self._edges_of(observer) for observer in self._observers]
        return edges[0] if self._axis is None else np.reshape(edges, (-1, self._bins + 1))

    def _edges_of(self, observer: _core.TensorObserver) -> NDArray[np.float64]:
        if self._edges is not None:
            return self._edges.astype(np.float64)
        _, first, width = observer.histogram()
        return np.asarray((first + np.arange(self._bins + 1)) * width, np.float64)

    def percentile(self, p: ArrayLike) -> NDArray[np.float64]:
        """Return the value below which `p` percent of the finite values lie.

        Values are taken as evenly spread inside their bin, so the result is off by at most one
        width; 0 and 100 give the exact extremes. With a range, values outside it count at the
        extremes.

        Args:
            p: Percentages in [0, 100], any shape.

        Returns:
            float64 of `p`'s shape (with `axis`, channels first), real units, within [minimum,
            maximum].

        Raises:
            DataError: nothing finite has been seen (in some channel).
            InputError: a percentage outside [0, 100].
        """
        percent = np.asarray(p, np.float64)
        if not ((percent >= 0) & (percent <= 100)).all():
            raise InputError(f"percentage {p!r} is out of range; expected 0 to 100")
        if not self._observers or any(observer.count == 0 for observer in self._observers):
            raise DataError(
                "the histogram holds no finite value yet: call update() with data first"
            )
        values = [self._percentile(observer, percent) for observer in self._observers]
        return values[0] if self._axis is None else np.stack(values)

    def _percentile(
        self, observer: _core.TensorObserver, percent: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        counts, edges = observer.histogram()[0], self._edges_of(observer)
        minimum, maximum, count = observer.minimum, observer.maximum, observer.count
        if self._edges is not None:
            counts = np.concatenate([[observer.below], counts, [observer.above]])
            edges = np.concatenate([[min(minimum, edges[0])], edges, [max(maximum, edges[-1])]])
        total = np.cumsum(counts)
        wanted = percent / 100 * count
        bin_ = np.searchsorted(total, wanted, side="left").clip(0, len(counts) - 1)
        # An empty first bin can only be chosen for p = 0, which is the minimum anyway.
        inside = (wanted - (total[bin_] - counts[bin_])) / np.maximum(counts[bin_], 1)
        value = edges[bin_] + inside * (edges[bin_ + 1] - edges[bin_])
        value = np.where(percent == 0, minimum, np.where(percent == 100, maximum, value))
        return np.clip(value, minimum, maximum)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to merge this histogram."""
        return {
            "bins": self._bins,
            "range": self._range,
            "axis": self._axis,
            "states": [observer.state() for observer in self._observers],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become the histogram that __getstate__ was asked of."""
        Histogram.__init__(self, state["bins"], range=state["range"], axis=state["axis"])
        self._observers = [self._new() for _ in state["states"]]
        for observer, numbers in zip(self._observers, state["states"], strict=True):
            observer.set_state(numbers)

    def __repr__(self) -> str:
        """Say what was seen, in one line."""
        channels = "" if self._axis is None else f", channels={len(self._observers)}"
        count = sum(observer.count for observer in self._observers)
        if count == 0:
            return f"Histogram(bins={self._bins}{channels}, empty)"
        return (
            f"Histogram(bins={self._bins}{channels}, count={count}, "
            f"minimum={min(o.minimum for o in self._observers):g}, "
            f"maximum={max(o.maximum for o in self._observers):g}, width={np.max(self.width):g})"
        )


def _fixed_edges(limits: tuple[float, float], bins: int) -> NDArray[np.float32]:
    low, high = limits
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"range is {limits}; expected two finite numbers, the smaller one first")
    with np.errstate(over="ignore"):
        edges = np.linspace(low, high, bins + 1).astype(np.float32)
    if not (np.isfinite(edges).all() and (edges[1:] > edges[:-1]).all()):
        raise InputError(
            f"range {limits} has no {bins + 1} different float32 edges; expected a wider range "
            "within float32, or fewer bins"
        )
    return edges


def _sums(observer: _core.TensorObserver) -> tuple[Fraction, Fraction]:
    """Return the exact sums of the values and of their squares."""
    unit = Fraction(2) ** observer.LOWEST
    values, squares = observer.sums()
    return values * unit, squares * unit


def _variance(observer: _core.TensorObserver) -> float:
    if not observer.count:
        return math.nan
    values, squares = _sums(observer)
    return float(squares / observer.count - (values / observer.count) ** 2)
