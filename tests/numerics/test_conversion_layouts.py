"""Blocks, rows, strides, overlaps, streams and threads: the definition's bits in every layout."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from guarded import guarded
from hypothesis import given
from hypothesis import strategies as st
from number_strategies import EDGE_VALUES, ISAS, assert_same_bits

import lowprec
from lowprec import numerics
from lowprec._ext import _core
from lowprec.errors import InputError, QuantizationError
from lowprec.numerics import reference

every_isa = pytest.mark.parametrize("isa", ISAS)
shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4)


def blocked_parameters(rng, shape, axis, size, dtype):
    blocks = list(shape)
    blocks[axis] = -(-shape[axis] // size)
    scale = rng.uniform(0.01, 2, blocks).astype(np.float32)
    limits = np.iinfo(dtype)
    zero_point = rng.integers(limits.min, limits.max, blocks, dtype, endpoint=True)
    return scale, zero_point


@given(
    shapes, st.integers(0, 3), st.integers(1, 5), st.integers(0, 2**32 - 1),
    st.sampled_from(["uint8", "int8", "uint16", "int16", "int32"]),
)  # fmt: skip
def test_blocks_are_the_definition_s(shape, axis, size, seed, dtype):
    axis %= len(shape)
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal(shape) * 100).astype(np.float32)
    scale, zero_point = blocked_parameters(rng, shape, axis, size, np.dtype(dtype))
    q = numerics.quantize_linear(x, scale, zero_point, axis=axis, block_size=size)
    scales = reference.blocked(scale, x.shape, axis, size)
    zeros = reference.blocked(zero_point, x.shape, axis, size)
    assert_same_bits(q, reference.quantize_linear(x, scales, zeros))
    real = numerics.dequantize_linear(q, scale, zero_point, axis=axis, block_size=size)
    assert_same_bits(real, reference.dequantize_linear(q, scales, zeros))
    real = numerics.dequantize_linear(q, scale, axis=axis, block_size=size)
    assert_same_bits(real, reference.dequantize_linear(q, scales, np.zeros_like(zeros)))


@every_isa
@pytest.mark.parametrize("shape", [(3, 4096, 1), (2, 130, 3), (1, 700, 2), (5, 3, 40), (300, 5, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_channels_anywhere_are_the_definition_s(isa, shape, dtype):
    # Channels last, nearly last, and rows: short and long ones, more than one buffer.
    rng = np.random.default_rng(shape[1])
    outer, depth, inner = shape
    x = (rng.standard_normal(shape) * 60).astype(np.float32)
    x.reshape(-1)[: EDGE_VALUES.size] = EDGE_VALUES[: x.size]
    scale = rng.uniform(0.1, 2, depth).astype(np.float32)
    zeros = rng.integers(0, 100, depth).astype(dtype)
    grid = (1, outer, depth, inner, 1)
    strided = np.empty((*shape[:2], 2 * inner), np.float32)[..., ::2]
    strided[...] = x
    for source in (x, strided):
        q = np.empty(shape, dtype)
        _core.quantize(source, q, scale, zeros.astype(np.int32), grid, isa=isa)
        assert_same_bits(q, reference.quantize_linear(x, scale, zeros, 1))
    real = np.empty(shape, np.float32)
    _core.dequantize(q, real, scale, zeros.astype(np.int32), grid, isa=isa)
    assert_same_bits(real, reference.dequantize_linear(q, scale, zeros, 1))
    acc = rng.integers(-(2**20), 2**20, shape).astype(np.int32)
    _core.requantize(acc, q, scale / 500, zeros.astype(np.int32), grid, isa=isa)
    assert_same_bits(q, reference.requantize(acc, scale / np.float32(500), zeros, 1))


STRIDES = {
    "negative": lambda x: x[::-1, ::-1],
    "odd": lambda x: x[::3, 1::2],
    "transposed": lambda x: x.T,
    "zero": lambda x: np.broadcast_to(x[:1], x.shape),
    "one row": lambda x: x[5],
    "one column": lambda x: x[:, 7],
    "one number": lambda x: x[3, 4],
    "nothing": lambda x: x[:0],
    "misaligned": lambda x: np.frombuffer(
        b"\0" + x.tobytes() + bytes(3), np.uint8
    )[1 : 1 + x.nbytes].view(x.dtype).reshape(x.shape),
}  # fmt: skip


@pytest.mark.parametrize("view", STRIDES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_any_strides_and_floats_are_converted_without_a_copy(view, dtype):
    kind = np.dtype(ml_dtypes.bfloat16) if dtype == "bfloat16" else np.dtype(dtype)
    x = STRIDES[view]((np.random.default_rng(0).standard_normal((70, 90)) * 9).astype(kind))
    plain = np.asarray(x.astype(np.float32), order="C")
    scale, zero = np.float32(0.1), np.uint8(90)
    for convert, definition in (
        (numerics.to_bf16, reference.to_bf16),
        (numerics.to_f16, reference.to_f16),
        (numerics.to_tf32, reference.to_tf32),
        (numerics.to_e4m3, reference.to_e4m3),
        (numerics.to_e5m2, reference.to_e5m2),
        (
            lambda a: numerics.quantize_linear(a, scale, zero),
            lambda a: reference.quantize_linear(a, scale, zero),
        ),
    ):
        assert_same_bits(convert(x), definition(plain))


@pytest.mark.parametrize("view", ["negative", "odd", "transposed", "one column"])
def test_results_go_to_any_strides(view):
    x = np.random.default_rng(0).standard_normal((70, 90)).astype(np.float32)
    source = STRIDES[view](x).copy()
    for convert, dtype in (
        (numerics.to_bf16, ml_dtypes.bfloat16),
        (numerics.to_e5m2, ml_dtypes.float8_e5m2),
        (numerics.to_tf32, np.float32),
    ):
        around = np.zeros((70, 90), dtype)
        out = STRIDES[view](around)
        assert convert(source, out=out) is out
        assert_same_bits(out.copy(), convert(source))
        out[...] = 0
        assert not around.any()  # nothing beside it was written


def test_out_may_overlap_the_source_anyhow():
    memory = np.random.default_rng(0).standard_normal(4000).astype(np.float32)
    for out_of in (slice(0, 1000), slice(1, 1001), slice(999, None, -1), slice(0, 2000, 2)):
        work = memory.copy()
        expected = numerics.to_tf32(work[:1000])
        numerics.to_tf32(work[:1000], out=work[out_of])
        assert_same_bits(work[out_of].copy(), expected)
        work = memory.copy()
        expected = numerics.to_bf16(work[:1000])
        halves = work.view(ml_dtypes.bfloat16)[500:1500]
        numerics.to_bf16(work[:1000], out=halves)
        assert_same_bits(halves.copy(), expected)


@every_isa
@pytest.mark.parametrize("offset", [0, 1, 5, 31])
def test_streaming_stores_write_the_same(isa, offset):
    # Larger than any cache: the size decides. Results begin anywhere, beside bytes to keep.
    n = 6_000_011
    x = np.random.default_rng(0).standard_normal(n).astype(np.float32) * 3
    memory = np.full(4 * n + 256, 77, np.uint8)
    for code, definition, dtype in (
        (_core.F32_TO_BF16, reference.to_bf16, np.dtype(ml_dtypes.bfloat16)),
        (_core.F32_TO_E4M3, lambda x: x.astype(ml_dtypes.float8_e4m3fn), np.uint8),
        (_core.F32_TO_TF32, reference.to_tf32, np.dtype(np.float32)),
    ):
        dtype = np.dtype(dtype)
        begin, size = offset * dtype.itemsize, n * dtype.itemsize
        y = memory[begin : begin + size].view(dtype)
        _core.cast(code, x, y, isa=isa)
        assert_same_bits(y.view(f"u{dtype.itemsize}"), definition(x).view(f"u{dtype.itemsize}"))
        assert (memory[:begin] == 77).all()
        assert (memory[begin + size :] == 77).all()
        memory[...] = 77


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_any_number_of_threads_gives_the_same(threads):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((333, 1111)).astype(np.float32)
    scale = rng.uniform(0.01, 1, 1111).astype(np.float32)
    zeros = rng.integers(0, 255, 1111).astype(np.uint8)
    before = lowprec.get_num_threads()
    try:
        lowprec.set_num_threads(threads)
        assert_same_bits(numerics.to_bf16(x), reference.to_bf16(x))
        assert_same_bits(numerics.to_f16(x.T), reference.to_f16(x.T.copy()))
        q = numerics.quantize_linear(x, scale, zeros, axis=1)
        assert_same_bits(q, reference.quantize_linear(x, scale, zeros, 1))
        q = numerics.quantize_linear(x.T, scale, zeros, axis=0)
        assert_same_bits(q, reference.quantize_linear(x.T.copy(), scale, zeros, 0))
        for actual, expected in zip(
            numerics.dynamic_quantize_linear(x), reference.dynamic_quantize_linear(x), strict=True
        ):
            assert_same_bits(actual, expected)
        codes, row_scales, row_zeros = numerics.dynamic_quantize_linear(x, per_row=True)
    finally:
        lowprec.set_num_threads(before)
    for i in (0, 5, 332):
        expected = reference.dynamic_quantize_linear(x[i])
        assert_same_bits(codes[i], expected[0])
        assert (row_scales[i], row_zeros[i]) == expected[1:]


@given(shapes, st.integers(0, 2**32 - 1), st.booleans())
def test_dynamic_rows_are_quantised_one_by_one(shape, seed, reverse):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32) * np.float32(10.0) ** rng.integers(-20, 20)
    x[rng.random(shape) < 0.2] = 0
    x = x[..., ::-1] if reverse else x
    codes, scale, zero_point = numerics.dynamic_quantize_linear(x, per_row=True)
    assert scale.shape == zero_point.shape == tuple(shape[:-1])
    for index in np.ndindex(*shape[:-1]):
        expected = reference.dynamic_quantize_linear(np.ascontiguousarray(x[index]))
        assert_same_bits(codes[index], expected[0])
        assert_same_bits(scale[index], expected[1])
        assert_same_bits(zero_point[index], expected[2])


@pytest.mark.parametrize("low", [-3.4e38, -1e-40, 0.0, 3e-39])
@pytest.mark.parametrize("high", [3.4e38, 1e-44, 2.0])
def test_dynamic_ranges_at_the_ends_of_float32(low, high):
    x = np.float32([low, high, 0.5 * low])
    for actual, expected in zip(
        numerics.dynamic_quantize_linear(x), reference.dynamic_quantize_linear(x), strict=True
    ):
        assert_same_bits(actual, expected)


@every_isa
@pytest.mark.parametrize("at", ["end", "start"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 7, 5), (3, 70, 1), (2, 3, 65)])
def test_nothing_outside_the_arrays_is_touched(isa, at, shape):
    outer, depth, inner = shape
    reals = guarded(np.linspace(-1, 1, np.prod(shape), dtype=np.float32).reshape(shape), at)
    acc = guarded(np.arange(np.prod(shape), dtype=np.int32).reshape(shape), at)
    blocks = -(-depth // 2)
    for grid, count in (
        ((1, outer, depth, inner, 1), depth),
        ((2, outer, depth, inner, 2), outer * blocks * inner),
    ):
        scale = guarded(np.full(count, 0.1, np.float32), at)
        zeros = guarded(np.full(count, 3, np.int32), at)
        for dtype in (np.uint8, np.int8, np.uint16, np.int16, np.int32):
            codes = guarded(np.zeros(shape, dtype), at)
            _core.quantize(reals, codes, scale, zeros, grid, isa=isa)
            _core.dequantize(codes, guarded(np.zeros(shape, np.float32), at), scale, zeros, grid,
                             isa=isa)  # fmt: skip
            _core.requantize(acc, codes, scale, zeros, grid, isa=isa)


def test_torch_casts_alike():
    torch = pytest.importorskip("torch")
    x = np.concatenate([EDGE_VALUES[np.isfinite(EDGE_VALUES)], np.linspace(-70000, 70000, 4097)])
    x = x.astype(np.float32)
    tensor = torch.from_numpy(x)
    for kind, mine in (
        (torch.bfloat16, numerics.to_bf16(x)),
        (torch.float16, numerics.to_f16(x)),
        (torch.float8_e5m2, numerics.to_e5m2(x, saturate=False)),
        (torch.float8_e4m3fn, numerics.to_e4m3(x)),
    ):
        bits = {1: (torch.uint8, np.uint8), 2: (torch.int16, np.int16)}[mine.itemsize]
        theirs = tensor.to(kind).view(bits[0]).numpy()
        np.testing.assert_array_equal(mine.view(bits[1]), theirs)


def test_wrong_blocks_are_refused():
    x, one = np.zeros((4, 6), np.float32), np.float32(1)
    zero = np.uint8(0)
    with pytest.raises(InputError, match="axis"):
        numerics.quantize_linear(x, one, zero, block_size=2)
    with pytest.raises(InputError, match="block_size is 0"):
        numerics.quantize_linear(x, one, zero, axis=1, block_size=0)
    with pytest.raises(InputError, match=r"\(4, 3\)"):
        numerics.quantize_linear(x, np.ones((4, 2), np.float32), zero, axis=1, block_size=2)
    with pytest.raises(InputError, match="zero_point has shape"):
        numerics.quantize_linear(
            x, np.ones((4, 3), np.float32), np.zeros((4, 1), np.uint8), axis=1, block_size=2
        )
    with pytest.raises(InputError, match="per_row"):
        numerics.dynamic_quantize_linear(one, per_row=True)
    with pytest.raises(QuantizationError, match="1 NaN or infinite"):
        numerics.dynamic_quantize_linear(np.float32([[1, 2], [np.nan, 3]]), per_row=True)
    with pytest.raises(InputError, match="float8_e4m3fn"):
        numerics.from_e4m3(np.zeros(3, np.uint8))
