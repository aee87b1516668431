"""What follows a product: every step of an epilogue, as if it ran by itself, on every set."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from number_strategies import EDGE_VALUES, PRODUCT_ISAS, assert_same_bits, bf16_definition
from one_node import run_node

from lowprec._ext import _core
from lowprec.numerics import reference

every_isa = pytest.mark.parametrize("isa", PRODUCT_ISAS)
seeds = st.integers(0, 2**32 - 1)

F32, BF16 = np.float32, ml_dtypes.bfloat16

# _ext/kernels/kernels.h, UnaryCode.
RELU, CLIP, MUL, LEAKY_RELU, SIGMOID, SILU, TANH, ERF, GELU = 1, 2, 4, 8, 11, 12, 13, 20, 21
ADD_RESIDUAL, ADD_CHANNEL, MUL_CHANNEL, THROUGH_U8, THROUGH_S8, PRELU_CHANNEL = range(64, 70)

ROWS = [1, 2, 3, 4, 5, 7, 8, 9, 13, 129]
COLUMNS = [1, 7, 15, 16, 17, 31, 33, 48, 63, 64, 65, 100, 129, 192]
shapes = st.tuples(st.sampled_from(ROWS), st.sampled_from(COLUMNS))


class Operands:
    """Random sums of an int8 product, with everything an epilogue may ask for."""

    def __init__(self, seed: int, m: int, n: int) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.m, self.n = m, n
        self.a = rng.integers(0, 256, (m, 6)).astype(np.uint8)
        self.b = rng.integers(-128, 128, (6, n)).astype(np.int8)
        self.acc = self.a.astype(np.int64) @ self.b
        self.multiplier = rng.uniform(1e-4, 1e-3, n).astype(F32)
        self.multiplier[rng.random(n) < 0.3] = 2.0**-12  # ties further down
        self.x = reference.dequantize_accumulator(self.acc, self.multiplier, axis=1)

    def channel(self) -> np.ndarray:
        return self.rng.standard_normal(self.n).astype(F32)

    def residual(self, dtype: type) -> np.ndarray:
        """(M, N) with rows further apart than N."""
        shape = (self.m, self.n + 5)
        if np.dtype(dtype).kind in "iu":
            limits = np.iinfo(dtype)
            wide = self.rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
        else:
            wide = self.rng.standard_normal(shape).astype(dtype)
        return wide[:, : self.n]

    def run(self, dtype, isa, epilogue, **more) -> np.ndarray:
        memory = np.full(self.m * self.n + 128, 77, dtype)
        out = memory[64:-64].reshape(self.m, self.n)
        ran = _core.matmul_int8(
            self.a, self.b, out, isa=isa, multiplier=self.multiplier, epilogue=epilogue, **more
        )
        assert ran == isa
        assert (memory[:64] == 77).all()
        assert (memory[-64:] == 77).all()
        return out


def as_output(real: np.ndarray, dtype: type, scale: float, zero_point: int) -> np.ndarray:
    if dtype is F32:
        return real
    if dtype is BF16:
        return reference.to_bf16(real)
    return reference.quantize_linear(real, F32(scale), dtype(zero_point))


outputs = st.sampled_from([F32, BF16, np.uint8, np.int8])


@every_isa
@given(shapes, seeds, st.sampled_from([F32, BF16, np.uint8, np.int8]), outputs, st.booleans())
def test_a_residual_is_added_where_the_chain_says(isa, shape, seed, kind, dtype, heavy):
    data = Operands(seed, *shape)
    residual = data.residual(kind)
    zero_point = kind(3) if np.dtype(kind).kind in "iu" else np.uint8(0)
    slope = F32(0.3)
    chain = [(LEAKY_RELU, slope, 0), (ADD_RESIDUAL, 0, 0), (RELU, 0, 0)]
    real = np.where(data.x < 0, slope * data.x, data.x)
    real = reference.add_residual(real, residual, F32(0.017), zero_point)
    real = np.maximum(real, F32(0))
    if heavy:  # an operator of many instructions
        chain.append((TANH, 0, 0))
        real = apply_alone(real, TANH)
    epilogue = _core.ProductEpilogue(
        chain, residual=residual, residual_scale=0.017, residual_zero_point=int(zero_point)
    )
    actual = data.run(dtype, isa, epilogue, scale=0.02, zero_point=11)
    assert_same_bits(actual, as_output(real, dtype, 0.02, 11))


# One of the frequent ones stays in registers; others, and two of them, go through memory.
LONG = [[SIGMOID], [SILU], [TANH], [GELU], [ERF], [SILU, GELU]]


@every_isa
@given(shapes, seeds, outputs, st.sampled_from(LONG), st.booleans(), st.booleans(), st.booleans())
def test_long_operators_stand_anywhere(isa, shape, seed, dtype, long, before, after, looked_up):
    data = Operands(seed, *shape)
    factor, real, chain = data.channel(), data.x, []
    if before:
        real = real * factor
        chain.append((MUL_CHANNEL, 0, 0))
    for code in long:
        real = apply_alone(real, code)
        chain.append((code, 0, 0))
    if after:
        real = np.clip(real * F32(0.7), F32(-0.3), F32(0.8))
        chain += [(MUL, 0.7, 0), (CLIP, -0.3, 0.8)]
    expected = as_output(real, dtype, 0.004, 40)
    table = None
    if looked_up and np.dtype(dtype).kind in "iu" and np.dtype(dtype).itemsize == 1:
        table = data.rng.permutation(256).astype(np.uint8)
        expected = reference.qtable(expected, table).view(dtype)
    epilogue = _core.ProductEpilogue(chain, channel_values=[factor], table=table)
    actual = data.run(dtype, isa, epilogue, scale=0.004, zero_point=40)
    assert_same_bits(actual, expected)


def apply_alone(x: np.ndarray, code: int) -> np.ndarray:
    """One operator by itself, scalar."""
    chain = {"codes": [code], "a": [0.0], "b": [0.0]}
    return run_node("UnaryChain", [np.ascontiguousarray(x)], chain, isa="scalar")[0]


@every_isa
@given(shapes, seeds, outputs)
def test_channel_lists_and_codes_in_between_run_in_order(isa, shape, seed, dtype):
    data = Operands(seed, *shape)
    add, factor = data.channel(), data.channel()
    chain = [
        (ADD_CHANNEL, 1, 0), (THROUGH_S8, 0.0078125, -7), (MUL_CHANNEL, 0, 0),
        (THROUGH_U8, 0.01, 200), (MUL, 0.5, 0),
    ]  # fmt: skip
    real = reference.through_codes(data.x + add, F32(0.0078125), np.int8(-7))
    real = reference.through_codes(real * factor, F32(0.01), np.uint8(200)) * F32(0.5)
    epilogue = _core.ProductEpilogue(chain, channel_values=[factor, add])
    actual = data.run(dtype, isa, epilogue, scale=0.004, zero_point=100)
    assert_same_bits(actual, as_output(real, dtype, 0.004, 100))


@every_isa
@given(shapes, seeds, outputs, st.booleans(), st.booleans())
def test_each_channel_has_a_slope_below_zero(isa, shape, seed, dtype, with_addend, with_more):
    data = Operands(seed, *shape)
    slopes, addend = data.channel(), data.channel() if with_addend else None
    real = data.x if addend is None else data.x + addend
    real = np.where(real < 0, slopes * real, real)
    chain = [(PRELU_CHANNEL, 1, 0)]
    if with_more:  # alone it has a path of its own
        real = real * F32(0.5)
        chain.append((MUL, 0.5, 0))
    epilogue = _core.ProductEpilogue(chain, channel_values=[data.channel(), slopes])
    actual = data.run(dtype, isa, epilogue, addend=addend, scale=0.004, zero_point=100)
    assert_same_bits(actual, as_output(real, dtype, 0.004, 100))


@every_isa
@given(shapes, seeds, st.sampled_from([F32, BF16]), st.booleans(), st.booleans())
def test_rows_have_multipliers_of_their_own(isa, shape, seed, dtype, with_addend, with_chain):
    data = Operands(seed, *shape)
    rows = data.rng.uniform(0.1, 3, data.m).astype(F32)
    addend = data.channel() if with_addend else None
    real = reference.dequantize_rows(data.acc, rows, data.multiplier)
    if with_addend:
        real = real + addend
    if with_chain:
        real = np.clip(real, F32(-0.5), F32(0.5))
    chain = [(CLIP, -0.5, 0.5)] if with_chain else []
    epilogue = _core.ProductEpilogue(chain, row_multiplier=rows)
    assert_same_bits(data.run(dtype, isa, epilogue, addend=addend), as_output(real, dtype, 1, 0))


@every_isa
@given(shapes, seeds, st.sampled_from([np.uint8, np.int8]), st.booleans(), st.booleans())
def test_a_table_replaces_the_final_codes(isa, shape, seed, dtype, with_chain, clamped):
    data = Operands(seed, *shape)
    table = data.rng.permutation(256).astype(np.uint8)
    if with_chain:
        codes = reference.quantize_linear(np.maximum(data.x, F32(0)), F32(0.01), dtype(5))
        chain = [(RELU, 0, 0)]
    else:
        data.multiplier = data.multiplier * F32(100)
        codes = reference.requantize(data.acc, data.multiplier, dtype(5), axis=1)
        chain = []
    bounds = {"qmin": 3, "qmax": 90} if clamped else {}
    if clamped:
        codes = np.clip(codes, 3, 90).astype(dtype)
    epilogue = _core.ProductEpilogue(chain, table=table, **bounds)
    actual = data.run(dtype, isa, epilogue, scale=0.01, zero_point=5)
    assert_same_bits(actual, reference.qtable(codes, table).view(dtype))


@every_isa
def test_a_table_knows_every_code(isa):
    a, b = np.arange(256, dtype=np.uint8)[:, None], np.ones((1, 70), np.int8)
    table = np.random.default_rng(0).permutation(256).astype(np.uint8)
    out = np.empty((256, 70), np.uint8)
    _core.matmul_int8(
        a, b, out, isa=isa, multiplier=np.ones(70, F32), epilogue=_core.ProductEpilogue(table=table)
    )
    assert (out == table[:, None]).all()


@every_isa
@given(seeds, st.sampled_from(["f32", "bf16", "f16"]), outputs)
def test_float_products_have_the_same_endings(isa, seed, kind, dtype):
    rng = np.random.default_rng(seed)
    m, n = int(rng.choice(ROWS)), int(rng.choice(COLUMNS))
    element = {"f32": F32, "bf16": BF16, "f16": np.float16}[kind]
    a, b = rng.standard_normal((m, 5)).astype(element), rng.standard_normal((5, n)).astype(element)
    bias, factor = rng.standard_normal((2, n)).astype(F32)
    residual = rng.integers(0, 256, (m, n + 3)).astype(np.uint8)[:, :n]
    out = np.empty((m, n), dtype)
    chain = [(MUL_CHANNEL, 0, 0), (ADD_RESIDUAL, 0, 0), (CLIP, -1, 2)]
    epilogue = _core.ProductEpilogue(
        chain, channel_values=[factor], residual=residual, residual_scale=0.01,
        residual_zero_point=128,
    )  # fmt: skip
    getattr(_core, f"matmul_{kind}")(
        a, b, out, bias=bias, scale=0.03, zero_point=9, epilogue=epilogue, isa=isa
    )
    definition = bf16_definition(isa) if kind == "bf16" else getattr(reference, f"gemm_{kind}")
    real = definition(a, b, bias) * factor
    real = reference.add_residual(real, residual, F32(0.01), np.uint8(128))
    assert_same_bits(out, as_output(np.clip(real, F32(-1), F32(2)), dtype, 0.03, 9))


@every_isa
def test_results_round_to_bf16_as_the_cast_does(isa):
    x = np.concatenate([EDGE_VALUES, np.random.default_rng(0).standard_normal(500).astype(F32)])
    expected = reference.to_bf16(x)
    out = np.empty(x.size, BF16).reshape(-1, 1)
    # 1 * x leaves every bit, once the chain's +0 has made -0 of no account; the bias is x itself.
    _core.matmul_f32(np.zeros((1, 1), F32), np.zeros((1, x.size), F32), out.reshape(1, -1),
                     bias=x, isa=isa)  # fmt: skip
    actual, nan = out.reshape(-1), np.isnan(x)
    keep = ~nan & (x != 0)
    assert_same_bits(actual[keep], expected[keep])
    assert np.isnan(actual[nan].astype(F32)).all()
    # The same through vdpbf16ps' own rounding: bf16 operands of zero, x in the bias.
    _core.matmul_bf16(np.zeros((1, 1), BF16), np.zeros((1, x.size), BF16), out.reshape(1, -1),
                      bias=x, isa=isa)  # fmt: skip
    assert_same_bits(out.reshape(-1)[keep], expected[keep])
    assert_same_bits(out.reshape(-1)[nan], expected[nan])
