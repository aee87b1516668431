"""How well a model's outputs agree with another's, summed up batch by batch in constant memory."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from lowprec.errors import ModelError

Array = NDArray[np.generic]

# What an output of the same computation in another order of summation keeps, in dB and as a share.
SAME_FLOATS = 50.0
SAME_HALVES = 25.0
SAME_CODES = 25.0  # through codes: a sum rounded differently moves some of them by one
SAME_INTEGERS = 0.98
NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class Agreement:
    """The agreement of one output over all samples.

    Attributes:
        name: The output.
        sqnr: Signal to noise, 10 log10(sum a^2 / sum (a - b)^2) dB; infinite for equal outputs.
        cosine: Cosine of the angle between all values of both, -1..1.
        max_error: Largest |a - b|.
        max_value: Largest |a|, to compare `max_error` with.
        argmax: Share of positions along the last axis at which both have their largest value at the
            same place, 0..1; None for outputs whose last axis has fewer than two entries.
        equal: Share of values that are the same, 0..1.
        samples: Feeds compared.
    """

    name: str
    sqnr: float
    cosine: float
    max_error: float
    max_value: float
    argmax: float | None
    equal: float
    samples: int

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON data; an infinite SQNR is None."""
        values = asdict(self)
        return {
            key: None if isinstance(item, float) and not math.isfinite(item) else item
            for key, item in values.items()
        }


class AgreementSum:
    """Collects the agreement of one output."""

    def __init__(self, name: str) -> None:
        """Start with no samples."""
        self._name = name
        self._signal = self._other = self._noise = self._product = 0.0
        self._max_error = self._max_value = 0.0
        self._matches = self._positions = 0
        self._equal = self._values = 0
        self._samples = 0

    def update(self, expected: Array, actual: Array) -> None:
        """Add one pair of outputs, both of any numeric dtype and the same shape.

        Raises:
            ModelError: the shapes differ.
        """
        if expected.shape != actual.shape:
            raise ModelError(
                f"output '{self._name}' has shape {list(expected.shape)} in one model and "
                f"{list(actual.shape)} in the other; compare models with the same outputs"
            )
        self._samples += 1
        self._values += expected.size
        self._equal += int(np.count_nonzero(expected == actual))
        if expected.size == 0 or expected.dtype.kind not in "biuf":
            return
        a = expected.astype(np.float64)
        b = actual.astype(np.float64)
        error = a - b
        self._signal += float(np.vdot(a, a))
        self._other += float(np.vdot(b, b))
        self._product += float(np.vdot(a, b))
        self._noise += float(np.vdot(error, error))
        self._max_error = max(self._max_error, float(np.abs(error).max()))
        self._max_value = max(self._max_value, float(np.abs(a).max()))
        if a.ndim and a.shape[-1] > 1:
            same = a.argmax(-1) == b.argmax(-1)
            self._matches += int(np.count_nonzero(same))
            self._positions += same.size

    def result(self) -> Agreement:
        """Return the agreement of everything added."""
        return Agreement(
            name=self._name,
            sqnr=_decibels(self._signal, self._noise),
            cosine=_cosine(self._product, self._signal, self._other),
            max_error=self._max_error,
            max_value=self._max_value,
            argmax=self._matches / self._positions if self._positions else None,
            equal=self._equal / self._values if self._values else 1.0,
            samples=self._samples,
        )


def disagreement(name: str, expected: Array, actual: Array, *, through_codes: bool = False) -> str:
    """Return in words how two results of one computation differ; empty where rounding explains it.

    Args:
        name: Of the output.
        expected: Any numeric dtype.
        actual: The same dtype and shape, or this says so.
        through_codes: Whether the computation rounds to codes on its way.
    """
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return (
            f"output '{name}' is {actual.dtype}{list(actual.shape)} in place of "
            f"{expected.dtype}{list(expected.shape)}"
        )
    if expected.dtype.kind in "biu":
        equal = np.count_nonzero(expected == actual)
        if equal < SAME_INTEGERS * expected.size:
            return f"output '{name}' has {equal} of {expected.size} values in common"
        return ""
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return f"output '{name}' is NaN or infinite at other places"
    a, b = a[finite], b[finite]
    least = SAME_FLOATS if expected.dtype.itemsize >= 4 else SAME_HALVES
    least = min(least, SAME_CODES) if through_codes else least
    kept = _decibels(float(np.vdot(a, a)), float(np.vdot(a - b, a - b)))
    if kept < least and a.size and np.abs(a - b).max() > NEGLIGIBLE:
        return f"output '{name}' agrees to {kept:.1f} dB only"
    return ""


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _cosine(product: float, signal: float, other: float) -> float:
    if signal == 0 or other == 0:
        return 1.0 if signal == other else 0.0
    return min(1.0, product / math.sqrt(signal * other))
