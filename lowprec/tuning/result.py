"""What a search returns, and what it writes into the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lowprec.tuning.criterion import Criterion
from lowprec.tuning.trial import Trial

if TYPE_CHECKING:
    from lowprec.models import QuantizedModel


@dataclass(frozen=True)
class TuningResult:
    """The answer of a search: there is always one.

    Attributes:
        model: The best model: of those that meet the criterion the best by objective; the one with
            the least loss where none does. Its report holds scores, trials, and the verdict.
        met: Whether it meets the criterion.
        trials: Every configuration that was tried, in order.
        pareto: Those that no other one equals or beats in loss, latency and size at once.
        best: The trial that gave `model`.
    """

    model: QuantizedModel
    met: bool
    trials: list[Trial]
    pareto: list[Trial]
    best: Trial


def verdict(
    best: Trial,
    count: int,
    original: Mapping[str, float],
    criterion: Criterion,
    why_ended: str,
) -> str:
    """Return the sentence for the report's notes: was the goal met, by what, and what now."""
    scores = ", ".join(
        f"{name} {best.scores[name]:.6g} (float {before:.6g})" for name, before in original.items()
    )
    trials = f"{count} trial{'s' if count != 1 else ''}"
    found = f"trial {best.number} ({best.change}): {scores}"
    if best.met:
        return f"tuning: the criterion ({criterion}) is met after {trials} by {found}"
    return (
        f"tuning: the criterion ({criterion}) is NOT met after {trials}; this is the best so far, "
        f"{found}, a loss of {100 * best.loss:.3g} %; it ended because {why_ended}"
    )
