"""What a call costs before any arithmetic: products so small that nothing else is left.

python benchmarks/call_overhead.py
"""

from __future__ import annotations

import statistics

import ml_dtypes
import numpy as np
from turns import Call, Middle, take_turns

from lowprec import numerics

# M, K, N of one row times a small matrix.
SMALL = (1, 16, 16)


def small_calls() -> dict[str, Call]:
    """Return calls of the smallest useful products, and what NumPy takes for the same."""
    m, k, n = SMALL
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (m, k), np.uint8)
    b = rng.integers(-128, 128, (k, n)).astype(np.int8)
    a_zero, b_zero, y_zero = np.uint8(3), np.int8(0), np.uint8(128)
    a_scale = b_scale = np.float32(0.02)
    y_scale = np.float32(0.5)
    packed = numerics.pack_weights(b, scale=b_scale)
    real_a, real_b = a.astype(np.float32), b.astype(np.float32)
    half_a, half_b = real_a.astype(ml_dtypes.bfloat16), real_b.astype(ml_dtypes.bfloat16)
    packed_half = numerics.pack_weights(half_b)
    return {
        "numpy.matmul f32": lambda: np.matmul(real_a, real_b),
        "matmul_integer": lambda: numerics.matmul_integer(a, b),
        "matmul_integer, zero point": lambda: numerics.matmul_integer(a, b, a_zero),
        "matmul_integer, packed": lambda: numerics.matmul_integer(a, packed),
        "qlinear_matmul": lambda: numerics.qlinear_matmul(
            a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero
        ),
        "qlinear_matmul, packed": lambda: numerics.qlinear_matmul(
            a, a_scale, a_zero, packed, None, None, y_scale, y_zero
        ),
        "linear, f32 by int8": lambda: numerics.linear(real_a, packed),
        "gemm_f32": lambda: numerics.gemm_f32(real_a, real_b),
        "gemm_bf16": lambda: numerics.gemm_bf16(half_a, half_b),
        "gemm_bf16, packed": lambda: numerics.gemm_bf16(half_a, packed_half),
    }


def measure_call_overhead(rounds: int = 30, middle: Middle = statistics.median) -> dict[str, float]:
    """Return the seconds that one call of each takes, 1 x 16 times 16 x 16."""
    return take_turns(small_calls(), rounds, threads=1, middle=middle)


def main() -> None:
    for name, seconds in measure_call_overhead(middle=min).items():
        print(f"{name:28} {1e6 * seconds:6.2f} us")


if __name__ == "__main__":
    main()
