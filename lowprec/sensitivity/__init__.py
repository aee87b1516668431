"""Which layers cost the accuracy, and what it takes to put that right.

analyse   every layer of a quantised model, alone and in company
advise    the layers that should go back to a higher precision, and what that really wins
"""

from lowprec.sensitivity.analysis import (
    LayerSensitivity,
    analyse,
    observable_outputs,
    output_sqnr,
    watching,
    with_rules,
)

__all__ = [
    "LayerSensitivity",
    "analyse",
    "observable_outputs",
    "output_sqnr",
    "watching",
    "with_rules",
]
