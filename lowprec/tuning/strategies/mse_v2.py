"""mse_v2: fall back until the criterion is met, then take back what was not needed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from lowprec.config import Config
from lowprec.tuning.changes import with_layers
from lowprec.tuning.problem import Problem, Proposal, runs_to_its_end
from lowprec.tuning.strategies.basic import fall_back, fallback_precisions
from lowprec.tuning.strategies.ranking import by_isolated_error
from lowprec.tuning.strategies.take_back import take_back
from lowprec.tuning.trial import Trial

DEPTH = 16  # halvings: down to single layers of any group


@runs_to_its_end
def mse_v2(problem: Problem) -> Generator[Proposal, Any, None]:
    """Yield fall-backs by the error that each layer alone makes, then smaller sets of them.

    The layer last fallen back, the least sensitive, is the first to be taken back.
    """
    trial: Trial = yield problem.config
    if trial.met:
        return
    names = [layer.name for layer in by_isolated_error(problem)]
    found = yield from fall_back(problem.config, names, fallback_precisions(problem))
    if found is None:
        return
    trial, count = found
    needed, precision = names[:count], trial.config.layers[-1].precision

    def build(kept: set[str]) -> Config:
        return with_layers(problem.config, [x for x in needed if x in kept], str(precision))

    # The most sensitive one is needed: without any of them the criterion was missed.
    yield from take_back(needed[:0:-1], set(needed), build, DEPTH)
