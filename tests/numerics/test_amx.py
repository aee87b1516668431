"""AMX products, over a model of the tile instructions: everything but the instructions themselves.

On a machine that has AMX, the same tests run on the instructions.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from guarded import both_ends
from hypothesis import given
from hypothesis import strategies as st
from number_strategies import assert_same_bits

from lowprec._ext import _core
from lowprec.numerics import reference

ROOT = Path(__file__).resolve().parents[2]
BF16 = ml_dtypes.bfloat16
AMX_ISAS = [isa for isa in (*_core.available_isas(), *_core.model_isas()) if isa.startswith("amx")]

every_amx = pytest.mark.parametrize("isa", AMX_ISAS)

# Either side of a tile (16 rows, 16 columns, 64 bytes), of a block of 2 x 2 and of a panel.
ROWS = [1, 15, 16, 17, 31, 32, 33, 47, 48, 64, 65, 100]
COLUMNS = [1, 15, 16, 17, 31, 32, 33, 48, 49, 63, 64, 65, 129]
DEPTHS = [0, 1, 2, 3, 4, 31, 32, 33, 34, 63, 64, 65, 96, 127, 128, 130, 191, 192, 193]
# Where blocks of rows are as small as they get, because these are long.
LONG = 9000

shapes = st.tuples(st.sampled_from(ROWS), st.sampled_from(DEPTHS), st.sampled_from(COLUMNS))
seeds = st.integers(0, 2**32 - 1)


def draw_bf16(rng: np.random.Generator, shape: tuple[int, ...], exponent: int = 0) -> np.ndarray:
    return (rng.standard_normal(shape) * 2.0**exponent).astype(BF16)


def bf16_product(a: np.ndarray, b: np.ndarray, isa: str, bias: np.ndarray | None = None):
    out = np.full((a.shape[0], b.shape[1]), 77, np.float32)
    assert _core.matmul_bf16(a, b, out, isa=isa, bias=bias) == isa
    return out


@every_amx
@given(shapes, seeds, st.booleans(), st.sampled_from([0, 0, 20, -55, -62]))
def test_bf16_is_the_sum_of_tdpbf16ps(isa, shape, seed, with_bias, exponent):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    a, b = draw_bf16(rng, (m, k), exponent), draw_bf16(rng, (k, n), exponent)
    bias = rng.standard_normal(n).astype(np.float32) if with_bias else None
    assert_same_bits(bf16_product(a, b, isa, bias), reference.gemm_bf16_amx(a, b, bias))


@every_amx
def test_bf16_rounds_unlike_vdpbf16ps_where_the_page_says_so(isa):
    # One chain loses each 1 beside 2^25; the chain of the odd elements keeps them to itself.
    a = np.ones((1, 32), BF16)
    b = np.tile(np.array([[2.0**20], [1]], BF16), (16, 1))
    b[0] = 2.0**25
    b[2::2] = 0
    assert bf16_product(a, b, isa)[0, 0] == 2.0**25 + 16
    assert reference.gemm_bf16(a, b)[0, 0] == 2.0**25 + 1 - 1


@every_amx
@pytest.mark.parametrize("rows", [1, 16, 17, 40])
def test_bf16_rows_do_not_depend_on_their_neighbours(isa, rows):
    rng = np.random.default_rng(rows)
    a, b = draw_bf16(rng, (40, 70)), draw_bf16(rng, (70, 65))
    whole = bf16_product(a, b, isa)
    assert_same_bits(bf16_product(a[:rows], b, isa), whole[:rows])
    assert_same_bits(bf16_product(a[-rows:], b, isa), whole[-rows:])


@every_amx
def test_bf16_does_not_multiply_what_follows_a_run(isa):
    # The group of k that follows is infinite for every row but the own: 0 * infinity is NaN.
    a, b = np.ones((17, 34), BF16), np.ones((34, 64), BF16)
    a[-1] = np.inf
    out = bf16_product(a, b, isa)
    assert (out[:-1] == 34).all()
    assert (out[-1] == np.inf).all()


@every_amx
@pytest.mark.parametrize("signed", [False, True])
@given(shape=shapes, seed=seeds, extreme=st.booleans())
def test_codes_are_exact(isa, signed, shape, seed, extreme):
    m, k, n = shape
    rng = np.random.default_rng(seed)
    dtype = np.int8 if signed else np.uint8
    limits = np.iinfo(dtype)
    a = rng.integers(limits.min, limits.max, (m, k), dtype, endpoint=True)
    if extreme:
        a = np.where(a > 0, limits.max, limits.min).astype(dtype)
    b = rng.integers(-128, 127, (k, n), np.int8, endpoint=True)
    assert_exact(a, b, isa)


def assert_exact(a: np.ndarray, b: np.ndarray, isa: str) -> None:
    out = np.full((a.shape[0], b.shape[1]), 77, np.int32)
    assert _core.matmul_int8(a, b, out, isa=isa) == isa
    np.testing.assert_array_equal(out, a.astype(np.int64) @ b.astype(np.int64))


@every_amx
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, BF16])
@pytest.mark.parametrize("shape", [(16, 64, 16), (17, 65, 33), (32, 63, 64), (48, 1, 5)])
def test_nothing_outside_of_the_matrices_is_read(isa, dtype, shape):
    m, k, n = shape
    rng = np.random.default_rng(k)
    is_bf16 = dtype == BF16
    b = draw_bf16(rng, (k, n)) if is_bf16 else rng.integers(-128, 128, (k, n)).astype(np.int8)
    a = draw_bf16(rng, (m, k)) if is_bf16 else rng.integers(0, 128, (m, k)).astype(dtype)
    for guarded_a in both_ends(a):
        if is_bf16:
            expected = reference.gemm_bf16_amx(a, b)
            assert_same_bits(bf16_product(guarded_a, b, isa), expected)
        else:
            assert_exact(guarded_a, b, isa)


@every_amx
@pytest.mark.parametrize("rows", [16, 33, 48])
def test_long_rows(isa, rows):
    rng = np.random.default_rng(rows)
    a = rng.integers(0, 256, (rows, LONG)).astype(np.uint8)
    b = rng.integers(-128, 128, (LONG, 3)).astype(np.int8)
    assert_exact(a, b, isa)
    a, b = draw_bf16(rng, (rows, LONG // 8)), draw_bf16(rng, (LONG // 8, 3))
    assert_same_bits(bf16_product(a, b, isa), reference.gemm_bf16_amx(a, b))


INTRINSICS = """
#include <immintrin.h>
void intrinsics(void* p, long s) {
  _tile_loadconfig(p); _tile_zero(3); _tile_loadd(6, p, s); _tile_stored(2, p, s);
  _tile_dpbusd(0, 4, 6); _tile_dpbssd(1, 5, 7); _tile_dpbf16ps(2, 5, 6);
  _tile_release();
}
"""
OURS = """
#define LP_ISA_AVX512
#include "kernels/vec.h"
#include "kernels/amx_tiles.h"
void ours(void* p, long s) {
  Tiles t; t.zero<3>(); t.load<6>(p, s); t.store<2>(p, s);
  t.dot_u8s8<0, 4, 6>(); t.dot_s8s8<1, 5, 7>(); t.dot_bf16<2, 5, 6>();
}
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="about x86-64 instructions")
@pytest.mark.skipif(not (shutil.which("g++") and shutil.which("objdump")), reason="needs g++")
def test_the_instructions_are_those_of_the_compilers_intrinsics(tmp_path):
    flags = ["-mamx-tile", "-mamx-int8", "-mamx-bf16", "-mavx512f", "-mavx512bw", "-mavx512vl"]

    def instructions(source: str) -> list[str]:
        (tmp_path / "x.cpp").write_text(source)
        command = ["g++", "-O2", *flags, f"-I{ROOT}/_ext", "-c", "x.cpp", "-o", "x.o"]
        subprocess.run(command, check=True, cwd=tmp_path)
        text = subprocess.run(
            ["objdump", "-d", "x.o"], check=True, cwd=tmp_path, capture_output=True, text=True
        ).stdout
        found = re.findall(r"\t((?:tile|tdp|ldtilecfg)\w*) *(.*)", text)
        return [
            f"{name} {re.sub(r'[-x0-9a-f]*[(].*[)]', '(memory)', rest)}" for name, rest in found
        ]

    theirs = instructions(INTRINSICS)
    assert len(theirs) == 8
    assert instructions(OURS) == theirs
