"""Codes: every operator equals `lowprec.numerics.reference` bit for bit, in both layouts."""

from __future__ import annotations

import numpy as np
import pytest
from one_node import run_both_layouts, run_everywhere, run_node

from lowprec._ext import _core
from lowprec.numerics import reference

RNG = np.random.default_rng(9)
TYPE = {np.uint8: 2, np.int8: 3}
f32 = np.float32


def codes(dtype, *shape):
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, shape).astype(dtype)


def ties(scale, count):
    """Values on, beside and between the ties of a scale, and out of range on both sides."""
    steps = RNG.integers(-400, 400, count) + RNG.choice([0, 0.5, 0.25], count)
    x = (steps * float(scale)).astype(f32)
    x[:4] = [np.inf, -np.inf, np.nan, 3e38]
    return x


@pytest.mark.parametrize("dtype", TYPE)
@pytest.mark.parametrize("count", [1, 5, 16, 31, 1000])
def test_quantize_and_dequantize_per_tensor(dtype, count):
    scale, zero_point = f32(0.0173), dtype(7)
    x = ties(scale, max(count, 4))[-count:]
    result = run_everywhere("QuantizeLinear", [x, scale, zero_point], constant=(1, 2))
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, reference.quantize_linear(x, scale, zero_point))
    back = run_everywhere("DequantizeLinear", [result, scale, zero_point])
    wanted = reference.dequantize_linear(result, scale, zero_point)
    assert back.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("dtype", TYPE)
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_quantize_and_dequantize_per_axis(dtype, axis):
    shape = (3, 5, 4, 6)
    x = ties(0.1, 360).reshape(shape)
    scale = np.exp(RNG.normal(size=shape[axis]) - 2).astype(f32)
    zero_point = codes(dtype, shape[axis])
    attributes = {"axis": axis}
    result = run_both_layouts("QuantizeLinear", [x, scale, zero_point], attributes)
    wanted = reference.quantize_linear(x, scale, zero_point, axis)
    np.testing.assert_array_equal(result, wanted)
    back = run_both_layouts("DequantizeLinear", [result, scale, zero_point], attributes)
    assert back.tobytes() == reference.dequantize_linear(result, scale, zero_point, axis).tobytes()


def test_dequantize_s32_bias():
    bias = RNG.integers(-(2**31), 2**31, (4, 7)).astype(np.int32)
    scale = np.exp(RNG.normal(size=4)).astype(f32)
    result = run_everywhere("DequantizeLinear", [bias, scale], {"axis": 0})
    wanted = reference.dequantize_linear(bias, scale, np.zeros(4, np.int32), 0)
    assert result.tobytes() == wanted.tobytes()


def test_the_default_code_is_u8():
    x = np.array([-1, 0, 300], f32)
    assert run_everywhere("QuantizeLinear", [x, f32(1)]).tolist() == [0, 0, 255]
    assert run_everywhere("QuantizeLinear", [x, f32(1)], {"output_dtype": 3}).dtype == np.int8


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(5, f32),
        np.array([-3, 2, 7.5], f32),
        np.array([2, 4], f32),
        np.array([-3e38, 3e38], f32),
        np.array([2.0**-149, 0], f32),
        RNG.normal(size=(2, 5, 3, 3)).astype(f32),
    ],
    ids=["zeros", "both signs", "positive", "the difference overflows", "denormal", "image"],
)
def test_dynamic_quantize(x):
    wanted = reference.dynamic_quantize_linear(x)
    layouts = ((), (0,)) if x.ndim == 4 else ((),)
    for last in layouts:
        result = run_node("DynamicQuantizeLinear", [x], outputs=3, channels_last=last)
        for got, expected in zip(result, wanted, strict=True):
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)


# ---------------------------------------------------------------------------- operators on codes

A = {"a_scale": 0.031, "a_zero_point": 11}
B = {"b_scale": 0.0123, "b_zero_point": -3}
Y = {"y_scale": 0.029, "y_zero_point": 5}


@pytest.mark.parametrize("op", ["QAdd", "QMul"])
@pytest.mark.parametrize(("a_type", "b_type", "y_type"), [
    (np.uint8, np.uint8, np.uint8), (np.int8, np.uint8, np.int8), (np.uint8, np.int8, np.uint8),
])  # fmt: skip
@pytest.mark.parametrize(("a_shape", "b_shape"), [
    ((2, 35, 3, 5), (2, 35, 3, 5)),
    ((2, 35, 3, 5), (2, 35, 1, 1)),
    ((2, 35, 3, 5), (35, 1, 1)),
    ((2, 35, 3, 5), ()),
    ((1, 1), (4, 17)),
    ((3, 1), (1, 70)),
])  # fmt: skip
def test_binary_operators(op, a_type, b_type, y_type, a_shape, b_shape):
    a, b = codes(a_type, *a_shape), codes(b_type, *b_shape)
    b_zero = -3 if b_type is np.int8 else 250
    attributes = {**A, **B, **Y, "b_zero_point": b_zero, "y_dtype": TYPE[y_type]}
    function = reference.qadd if op == "QAdd" else reference.qmul
    wanted = function(
        a, f32(0.031), a_type(11), b, f32(0.0123), b_type(b_zero), f32(0.029), y_type(5)
    )
    layouts = ((), (0,)) if a.ndim == 4 else ((),)
    for last in layouts:
        result = run_everywhere(op, [a, b], attributes, channels_last=last)
        assert result.dtype == y_type
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("axis", [0, 1, 3, -1])
def test_concat_joins_scales(axis):
    dtypes = (np.uint8, np.uint8, np.uint8)
    parts = [codes(t, 2, 19, 3, 4) for t in dtypes]
    scales, zeros = [0.02, 0.05, 0.031], [128, 3, 64]
    attributes = {"axis": axis, "x_scale": scales, "x_zero_point": zeros,
                  "y_scale": 0.031, "y_zero_point": 64, "y_dtype": 2}  # fmt: skip
    wanted = reference.qconcat(
        [(q, f32(s), t(z)) for q, s, z, t in zip(parts, scales, zeros, dtypes, strict=True)],
        f32(0.031), np.uint8(64), axis,
    )  # fmt: skip
    for last in ((), (1,), (0, 1, 2)):
        result = run_everywhere("QConcat", parts, attributes, channels_last=last)
        np.testing.assert_array_equal(result, wanted)
    # The third part has the result's scale already: its codes pass.
    where = [slice(None)] * 4
    where[axis] = slice(-parts[2].shape[axis], None)
    np.testing.assert_array_equal(result[tuple(where)], parts[2])


