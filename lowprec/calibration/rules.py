"""Rules that make a range out of what was observed of one tensor.

| method         | range                                                                       |
|----------------|-----------------------------------------------------------------------------|
| minmax         | smallest and largest value of all batches                                   |
| moving-average | each batch's extremes averaged: `momentum` so far, the rest the new batch   |
| percentile     | cuts off (100 - percentile) / 2 per cent of the values at either end        |
| entropy        | least Kullback-Leibler divergence (`entropy`, `searches`)                   |
| mse            | least expected squared error (`searches`)                                   |
| l2             | torch's search on the histogram (`searches`)                                |
| auto           | per tensor, the candidate with the least expected squared error (`automatic`) |

A range always holds 0 (padding and Relu need an exact zero), which `choose_qparams` sees to. A
symmetric range is +-max(|rmin|, |rmax|) of what a rule returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lowprec.calibration.automatic import Auto
from lowprec.calibration.protocol import (
    RuleFactory,
    TensorStatistics,
    WholeRule,
    clamped,
    describe_range,
    histogram_of,
)
from lowprec.calibration.ranges import Range
from lowprec.calibration.searches import L2, Entropy, SquaredError
from lowprec.calibration.settings import settings_of

if TYPE_CHECKING:
    from lowprec.config import Config

__all__ = ["RULES", "MinMax", "MovingAverage", "Percentile", "RuleFactory", "TensorStatistics"]


class MinMax(WholeRule):
    """The smallest and the largest value of all batches."""

    def range(self, tensor: TensorStatistics) -> Range:
        """Return [minimum, maximum]."""
        return describe_range(tensor, tensor.minimum, tensor.maximum, "minmax", self._config)


class MovingAverage:
    """An exponential average of the extremes of each batch, the first batch being the start.

    It depends on the order of the batches, by definition.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._momentum = settings_of(config).momentum
        self._rmin: float | None = None
        self._rmax: float | None = None

    def end_batch(self, tensor: TensorStatistics) -> None:
        """Move towards this batch's extremes."""
        rmin, rmax = tensor.batch_minimum, tensor.batch_maximum
        if not (np.isfinite(rmin) and np.isfinite(rmax)):
            return  # the batch never reached this tensor
        if self._rmin is None or self._rmax is None:
            self._rmin, self._rmax = rmin, rmax
        else:
            self._rmin = self._momentum * self._rmin + (1 - self._momentum) * rmin
            self._rmax = self._momentum * self._rmax + (1 - self._momentum) * rmax

    def range(self, tensor: TensorStatistics) -> Range:
        """Return the average so far."""
        rmin = tensor.minimum if self._rmin is None else self._rmin
        rmax = tensor.maximum if self._rmax is None else self._rmax
        return describe_range(tensor, rmin, rmax, "moving-average", self._config)


class Percentile(WholeRule):
    """Cuts off the tails: half of the rest at either end, or for symmetric codes that of |x|."""

    def range(self, tensor: TensorStatistics) -> Range:
        """Return the quantiles, interpolated within their bins."""
        settings = settings_of(self._config)
        rest = (100 - settings.percentile) / 100
        histogram = histogram_of(tensor)
        if settings.percentile_of_magnitudes:
            limit = histogram.quantile_of_magnitudes(1 - rest)
            rmin, rmax = -limit, limit
        else:
            rmin, rmax = histogram.quantile(rest / 2), histogram.quantile(1 - rest / 2)
        # Within a bin values count as evenly spread, so a quantile may lie outside what was seen.
        rmin, rmax = clamped(tensor, rmin, rmax)
        name = f"percentile {settings.percentile:g}"
        return describe_range(tensor, rmin, rmax, name, self._config)


RULES: dict[str, RuleFactory] = {
    "auto": Auto,
    "entropy": Entropy,
    "l2": L2,
    "minmax": MinMax,
    "moving-average": MovingAverage,
    "mse": SquaredError,
    "percentile": Percentile,
}
"""Rules by the names that `calibration.method` accepts."""
