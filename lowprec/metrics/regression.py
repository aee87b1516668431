"""Scores of numbers: squared and absolute errors, correlations, a loss that the model computes."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lowprec.errors import DataError
from lowprec.metrics.metric import Metric, Outputs
from lowprec.optional import require

Numbers = NDArray[np.float64]


class MSE(Metric, kw_only=True):
    """Mean of (output - label)^2 over all elements, in f64; lower is better."""

    higher_is_better: ClassVar[bool] = False

    def reset(self) -> None:
        """Forget all batches."""
        self._total = 0.0
        self._count = 0

    def update(self, outputs: Outputs, labels: object) -> None:
        """Add a batch."""
        values, known = _pairs(self, outputs, labels)
        self._total += float(self._errors(values - known).sum())
        self._count += values.size

    def _errors(self, difference: Numbers) -> Numbers:
        return difference * difference

    def result(self) -> float:
        """Return the mean."""
        return self._mean(self._total, self._count)


class RMSE(MSE, kw_only=True):
    """Square root of MSE; lower is better."""

    def result(self) -> float:
        """Return the root of the mean."""
        return float(np.sqrt(super().result()))


class MAE(MSE, kw_only=True):
    """Mean of |output - label| over all elements; lower is better."""

    def _errors(self, difference: Numbers) -> Numbers:
        return np.abs(difference)


class Loss(Metric, kw_only=True):
    """Mean of what the model puts out, for models that compute their own loss; lower is better."""

    higher_is_better: ClassVar[bool] = False

    def reset(self) -> None:
        """Forget all batches."""
        self._total = 0.0
        self._count = 0

    def update(self, outputs: Outputs, labels: object) -> None:
        """Add a batch; labels are not looked at."""
        values = self._chosen(outputs)
        self._total += float(values.astype(np.float64).sum())
        self._count += values.size

    def result(self) -> float:
        """Return the mean."""
        return self._mean(self._total, self._count)


class Pearson(Metric, kw_only=True):
    """Pearson's correlation of all outputs with all labels, by SciPy (extra `metrics`)."""

    def reset(self) -> None:
        """Forget all batches."""
        self._values: list[Numbers] = []
        self._known: list[Numbers] = []

    def update(self, outputs: Outputs, labels: object) -> None:
        """Add a batch."""
        values, known = _pairs(self, outputs, labels)
        self._values.append(values.ravel())
        self._known.append(known.ravel())

    def result(self) -> float:
        """Return the correlation.

        Raises:
            DataError: fewer than two samples, or all outputs or labels are equal.
        """
        self._mean(0.0, len(self._values))
        values, known = np.concatenate(self._values), np.concatenate(self._known)
        if len(values) < 2 or np.ptp(values) == 0 or np.ptp(known) == 0:
            raise DataError(
                f"the metric {self.name} is not defined for {len(values)} samples whose outputs or "
                "labels are all equal"
            )
        return self._correlation(values, known)

    def _correlation(self, values: Numbers, known: Numbers) -> float:
        scipy = require("scipy.stats", "metrics", "the metric Pearson")
        return float(scipy.pearsonr(values, known)[0])


class Spearman(Pearson, kw_only=True):
    """Correlation of the ranks, equal values sharing their mean rank, by SciPy."""

    def _correlation(self, values: Numbers, known: Numbers) -> float:
        scipy = require("scipy.stats", "metrics", "the metric Spearman")
        return float(scipy.spearmanr(values, known)[0])


def _pairs(metric: Metric, outputs: Outputs, labels: object) -> tuple[Numbers, Numbers]:
    """Return outputs and labels of the same shape; axes of one entry may differ."""
    values, known = metric._chosen(outputs), metric._labels(labels)
    if values.shape != known.shape:
        if values.size != known.size or np.squeeze(values).shape != np.squeeze(known).shape:
            raise metric._misfit(values, known)
        known = known.reshape(values.shape)
    return values.astype(np.float64), known.astype(np.float64)
