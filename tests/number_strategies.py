"""Numbers that break kernels, and what the tests of numbers share."""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Callable

import numpy as np
import pytest
from guarded import guarded
from hypothesis import strategies as st

from lowprec._ext import _core
from lowprec.numerics import reference

ISAS = _core.available_isas()
# Models of instruction sets that the machine lacks have products of their own.
PRODUCT_ISAS = [*ISAS, *_core.model_isas()]


def bf16_definition(isa: str) -> Callable[..., np.ndarray]:
    """The definition of bf16 products: AMX has one of its own (docs/instruction_sets.md)."""
    return reference.gemm_bf16_amx if isa.startswith("amx") else reference.gemm_bf16


# Either side of every vector width and of twice and four times it.
SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 127, 129]

# f32 bit patterns: zeros, denormals, the normal border, halves, ties of bf16, f16 and tf32, the
# borders of f16, the largest finite number, infinity, quiet and signalling NaN. Each with both
# signs.
_EDGES = [
    0x00000000, 0x00000001, 0x007FFFFF, 0x00800000, 0x33000000, 0x33000001, 0x33800000, 0x387FC000,
    0x387FDFFF, 0x387FE000, 0x387FEFFF, 0x387FF000, 0x38800000, 0x38801000, 0x38803000, 0x3EFFFFFF,
    0x3F000000, 0x3F800000, 0x3F808000, 0x3F818000, 0x3F801000, 0x3F803000, 0x3F801001, 0x477FDFFF,
    0x477FE000, 0x477FEFFF, 0x477FF000, 0x47800000, 0x4AFFFFFF, 0x4B000000, 0x4F000000, 0x7F7F7FFF,
    0x7F7F8000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FA00000, 0x7FC00000, 0x7FFFFFFF,
]  # fmt: skip
EDGE_BITS = np.array([sign | bits for bits in _EDGES for sign in (0, 0x80000000)], np.uint32)
EDGE_VALUES = EDGE_BITS.view(np.float32)

any_float = st.one_of(
    st.sampled_from(EDGE_BITS.tolist()), st.integers(0, 2**32 - 1)
).map(lambda bits: np.uint32(bits).view(np.float32))  # fmt: skip


@st.composite
def float_arrays(draw: st.DrawFn, finite: bool = False) -> np.ndarray:
    """A vector near a multiple of a vector width: any bits, or numbers of one scale, and edges."""
    size = draw(st.sampled_from(SIZES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        values = rng.integers(0, 2**32, size, np.uint32).view(np.float32)
    else:
        values = rng.standard_normal(size).astype(np.float32)
        values = values * np.float32(2.0) ** draw(st.integers(-120, 100))
    edges = rng.random(size) < 0.2
    values[edges] = rng.choice(EDGE_VALUES, edges.sum())
    return np.where(np.isfinite(values), values, np.float32(0)) if finite else values


# Scales from the smallest to those that make every quotient vanish.
scales = st.one_of(
    st.sampled_from([2.0**-126, 2.0**-24, 0.1, 1 / 255, 0.5, 1.0, 3.0, 2.0**20, 3e38]),
    st.floats(2.0**-126, 2.0**127, width=32),
).map(np.float32)

byte_zero_points = st.one_of(st.integers(0, 255).map(np.uint8), st.integers(-128, 127).map(np.int8))
wide_zero_points = st.one_of(
    st.integers(0, 65535).map(np.uint16),
    st.integers(-32768, 32767).map(np.int16),
    st.one_of(st.just(0), st.integers(-(2**31), 2**31 - 1)).map(np.int32),
)


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal dtype, shape and bits: -0 is not +0, and a NaN has a payload."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    kind = f"u{actual.dtype.itemsize}"
    np.testing.assert_array_equal(
        np.ascontiguousarray(actual).view(kind), np.ascontiguousarray(expected).view(kind)
    )


@contextlib.contextmanager
def float_mode(bits: int):
    """Set bits of the CPU's MXCSR, as a library linked with -ffast-math does to its whole process.

    0x8040 flushes denormals to zero on both sides; 0x4000 rounds up. Yields a function that reads
    the register.
    """
    if platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        pytest.skip("reads MXCSR out of glibc's fenv_t on x86-64")
    libm = ctypes.CDLL("libm.so.6")
    before = (ctypes.c_uint32 * 8)()  # fenv_t: 28 bytes of x87, then MXCSR
    assert libm.fegetenv(before) == 0
    changed = (ctypes.c_uint32 * 8)(*before)
    changed[7] |= bits

    def read() -> int:
        now = (ctypes.c_uint32 * 8)()
        libm.fegetenv(now)
        return now[7] & ~0x3F  # the lowest six bits are sticky flags

    libm.fesetenv(changed)
    try:
        yield read
    finally:
        libm.fesetenv(before)


def before_a_guard_page(array: np.ndarray) -> np.ndarray:
    """A copy that ends where memory ends; guarded.py can guard the other end too."""
    return guarded(array)
