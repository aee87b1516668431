"""The strategies by name: one file each, all of them generators (see lowprec.tuning.problem)."""

from lowprec.tuning.problem import Strategy
from lowprec.tuning.strategies.basic import basic, mse
from lowprec.tuning.strategies.conservative import conservative
from lowprec.tuning.strategies.exhaustive import exhaustive
from lowprec.tuning.strategies.mse_v2 import mse_v2
from lowprec.tuning.strategies.sampled import bayesian, random

STRATEGIES: dict[str, Strategy] = {
    "basic": basic,
    "mse": mse,
    "mse_v2": mse_v2,
    "conservative": conservative,
    "bayesian": bayesian,
    "random": random,
    "exhaustive": exhaustive,
}

__all__ = ["STRATEGIES"]
