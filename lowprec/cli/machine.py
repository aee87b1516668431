"""What this machine can do at most, measured: the fastest product of each kind, and copying.

The peak is that of our own kernel on a product whose operands stay in the caches; by
benchmarks/bench_core.py such products reach 0.94 to 0.99 of what loops of the bare instruction do.
"""

from __future__ import annotations

from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from lowprec.engine import StepRow

ROWS, COLUMNS, DEPTH = 96, 512, 512  # a row of A and a panel of B stay in the first-level cache
ROUNDS = 120  # many and short: the least of them is undisturbed even on a busy machine
BURST = 0.0005  # seconds


def product_kind(row: StepRow) -> str | None:
    """Return which peak a step is compared with: "int8", "bf16", "f32"; None without products."""
    if not row.macs or not row.native:
        return None
    kernel = f"{row.op} {row.kernel}".lower()
    if "u8" in kernel or "s8" in kernel or row.op.startswith("Q"):
        return "int8"
    return "bf16" if "bf16" in row.kernel else "f32"


def product_peak(kind: str, threads: int) -> float:
    """Return operations a second (a multiply-add counts as two) of the fastest product of `kind`.

    Args:
        kind: "int8", "bf16" or "f32".
        threads: How many work; each gets as many rows.
    """
    rng = np.random.default_rng(0)
    rows = ROWS * threads
    call: Callable[[], Any]
    from lowprec import numerics

    if kind == "int8":
        a = rng.integers(0, 256, (rows, DEPTH), np.uint8)
        packed = numerics.pack_weights(rng.integers(-127, 128, (DEPTH, COLUMNS)).astype(np.int8))
        out: Any = np.empty((rows, COLUMNS), np.int32)
        call = partial(numerics.matmul_integer, a, packed, out=out)
    else:
        dtype: Any = ml_dtypes.bfloat16 if kind == "bf16" else np.float32
        product = numerics.gemm_bf16 if kind == "bf16" else numerics.gemm_f32
        left = rng.standard_normal((rows, DEPTH), np.float32).astype(dtype)
        right = rng.standard_normal((DEPTH, COLUMNS), np.float32).astype(dtype)
        out = np.empty((rows, COLUMNS), np.float32)
        call = partial(product, left, numerics.pack_weights(right), out=out)
    return 2.0 * rows * COLUMNS * DEPTH / _least_seconds(call)


def _least_seconds(call: Callable[[], Any]) -> float:
    call()
    start = perf_counter()
    call()
    repeats = max(1, int(BURST / max(perf_counter() - start, 1e-7)))
    best = float("inf")
    for _ in range(ROUNDS):
        start = perf_counter()
        for _ in range(repeats):
            call()
        best = min(best, (perf_counter() - start) / repeats)
    return best
