"""Which trial is the answer, and which are worth a look: the best by objective, the Pareto list."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from lowprec.tuning.trial import Trial

CLOSE = 1.03  # latencies within three per cent of the least are called equal: timings are not exact


def best_trial(trials: Iterable[Trial], objectives: Sequence[str]) -> Trial | None:
    """Return the answer of a search; None when no configuration could be evaluated at all.

    Of those that meet the criterion: the one with the least objective; of nearly equal ones the
    least loss, then the earliest. If none does: the least excess, then the earliest.
    """
    scored = [trial for trial in trials if trial.scores]
    met = [trial for trial in scored if trial.met]
    if not met:
        return min(scored, key=lambda trial: (trial.excess, trial.number), default=None)
    costs = {trial.number: cost(trial, objectives) for trial in met}
    least = min(costs.values())
    slack = CLOSE if "latency" in objectives else 1.0
    # Infinite costs, where nothing was measured, are equal too.
    near = [trial for trial in met if costs[trial.number] <= least * slack]
    return min(near, key=lambda trial: (trial.loss, trial.number))


def cost(trial: Trial, objectives: Sequence[str]) -> float:
    """Return what the search minimises: latency as a share of the float model's, or bytes.

    With both objectives their product: half the time at the same size is worth as much as half
    the size in the same time.
    """
    parts = []
    if "latency" in objectives:
        parts.append(trial.latency_ratio)
    if "size" in objectives:
        parts.append(math.inf if trial.size is None else float(trial.size))
    return math.prod(parts)


def pareto(trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials that no other one equals or beats in loss, latency and size at once.

    In order of their loss. Of equal ones the earliest is kept; what was not measured counts as
    infinite.
    """
    kept: list[tuple[tuple[float, float, float], Trial]] = []
    points = [(_point(trial), trial) for trial in trials if trial.scores]
    for position, (point, trial) in enumerate(points):
        beaten = any(
            all(theirs <= ours for theirs, ours in zip(other, point, strict=True))
            and (other != point or rival < position)
            for rival, (other, _) in enumerate(points)
            if rival != position
        )
        if not beaten:
            kept.append((point, trial))
    return [trial for _, trial in sorted(kept, key=lambda pair: (pair[0], pair[1].number))]


def _point(trial: Trial) -> tuple[float, float, float]:
    size = math.inf if trial.size is None else float(trial.size)
    return trial.loss, trial.latency_ratio, size
