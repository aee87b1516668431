"""Convolutions with few output channels compute several pixels at a time: the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from engine_programs import ISAS, run_operator

import lowprec
from lowprec.numerics import reference

# C, W, O, (KH, KW), (SH, SW), pads, and whether anything is joined is up to a cost model
SHAPES = {
    "RGB to ten": (3, 20, 10, (3, 3), (1, 1), (0, 0, 0, 0)),
    "RGB to 32, one pixel left": (3, 21, 32, (3, 3), (1, 1), (1, 1, 1, 1)),
    "RGB strided": (3, 23, 24, (3, 3), (2, 2), (0, 0, 1, 1)),
    "one channel": (1, 28, 32, (3, 3), (1, 1), (1, 1, 1, 1)),
    "1x1 to two": (32, 19, 2, (1, 1), (1, 1), (0, 0, 0, 0)),
    "1x1 to one, wide stride": (5, 37, 1, (1, 1), (1, 3), (0, 0, 0, 0)),
    "narrow image": (3, 3, 4, (3, 3), (1, 1), (1, 1, 1, 1)),
    "one line": (4, 33, 3, (1, 5), (1, 2), (0, 2, 0, 2)),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("x_type", [np.uint8, np.int8])
@pytest.mark.parametrize("output", ["f32", "codes", "slopes"])
def test_joined_pixels_are_the_reference(isa, name, x_type, output):
    c, w, o, kernel, strides, pads = SHAPES[name]
    rng = np.random.default_rng(len(name))
    limits = np.iinfo(x_type)
    height = 1 if kernel[0] == 1 and name == "one line" else 7
    x = rng.integers(limits.min, limits.max + 1, (2, c, height, w)).astype(x_type)
    weights = rng.integers(-127, 128, (o, c, *kernel)).astype(np.int8)
    bias = rng.integers(-5000, 5000, o).astype(np.int32)
    zero, x_scale, y_scale = x_type(9), np.float32(0.02), np.float32(0.07)
    w_scale = (rng.random(o) * 1e-2 + 1e-4).astype(np.float32)
    attributes = {
        "strides": list(strides), "pads": list(pads), "x_scale": float(x_scale),
        "x_zero_point": int(zero), "w_scale": [float(number) for number in w_scale],
    }  # fmt: skip
    acc = reference.conv_integer(
        x, weights, zero, np.int8(0), strides=strides, pads=pads, dilations=(1, 1), group=1
    ) + bias.reshape(1, -1, 1, 1)
    both = x_scale * w_scale
    real = reference.dequantize_accumulator(acc, both, axis=1)
    codes = {"y_dtype": 2, "y_scale": float(y_scale), "y_zero_point": 100}
    if output == "f32":
        expected = real
    elif output == "codes":
        attributes |= codes
        expected = reference.requantize(acc, both / y_scale, np.uint8(100), axis=1)
    else:
        slopes = rng.standard_normal(o).astype(np.float32)
        attributes |= codes | {"channel_values": [float(s) for s in slopes]}
        attributes |= {"chain_codes": [69], "chain_a": [0.0], "chain_b": [0.0]}
        real = np.where(real < 0, slopes.reshape(-1, 1, 1) * real, real)
        expected = reference.quantize_linear(real, y_scale, np.uint8(100))
    before = lowprec.get_num_threads()
    try:
        for threads in (1, 2):
            lowprec.set_num_threads(threads)
            result, _ = run_operator("QConv", x, [weights, bias], attributes, isa)
            assert result.tobytes() == expected.tobytes()
    finally:
        lowprec.set_num_threads(before)


def test_slopes_must_fit_the_channels():
    weights = np.ones((4, 3, 1, 1), np.int8)
    attributes = {
        "x_scale": 1.0, "w_scale": [1.0], "channel_values": [0.5] * 3,
        "chain_codes": [69], "chain_a": [0.0], "chain_b": [0.0],
    }  # fmt: skip
    with pytest.raises(Exception, match="one value for each output channel"):
        run_operator("QConv", np.zeros((1, 3, 4, 4), np.uint8), [weights], attributes, ISAS[0])
