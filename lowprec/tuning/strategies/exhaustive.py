"""exhaustive: every point of a finite space, one after the other; `tuning.max_trials` bounds it."""

from __future__ import annotations

from collections.abc import Generator
from itertools import islice
from typing import Any

from lowprec.tuning.problem import Problem, Proposal
from lowprec.tuning.strategies.space import Space

BATCH = 16  # points proposed at once: none depends on another's result


def exhaustive(problem: Problem) -> Generator[Proposal, Any, None]:
    """Yield all points of the space in order; the space is never held as a list."""
    space = Space(problem)
    points = space.points()
    while batch := list(islice(points, BATCH)):
        yield [space.point(point) for point in batch]
