"""Float hub, ranges and configuration in; a hub of mixed precision and its account out."""

from lowprec.quantization.algorithms import Outcome, prepare, refine, with_ends
from lowprec.quantization.precisions import apply_precisions
from lowprec.quantization.quantize import (
    QuantizationResult,
    quantize_graph,
    tensors_to_calibrate,
)
from lowprec.report import LayerRecord

__all__ = [
    "LayerRecord",
    "Outcome",
    "QuantizationResult",
    "apply_precisions",
    "prepare",
    "quantize_graph",
    "refine",
    "tensors_to_calibrate",
    "with_ends",
]
