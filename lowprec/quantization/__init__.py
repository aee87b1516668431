"""Float hub, ranges and configuration in; QDQ hub and an account of every operator out."""

from lowprec.quantization.equalize import equalize_channels
from lowprec.quantization.quantize import (
    QuantizationResult,
    quantize_graph,
    tensors_to_calibrate,
)
from lowprec.report import LayerRecord

__all__ = [
    "LayerRecord",
    "QuantizationResult",
    "equalize_channels",
    "quantize_graph",
    "tensors_to_calibrate",
]
