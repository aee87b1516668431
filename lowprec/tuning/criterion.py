"""Whether the scores of a model are close enough to those of the original.

One metric: its loss must not pass what `tuning.accuracy` allows. Several metrics: each must hold,
each by its own limits in `tuning.metrics` where it has any. With weights the weighted mean of the
losses must not pass the weighted mean of what is allowed: sum(w * loss) <= sum(w * allowed).
A score that is NaN never passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lowprec.config import Tuning
from lowprec.errors import ConfigError, LowprecError

SLACK = 1e-12  # of the original's score: 0.99 - 0.98 is 0.010000000000000009 in floating point


@dataclass(frozen=True)
class Limit:
    """What one metric may lose: `relative` of its score, unless `absolute` is given."""

    relative: float
    absolute: float | None
    higher_is_better: bool
    weight: float | None

    def loss(self, original: float, score: float) -> float:
        """Return the loss in the metric's own unit; negative when `score` is the better one."""
        return original - score if self.higher_is_better else score - original

    def allowed(self, original: float) -> float:
        """Return the largest loss that passes, in the metric's own unit."""
        limit = self.relative * abs(original) if self.absolute is None else self.absolute
        return limit + SLACK * abs(original)

    def __str__(self) -> str:
        if self.absolute is not None:
            return f"{self.absolute:g} absolute"
        return f"{100 * self.relative:g} % relative"


@dataclass(frozen=True)
class Verdict:
    """What the criterion says of one model; see `Trial` for the fields."""

    met: bool
    loss: float
    excess: float


class Criterion:
    """The accuracy criterion of one search."""

    def __init__(self, tuning: Tuning, names: Sequence[str]) -> None:
        """Read the limits of the metrics `names`.

        Raises:
            ConfigError: `tuning.metrics` names a metric that is not evaluated, or gives a weight
                to some metrics only, or weights that add up to nothing.
        """
        unknown = [name for name in tuning.metrics if name not in names]
        if unknown:
            raise ConfigError(
                f"tuning.metrics names '{unknown[0]}', which is not evaluated; the metrics are "
                f"{', '.join(names)}: correct the name, or add it to `evaluate`"
            )
        self._limits = {name: _limit(tuning, name) for name in names}
        weights = [limit.weight for limit in self._limits.values()]
        self.weighted = any(weight is not None for weight in weights)
        if self.weighted:
            missing = [name for name, limit in self._limits.items() if limit.weight is None]
            if missing:
                raise ConfigError(
                    f"tuning.metrics gives no weight to '{missing[0]}' but to others; give every "
                    "metric a weight, or none: then each of them must hold"
                )
            if not sum(weight or 0.0 for weight in weights) > 0:
                raise ConfigError("the weights in tuning.metrics add up to 0; give one above 0")

    def check_original(self, scores: Mapping[str, float]) -> None:
        """Raise LowprecError when the float model's scores cannot be compared with."""
        for name, score in scores.items():
            if not math.isfinite(score):
                raise LowprecError(
                    f"'{name}' of the float model is {score}: no loss can be measured against it; "
                    "evaluate must return a finite number for the original model"
                )

    def judge(self, original: Mapping[str, float], scores: Mapping[str, float]) -> Verdict:
        """Return whether `scores` hold against `original`, and how far they are from it."""
        if any(math.isnan(score) for score in scores.values()):
            return Verdict(False, math.inf, math.inf)
        losses, excesses, scales, weights = [], [], [], []
        for name, limit in self._limits.items():
            loss = limit.loss(original[name], scores[name])
            losses.append(loss)
            excesses.append(loss - limit.allowed(original[name]))
            scales.append(abs(original[name]) or 1.0)
            weights.append(limit.weight or 0.0)
        if self.weighted:
            scale = sum(w * s for w, s in zip(weights, scales, strict=True))
            loss = sum(w * x for w, x in zip(weights, losses, strict=True) if w) / scale
            excess = sum(w * x for w, x in zip(weights, excesses, strict=True) if w) / scale
        else:
            loss = max(x / s for x, s in zip(losses, scales, strict=True))
            excess = max(x / s for x, s in zip(excesses, scales, strict=True))
        if math.isnan(loss):  # one metric infinitely better, another infinitely worse
            return Verdict(False, math.inf, math.inf)
        return Verdict(excess <= 0, loss, excess)

    def __str__(self) -> str:
        """Return the limits in words: '1 % relative', or each metric's."""
        limits = set(map(str, self._limits.values()))
        if len(limits) == 1:
            text = limits.pop()
        else:
            text = ", ".join(f"{name} {limit}" for name, limit in self._limits.items())
        return f"{text}, weighted mean" if self.weighted else text


def _limit(tuning: Tuning, name: str) -> Limit:
    general, own = tuning.accuracy, tuning.metrics.get(name)
    if own is None:
        return Limit(general.relative, general.absolute, general.higher_is_better, None)
    # A metric's own limit replaces the general one, whichever form either has.
    has_limit = own.relative is not None or own.absolute is not None
    higher = own.higher_is_better
    return Limit(
        own.relative if own.relative is not None else general.relative,
        own.absolute if has_limit else general.absolute,
        general.higher_is_better if higher is None else higher,
        own.weight,
    )
