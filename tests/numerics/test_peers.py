"""Other people's arithmetic: ONNX's node tests, its reference implementation, and onnxruntime."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from number_strategies import EDGE_VALUES, assert_same_bits
from onnx_peers import run_onnx, run_onnxruntime

from lowprec import numerics
from lowprec.numerics import reference

peers = pytest.mark.parametrize("peer", [run_onnx, run_onnxruntime])


@pytest.fixture(scope="module")
def node_tests():
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {case.name: case for case in collect_testcases(None)}


def by_axis(function):
    def call(x, scale, zero_point):
        return [function(x, scale, zero_point, axis=1 if np.ndim(scale) else None)]

    return call


def convolve(x, w, x_zero, w_zero=None, *, pads=(0, 0, 0, 0)):
    zero = np.zeros((), w.dtype) if w_zero is None else w_zero
    return [reference.conv_integer(x, w, x_zero, zero, strides=[1, 1], pads=pads, dilations=[1, 1])]


def convolve_padded(*inputs):
    return convolve(*inputs, pads=(1, 1, 1, 1))


def qlinear_convolve(*inputs):
    geometry = {"strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1]}
    return [reference.qlinear_conv(*map(np.asarray, inputs), **geometry)]


def dynamic(x):
    return list(numerics.dynamic_quantize_linear(x))


NODE_TESTS = {
    "test_quantizelinear": by_axis(numerics.quantize_linear),
    "test_quantizelinear_axis": by_axis(numerics.quantize_linear),
    "test_quantizelinear_uint16": by_axis(numerics.quantize_linear),
    "test_quantizelinear_int16": by_axis(numerics.quantize_linear),
    "test_dequantizelinear": by_axis(numerics.dequantize_linear),
    "test_dequantizelinear_axis": by_axis(numerics.dequantize_linear),
    "test_dequantizelinear_uint16": by_axis(numerics.dequantize_linear),
    "test_dequantizelinear_int16": by_axis(numerics.dequantize_linear),
    "test_dynamicquantizelinear": dynamic,
    "test_dynamicquantizelinear_max_adjusted": dynamic,
    "test_dynamicquantizelinear_min_adjusted": dynamic,
    "test_matmulinteger": lambda *inputs: [numerics.matmul_integer(*inputs)],
    "test_qlinearmatmul_2D_uint8_float32": lambda *inputs: [numerics.qlinear_matmul(*inputs)],
    "test_qlinearmatmul_3D_uint8_float32": lambda *inputs: [numerics.qlinear_matmul(*inputs)],
    "test_qlinearmatmul_2D_int8_float32": lambda *inputs: [numerics.qlinear_matmul(*inputs)],
    "test_qlinearmatmul_3D_int8_float32": lambda *inputs: [numerics.qlinear_matmul(*inputs)],
    "test_convinteger_without_padding": convolve,
    "test_convinteger_with_padding": convolve_padded,
    "test_qlinearconv": qlinear_convolve,
}


@pytest.mark.parametrize("name", NODE_TESTS)
def test_onnx_node_tests_pass(name, node_tests):
    for inputs, expected in node_tests[name].data_sets:
        actual = NODE_TESTS[name](*inputs)
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(a, e)
            assert np.asarray(a).dtype == np.asarray(e).dtype


def reals(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(4000) * 30).astype(np.float32)
    return np.concatenate([x, np.arange(-300, 300, 0.5, dtype=np.float32), EDGE_VALUES])


@peers
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("scale", [1.0, 0.1, 0.37, 2.0**-10])
def test_quantize_is_the_peers(peer, dtype, scale):
    x, scale, zero_point = reals(1), np.float32(scale), np.dtype(dtype).type(100)
    if peer is run_onnx:
        x = x[np.abs(x) < 1e6]  # it casts to int32 before it saturates
    expected = peer("QuantizeLinear", [x, scale, zero_point], [dtype])[0]
    assert_same_bits(numerics.quantize_linear(x, scale, zero_point), expected)


@peers
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quantize_per_channel_is_the_peers(peer, axis):
    rng = np.random.default_rng(axis)
    x = (rng.standard_normal((4, 5, 6)) * 30).astype(np.float32)
    size = x.shape[axis]
    scale = rng.uniform(0.1, 1, size).astype(np.float32)
    zero_point = rng.integers(-100, 100, size).astype(np.int8)
    expected = peer("QuantizeLinear", [x, scale, zero_point], ["int8"], axis=axis)[0]
    codes = numerics.quantize_linear(x, scale, zero_point, axis=axis)
    assert_same_bits(codes, expected)
    expected = peer("DequantizeLinear", [codes, scale, zero_point], ["float32"], axis=axis)[0]
    assert_same_bits(numerics.dequantize_linear(codes, scale, zero_point, axis=axis), expected)


@pytest.mark.parametrize("size", [1, 3, 16, 64, 65])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("axis", [0, 1])
def test_blocks_are_onnxruntime_s(axis, dtype, size):
    rng = np.random.default_rng(size)
    x = (rng.standard_normal((65, 130)) * 60).astype(np.float32)
    blocks = list(x.shape)
    blocks[axis] = -(-x.shape[axis] // size)
    scale = rng.uniform(0.01, 2, blocks).astype(np.float32)
    zero_point = rng.integers(0, 127, blocks).astype(dtype)
    q = numerics.quantize_linear(x, scale, zero_point, axis=axis, block_size=size)
    attributes = {"axis": axis, "block_size": size}
    expected = run_onnxruntime("QuantizeLinear", [x, scale, zero_point], [dtype], **attributes)[0]
    assert_same_bits(q, expected)
    real = numerics.dequantize_linear(q, scale, zero_point, axis=axis, block_size=size)
    inputs = [q, scale, zero_point]
    expected = run_onnxruntime("DequantizeLinear", inputs, ["float32"], **attributes)[0]
    assert_same_bits(real, expected)


@peers
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_dequantize_is_the_peers(peer, dtype):
    limits = np.iinfo(dtype)
    codes = np.arange(limits.min, limits.max + 1).astype(dtype)
    scale, zero_point = np.float32(0.037), np.dtype(dtype).type(77)
    expected = peer("DequantizeLinear", [codes, scale, zero_point], ["float32"])[0]
    assert_same_bits(numerics.dequantize_linear(codes, scale, zero_point), expected)


@peers
@pytest.mark.parametrize("low", [-1.0, 0.0, 0.5, -3.0])
@pytest.mark.parametrize("high", [1.0, -0.5, 1e-3, 1e30])
def test_dynamic_quantize_is_the_peers(peer, low, high):
    x = np.linspace(low, high, 101, dtype=np.float32)
    expected = peer("DynamicQuantizeLinear", [x], ["uint8", "float32", "uint8"])
    for a, e in zip(numerics.dynamic_quantize_linear(x), expected, strict=True):
        np.testing.assert_array_equal(a, e)


def test_dynamic_quantize_of_zeros_is_onnxruntime_s():
    # ONNX's own definition divides 0 by 0 here, and its reference takes another scale.
    x = np.zeros((2, 3), np.float32)
    expected = run_onnxruntime("DynamicQuantizeLinear", [x], ["uint8", "float32", "uint8"])
    for a, e in zip(numerics.dynamic_quantize_linear(x), expected, strict=True):
        np.testing.assert_array_equal(a, e)


@peers
@pytest.mark.parametrize("types", [("uint8", "uint8"), ("uint8", "int8"), ("int8", "int8")])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (9, 64, 65), (33, 129, 17)])
def test_matmul_integer_is_the_peers(peer, types, shape):
    rng = np.random.default_rng(0)
    m, k, n = shape
    a, b = (
        rng.integers(np.iinfo(t).min, np.iinfo(t).max, size, t, endpoint=True)
        for t, size in zip(types, [(m, k), (k, n)], strict=True)
    )
    zeros = [np.dtype(t).type(3) for t in types]
    expected = peer("MatMulInteger", [a, b, *zeros], ["int32"])[0]
    assert_same_bits(numerics.matmul_integer(a, b, *zeros), expected)


@peers
@pytest.mark.parametrize("types", [("uint8", "uint8"), ("uint8", "int8"), ("int8", "int8")])
@pytest.mark.parametrize("shape", [(3, 5, 7), (9, 64, 65), (33, 129, 17)])
def test_qlinear_matmul_is_the_peers(peer, types, shape):
    rng = np.random.default_rng(0)
    m, k, n = shape
    a, b = (
        rng.integers(np.iinfo(t).min, np.iinfo(t).max, size, t, endpoint=True)
        for t, size in zip(types, [(m, k), (k, n)], strict=True)
    )
    zeros = [np.dtype(t).type(3) for t in (*types, types[0])]
    scales = [np.float32(s) for s in (0.031, 0.0077, 0.31)]
    inputs = [a, scales[0], zeros[0], b, scales[1], zeros[1], scales[2], zeros[2]]
    expected = peer("QLinearMatMul", inputs, [types[0]])[0]
    actual = numerics.qlinear_matmul(*inputs)
    difference = np.abs(actual.astype(int) - expected.astype(int))
    # ONNX's reference rounds a quotient in float64, ours a product in float32: a tie may differ.
    allowed = 0 if peer is run_onnxruntime else 1
    assert difference.max() <= allowed
    assert np.count_nonzero(difference) <= allowed * max(1, actual.size // 1000)
