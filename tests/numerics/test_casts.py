"""bf16, f16 and tf32 casts: the reference's bits on every instruction set."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from number_strategies import (
    EDGE_VALUES,
    ISAS,
    assert_same_bits,
    before_a_guard_page,
    float_arrays,
    float_mode,
)

from lowprec import numerics
from lowprec._ext import _core
from lowprec.numerics import reference

NARROWING = {
    "bf16": (_core.f32_to_bf16, reference.to_bf16, np.uint16),
    "f16": (_core.f32_to_f16, reference.to_f16, np.uint16),
    "tf32": (_core.f32_to_tf32, reference.to_tf32, np.float32),
}


def narrow(name: str, x: np.ndarray, isa: str) -> np.ndarray:
    kernel, _, dtype = NARROWING[name]
    y = np.full(x.size + 2, 0xABCD).astype(dtype)
    guard = y[-2:].copy()
    assert kernel(x, y[:-2], isa=isa) == isa
    np.testing.assert_array_equal(y[-2:], guard)  # nothing written past the end
    return y[:-2].view(f"u{y.itemsize}")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NARROWING)
@given(x=float_arrays())
def test_narrowing_is_the_reference(name, isa, x):
    expected = NARROWING[name][1](x)
    assert_same_bits(narrow(name, x, isa), expected.view(f"u{expected.itemsize}"))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NARROWING)
def test_narrowing_is_the_reference_all_over_the_floats(name, isa):
    # 4,099 is prime: every exponent, both signs, all values of the low bits that decide rounding.
    x = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, EDGE_VALUES])
    expected = NARROWING[name][1](x)
    assert_same_bits(narrow(name, x, isa), expected.view(f"u{expected.itemsize}"))


@pytest.mark.parametrize("isa", ISAS)
def test_ties_go_to_even_in_bf16(isa):
    x = np.uint32([0x3F808000, 0x3F818000, 0x3F808001, 0x7F7F8000]).view(np.float32)
    np.testing.assert_array_equal(narrow("bf16", x, isa), [0x3F80, 0x3F82, 0x3F81, 0x7F80])


@pytest.mark.parametrize("isa", ISAS)
def test_every_bf16_and_f16_widens_exactly(isa):
    bits = np.arange(2**16, dtype=np.uint16)
    wide = np.empty(2**16, np.float32)
    assert _core.bf16_to_f32(bits, wide, isa=isa) == isa
    assert_same_bits(wide, reference.from_bf16(bits.view(ml_dtypes.bfloat16)))
    assert _core.f16_to_f32(bits, wide, isa=isa) == isa
    assert_same_bits(wide, reference.from_f16(bits.view(np.float16)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [1, 7, 15, 17, 33])
def test_casts_touch_nothing_behind_their_arrays(isa, size):
    reals = before_a_guard_page(np.linspace(-1, 1, size, dtype=np.float32))
    halves = before_a_guard_page(np.zeros(size, np.uint16))
    for kernel in (_core.f32_to_bf16, _core.f32_to_f16):
        kernel(reals, halves, isa=isa)
    for kernel in (_core.bf16_to_f32, _core.f16_to_f32):
        kernel(halves, reals, isa=isa)
    _core.f32_to_tf32(reals, reals, isa=isa)


@pytest.mark.parametrize("isa", ISAS)
def test_widening_a_few_writes_no_more(isa):
    for size in range(1, 40):
        for kernel in (_core.bf16_to_f32, _core.f16_to_f32):
            wide = np.full(size + 1, 7, np.float32)
            kernel(np.full(size, 0x3C00, np.uint16), wide[:-1], isa=isa)
            assert wide[-1] == 7
            assert (wide[:-1] != 7).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NARROWING)
def test_flush_to_zero_of_another_library_changes_nothing(name, isa):
    x = np.concatenate([EDGE_VALUES, np.float32([2.0**-130, -(2.0**-140)])])
    expected = NARROWING[name][1](x).view(f"u{np.dtype(NARROWING[name][2]).itemsize}")
    with float_mode(0x8040 | 0x4000) as read:
        before = read()
        actual = narrow(name, x, isa)
        assert read() == before
    assert_same_bits(actual, expected)


def test_the_public_casts_take_any_shape_and_strides():
    x = np.random.default_rng(0).standard_normal((5, 6, 7)).astype(np.float32)
    view = x[::2, ::-1, 1:].transpose(2, 0, 1)
    assert_same_bits(numerics.to_bf16(view), reference.to_bf16(view.copy()))
    assert_same_bits(numerics.to_f16(view), reference.to_f16(view.copy()))
    assert_same_bits(numerics.to_tf32(view), reference.to_tf32(view.copy()))
    assert_same_bits(
        numerics.from_bf16(numerics.to_bf16(view)),
        reference.to_bf16(view.copy()).astype(np.float32),
    )
    assert_same_bits(
        numerics.from_f16(numerics.to_f16(view)), reference.to_f16(view.copy()).astype(np.float32)
    )
    assert numerics.to_bf16(np.float32(1)).shape == ()
    assert numerics.to_bf16(np.empty((0, 3), np.float32)).shape == (0, 3)


def test_other_floats_are_rounded_to_f32_first():
    assert_same_bits(numerics.to_bf16([1.0, 1e60]), reference.to_bf16(np.float32([1, np.inf])))
    half = np.float16([0.1, -3])
    assert_same_bits(numerics.to_bf16(half), reference.to_bf16(half.astype(np.float32)))
    swapped = np.array([1.5, -2], ">f4")
    assert_same_bits(numerics.to_tf32(swapped), np.float32([1.5, -2]))


@pytest.mark.parametrize(
    ("cast", "dtype"),
    [
        (numerics.to_bf16, ml_dtypes.bfloat16),
        (numerics.to_f16, np.float16),
        (numerics.to_tf32, np.float32),
    ],
)
def test_out_is_filled_and_returned_whatever_its_strides(cast, dtype):
    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(4, 6)
    expected = cast(x)
    out = np.zeros((4, 6), dtype)
    assert cast(x, out=out) is out
    assert_same_bits(out, expected)
    strided = np.zeros((6, 8), dtype).T[::2]
    assert cast(x, out=strided) is strided
    assert_same_bits(strided, expected)


def test_out_may_overlap_the_source():
    x = np.linspace(1, 2, 20, dtype=np.float32)
    expected = numerics.to_tf32(x[:-1])
    numerics.to_tf32(x[:-1], out=x[1:])
    assert_same_bits(x[1:], expected)
