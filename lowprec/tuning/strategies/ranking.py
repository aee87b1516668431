"""In which order layers go back to a higher precision: the one that costs most accuracy first.

What was not measured, and what is equal, goes from the output to the input: errors made late meet
no later layer that could forgive them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from lowprec.tuning.problem import Layer, Problem, Sensitivity

GROWTH = 4  # a step adds a quarter of the layers that fell back already, at least one


def by_gain(problem: Problem) -> list[Layer]:
    """Return the layers, first the one without whose codes the outputs gain most."""
    return _ranked(problem, lambda found: None if found.gain is None else -found.gain)


def by_isolated_error(problem: Problem) -> list[Layer]:
    """Return the layers, first the one that alone disturbs the outputs most."""
    return _ranked(problem, lambda found: found.isolated)


def by_error(problem: Problem) -> list[Layer]:
    """Return the layers, first the one whose own output is worst in the quantised model."""
    return _ranked(problem, lambda found: found.accumulated)


def _ranked(problem: Problem, rank: Callable[[Sensitivity], float | None]) -> list[Layer]:
    """Return the layers by rising rank; by their own operands' losses where nothing is measured."""
    found = problem.sensitivities()

    def key(layer: Layer) -> float:
        if not found:
            value = layer.sqnr
        else:
            known = found.get(layer.name)
            value = None if known is None else rank(known)
        return math.inf if value is None else value

    layers = problem.layers()
    layers.reverse()
    return sorted(layers, key=key)


def growing_counts(total: int) -> Iterator[int]:
    """Yield 1 to 8, then 10, 12, 15, 18 ... and at last `total`: few trials for many layers."""
    count = 1
    while count < total:
        yield count
        count += max(1, count // GROWTH)
    if total:
        yield total
