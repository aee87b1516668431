"""8-bit floats, 4- and 2-bit elements: every code, and the numbers between them, as ml_dtypes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from one_node import run_everywhere, run_node

import lowprec.engine.programs  # noqa: F401 - says which NumPy dtypes stand for these elements
from lowprec._ext import _core

FLOATS = {17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz",
          23: "float4_e2m1fn"}  # fmt: skip
WHOLE = {21: "uint4", 22: "int4", 25: "uint2", 26: "int2"}
BITS = {"uint4": 4, "int4": 4, "uint2": 2, "int2": 2, "float4_e2m1fn": 4}


def codes_of(name):
    return np.arange(2 ** BITS.get(name, 8), dtype=np.uint8).view(getattr(ml_dtypes, name))


@pytest.mark.parametrize("code", [*FLOATS, 24, *WHOLE])
def test_every_code_widens(code):
    name = {**FLOATS, **WHOLE, 24: "float8_e8m0fnu"}[code]
    codes = codes_of(name)
    got = run_everywhere("Cast", [codes], {"to": 1})
    np.testing.assert_array_equal(got, codes.astype(np.float32))


@pytest.mark.parametrize("code", FLOATS)
@pytest.mark.parametrize("source", [np.float32, np.float16, np.float64])
def test_floats_round_as_ml_dtypes(code, source):
    dtype = getattr(ml_dtypes, FLOATS[code])
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    x = halves if source is np.float16 else halves[~np.isnan(halves)].astype(source)
    if source is not np.float16:
        rng = np.random.default_rng(code)
        x = np.concatenate([x, rng.normal(0, 3, 9999).astype(source)])
        # ml_dtypes takes doubles through f32: those that are floats are rounded once there, too.
        near = np.nextafter(x[np.isfinite(x)].astype(np.float32), np.float32(0))
        x = np.concatenate([x.astype(np.float32), near])
        x = x.astype(source)
    with np.errstate(all="ignore"):
        wanted = x.astype(dtype)
        clipped = np.clip(x, float(ml_dtypes.finfo(dtype).min), float(ml_dtypes.finfo(dtype).max))
        saturated = clipped.astype(dtype)
    numbers = ~np.isnan(x)
    got = run_everywhere("Cast", [x], {"to": code, "saturate": 0})
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.view(np.uint8)[numbers], wanted.view(np.uint8)[numbers])
    got = run_everywhere("Cast", [x], {"to": code})
    np.testing.assert_array_equal(got.view(np.uint8)[numbers], saturated.view(np.uint8)[numbers])
    plain = np.array([np.nan], source)
    got = run_everywhere("Cast", [plain], {"to": code})
    np.testing.assert_array_equal(got.view(np.uint8), plain.astype(dtype).view(np.uint8))


@pytest.mark.parametrize("code", WHOLE)
def test_whole_numbers_wrap(code):
    dtype = getattr(ml_dtypes, WHOLE[code])
    for source in (np.int32, np.int64, np.uint8, np.float32):
        x = (
            np.arange(-20, 40).astype(source)
            if source is not np.uint8
            else np.arange(256, dtype="u1")
        )
        got = run_everywhere("Cast", [x], {"to": code})
        assert got.dtype == dtype
        np.testing.assert_array_equal(got.view(np.uint8), x.astype(dtype).view(np.uint8))
    back = run_everywhere("Cast", [codes_of(WHOLE[code])], {"to": 7})
    np.testing.assert_array_equal(back, codes_of(WHOLE[code]).astype(np.int64))


@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
@pytest.mark.parametrize("saturate", [0, 1])
def test_powers_of_two_round_as_asked(mode, saturate):
    from onnx.numpy_helper import to_float8e8m0

    x = np.abs(np.random.default_rng(0).normal(0, 1, 999).astype(np.float32))
    x = np.concatenate([x, 2.0 ** np.arange(-120, 128, 3, dtype=np.float32), [3e38, 0, np.inf]])
    x = x.astype(np.float32)
    got = run_everywhere("Cast", [x], {"to": 24, "round_mode": mode, "saturate": saturate})
    wanted = to_float8e8m0(x, bool(saturate), mode)
    np.testing.assert_array_equal(got.view(np.uint8), wanted.view(np.uint8))
    with pytest.raises(_core.EngineError, match="up, down or nearest"):
        run_node("Cast", [x], {"to": 24, "round_mode": "sideways"})


def test_a_double_is_rounded_once():
    """Just above the middle of two halves: through f32 it would be the middle, and go to even."""
    x = np.array([1 + 2**-11 + 2**-40, 1 + 2**-11, -(1 + 2**-11 + 2**-40), 1e300, 65519.999, 3e-8])
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16)
    np.testing.assert_array_equal(run_everywhere("Cast", [x], {"to": 10}), wanted)


def test_bit_casts():
    x = np.array([1.0, -2.5], np.float32)
    np.testing.assert_array_equal(run_everywhere("BitCast", [x], {"to": 6}), x.view(np.int32))
    codes = codes_of("int4")
    got = run_everywhere("BitCast", [codes], {"to": 21})
    np.testing.assert_array_equal(got.astype(np.int32), np.arange(16))
    with pytest.raises(_core.EngineError, match="another number of bits"):
        run_node("BitCast", [x], {"to": 7})
