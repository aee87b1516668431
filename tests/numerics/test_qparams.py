"""Scale and zero point from a range."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowprec import numerics
from lowprec.errors import InputError, QuantizationError

bounds = st.floats(width=32, allow_nan=False, allow_infinity=False)
code_ranges = st.sampled_from([(0, 255), (-128, 127), (-127, 127), (0, 127), (0, 65535), (-7, 7)])


@given(bounds, bounds, code_ranges, st.booleans())
def test_zero_is_exact_and_the_range_is_covered(a, b, codes, symmetric):
    rmin, rmax = np.float32(min(a, b)), np.float32(max(a, b))
    q = numerics.choose_qparams(rmin, rmax, qmin=codes[0], qmax=codes[1], symmetric=symmetric)
    assert q.scale.dtype == np.float32
    assert np.float32(2.0**-126) <= q.scale < np.inf
    assert codes[0] <= q.zero_point <= codes[1]
    assert numerics.dequantize_linear(q.zero_point, q.scale, q.zero_point) == 0
    # The range's ends lie within half a step (and rounding) of the outermost codes.
    scale, zero = np.float64(q.scale), float(q.zero_point)
    slack = 0.51 * scale + 1e-6 * max(abs(rmin), abs(rmax))
    assert (codes[0] - zero) * scale - slack <= min(rmin, 0)
    assert (codes[1] - zero) * scale + slack >= max(rmax, 0)


def test_the_scale_is_the_difference_over_the_levels_in_f32():
    rmin, rmax = np.float32(-0.7654321), np.float32(3.1415927)
    q = numerics.choose_qparams(rmin, rmax, qmin=0, qmax=255)
    assert q.scale == (rmax - rmin) / np.float32(255)
    assert q.zero_point == np.rint(-rmin / q.scale)
    assert q.dtype == np.uint8


def test_a_range_whose_width_overflows_still_has_a_finite_scale():
    largest = np.finfo(np.float32).max
    q = numerics.choose_qparams(-largest, largest, qmin=-127, qmax=127)
    assert np.isfinite(q.scale)
    assert q.scale == largest / np.float32(254) + largest / np.float32(254)


def test_an_empty_range_has_scale_one():
    q = numerics.choose_qparams(0, 0, qmin=-128, qmax=127)
    assert (q.scale, q.zero_point) == (1, -128)
    q = numerics.choose_qparams(0, 0, qmin=-127, qmax=127, symmetric=True)
    assert (q.scale, q.zero_point) == (1, 0)


def test_a_tiny_range_has_a_normal_scale():
    q = numerics.choose_qparams(0, 1e-45, qmin=0, qmax=255)
    assert q.scale == np.float32(2.0**-126)


def test_a_range_away_from_zero_is_widened_to_hold_it():
    q = numerics.choose_qparams(2, 10, qmin=0, qmax=255)
    assert q.zero_point == 0
    assert q.scale == np.float32(10) / np.float32(255)
    q = numerics.choose_qparams(-10, -2, qmin=0, qmax=255)
    assert q.zero_point == 255


@pytest.mark.parametrize(
    ("codes", "dtype", "middle"),
    [
        ((-127, 127), np.int8, 0),
        ((-128, 127), np.int8, 0),
        ((0, 255), np.uint8, 128),
        ((0, 65535), np.uint16, 32768),
        ((-32768, 32767), np.int16, 0),
    ],
)
def test_symmetric_puts_the_zero_point_in_the_middle(codes, dtype, middle):
    q = numerics.choose_qparams(-1, 3, qmin=codes[0], qmax=codes[1], symmetric=True)
    assert q.zero_point == middle
    assert q.dtype == dtype
    assert q.scale == np.float32(6) / np.float32(codes[1] - codes[0])


def test_per_channel_ranges_give_per_channel_parameters():
    q = numerics.choose_qparams([-1, 0], [3, 0], qmin=0, qmax=255, axis=1)
    np.testing.assert_array_equal(q.zero_point, [64, 0])
    assert q.axis == 1
    assert q.zero_point.dtype == np.uint8


def test_equal_parameters_are_equal_and_hash_alike():
    one = numerics.choose_qparams([-1, 0], [3, 0], qmin=0, qmax=255, axis=1)
    same = numerics.choose_qparams([-1, 0], [3, 0], qmin=0, qmax=255, axis=1)
    assert one == same
    assert len({one, same}) == 1
    assert one != numerics.choose_qparams([-1, 0], [3, 0], qmin=0, qmax=255, axis=0)
    assert one != numerics.QParams(one.scale, one.zero_point.astype(np.int8), 1)
    assert one != "qparams"


def test_parameters_cannot_be_changed():
    scale = np.float32([0.5])
    q = numerics.QParams(scale, np.int8([0]), 0)
    scale[0] = 7
    assert q.scale == 0.5
    with pytest.raises(ValueError, match="read-only"):
        q.scale[0] = 1


@pytest.mark.parametrize(
    ("rmin", "rmax", "match"),
    [
        (np.nan, 1, "finite"),
        (0, np.inf, "finite"),
        (0, 1e39, "finite"),
        (2, 1, "exceed"),
        ([0, 1], 1, "shape"),
        ([[0]], [[1]], "shape"),
    ],
)
def test_a_range_that_is_none_is_refused(rmin, rmax, match):
    with pytest.raises(QuantizationError, match=match):
        numerics.choose_qparams(rmin, rmax, qmin=0, qmax=255)


@pytest.mark.parametrize(("qmin", "qmax"), [(0, 1), (5, 0), (-1, 65535), (0, 2**16), (-40000, 0)])
def test_a_code_range_that_no_dtype_holds_is_refused(qmin, qmax):
    with pytest.raises(QuantizationError, match="codes"):
        numerics.choose_qparams(0, 1, qmin=qmin, qmax=qmax)


def test_parameters_that_do_not_belong_together_are_refused():
    with pytest.raises(QuantizationError, match="shape"):
        numerics.QParams(np.float32([1, 2]), np.int8([0]), 0)
    with pytest.raises(QuantizationError, match="shape"):
        numerics.QParams(np.float32([1, 2]), np.int8([0, 0]))
    with pytest.raises(QuantizationError, match="above 0"):
        numerics.QParams(np.float32(0), np.int8(0))
    with pytest.raises(InputError, match="dtype"):
        numerics.QParams(np.float32(1), np.int64(0))
