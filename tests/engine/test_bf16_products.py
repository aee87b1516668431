"""bf16 convolutions and matrix products equal the reference, on every instruction set."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from engine_programs import ISAS, run_operator
from hypothesis import given, settings
from hypothesis import strategies as st
from one_node import run_node

from lowprec.engine import programs  # noqa: F401  (makes the core hold bf16)
from lowprec.numerics import reference

BF16 = ml_dtypes.bfloat16
F32_TYPE, BF16_TYPE = 1, 16  # ONNX element types
RELU = {"chain_codes": [1], "chain_a": [0.0], "chain_b": [0.0]}
# AMX rounds in another order (docs/instruction_sets.md).
EXACT_ISAS = [isa for isa in ISAS if not isa.startswith("amx")]
AMX = [isa for isa in ISAS if isa.startswith("amx")]


def reals(rng: np.random.Generator, shape: tuple[int, ...], *, odd: bool = False) -> np.ndarray:
    """Return bf16 numbers; `odd`: of all sizes, denormals too."""
    numbers = rng.standard_normal(shape).astype(np.float32)
    if odd:
        numbers *= np.float32(2.0) ** rng.integers(-140, 60, shape).astype(np.float32)
    return numbers.astype(BF16)


def rounded(x: np.ndarray, dtype: int) -> np.ndarray:
    return reference.to_bf16(x) if dtype == BF16_TYPE else x


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    nan = np.isnan(a.astype(np.float32))
    np.testing.assert_array_equal(nan, np.isnan(b.astype(np.float32)))
    return a[~nan].tobytes() == b[~nan].tobytes()


@st.composite
def convolutions(draw: st.DrawFn):
    kind = draw(st.sampled_from(["plain", "plain", "grouped", "depthwise"]))
    channels = draw(st.sampled_from([1, 2, 3, 4, 7, 16, 33]))
    outputs = draw(st.sampled_from([1, 3, 8, 16, 17, 24, 33, 64, 66]))
    group = 1
    if kind == "grouped":
        group = 2
        channels, outputs = 2 * channels, 2 * outputs
    elif kind == "depthwise":
        group = outputs = channels = draw(st.sampled_from([2, 3, 15, 16, 40, 65, 130]))
    kernel = [draw(st.integers(1, 3)), draw(st.integers(1, 3))]
    attributes = {
        "strides": [draw(st.integers(1, 2)), draw(st.integers(1, 2))],
        "dilations": [draw(st.integers(1, 2)), draw(st.integers(1, 2))],
        "pads": [draw(st.integers(0, 2)) for _ in range(4)],
        "group": group,
    }
    size = [draw(st.integers(5, 7)), draw(st.integers(5, 9))]
    return channels, outputs, kernel, attributes, size


@pytest.mark.parametrize("isa", EXACT_ISAS)
@settings(max_examples=40, deadline=None)
@given(
    case=convolutions(),
    seed=st.integers(0, 2**32 - 1),
    odd=st.booleans(),
    dtype=st.sampled_from([F32_TYPE, BF16_TYPE]),
    activated=st.booleans(),
)
def test_a_convolution_is_the_references(isa, case, seed, odd, dtype, activated):
    channels, outputs, kernel, attributes, size = case
    rng = np.random.default_rng(seed)
    x = reals(rng, (2, channels, *size), odd=odd)
    w = reals(rng, (outputs, channels // attributes["group"], *kernel))
    bias = rng.standard_normal(outputs).astype(np.float32)
    expected = reference.conv_bf16(x, w, bias, **attributes)
    if activated:
        expected = np.maximum(expected, 0)
    given_attributes = {**attributes, **(RELU if activated else {}), "y_dtype": dtype}
    result, rows = run_operator("Conv", x, [w, bias], given_attributes, isa)
    assert same_bits(result, rounded(expected, dtype))
    assert any(row["kernel"] in ("conv bf16", "depthwise bf16") for row in rows)


@pytest.mark.parametrize("isa", EXACT_ISAS)
@settings(max_examples=40, deadline=None)
@given(
    m=st.sampled_from([1, 2, 5, 13, 40]),
    n=st.sampled_from([1, 8, 16, 17, 24, 33, 48, 64, 65, 300]),
    k=st.sampled_from([1, 2, 3, 7, 32, 65]),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([F32_TYPE, BF16_TYPE]),
    constant=st.booleans(),
    flip=st.booleans(),
)
def test_a_matrix_product_is_the_references(isa, m, n, k, seed, dtype, constant, flip):
    rng = np.random.default_rng(seed)
    a, b = reals(rng, (m, k), odd=True), reals(rng, (k, n))
    bias = rng.standard_normal(n).astype(np.float32) if constant else None
    stored = np.ascontiguousarray(b.T) if flip else b
    inputs = [a, stored, bias] if constant else [a, stored]
    (result,) = run_node(
        "Gemm",
        inputs,
        {"y_dtype": dtype, "transB": int(flip)},
        constant=(1, 2) if constant else (),
        isa=isa,
    )
    assert same_bits(result, rounded(reference.gemm_bf16(a, b, bias), dtype))


@pytest.mark.parametrize("isa", EXACT_ISAS)
def test_batches_broadcast(isa):
    rng = np.random.default_rng(3)
    a, b = reals(rng, (2, 1, 5, 9)), reals(rng, (3, 9, 21))
    (result,) = run_node("MatMul", [a, b], {"y_dtype": F32_TYPE}, isa=isa)
    assert result.shape == (2, 3, 5, 21)
    for i in range(2):
        for j in range(3):
            assert same_bits(result[i, j], reference.gemm_bf16(a[i, 0], b[j]))


@pytest.mark.parametrize("isa", AMX)
def test_amx_is_its_own_reference(isa):
    rng = np.random.default_rng(4)
    a, b = reals(rng, (37, 70)), reals(rng, (70, 90))
    (result,) = run_node("MatMul", [a, b], {"y_dtype": F32_TYPE}, constant=(1,), isa=isa)
    assert same_bits(result, reference.gemm_bf16_amx(a, b))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("dtype", [F32_TYPE, BF16_TYPE])
def test_a_transposed_convolution_of_whole_numbers_is_exact(isa, kernel, dtype):
    # Stride 2 with a kernel of 2 is one product, of 3 it is phases; sums of small integers are
    # exact in any order.
    rng = np.random.default_rng(5)
    x = rng.integers(-3, 4, (1, 6, 4, 5)).astype(BF16)
    w = rng.integers(-3, 4, (6, 5, kernel, kernel)).astype(BF16)
    bias = rng.integers(-9, 9, 5).astype(np.float32)
    size = [3 * 2 + kernel, 4 * 2 + kernel]
    expected = np.broadcast_to(bias[:, None, None], (1, 5, *size)).copy()
    for y in range(4):
        for z in range(5):
            pixel = np.einsum("i,iohw->ohw", x[0, :, y, z].astype(np.float32), w.astype(np.float32))
            expected[0, :, 2 * y : 2 * y + kernel, 2 * z : 2 * z + kernel] += pixel
    expected = np.maximum(expected, 0)
    attributes = {"strides": [2, 2], "y_dtype": dtype, **RELU}
    result, _ = run_operator("ConvTranspose", x, [w, bias], attributes, isa)
    assert same_bits(result, rounded(expected, dtype))


@pytest.mark.parametrize("isa", EXACT_ISAS)
@pytest.mark.parametrize("group", [1, 40])
@pytest.mark.parametrize("residual", [BF16, np.float32])
@pytest.mark.parametrize("dtype", [F32_TYPE, BF16_TYPE])
def test_a_residual_is_added_before_rounding(isa, group, residual, dtype):
    rng = np.random.default_rng(9)
    x, w = reals(rng, (2, 40, 6, 9)), reals(rng, (40, 40 // group, 3, 3))
    bias = rng.standard_normal(40).astype(np.float32)
    beside = rng.standard_normal((2, 40, 6, 9)).astype(residual)
    shape = {"strides": [1, 1], "pads": [1] * 4, "dilations": [1, 1], "group": group}
    after = {"sum_codes": [1], "sum_a": [0.0], "sum_b": [0.0]}
    if dtype == BF16_TYPE:
        after["sum_dtype"] = BF16_TYPE
    (result,) = run_node(
        "Conv",
        [x, w, bias, None, None, None, beside],
        {**shape, "y_dtype": F32_TYPE, **after},
        constant=(1, 2),
        isa=isa,
    )
    total = reference.conv_bf16(x, w, bias, **shape) + beside.astype(np.float32)
    assert same_bits(result, rounded(np.maximum(total, 0), dtype))


def test_without_y_dtype_the_result_is_bf16_as_onnx_has_it():
    rng = np.random.default_rng(6)
    x, w = reals(rng, (1, 4, 6, 6)), reals(rng, (8, 4, 3, 3))
    bias = reals(rng, (8,))
    result, _ = run_operator("Conv", x, [w, bias], {}, EXACT_ISAS[0])
    expected = reference.conv_bf16(
        x, w, bias.astype(np.float32), strides=[1, 1], pads=[0] * 4, dilations=[1, 1]
    )
    assert same_bits(result, reference.to_bf16(expected))
