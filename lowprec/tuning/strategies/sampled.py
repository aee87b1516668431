"""random and bayesian: points of a finite space, drawn by Optuna without replacement.

Optuna draws with replacement and does not know when everything was tried. Here a point that was
drawn before is not tried again: Optuna is told its value once more, and draws on; after REPEATS
such draws in a row a point is taken that was not tried, so that the search of a small space ends
when all of it was tried.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from lowprec.config import Config
from lowprec.optional import require
from lowprec.tuning.problem import Problem, Proposal
from lowprec.tuning.strategies.space import Point, Space
from lowprec.tuning.trial import Trial

REPEATS = 20  # draws in a row of what was tried, after which one is picked by hand
BATCH = 8  # points that `random` proposes at once: a number that must not depend on n_jobs


def random(problem: Problem) -> Generator[Proposal, Any, None]:
    """Yield points of the space at random, each once."""
    draw = _Draws(problem, "random")
    while batch := draw.new(BATCH):
        trials: list[Trial] = yield [config for _, config in batch]
        for (point, _), trial in zip(batch, trials, strict=True):
            draw.tell(point, trial)


def bayesian(problem: Problem) -> Generator[Proposal, Any, None]:
    """Yield the configuration as given, then what a tree-structured Parzen estimator expects most
    of.

    Before the criterion is met it learns from the loss, afterwards from the objective.
    """
    draw = _Draws(problem, "bayesian")
    while batch := draw.new(1):
        trial: Trial = yield batch[0][1]
        draw.tell(batch[0][0], trial)


class _Draws:
    """New points of a space from an Optuna sampler."""

    def __init__(self, problem: Problem, kind: str) -> None:
        optuna = _optuna()
        self._optuna = optuna
        self.space = Space(problem)
        samplers = {
            "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
            "bayesian": lambda seed: optuna.samplers.TPESampler(seed=seed),
        }
        with _quiet(optuna):
            self._study = optuna.create_study(sampler=samplers[kind](problem.seed))
        self._choices = {
            key: optuna.distributions.IntDistribution(0, len(values) - 1)
            if key == "fallback"
            else optuna.distributions.CategoricalDistribution(range(len(values)))
            for key, values in self.space.dimensions.items()
        }
        self._numbers = problem.random()
        self._tried: dict[Point, float | None] = {}
        self._open: dict[Point, Any] = {}

    def new(self, count: int) -> list[tuple[Point, Config]]:
        """Return up to `count` points that were not drawn before, with their configurations."""
        found: list[tuple[Point, Config]] = []
        while len(found) < count and len(self._tried) < self.space.size:
            point = self._first() if not self._tried else self._draw()
            self._tried[point] = None
            found.append((point, self.space.point(point)))
        return found

    def tell(self, point: Point, trial: Trial) -> None:
        """Let the sampler learn from a result."""
        value = _value(trial)
        self._tried[point] = value
        self._tell(self._open.pop(point), value)

    def _first(self) -> Point:
        point = (0,) * len(self.space.dimensions)  # what the user gave
        self._enqueue(point)
        return self._ask()

    def _draw(self) -> Point:
        for _ in range(REPEATS):
            point = self._ask()
            if point not in self._tried:
                return point
            self._tell(self._open_again, self._tried[point])
        self._enqueue(self._untried())
        return self._ask()

    def _tell(self, asked: Any, value: float | None) -> None:
        """Tell the sampler a value; None: there is none, or not yet, and nothing to learn."""
        with _quiet(self._optuna):
            if value is None:
                self._study.tell(asked, state=self._optuna.trial.TrialState.FAIL)
            else:
                self._study.tell(asked, value)

    def _ask(self) -> Point:
        with _quiet(self._optuna):
            asked = self._study.ask(self._choices)
        point = tuple(int(asked.params[key]) for key in self._choices)
        if point in self._tried:
            self._open_again = asked
        else:
            self._open[point] = asked
        return point

    def _enqueue(self, point: Point) -> None:
        self._study.enqueue_trial(dict(zip(self._choices, point, strict=True)))

    def _untried(self) -> Point:
        """Return a point that was not tried, at random if a few draws find one, else the first."""
        sizes = [len(values) for values in self.space.dimensions.values()]
        for _ in range(REPEATS):
            point = tuple(self._numbers.randrange(size) for size in sizes)
            if point not in self._tried:
                return point
        return next(point for point in self.space.points() if point not in self._tried)


def _value(trial: Trial) -> float | None:
    """Return what is minimised: below 0 once the criterion holds, above while it does not.

    None for what has no score, or a NaN.
    """
    if trial.met:
        return -1.0 / max(trial.latency_ratio, 1e-6)
    return trial.excess if math.isfinite(trial.excess) else None


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Keep Optuna from printing; the user's own setting is back afterwards."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)


def _optuna() -> Any:
    return require("optuna", "tune", "tuning.strategy random or bayesian")


__all__ = ["bayesian", "random"]
