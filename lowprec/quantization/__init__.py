"""Float hub, ranges and configuration in; a hub of mixed precision and its account out."""

from lowprec.quantization.algorithms import Outcome, prepare, refine, with_ends
from lowprec.quantization.precisions import apply_precisions
from lowprec.quantization.quantize import (
    QuantizationResult,
    tensors_to_calibrate,
)
from lowprec.report import LayerRecord

__all__ = [
    "LayerRecord",
    "Outcome",
    "QuantizationResult",
    "apply_precisions",
    "prepare",
    "refine",
    "tensors_to_calibrate",
    "with_ends",
]
