"""The table's products, called by ctypes: any types, strides, zero points; as lowprec.numerics."""

from __future__ import annotations

import contextlib
import ctypes
import re
from ctypes import c_char_p, c_float, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from number_strategies import assert_same_bits

import lowprec
from lowprec import numerics
from lowprec._ext import _core

INCLUDE = Path(lowprec.get_include())
HEADER = (INCLUDE / "lowprec.h").read_text()
NUMBERS = {
    np.dtype(dtype): number
    for dtype, number in [
        (np.float32, 1), (np.uint8, 2), (np.int8, 3), (np.int32, 6), (np.float16, 10),
        (ml_dtypes.bfloat16, 16),
    ]
}  # fmt: skip


def functions() -> list[str]:
    """The functions of the table, in order."""
    (table,) = re.findall(r"typedef struct lowprec_api \{(.*?)^\} lowprec_api", HEADER, re.S | re.M)
    return re.findall(r"\(\*(\w+)\)\(", table)


class WeightsDesc(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t), ("dtype", c_int32), ("bias_dtype", c_int32),
        ("k", c_int64), ("n", c_int64), ("stride_k", c_int64), ("stride_n", c_int64),
        ("data", c_void_p), ("zero_points", c_void_p), ("zero_point_count", c_int64),
        ("scales", c_void_p), ("scale_count", c_int64), ("bias", c_void_p), ("bias_count", c_int64),
    )  # fmt: skip


class GemmDesc(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t), ("batches", c_int64), ("m", c_int64), ("a", c_void_p),
        ("a_dtype", c_int32), ("a_zero_point", c_int32), ("a_batch_stride", c_int64),
        ("a_row_stride", c_int64), ("a_scale", c_float), ("y_scale", c_float), ("y", c_void_p),
        ("y_dtype", c_int32), ("y_zero_point", c_int32), ("y_batch_stride", c_int64),
        ("y_row_stride", c_int64), ("row_scales", c_void_p), ("row_zero_points", c_void_p),
        ("activation", c_int32), ("activation_a", c_float), ("activation_b", c_float),
        ("residual_dtype", c_int32), ("residual", c_void_p), ("residual_scale", c_float),
        ("residual_zero_point", c_int32),
    )  # fmt: skip


