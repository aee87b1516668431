"""bf16, f16, tf32 and 8-bit casts: the reference's bits on every instruction set."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from guarded import guarded
from hypothesis import given
from number_strategies import (
    EDGE_VALUES,
    ISAS,
    assert_same_bits,
    float_arrays,
    float_mode,
)

from lowprec import numerics
from lowprec._ext import _core
from lowprec.numerics import reference

NARROWING = {
    "bf16": (_core.F32_TO_BF16, reference.to_bf16, ml_dtypes.bfloat16),
    "f16": (_core.F32_TO_F16, reference.to_f16, np.float16),
    "tf32": (_core.F32_TO_TF32, reference.to_tf32, np.float32),
    "e4m3": (_core.F32_TO_E4M3, lambda x: reference.to_e4m3(x, False), ml_dtypes.float8_e4m3fn),
    "e5m2": (_core.F32_TO_E5M2, lambda x: reference.to_e5m2(x, False), ml_dtypes.float8_e5m2),
    "e4m3 saturated": (_core.F32_TO_E4M3, reference.to_e4m3, ml_dtypes.float8_e4m3fn),
    "e5m2 saturated": (_core.F32_TO_E5M2, reference.to_e5m2, ml_dtypes.float8_e5m2),
}
WIDENING = {
    "bf16": (_core.BF16_TO_F32, reference.from_bf16, ml_dtypes.bfloat16),
    "f16": (_core.F16_TO_F32, reference.from_f16, np.float16),
    "e4m3": (_core.E4M3_TO_F32, reference.from_e4m3, ml_dtypes.float8_e4m3fn),
    "e5m2": (_core.E5M2_TO_F32, reference.from_e5m2, ml_dtypes.float8_e5m2),
}


def narrow(name: str, x: np.ndarray, isa: str) -> np.ndarray:
    code, _, dtype = NARROWING[name]
    y = np.full(x.size + 2, 3).astype(dtype)
    guard = y[-2:].copy()
    assert _core.cast(code, x, y[:-2], saturate="saturated" in name, isa=isa) == isa
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
@pytest.mark.parametrize("name", WIDENING)
def test_every_small_float_widens_exactly(name, isa):
    code, definition, dtype = WIDENING[name]
    small = np.arange(256 ** np.dtype(dtype).itemsize).astype(f"u{np.dtype(dtype).itemsize}")
    small = small.view(dtype)
    wide = np.empty(small.shape, np.float32)
    assert _core.cast(code, small, wide, isa=isa) == isa
    assert_same_bits(wide, definition(small))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["bf16", "e4m3", "e5m2"])
def test_ml_dtypes_widens_alike(name, isa):
    code, _, dtype = WIDENING[name]
    small = np.arange(256 ** np.dtype(dtype).itemsize).astype(f"u{np.dtype(dtype).itemsize}")
    small = small.view(dtype)
    wide = np.empty(small.shape, np.float32)
    _core.cast(code, small, wide, isa=isa)
    with np.errstate(invalid="ignore"):
        assert_same_bits(wide, small.astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["bf16", "e4m3", "e5m2"])
def test_ml_dtypes_narrows_alike(name, isa):
    x = np.arange(0, 2**32, 65_521, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, EDGE_VALUES])
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(NARROWING[name][2])
    assert_same_bits(narrow(name, x, isa), expected.view(f"u{expected.itemsize}"))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
def test_every_tie_of_the_8_bit_floats_goes_to_even(name, isa):
    _, definition, dtype = WIDENING[name]
    numbers = definition(np.arange(0x80, dtype=np.uint8).view(dtype)).astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    middles = ((numbers[1:] + numbers[:-1]) / 2).astype(np.float32)
    odd = np.arange(middles.size) % 2
    np.testing.assert_array_equal(narrow(name, middles, isa), np.arange(middles.size) + odd)
    for towards, step in ((np.float32(0), 0), (np.float32(np.inf), 1)):
        beside = np.nextafter(middles, towards)
        codes = np.arange(middles.size) + step
        np.testing.assert_array_equal(narrow(name, beside, isa), codes)
        np.testing.assert_array_equal(narrow(name, -beside, isa), codes | 0x80)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("at", ["end", "start"])
@pytest.mark.parametrize("size", [1, 7, 15, 17, 33, 63, 65, 129, 1000])
def test_casts_touch_nothing_outside_their_arrays(isa, at, size):
    x = np.linspace(-1, 1, size, dtype=np.float32)
    reals = guarded(x, at)
    for code, definition, dtype in NARROWING.values():
        small = guarded(np.zeros(size, dtype), at)
        _core.cast(code, reals, small, isa=isa)
        if code != _core.F32_TO_TF32:
            assert_same_bits(small, definition(x))
    for code, definition, dtype in WIDENING.values():
        small = x.astype(dtype)
        wide = guarded(np.zeros(size, np.float32), at)
        _core.cast(code, guarded(small, at), wide, isa=isa)
        assert_same_bits(wide, definition(small))


@pytest.mark.parametrize("isa", ISAS)
def test_widening_a_few_writes_no_more(isa):
    for size in range(1, 40):
        for code, _, dtype in WIDENING.values():
            wide = np.full(size + 1, 7, np.float32)
            _core.cast(code, np.ones(size, dtype), wide[:-1], isa=isa)
            assert wide[-1] == 7
            assert (wide[:-1] == 1).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", NARROWING)
def test_flush_to_zero_of_another_library_changes_nothing(name, isa):
    x = np.concatenate([EDGE_VALUES, np.float32([2.0**-130, -(2.0**-140)])])
    expected = NARROWING[name][1](x)
    expected = expected.view(f"u{expected.itemsize}")
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
