"""Rules that make a range out of what was observed of one tensor.

| method         | range                                                                      |
|----------------|----------------------------------------------------------------------------|
| minmax         | smallest and largest value of all batches                                  |
| moving-average | exponential average of each batch's extremes: 0.99 so far + 0.01 new batch |
| percentile     | cuts off (100 - percentile) / 2 per cent of the values at either end       |
| auto           | per tensor, the candidate with the least expected squared error            |

A range always holds 0 (padding and Relu need an exact zero), which `choose_qparams` sees to.

`auto` compares minmax with `CANDIDATES` by the expected squared error on the very codes that the
tensor will get (a u8 with a zero point is no symmetric s8). Cutting tails is a bet that outliers
mean nothing to the rest of the network, and a histogram cannot know that: a candidate is out of the
question when it clips more than `MAX_CLIPPED` of the values, or when the clipped values hold more
than `MAX_CLIPPED_POWER` of the tensor's energy. So a mask of -10,000 in an attention layer keeps
its range, whatever share of the values it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lowprec.calibration.ranges import Range
from lowprec.calibration.statistics import Histogram, expected_error

if TYPE_CHECKING:
    from lowprec.config import Config

CANDIDATES = (99.999, 99.99)
"""Percentiles that `auto` tries beside minmax."""
MAX_CLIPPED = 1e-3
"""Share of the values that `auto` may clip."""
MAX_CLIPPED_POWER = 1e-2
"""Share of a tensor's squared values that the clipped error may be."""
MIN_GAIN = 1.01
"""Factor by which a candidate must lower the expected error; the wider range wins a tie."""
MOMENTUM = 0.99
"""Weight of the range so far in a moving average."""


class TensorStatistics(Protocol):
    """What a rule may ask of an observed tensor; `lowprec._ext._core.TensorObserver` has it."""

    @property
    def minimum(self) -> float:
        """Smallest finite value."""

    @property
    def maximum(self) -> float:
        """Largest finite value."""

    @property
    def batch_minimum(self) -> float:
        """Smallest finite value of the last batch."""

    @property
    def batch_maximum(self) -> float:
        """Largest finite value of the last batch."""

    def histogram(self) -> tuple[NDArray[np.int64], int, float]:
        """Return counts, the index of the first bin (bin 0 starts at real 0), and the width."""


class Rule(Protocol):
    """Decides the range of one tensor; a fresh one per tensor."""

    def end_batch(self, tensor: TensorStatistics) -> None:
        """Take note of the batch that `tensor` has just seen."""

    def range(self, tensor: TensorStatistics) -> Range:
        """Return the range, after the last batch."""


RuleFactory = Callable[["Config"], Rule]


class MinMax:
    """The smallest and the largest value of all batches."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def end_batch(self, tensor: TensorStatistics) -> None:
        """Nothing to note: the observer keeps the extremes."""

    def range(self, tensor: TensorStatistics) -> Range:
        """Return [minimum, maximum]."""
        return describe_range(tensor, tensor.minimum, tensor.maximum, "minmax", self._config)


class MovingAverage:
    """An exponential average of the extremes of each batch, the first batch being the start."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rmin: float | None = None
        self._rmax: float | None = None

    def end_batch(self, tensor: TensorStatistics) -> None:
        """Move a hundredth of the way to this batch's extremes."""
        rmin, rmax = tensor.batch_minimum, tensor.batch_maximum
        if not (np.isfinite(rmin) and np.isfinite(rmax)):
            return  # the batch never reached this tensor
        if self._rmin is None or self._rmax is None:
            self._rmin, self._rmax = rmin, rmax
        else:
            self._rmin = MOMENTUM * self._rmin + (1 - MOMENTUM) * rmin
            self._rmax = MOMENTUM * self._rmax + (1 - MOMENTUM) * rmax

    def range(self, tensor: TensorStatistics) -> Range:
        """Return the average so far."""
        rmin = tensor.minimum if self._rmin is None else self._rmin
        rmax = tensor.maximum if self._rmax is None else self._rmax
        return describe_range(tensor, rmin, rmax, "moving-average", self._config)


class Percentile:
    """Cuts off the tails that hold (100 - percentile) / 2 per cent of the values each."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def end_batch(self, tensor: TensorStatistics) -> None:
        """Nothing to note: the histogram holds all values."""

    def range(self, tensor: TensorStatistics) -> Range:
        """Return the two quantiles, interpolated within their bins."""
        return percentile_range(tensor, self._config.calibration.percentile, self._config)


class Auto:
    """The candidate with the least expected squared error; see the module's text for the limits."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def end_batch(self, tensor: TensorStatistics) -> None:
        """Nothing to note: the histogram holds all values."""

    def range(self, tensor: TensorStatistics) -> Range:
        """Return minmax, or the best percentile where it is better and safe."""
        histogram = histogram_of(tensor)
        best = describe_range(tensor, tensor.minimum, tensor.maximum, "minmax", self._config)
        least = _error(histogram, best, self._config)
        for percentile in CANDIDATES:
            candidate = percentile_range(tensor, percentile, self._config)
            error = _error(histogram, candidate, self._config)
            is_safe = (
                candidate.clipped <= MAX_CLIPPED and error <= MAX_CLIPPED_POWER * histogram.power()
            )
            if is_safe and error * MIN_GAIN < least:
                best, least = candidate, error
        return best


RULES: dict[str, RuleFactory] = {
    "auto": Auto,
    "minmax": MinMax,
    "moving-average": MovingAverage,
    "percentile": Percentile,
}
"""Rules by the names that `calibration.method` accepts."""


def histogram_of(tensor: TensorStatistics) -> Histogram:
    """Return the histogram of `tensor` in real units."""
    counts, first, width = tensor.histogram()
    return Histogram(counts, first * width, width)


def percentile_range(tensor: TensorStatistics, percentile: float, config: Config) -> Range:
    """Return the range that keeps `percentile` per cent of the values, equal tails cut off."""
    histogram = histogram_of(tensor)
    tail = (100 - percentile) / 200
    # Within a bin values count as evenly spread, so a quantile may lie outside what was observed.
    low, high = tensor.minimum, tensor.maximum
    rmin = min(max(histogram.quantile(tail), low), high)
    rmax = min(max(histogram.quantile(1 - tail), low), high)
    return describe_range(tensor, rmin, rmax, f"percentile {percentile:g}", config)


def describe_range(
    tensor: TensorStatistics, rmin: float, rmax: float, method: str, config: Config
) -> Range:
    """Return [rmin, rmax] as a Range with the share it clips and the SQNR to expect of it."""
    histogram = histogram_of(tensor)
    chosen = Range(float(rmin), float(rmax), method)
    power, error = histogram.power(), _error(histogram, chosen, config)
    is_zero = tensor.minimum == tensor.maximum == 0
    below = histogram.share_below(rmin) if rmin > tensor.minimum else 0.0
    above = 1 - histogram.share_below(rmax) if rmax < tensor.maximum else 0.0
    return Range(
        rmin=chosen.rmin,
        rmax=chosen.rmax,
        method=method,
        clipped=min(max(below + above, 0.0), 1.0),
        sqnr=float(10 * np.log10(power / error)) if not is_zero and error > 0 else None,
    )


def _error(histogram: Histogram, chosen: Range, config: Config) -> float:
    limits = np.iinfo(np.uint8 if config.activations.dtype == "u8" else np.int8)
    return expected_error(
        histogram,
        chosen.rmin,
        chosen.rmax,
        qmin=int(limits.min),
        qmax=int(limits.max),
        symmetric=config.activations.scheme == "symmetric",
    )
