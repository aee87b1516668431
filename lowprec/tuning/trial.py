"""What one trial was and gave; plain data that the log, the strategies and the report share."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from lowprec.config import Config

FLOAT = "float model"  # what the report calls number 0


@dataclass(frozen=True)
class Trial:
    """One configuration, quantised and scored.

    Attributes:
        number: Its position in the search, from 1; 0 is the float model.
        config: What was tried.
        change: In words, how it differs from the configuration that the user gave.
        scores: Metric -> score; empty when the configuration could not be quantised.
        loss: Relative loss of the worst metric (0.01 = one percent; negative: better than float);
            infinite for a NaN score and for a configuration that could not be quantised.
        excess: By how much the loss is over what the criterion allows, in the same unit; at most 0
            when the criterion is met. Trials are ranked by it.
        met: Whether the criterion holds.
        latency: Seconds per feed; None when it was not measured.
        float_latency: Seconds per feed of the float model, measured in turns with it.
        size: Bytes of the constants.
        seconds: How long the trial took.
        same_as: Number of the earlier trial that gave the very same model, whose scores these are;
            None when it was evaluated.
        error: Why the configuration could not be quantised; empty when it could.
    """

    number: int
    config: Config
    change: str
    scores: dict[str, float] = field(default_factory=dict)
    loss: float = math.inf
    excess: float = math.inf
    met: bool = False
    latency: float | None = None
    float_latency: float | None = None
    size: int | None = None
    seconds: float = 0.0
    same_as: int | None = None
    error: str = ""

    @property
    def latency_ratio(self) -> float:
        """Latency as a share of the float model's, both measured in turns; inf when unknown.

        A machine that slows down slows both down: the ratios of two trials can be compared where
        their milliseconds cannot.
        """
        if not self.latency or not self.float_latency:
            return math.inf
        return self.latency / self.float_latency

    def to_dict(self) -> dict[str, Any]:
        """Return what the report keeps: numbers, strings, booleans and None only."""
        return {
            "number": self.number,
            "change": self.change,
            "scores": {name: _finite(score) for name, score in self.scores.items()},
            "loss": _finite(self.loss),
            "latency_ms": None if self.latency is None else 1e3 * self.latency,
            "float_latency_ms": None if self.float_latency is None else 1e3 * self.float_latency,
            "size": self.size,
            "met": self.met,
            "same_as": self.same_as,
            "error": self.error,
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
