"""Search for a configuration that keeps the accuracy: baseline, trials, the best so far."""

from lowprec.tuning.automatic import choose_precisions
from lowprec.tuning.problem import Layer, Problem, Sensitivity, runs_to_its_end
from lowprec.tuning.result import TuningResult
from lowprec.tuning.search import tune
from lowprec.tuning.trial import Trial

__all__ = [
    "Layer",
    "Problem",
    "Sensitivity",
    "Trial",
    "TuningResult",
    "choose_precisions",
    "runs_to_its_end",
    "tune",
]
