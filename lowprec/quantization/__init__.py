"""Float hub, ranges and configuration in; QDQ or bf16 hub and an account of every operator out."""

from lowprec.quantization.equalize import equalize_channels
from lowprec.quantization.quantize import (
    QuantizationResult,
    quantize_graph,
    tensors_to_calibrate,
)
from lowprec.quantization.use_bf16 import convert_to_bf16
from lowprec.report import LayerRecord

__all__ = [
    "LayerRecord",
    "QuantizationResult",
    "convert_to_bf16",
    "equalize_channels",
    "quantize_graph",
    "tensors_to_calibrate",
]
