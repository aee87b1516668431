"""Numbers without graphs: casts, codes, integer products, histograms. NumPy arrays in and out.

Everything here equals `lowprec.numerics.reference`, the definition, bit for bit on every
instruction set.
"""

from __future__ import annotations

from lowprec.numerics.convert import (
    dequantize_linear,
    dynamic_quantize_linear,
    from_bf16,
    from_e4m3,
    from_e5m2,
    from_f16,
    quantize_linear,
    requantize,
    to_bf16,
    to_e4m3,
    to_e5m2,
    to_f16,
    to_tf32,
)
from lowprec.numerics.gemm import (
    gemm_bf16,
    gemm_f16,
    gemm_f32,
    matmul_integer,
    qlinear_matmul,
)
from lowprec.numerics.histogram import Histogram
from lowprec.numerics.packed import PackedWeights, linear, pack_weights
from lowprec.numerics.qparams import QParams, choose_qparams
from lowprec.numerics.rounding import round_rows
from lowprec.threads import register_with_threadpoolctl

__all__ = [
    "Histogram",
    "PackedWeights",
    "QParams",
    "choose_qparams",
    "dequantize_linear",
    "dynamic_quantize_linear",
    "from_bf16",
    "from_e4m3",
    "from_e5m2",
    "from_f16",
    "gemm_bf16",
    "gemm_f16",
    "gemm_f32",
    "linear",
    "matmul_integer",
    "pack_weights",
    "qlinear_matmul",
    "quantize_linear",
    "requantize",
    "round_rows",
    "to_bf16",
    "to_e4m3",
    "to_e5m2",
    "to_f16",
    "to_tf32",
]

register_with_threadpoolctl()
