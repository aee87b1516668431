"""basic: the configuration as given, then the ladder of algorithms, then layers fall back.

mse is the same with another order of the layers: by the error of their own outputs instead of by
what the model's outputs gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from itertools import islice
from typing import Any

from lowprec.config import Config
from lowprec.tuning.changes import with_layers, with_types, with_values
from lowprec.tuning.problem import Layer, Problem, Proposal
from lowprec.tuning.strategies.ranking import by_error, by_gain, growing_counts
from lowprec.tuning.trial import Trial

HOPELESS = 3  # steps without any gain
AT_ONCE = 4  # fall-backs proposed together: a number that must not depend on n_jobs
METHODS = ("mse", "entropy", "percentile")
PRODUCTS = ("MatMul", "Gemm")  # whose activations may get their scales per run

# Each rung: values of which one is tried after the other, on top of the best so far.
RUNGS: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("calibration.method", METHODS),
    ("algorithms.equalization", (True,)),
    ("algorithms.smoothing", (True,)),
    ("algorithms.bias_correction", (True,)),
    ("algorithms.rounding", ("adaptive",)),
    ("activations.scheme", ("auto",)),
)

KEPT = ("symmetric",)  # values that somebody chose for a runtime that knows nothing else

Order = Callable[[Problem], list[Layer]]


def basic(problem: Problem) -> Generator[Proposal, Any, None]:
    """Yield the default, the ladder, and fall-backs by what the outputs gain."""
    yield from climb_and_fall_back(problem, by_gain)


def mse(problem: Problem) -> Generator[Proposal, Any, None]:
    """Yield the default, the ladder, and fall-backs by the error of each layer's own output."""
    yield from climb_and_fall_back(problem, by_error)


def climb_and_fall_back(problem: Problem, order: Order) -> Generator[Proposal, Any, None]:
    """Yield the ladder, then fall-backs in `order`, on the best configuration of the ladder."""
    best: Trial = yield problem.config
    best = yield from climb(problem, best)
    names = [layer.name for layer in order(problem)]
    yield from fall_back(best.config, names, fallback_precisions(problem), at_once=AT_ONCE)


def climb(problem: Problem, start: Trial) -> Generator[Proposal, Any, Trial]:
    """Try each rung of the ladder on the best so far; return the trial with the least excess."""
    best = start
    for key, values in RUNGS:
        present = _value(best.config, key)
        if key in problem.fixed or present in KEPT:
            continue
        rest = [value for value in values if value != present]
        candidates = [with_values(best.config, {key: value}) for value in rest]
        best = yield from _best_of(candidates, best)
    types = {layer.op_type for layer in problem.layers() if layer.precision == "int8"}
    products = [op_type for op_type in PRODUCTS if op_type in types]
    if "layers" in problem.fixed:
        products = []
    if products:
        best = yield from _best_of([with_types(best.config, products, "int8-dynamic")], best)
    return best


def fall_back(
    config: Config, names: list[str], precisions: tuple[str, ...], *, at_once: int = 1
) -> Generator[Proposal, Any, tuple[Trial, int] | None]:
    """Let more and more of the layers `names` fall back, the first ones first.

    Args:
        config: What to start from.
        names: Layers, in the order of falling back.
        precisions: What they fall back to. All but the last are given up after HOPELESS steps in a
            row that brought nothing: bf16 rounds too, and may never be enough.
        at_once: Steps that are proposed together, so that they may run at the same time.

    Returns:
        The first trial that meets the criterion and how many layers fell back; None without any.
    """
    for precision in precisions:
        least, hopeless = math.inf, 0
        counts = growing_counts(len(names))
        while group := list(islice(counts, at_once)):
            steps = [with_layers(config, names[:count], precision) for count in group]
            trials: list[Trial] = yield steps
            for trial, count in zip(trials, group, strict=True):
                if trial.met:
                    return trial, count
                hopeless = 0 if trial.excess < least else hopeless + 1
                least = min(least, trial.excess)
            if hopeless >= HOPELESS and precision != precisions[-1]:
                break
    return None


def fallback_precisions(problem: Problem) -> tuple[str, ...]:
    """Return bf16 where it is measurably faster than float on this machine, and always f32."""
    return ("bf16", "f32") if problem.layers() and problem.has_bf16 else ("f32",)


def _best_of(candidates: list[Config], best: Trial) -> Generator[Proposal, Any, Trial]:
    if not candidates:
        return best
    trials: list[Trial] = yield candidates
    # The earlier of equals stays: an algorithm that changes nothing is left alone.
    return min([best, *trials], key=lambda trial: trial.excess)


def _value(config: Config, key: str) -> object:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
