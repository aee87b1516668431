"""All 2^32 floats, on every instruction set: `make exhaustive` (some minutes; not in `make test`).

Two implementations that were not written together are compared: ours with ml_dtypes for bf16 and
the 8-bit floats, with NumPy for f16 and for quantisation; tf32 has only our reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np
import pytest
from number_strategies import ISAS

from lowprec._ext import _core
from lowprec.numerics import reference

pytestmark = pytest.mark.slow

# The others have the conversions of one of these.
OWN_CONVERSIONS = [isa for isa in ISAS if isa in ("scalar", "avx2", "avx512", "neon")]
CHUNK = 2**22


def all_floats() -> Iterator[np.ndarray]:
    low = np.arange(CHUNK, dtype=np.uint32)
    for high in range(0, 2**32, CHUNK):
        yield (low + np.uint32(high)).view(np.float32)


def by_dtype(dtype: type) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: x.astype(dtype)


def to_f16_by_numpy(x: np.ndarray) -> np.ndarray:
    # NumPy keeps the payload of a NaN as it is; ours makes it quiet.
    y = x.astype(np.float16)
    nan = np.isnan(x)
    y.view(np.uint16)[nan] |= 0x200
    return y


def saturated(dtype: type) -> Callable[[np.ndarray], np.ndarray]:
    def cast(x: np.ndarray) -> np.ndarray:
        largest = np.float32(ml_dtypes.finfo(dtype).max)
        return np.clip(x, -largest, largest).astype(dtype)

    return cast


CASTS = {
    "bf16": (_core.F32_TO_BF16, False, by_dtype(ml_dtypes.bfloat16)),
    "f16": (_core.F32_TO_F16, False, to_f16_by_numpy),
    "tf32": (_core.F32_TO_TF32, False, reference.to_tf32),
    "e4m3": (_core.F32_TO_E4M3, False, by_dtype(ml_dtypes.float8_e4m3fn)),
    "e5m2": (_core.F32_TO_E5M2, False, by_dtype(ml_dtypes.float8_e5m2)),
    "e4m3 saturated": (_core.F32_TO_E4M3, True, saturated(ml_dtypes.float8_e4m3fn)),
    "e5m2 saturated": (_core.F32_TO_E5M2, True, saturated(ml_dtypes.float8_e5m2)),
}


@pytest.mark.parametrize("name", CASTS)
def test_all_floats_are_cast_as_others_cast_them(name):
    code, saturate, definition = CASTS[name]
    for x in all_floats():
        with np.errstate(all="ignore"):
            expected = definition(x)
        bits = f"u{expected.itemsize}"
        y = np.empty_like(expected)
        for isa in OWN_CONVERSIONS:
            _core.cast(code, x, y, saturate=saturate, isa=isa)
            assert np.array_equal(y.view(bits), expected.view(bits)), (isa, x[0])


@pytest.mark.parametrize(
    ("dtype", "scale"), [(np.uint8, 0.1), (np.uint8, 1.9999999), (np.int8, 1 / 255), (np.int8, 3)]
)
def test_all_floats_are_quantised_as_numpy_divides(dtype, scale):
    # The corrected product has no other rounding than the division: see test_division.py.
    scale, zero_point = np.float32(scale), dtype(100)
    q, limits = np.empty(CHUNK, dtype), np.iinfo(dtype)
    for x in all_floats():
        with np.errstate(all="ignore"):
            steps = np.rint(x / scale) + np.float32(100)
        steps = np.nan_to_num(steps, nan=limits.min)
        expected = np.clip(steps, limits.min, limits.max).astype(dtype)
        for isa in OWN_CONVERSIONS:
            _core.quantize(x, q, np.float32([scale]), int(zero_point), isa=isa)
            assert np.array_equal(q, expected), (isa, x[0])
