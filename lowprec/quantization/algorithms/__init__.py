"""What makes eight bits lose less: before calibration (`prepare`) and after rounding (`refine`)."""

from lowprec.quantization.algorithms.outcome import Outcome
from lowprec.quantization.algorithms.policy import with_ends
from lowprec.quantization.algorithms.sequence import prepare, refine

__all__ = ["Outcome", "prepare", "refine", "with_ends"]
