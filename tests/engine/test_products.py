"""Products equal the reference bit for bit: any shape, any code, every instruction set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from engine_programs import ISAS, run_operator
from hypothesis import given, settings
from hypothesis import strategies as st

from lowprec.numerics import reference

# Either side of the tiles: MR 3, 4, 6, 8; vectors of 16; panels of 64; K groups of 4.
ROWS = [1, 2, 3, 4, 5, 7, 8, 9, 13, 130]
COLUMNS = [1, 8, 15, 16, 17, 31, 33, 47, 48, 63, 64, 65, 100, 128, 130]
DEPTHS = [1, 2, 3, 4, 5, 7, 8, 31, 64, 67]
MAX_DEPTH = 65793  # 255 * 128 * MAX_DEPTH < 2**31

U8, S8 = 2, 3  # ONNX element types


@dataclass
class Layer:
    x: np.ndarray
    w: np.ndarray
    bias: np.ndarray
    x_scale: np.float32
    w_scale: np.ndarray
    x_zero_point: int

    def attributes(self) -> dict[str, object]:
        return {
            "x_scale": float(self.x_scale),
            "w_scale": [float(number) for number in self.w_scale],
            "x_zero_point": self.x_zero_point,
        }


def codes(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: type, extreme: bool
) -> np.ndarray:
    if extreme:
        limits = [0, 255] if dtype is np.uint8 else [-128, 127]
        return rng.choice(np.array(limits, dtype), shape)
    low, high = (0, 256) if dtype is np.uint8 else (-128, 128)
    return rng.integers(low, high, shape).astype(dtype)


@st.composite
def matrices(draw: st.DrawFn) -> Layer:
    m, n, k = (draw(st.sampled_from(sizes)) for sizes in (ROWS, COLUMNS, DEPTHS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    extreme = draw(st.booleans())
    signed = draw(st.booleans())
    return Layer(
        codes(rng, (m, k), np.int8 if signed else np.uint8, extreme),
        codes(rng, (k, n), np.int8, extreme),
        rng.integers(-40000, 40000, n).astype(np.int32),
        np.float32(2.0 ** draw(st.integers(-9, 3))) * np.float32(1.1),
        (rng.random(n) * 0.01 + 1e-4).astype(np.float32),
        draw(st.sampled_from([-128, -5, 0, 127] if signed else [0, 1, 128, 255])),
    )


def accumulators(layer: Layer) -> np.ndarray:
    steps = layer.x.astype(np.int64) - layer.x_zero_point
    return steps @ layer.w.astype(np.int64) + layer.bias


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None)
@given(layer=matrices())
def test_matrix_product_to_float_is_exact(isa, layer):
    result, rows = run_operator("QMatMul", layer.x, [layer.w, layer.bias], layer.attributes(), isa)
    both = layer.x_scale * layer.w_scale
    np.testing.assert_array_equal(
        result, reference.dequantize_accumulator(accumulators(layer), both, axis=1)
    )
    assert rows[-1]["kernel"] == ("matrix u8s8" if layer.x.dtype == np.uint8 else "matrix s8s8")


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=60, deadline=None)
@given(
    layer=matrices(),
    signed=st.booleans(),
    y_scale=st.sampled_from([1e-4, 0.05, 3.0, 1e4]),
    zero=st.sampled_from([0, 3, 127]),
    clamp=st.booleans(),
)
def test_matrix_product_to_codes_is_the_reference(isa, layer, signed, y_scale, zero, clamp):
    dtype = np.int8 if signed else np.uint8
    zero_point = np.array(zero - (64 if signed else 0), dtype)
    scale = np.float32(y_scale)
    attributes = layer.attributes() | {
        "y_dtype": S8 if signed else U8,
        "y_scale": float(scale),
        "y_zero_point": int(zero_point),
    }
    if clamp:
        attributes |= {"y_qmin": int(zero_point), "y_qmax": min(int(zero_point) + 40, 127)}
    result, _ = run_operator("QMatMul", layer.x, [layer.w, layer.bias], attributes, isa)
    multiplier = (layer.x_scale * layer.w_scale) / scale
    expected = reference.requantize(accumulators(layer), multiplier, zero_point, axis=1)
    if clamp:
        expected = np.clip(expected, attributes["y_qmin"], attributes["y_qmax"])
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=30, deadline=None)
@given(layer=matrices(), to_codes=st.booleans())
def test_row_and_chain_follow_in_float(isa, layer, to_codes):
    # 2: Clip(-1, 1.5); 4: multiply; 3: add (kernels.h, UnaryCode).
    row = np.linspace(-2, 2, layer.w.shape[1], dtype=np.float32)
    attributes = layer.attributes() | {
        "chain_codes": [2, 4, 3],
        "chain_a": [-1.0, 0.75, 0.1],
        "chain_b": [1.5, 0.0, 0.0],
    }
    if to_codes:
        attributes |= {"y_dtype": U8, "y_scale": 0.013, "y_zero_point": 55}
    result, _ = run_operator("QMatMul", layer.x, [layer.w, layer.bias, row], attributes, isa)
    real = reference.dequantize_accumulator(
        accumulators(layer), layer.x_scale * layer.w_scale, axis=1
    )
    real = np.clip(real + row, np.float32(-1), np.float32(1.5)) * np.float32(0.75) + np.float32(0.1)
    if to_codes:
        real = reference.quantize_linear(real, np.float32(0.013), np.uint8(55))
    np.testing.assert_array_equal(result, real)


@pytest.mark.parametrize("isa", ISAS)
def test_extreme_codes_do_not_saturate(isa):
    # 255 * -128 twice overflows s16: kernels on vpmaddubsw fail here (docs/int8.md).
    for depth in (2, 64, MAX_DEPTH):
        x = np.full((1, depth), 255, np.uint8)
        w = np.full((depth, 1), -128, np.int8)
        result, _ = run_operator("QMatMul", x, [w], {"x_scale": 1.0, "w_scale": [1.0]}, isa)
        assert result.item() == np.float32(255 * -128 * depth)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("flipped", [False, True])
def test_a_depth_that_could_wrap_is_summed_in_64_bits(isa, flipped):
    depth = MAX_DEPTH + 1
    x = np.full((2, depth), 255, np.uint8)
    x[1] = 254
    w = np.full((depth, 3), -128, np.int8)
    w[:, 1] = 127
    bias = np.array([-7, 2**31 - 1, 0], np.int32)
    attributes = {"x_scale": 1.0, "w_scale": [1.0], "transB": int(flipped)}
    operands = [np.ascontiguousarray(w.T) if flipped else w, bias]
    result, rows = run_operator("QGemm", x, operands, attributes, isa)
    exact = x.astype(np.int64) @ w.astype(np.int64) + bias
    assert abs(exact).max() > 2**31
    np.testing.assert_array_equal(result, exact.astype(np.float32))
    assert rows[-1]["kernel"] == "u8s8 in 64 bits"
    attributes |= {"y_dtype": U8, "y_scale": 1.7e7, "y_zero_point": 128}
    result, _ = run_operator("QGemm", x, operands, attributes, isa)
    multiplier = np.float32(1) / np.float32(1.7e7)
    np.testing.assert_array_equal(
        result, reference.requantize(exact, multiplier, np.array(128, np.uint8))
    )


@pytest.mark.parametrize("x_type", [np.uint8, np.int8])
def test_a_wide_convolution_is_summed_in_64_bits(x_type):
    # Few weights, but with a bias that takes the sum past s32.
    rng = np.random.default_rng(8)
    x = codes(rng, (1, 4, 5, 6), x_type, extreme=False)
    w = rng.integers(-127, 128, (6, 2, 3, 3)).astype(np.int8)
    bias = np.full(6, 2**31 - 1, np.int32)
    attributes = conv_attributes((2, 1), (1, 1, 1, 0), (1, 1), 2) | {
        "x_scale": 0.5,
        "w_scale": [0.25],
        "x_zero_point": 100,
    }
    result, rows = run_operator("QConv", x, [w, bias], attributes, ISAS[0])
    acc = reference.conv_integer(
        x, w, x_type(100), np.int8(0),
        strides=(2, 1), pads=(1, 1, 1, 0), dilations=(1, 1), group=2,
    ).astype(np.int64) + bias.reshape(1, -1, 1, 1)  # fmt: skip
    np.testing.assert_array_equal(result, acc.astype(np.float32) * np.float32(0.125))
    kernel = "u8s8 in 64 bits" if x_type is np.uint8 else "s8s8 in 64 bits"
    assert kernel in [row["kernel"] for row in rows]


# N, C, H, W, O, (KH, KW), (SH, SW), pads, (DH, DW), groups
CONVOLUTIONS = {
    "first layer": (1, 3, 11, 13, 16, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    "1x1": (2, 16, 7, 9, 33, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1),
    "1x1 strided": (1, 18, 7, 9, 65, (1, 1), (2, 3), (0, 0, 0, 0), (1, 1), 1),
    "3x3": (1, 64, 6, 6, 64, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "3x3 odd channels": (2, 7, 5, 6, 130, (3, 3), (1, 1), (1, 0, 2, 1), (1, 1), 1),
    "1x3": (1, 60, 1, 40, 20, (1, 3), (1, 1), (0, 1, 0, 1), (1, 1), 1),
    "dilated": (1, 8, 10, 11, 12, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 1),
    "dilated rows": (1, 8, 10, 11, 12, (3, 2), (1, 2), (2, 0, 2, 1), (2, 1), 1),
    "grouped": (1, 12, 9, 9, 24, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 4),
    "grouped 1x1": (1, 10, 4, 4, 6, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 2),
    "depthwise": (1, 30, 9, 8, 30, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 30),
    "depthwise 5x5 strided": (1, 70, 9, 20, 70, (5, 5), (2, 1), (2, 2, 2, 2), (1, 1), 70),
    "depthwise 5x5": (1, 150, 9, 20, 150, (5, 5), (1, 1), (2, 2, 2, 2), (1, 1), 150),
    "depthwise 5x5 both strided": (2, 24, 9, 21, 24, (5, 5), (2, 2), (2, 2, 2, 2), (1, 1), 24),
    "depthwise 3x3 strided": (1, 32, 11, 70, 32, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1), 32),
    "depthwise 3x3 along rows": (1, 16, 6, 33, 16, (3, 3), (1, 2), (1, 1, 1, 1), (1, 1), 16),
    "depthwise 3x3 down": (1, 48, 6, 33, 48, (3, 3), (2, 1), (1, 1, 1, 1), (1, 1), 48),
    "depthwise wide": (1, 16, 3, 150, 16, (3, 3), (1, 1), (1, 0, 1, 2), (1, 1), 16),
    "depthwise 2x2": (2, 64, 4, 4, 64, (2, 2), (2, 2), (0, 0, 0, 0), (1, 1), 64),
    "depthwise dilated": (1, 5, 9, 9, 5, (3, 3), (1, 1), (2, 2, 2, 2), (2, 2), 5),
    "depth multiplier": (1, 6, 5, 5, 12, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 6),
}


def conv_attributes(strides, pads, dilations, groups):
    return {
        "strides": list(strides),
        "pads": list(pads),
        "dilations": list(dilations),
        "group": groups,
    }


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("output", ["f32", "u8", "s8", "chain"])
@pytest.mark.parametrize("x_type", [np.uint8, np.int8])
def test_convolution_on_codes_is_the_reference(isa, name, output, x_type):
    n, c, h, w, o, kernel, strides, pads, dilations, groups = CONVOLUTIONS[name]
    rng = np.random.default_rng(len(name))
    x = codes(rng, (n, c, h, w), x_type, extreme=False)
    weights = rng.integers(-127, 128, (o, c // groups, *kernel)).astype(np.int8)
    bias = rng.integers(-5000, 5000, o).astype(np.int32)
    x_scale, y_scale, zero = np.float32(0.02), np.float32(0.07), 7 if x_type is np.uint8 else -9
    w_scale = (rng.random(o) * 1e-2 + 1e-4).astype(np.float32)
    attributes = conv_attributes(strides, pads, dilations, groups) | {
        "x_scale": float(x_scale),
        "x_zero_point": zero,
        "w_scale": [float(number) for number in w_scale],
    }
    acc = reference.conv_integer(
        x, weights, x_type(zero), np.int8(0),
        strides=strides, pads=pads, dilations=dilations, group=groups,
    ) + bias.reshape(1, -1, 1, 1)  # fmt: skip
    both = x_scale * w_scale
    if output == "f32":
        expected = reference.dequantize_accumulator(acc, both, axis=1)
    elif output == "chain":
        attributes |= {"chain_codes": [1], "chain_a": [0.0], "chain_b": [0.0]}
        attributes |= {"y_dtype": U8, "y_scale": float(y_scale), "y_zero_point": 3}
        real = np.maximum(reference.dequantize_accumulator(acc, both, axis=1), np.float32(0))
        expected = reference.quantize_linear(real, y_scale, np.uint8(3))
    else:
        zero_point = np.uint8(100) if output == "u8" else np.int8(-9)
        attributes |= {"y_dtype": U8 if output == "u8" else S8, "y_scale": float(y_scale)}
        attributes |= {"y_zero_point": int(zero_point)}
        expected = reference.requantize(acc, both / y_scale, zero_point, axis=1)
    result, rows = run_operator("QConv", x, [weights, bias], attributes, isa)
    np.testing.assert_array_equal(result, expected)
    depthwise = groups > 1 and groups == c == o
    kernels = [row["kernel"] for row in rows]
    types = "s8s8" if x_type is np.int8 else "u8s8"
    assert f"{'depthwise' if depthwise else 'conv'} {types}" in kernels


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_float_convolution_has_the_same_bits_on_every_instruction_set(name):
    n, c, h, w, o, kernel, strides, pads, dilations, groups = CONVOLUTIONS[name]
    rng = np.random.default_rng(len(name))
    x = rng.standard_normal((n, c, h, w)).astype(np.float32)
    weights = rng.standard_normal((o, c // groups, *kernel)).astype(np.float32)
    bias = rng.standard_normal(o).astype(np.float32)
    attributes = conv_attributes(strides, pads, dilations, groups)
    results = [run_operator("Conv", x, [weights, bias], attributes, isa)[0] for isa in ISAS]
    exact = sum(
        a.astype(np.float64) * b.astype(np.float64)
        for a, b in reference.products(x, weights, strides, pads, dilations, groups)
    )
    exact = exact.reshape(results[0].shape) + bias.reshape(1, -1, 1, 1)
    np.testing.assert_allclose(results[0], exact, rtol=1e-5, atol=1e-4)
    for result in results[1:]:
        assert result.tobytes() == results[0].tobytes()


@pytest.mark.parametrize("isa", ISAS)
def test_float_product_is_one_chain_of_fused_multiply_adds(isa):
    rng = np.random.default_rng(5)
    for m, n, k in [(1, 1, 1), (3, 17, 9), (7, 65, 33), (9, 5, 64)]:
        a = rng.standard_normal((m, k)).astype(np.float32)
        b = rng.standard_normal((k, n)).astype(np.float32)
        bias = rng.standard_normal(n).astype(np.float32)
        result, _ = run_operator("MatMul", a, [b, bias], {}, isa)
        np.testing.assert_array_equal(result, reference.gemm_f32(a, b, bias))