def test_concat_of_one_channel_among_several():
    parts = [codes(np.uint8, 2, channels, 3, 4) for channels in (1, 5, 1)]
    scales, zeros = [0.02, 0.05, 0.03], [128, 3, 64]
    attributes = {"axis": 1, "x_scale": scales, "x_zero_point": zeros,
                  "y_scale": 0.031, "y_zero_point": 64, "y_dtype": 2}  # fmt: skip
    wanted = reference.qconcat(
        [(q, f32(s), np.uint8(z)) for q, s, z in zip(parts, scales, zeros, strict=True)],
        f32(0.031), np.uint8(64), 1,
    )  # fmt: skip
    for last in ((), (0, 1, 2)):
        result = run_everywhere("QConcat", parts, attributes, channels_last=last)
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize("dtype", TYPE)
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_average_pool(dtype, count_include_pad):
    x = codes(dtype, 2, 21, 7, 6)
    attributes = {"x_scale": 0.04, "x_zero_point": 9, **Y, "y_dtype": TYPE[dtype],
                  "kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1],
                  "count_include_pad": count_include_pad}  # fmt: skip
    wanted = reference.qaverage_pool(
        x, f32(0.04), dtype(9), f32(0.029), dtype(5), [3, 2],
        strides=[2, 1], pads=[1, 0, 1, 1], count_include_pad=bool(count_include_pad),
    )  # fmt: skip
    np.testing.assert_array_equal(run_both_layouts("QAveragePool", [x], attributes), wanted)


def test_global_average_pool_is_the_float_one_between_codes():
    x = codes(np.uint8, 3, 18, 5, 7)
    attributes = {"x_scale": 0.04, "x_zero_point": 9, **Y, "y_dtype": 2}
    wanted = reference.qglobal_average_pool(x, f32(0.04), np.uint8(9), f32(0.029), np.uint8(5))
    np.testing.assert_array_equal(run_both_layouts("QGlobalAveragePool", [x], attributes), wanted)


@pytest.mark.parametrize("dtype", TYPE)
def test_a_table_is_its_chain(dtype):
    x = np.arange(256, dtype=np.uint8).view(dtype).reshape(1, 16, 4, 4)
    chain = {"codes": [4, 12], "a": [1.5, 0.0], "b": [0.0, 0.0]}
    attributes = {**chain, "x_scale": 0.04, "x_zero_point": 9, **Y, "y_dtype": TYPE[dtype]}

    def function(real):
        return run_everywhere("UnaryChain", [real], chain)

    table = reference.make_qtable(function, f32(0.04), dtype(9), f32(0.029), dtype(5))
    wanted = table[x.view(np.uint8)]
    np.testing.assert_array_equal(run_both_layouts("QTable", [x], attributes), wanted)


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_sixteen_bits(dtype, axis):
    x = (np.random.default_rng(4).standard_normal((5, 70)) * 40).astype(f32)
    size = 1 if axis is None else x.shape[axis]
    scale = np.linspace(1e-3, 4e-3, size, dtype=f32)
    zero = np.linspace(100, 3000, size).astype(dtype)
    shape = [-1, 1] if axis == 0 else [-1]
    wide = np.float32(np.rint(x / scale.reshape(shape))).astype(np.int64) + zero.reshape(shape)
    wanted = np.clip(wide, np.iinfo(dtype).min, np.iinfo(dtype).max).astype(dtype)
    numbers = [scale, zero] if axis is not None else [scale[0], zero[0]]
    attributes = {} if axis is None else {"axis": axis}
    codes = run_everywhere("QuantizeLinear", [x, *numbers], attributes)
    np.testing.assert_array_equal(codes, wanted)
    assert codes.dtype == dtype
    real = run_everywhere("DequantizeLinear", [codes, *numbers], attributes)
    steps = (wanted.astype(np.int64) - zero.reshape(shape)).astype(f32)
    np.testing.assert_array_equal(real, steps * scale.reshape(shape))


def test_what_is_not_native_is_refused():
    x = np.zeros((4, 4), f32)
    with pytest.raises(_core.Unsupported, match="to u32"):
        run_node("QuantizeLinear", [x, f32(1), np.uint32(0)])
    with pytest.raises(_core.Unsupported, match="blocks"):
        run_node("QuantizeLinear", [x, np.ones((2, 4), f32)], {"block_size": 2, "axis": 0})
    with pytest.raises(_core.EngineError, match="3 values for axis 1"):
        run_node("QuantizeLinear", [x, np.ones(3, f32)])
