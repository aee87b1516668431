"""Products beside onnxruntime's and torch's: integers bit for bit, floats within rounding."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from number_strategies import assert_same_bits
from onnx_peers import run_onnxruntime

from lowprec import numerics

TYPES = [(a, b) for a in ("uint8", "int8") for b in ("uint8", "int8")]
SHAPES = [(1, 16, 16), (1, 77, 130), (3, 5, 7), (4, 64, 64), (17, 129, 65), (70, 256, 192)]


def codes(rng: np.random.Generator, shape, dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def runs_there(*arguments) -> list[np.ndarray]:
    """Return onnxruntime's results; skip where it has no kernel for these types."""
    runtime = pytest.importorskip("onnxruntime")
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    refusals = (state.NotImplemented, state.InvalidGraph, state.Fail, state.InvalidArgument)
    try:
        return run_onnxruntime(*arguments)
    except refusals as error:
        pytest.skip(f"onnxruntime {runtime.__version__}: {str(error).splitlines()[0][:100]}")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("each_column", [False, True])
def test_matmul_integer_is_onnxruntime_s(shape, types, each_column):
    rng = np.random.default_rng(shape)
    m, k, n = shape
    a, b = codes(rng, (m, k), types[0]), codes(rng, (k, n), types[1])
    a_zero = codes(rng, (), types[0])
    b_zero = codes(rng, (n,) if each_column else (), types[1])
    (expected,) = runs_there("MatMulInteger", [a, b, a_zero, b_zero], ["int32"])
    assert_same_bits(numerics.matmul_integer(a, b, a_zero, b_zero), expected)
    packed = numerics.pack_weights(b, zero_point=b_zero)
    assert_same_bits(numerics.matmul_integer(a, packed, a_zero), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("types", TYPES, ids="-".join)
@pytest.mark.parametrize("each_column", [False, True])
def test_qlinear_matmul_is_onnxruntime_s(shape, types, each_column):
    rng = np.random.default_rng(shape)
    m, k, n = shape
    a, b = codes(rng, (m, k), types[0]), codes(rng, (k, n), types[1])
    columns = (n,) if each_column else ()
    a_zero, b_zero = codes(rng, (), types[0]), codes(rng, columns, types[1])
    y_zero = codes(rng, (), types[0])
    b_scale = np.asarray(rng.uniform(0.001, 0.02, columns), np.float32)
    a_scale, y_scale = np.float32(0.031), np.float32(0.5)
    inputs = [a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero]
    (expected,) = runs_there("QLinearMatMul", inputs, [types[0]])
    assert_same_bits(numerics.qlinear_matmul(*inputs), expected)
    packed = numerics.pack_weights(b, scale=b_scale, zero_point=b_zero)
    actual = numerics.qlinear_matmul(a, a_scale, a_zero, packed, None, None, y_scale, y_zero)
    assert_same_bits(actual, expected)


@pytest.mark.parametrize("shape", [(17, 8, 8), (32, 64, 48), (65, 256, 128)])
def test_matmul_integer_is_torch_s_int_mm(shape):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(shape)
    m, k, n = shape
    a, b = codes(rng, (m, k), "int8"), codes(rng, (k, n), "int8")
    expected = torch._int_mm(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert_same_bits(numerics.matmul_integer(a, b), expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["bf16", "f16", "f32"])
def test_float_products_are_torch_s_within_rounding(shape, kind):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(shape)
    m, k, n = shape
    dtype, product, theirs = {
        "bf16": (ml_dtypes.bfloat16, numerics.gemm_bf16, torch.bfloat16),
        "f16": (np.float16, numerics.gemm_f16, torch.float16),
        "f32": (np.float32, numerics.gemm_f32, torch.float32),
    }[kind]
    a = rng.standard_normal((m, k)).astype(np.float32).astype(dtype)
    b = rng.standard_normal((k, n)).astype(np.float32).astype(dtype)

    def tensor(x):
        return torch.from_numpy(x.astype(np.float32)).to(theirs)

    expected = (tensor(a) @ tensor(b)).float().numpy()
    # Sums of k products in f32, in another order; and their result rounded to the type.
    magnitude = np.abs(a.astype(np.float32)) @ np.abs(b.astype(np.float32))
    rounding = {"bf16": 2.0**-8, "f16": 2.0**-11, "f32": 0.0}[kind] * np.abs(expected)
    allowed = rounding + k * 2.0**-24 * magnitude
    assert (np.abs(product(a, b) - expected) <= allowed).all()
