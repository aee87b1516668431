"""Which layers cost the accuracy, and what it takes to put that right.

analyse   every layer of a quantised model, alone and in company
advise    the layers that should go back to a higher precision, and what that really wins
examine   a report with both
"""

from lowprec.sensitivity.advice import Advice, Measured, advise
from lowprec.sensitivity.analysis import (
    LayerSensitivity,
    analyse,
    observable_outputs,
    output_sqnr,
    watching,
    with_rules,
)
from lowprec.sensitivity.cache import analysis_key, content_key, keep_analysis, read_analysis
from lowprec.sensitivity.examination import examine

__all__ = [
    "Advice",
    "LayerSensitivity",
    "Measured",
    "advise",
    "analyse",
    "analysis_key",
    "content_key",
    "examine",
    "keep_analysis",
    "observable_outputs",
    "output_sqnr",
    "read_analysis",
    "watching",
    "with_rules",
]