class Table:
    def __init__(self) -> None:
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = c_void_p, [ctypes.py_object, c_char_p]
        address = get(_core._C_API, b"lowprec._ext._core._C_API")
        self.size = c_size_t.from_address(address).value
        self.version = (
            c_int32.from_address(address + 8).value,
            c_int32.from_address(address + 12).value,
        )
        pointers = (c_void_p * len(functions())).from_address(address + 16)
        self.pointers = dict(zip(functions(), pointers, strict=True))

    def call(self, name: str, *arguments: object) -> None:
        status = ctypes.CFUNCTYPE(ctypes.c_int)(self.pointers[name])(*arguments)
        if status:
            text = ctypes.CFUNCTYPE(c_char_p)(self.pointers["last_error"])()
            raise ValueError(f"{status} {text.decode()}")

    @contextlib.contextmanager
    def packed(self, b: np.ndarray, zero_point=None, scale=None, bias=None):
        desc = WeightsDesc(ctypes.sizeof(WeightsDesc), NUMBERS[b.dtype])
        desc.k, desc.n = b.shape
        desc.stride_k, desc.stride_n = (stride // b.itemsize for stride in b.strides)
        desc.data = b.ctypes.data
        kept = []
        for values, dtype, pointer, count in (
            (zero_point, np.int32, "zero_points", "zero_point_count"),
            (scale, np.float32, "scales", "scale_count"),
            (bias, None, "bias", "bias_count"),
        ):
            if values is None:
                continue
            array = np.atleast_1d(np.asarray(values, dtype))
            kept.append(array)
            setattr(desc, pointer, array.ctypes.data)
            setattr(desc, count, array.size)
        if bias is not None:
            desc.bias_dtype = NUMBERS[np.asarray(bias).dtype]
        handle = c_void_p()
        self.call("pack_weights", ctypes.byref(desc), ctypes.byref(handle))
        try:
            yield handle
        finally:
            ctypes.CFUNCTYPE(None, c_void_p)(self.pointers["free_weights"])(handle)

    def gemm(self, weights: c_void_p, a: np.ndarray, y: np.ndarray, **members: object) -> None:
        """a (B, M, K) and y (B, M, N) of any strides along the first two axes."""
        desc = GemmDesc(ctypes.sizeof(GemmDesc), *a.shape[:2], a.ctypes.data, NUMBERS[a.dtype])
        desc.a_batch_stride, desc.a_row_stride = (s // a.itemsize for s in a.strides[:2])
        desc.y, desc.y_dtype = y.ctypes.data, NUMBERS[y.dtype]
        desc.y_batch_stride, desc.y_row_stride = (s // y.itemsize for s in y.strides[:2])
        desc.a_scale = 1
        for name, value in members.items():
            if isinstance(value, np.ndarray):
                value = value.ctypes.data
            setattr(desc, name, value)
        self.call("gemm", weights, ctypes.byref(desc))


TABLE = Table()
BYTES = [np.dtype(np.uint8), np.dtype(np.int8)]
SENTINEL = 77


def codes(rng: np.random.Generator, shape, dtype) -> np.ndarray:
    limits = np.iinfo(dtype)
    return np.asarray(rng.integers(limits.min, limits.max, shape, dtype, endpoint=True))


def apart(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """The same values in rows and matrices that lie apart."""
    batches, m, k = array.shape
    room = np.full((batches, m + 1, k + int(rng.integers(0, 5))), SENTINEL).astype(array.dtype)
    view = room[:, :m, :k]
    view[...] = array
    return view


def test_the_table_says_its_size_and_version():
    assert TABLE.size == 16 + 8 * len(functions())
    numbers = re.findall(r"#define LOWPREC_API_M(?:AJ|IN)OR (\d+)", HEADER)
    assert TABLE.version == tuple(map(int, numbers))


def test_cython_sees_every_function_and_member():
    declared = (INCLUDE / "lowprec" / "_ext" / "_core.pxd").read_text()
    assert re.findall(r"^cdef .*?lowprec_(\w+)\(", declared, re.MULTILINE) == functions()
    assert re.findall(r"\(\*(\w+)\)\(", declared.partition("lowprec_api:")[2]) == functions()
    assert {f"lowprec_{name}" for name in functions()} == set(_core.__pyx_capi__)
    for struct, fields in re.findall(
        r"typedef struct (lowprec_\w+) \{(.*?)^\} \1;", HEADER, re.S | re.M
    ):
        plain = re.sub(r"/\*.*?\*/", "", fields, flags=re.S)
        names = set(re.findall(r"(\w+)(?=[,;])", plain))
        (there,) = re.findall(rf"ctypedef struct {struct}:\n(.*?)(?:\n\n|\Z)", declared, re.S)
        if struct != "lowprec_api":
            assert names - {"tasks"} <= set(re.findall(r"\w+", there)), struct


@given(st.data())
def test_sums_of_codes_are_those_of_numerics(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    batches, m = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 6))
    k, n = data.draw(st.integers(0, 40)), data.draw(st.integers(1, 70))
    a_type, b_type = data.draw(st.sampled_from(BYTES)), data.draw(st.sampled_from(BYTES))
    b = codes(rng, (k, n), b_type)
    if data.draw(st.booleans()):
        b = np.ascontiguousarray(b.T).T
    zero = codes(rng, data.draw(st.sampled_from([(), (n,)])), b_type)
    a = apart(rng, codes(rng, (batches, m, k), a_type))
    y = apart(rng, np.zeros((batches, m, n), np.int32))
    row_zeros = codes(rng, batches * m, a_type)
    each_row = data.draw(st.booleans())
    members = {"row_zero_points": row_zeros.astype(np.int32)} if each_row else {"a_zero_point": 5}
    bias = rng.integers(-1000, 1000, n).astype(np.int32)
    with TABLE.packed(b, zero_point=zero, bias=bias) as weights:
        TABLE.gemm(weights, a, y, **members)
    zeros = row_zeros.reshape(batches, m) if each_row else np.full((batches, m), 5, a_type)
    for i in range(batches):
        expected = numerics.matmul_integer(a[i], b, zeros[i], zero) + bias
        np.testing.assert_array_equal(y[i], expected)
    if y.base is not None and y.size:
        assert (np.asarray(y.base)[:, m:] == SENTINEL).all()


@given(st.data())
def test_layers_are_those_of_numerics(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    batches, m = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    k, n = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 70))
    b = codes(rng, (k, n), np.int8)
    scale = rng.uniform(0.001, 0.01, n).astype(np.float32)
    bias = rng.standard_normal(n).astype(np.float32)
    dynamic = data.draw(st.booleans())
    y_type = data.draw(st.sampled_from([np.float32, ml_dtypes.bfloat16, np.uint8, np.int8]))
    activation, number = data.draw(st.sampled_from([("relu", 1), ("gelu", 21), ("tanh", 13)]))
    residual = rng.standard_normal((batches, m, n)).astype(np.float32)
    members = {"activation": number, "residual_dtype": 1, "residual": residual}
    named = {"activation": activation, "residual": residual}
    if np.dtype(y_type).kind in "ui":
        dynamic = False
        members |= {"y_scale": 0.03, "y_zero_point": 9}
        named |= {"y_scale": np.float32(0.03), "y_zero_point": y_type(9)}
    else:
        named |= {"out_dtype": y_type}
    if dynamic:
        a = apart(rng, rng.standard_normal((batches, m, k)).astype(np.float32))
    else:
        a = apart(rng, codes(rng, (batches, m, k), np.uint8))
        members |= {"a_scale": 0.02, "a_zero_point": 100}
        named |= {"a_scale": np.float32(0.02), "a_zero_point": np.uint8(100)}
    y = apart(rng, np.zeros((batches, m, n), y_type))
    with TABLE.packed(b, scale=scale, bias=bias) as weights:
        TABLE.gemm(weights, a, y, **members)
    packed = numerics.pack_weights(b, scale=scale, bias=bias)
    assert_same_bits(y, numerics.linear(a, packed, **named))


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
def test_float_products_are_those_of_numerics(dtype):
    rng = np.random.default_rng(0)
    a = apart(rng, rng.standard_normal((2, 5, 33)).astype(dtype))
    b = rng.standard_normal((33, 70)).astype(dtype)
    y = np.zeros((2, 5, 70), np.float32)
    with TABLE.packed(b) as weights:
        TABLE.gemm(weights, a, y)
    assert_same_bits(y, numerics.linear(a, numerics.pack_weights(b)))


def test_a_sum_that_could_leave_s32_is_refused():
    deep = np.full((66_000, 1), -128, np.int8)
    with pytest.raises(ValueError, match=r"^2 .*leave s32"), TABLE.packed(deep):
        pass
    # As deep, but no codes of a can take these weights that far.
    deep[1::2] = 1
    a = np.full((1, 1, 66_000), 255, np.uint8)
    y = np.zeros((1, 1, 1), np.int32)
    with TABLE.packed(deep) as weights:
        TABLE.gemm(weights, a, y)
    assert y.item() == 255 * 33_000 * (1 - 128)
