"""What a rule is, what it is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lowprec.calibration.codes import Codes, codes_of
from lowprec.calibration.ranges import Range
from lowprec.calibration.statistics import Histogram, squared_errors

if TYPE_CHECKING:
    from lowprec.config import Config


class TensorStatistics(Protocol):
    """What a rule may ask of an observed tensor."""

    @property
    def minimum(self) -> float:
        """Smallest finite value."""

    @property
    def maximum(self) -> float:
        """Largest finite value."""

    @property
    def batch_minimum(self) -> float:
        """Smallest finite value of the batch at hand; +inf where it did not reach the tensor."""

    @property
    def batch_maximum(self) -> float:
        """Largest finite value of the batch at hand; -inf where it did not reach the tensor."""

    def histogram(self) -> tuple[NDArray[np.int64], int, float]:
        """Return counts, the index of the first bin (bin 0 starts at real 0), and the width."""


class Rule(Protocol):
    """Decides the range of one tensor; a fresh one per tensor."""

    def end_batch(self, tensor: TensorStatistics) -> None:
        """Take note of one batch: its extremes. Called once per batch, in the batches' order."""

    def range(self, tensor: TensorStatistics) -> Range:
        """Return the range, after the last batch."""


RuleFactory = Callable[["Config"], Rule]
"""Makes the rule of one tensor. The scheme in the Config's `activations` is that tensor's own:
asymmetric or symmetric, never auto."""


class WholeRule:
    """A rule that looks at all values at once, not at batches."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def end_batch(self, tensor: TensorStatistics) -> None:
        """Nothing to note: the observer keeps what is needed."""


def histogram_of(tensor: TensorStatistics) -> Histogram:
    """Return the histogram of `tensor` in real units."""
    shared = getattr(tensor, "real_histogram", None)
    if isinstance(shared, Histogram):
        return shared
    counts, first, width = tensor.histogram()
    return Histogram(counts, first * width, width)


def clamped(tensor: TensorStatistics, rmin: float, rmax: float) -> tuple[float, float]:
    """Return the range cut to what was observed: bins reach further than values."""
    low, high = tensor.minimum, tensor.maximum
    return min(max(rmin, low), high), min(max(rmax, low), high)


def clipped_share(tensor: TensorStatistics, rmin: float, rmax: float) -> float:
    """Return the share of the observed values outside [rmin, rmax], 0..1."""
    histogram = histogram_of(tensor)
    below = histogram.share_below(rmin) if rmin > tensor.minimum else 0.0
    above = 1 - histogram.share_below(rmax) if rmax < tensor.maximum else 0.0
    return min(max(below + above, 0.0), 1.0)


def range_error(tensor: TensorStatistics, rmin: float, rmax: float, codes: Codes) -> float:
    """Return the expected sum of squared errors of the tensor's values on the codes they get."""
    return float(squared_errors(histogram_of(tensor).without_zeros, [codes.steps(rmin, rmax)])[0])


def describe_range(
    tensor: TensorStatistics,
    rmin: float,
    rmax: float,
    method: str,
    config: Config,
    *,
    note: str = "",
) -> Range:
    """Return [rmin, rmax] as a Range with the share it clips and the SQNR to expect of it.

    A symmetric range clips nothing on the side that it is longer than asked for.
    """
    codes = codes_of(config)
    power = histogram_of(tensor).power()
    error = range_error(tensor, rmin, rmax, codes)
    is_zero = tensor.minimum == tensor.maximum == 0
    largest = max(-rmin, rmax, 0.0)
    low, high = (-largest, largest) if codes.symmetric else (rmin, rmax)
    return Range(
        rmin=float(rmin),
        rmax=float(rmax),
        method=method,
        clipped=clipped_share(tensor, low, high),
        sqnr=float(10 * np.log10(power / error)) if not is_zero and error > 0 else None,
        note=note,
        symmetric=codes.symmetric,
    )
