"""Float hub, ranges and configuration in; QDQ or bf16 hub and an account of every operator out."""

from lowprec.quantization.algorithms import Outcome, prepare, refine
from lowprec.quantization.precisions import apply_precisions
from lowprec.quantization.quantize import (
    QuantizationResult,
    quantize_graph,
    tensors_to_calibrate,
)
from lowprec.quantization.use_bf16 import convert_to_bf16
from lowprec.report import LayerRecord

__all__ = [
    "LayerRecord",
    "Outcome",
    "QuantizationResult",
    "apply_precisions",
    "convert_to_bf16",
    "prepare",
    "quantize_graph",
    "refine",
    "tensors_to_calibrate",
]
