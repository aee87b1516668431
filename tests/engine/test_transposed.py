"""Transposed convolutions equal their definition: zeros between the pixels, then a convolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from engine_programs import ISAS, run_operator
from hypothesis import given, settings
from hypothesis import strategies as st

from lowprec.numerics import reference

U8 = 2  # ONNX element type
SIGMOID, RELU = 11, 1  # kernels.h, UnaryCode


@dataclass
class Case:
    """Shapes of one transposed convolution, square where one number says it."""

    images: int
    channels: int
    out_channels: int
    groups: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    extra: tuple[int, int]

    def attributes(self) -> dict[str, object]:
        return {
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "pads": list(self.pads),
            "output_padding": list(self.extra),
            "group": self.groups,
        }

    def out_size(self) -> tuple[int, ...]:
        return tuple(
            (self.size[i] - 1) * self.strides[i]
            + (self.kernel[i] - 1) * self.dilations[i]
            + 1
            + self.extra[i]
            - self.pads[i]
            - self.pads[i + 2]
            for i in range(2)
        )

    def rows(self, x: np.ndarray, border: int, group: int) -> np.ndarray:
        """Return what every output pixel sees, [images * H * W, KH * KW * channels of a group]."""
        inner = self.channels // self.groups
        x = x[:, group * inner : (group + 1) * inner]
        reach = [(self.kernel[i] - 1) * self.dilations[i] for i in range(2)]
        out = self.out_size()
        wide = np.full(
            (self.images, inner, *(o + r for o, r in zip(out, reach, strict=True))), border, x.dtype
        )
        for y in range(self.size[0]):
            for z in range(self.size[1]):
                at = (
                    y * self.strides[0] + reach[0] - self.pads[0],
                    z * self.strides[1] + reach[1] - self.pads[1],
                )
                if 0 <= at[0] < wide.shape[2] and 0 <= at[1] < wide.shape[3]:
                    wide[:, :, at[0], at[1]] = x[:, :, y, z]
        taps = [
            wide[:, :, kh * self.dilations[0] :, kw * self.dilations[1] :][:, :, : out[0], : out[1]]
            for kh in range(self.kernel[0])
            for kw in range(self.kernel[1])
        ]
        seen = np.stack(taps, axis=1).transpose(0, 3, 4, 1, 2)
        return np.ascontiguousarray(seen.reshape(-1, len(taps) * inner))

    def matrix(self, w: np.ndarray, group: int) -> np.ndarray:
        """Return the weights of a group as [KH * KW * channels, output channels of the group]."""
        inner = self.channels // self.groups
        part = w[group * inner : (group + 1) * inner, :, ::-1, ::-1]
        return np.ascontiguousarray(part.transpose(2, 3, 0, 1).reshape(-1, part.shape[1]))

    def image(self, columns: list[np.ndarray]) -> np.ndarray:
        flat = np.concatenate(columns, axis=1)
        return flat.reshape(self.images, *self.out_size(), -1).transpose(0, 3, 1, 2)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    small = st.integers(1, 3)
    groups = draw(st.sampled_from([1, 1, 2]))
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    whole = draw(st.booleans())  # kernel = stride, no border: what is spread from one product
    strides = kernel if whole else (draw(small), draw(small))
    dilations = (1, 1) if whole else (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    reach = [(kernel[i] - 1) * dilations[i] for i in range(2)]
    pads = [0] * 4 if whole else [draw(st.integers(0, min(2, reach[i % 2]))) for i in range(4)]
    extra = (
        (0, 0) if whole else tuple(draw(st.integers(0, max(0, strides[i] - 1))) for i in range(2))
    )
    case = Case(
        draw(st.integers(1, 2)),
        groups * draw(st.sampled_from([1, 3, 4, 24])),
        groups * draw(st.sampled_from([1, 2, 5, 16, 33, 70])),
        groups,
        (draw(st.integers(1, 6)), draw(st.integers(1, 7))),
        kernel,
        strides,
        dilations,
        tuple(pads),
        extra,
    )
    while min(case.out_size()) < 1:
        case.size = (case.size[0] + 1, case.size[1] + 1)
    return case


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40, deadline=None)
@given(case=cases(), seed=st.integers(0, 2**32 - 1), activated=st.booleans())
def test_floats_are_chains_over_the_kernel(isa, case, seed, activated):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((case.images, case.channels, *case.size)).astype(np.float32)
    shape = (case.channels, case.out_channels // case.groups, *case.kernel)
    w = rng.standard_normal(shape).astype(np.float32)
    bias = rng.standard_normal(case.out_channels).astype(np.float32)
    attributes = case.attributes()
    if activated:
        attributes |= {"chain_codes": [RELU], "chain_a": [0.0], "chain_b": [0.0]}
    result, rows = run_operator("ConvTranspose", x, [w, bias], attributes, isa)
    per_group = shape[1]
    expected = case.image(
        [
            reference.gemm_f32(
                case.rows(x, 0, group),
                case.matrix(w, group),
                bias[group * per_group : (group + 1) * per_group],
            )
            for group in range(case.groups)
        ]
    )
    if activated:
        expected = np.maximum(expected, 0)
    np.testing.assert_array_equal(result, expected)
    assert rows[-1]["kernel"] in ("conv f32 transposed", "to channels-first")


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=40, deadline=None)
@given(
    case=cases(),
    seed=st.integers(0, 2**32 - 1),
    signed=st.booleans(),
    to_codes=st.booleans(),
    activated=st.booleans(),
)
def test_codes_are_exact(isa, case, seed, signed, to_codes, activated):
    rng = np.random.default_rng(seed)
    dtype, zero_point = (np.int8, -3) if signed else (np.uint8, 131)
    low = np.iinfo(dtype).min
    x = rng.integers(low, low + 256, (case.images, case.channels, *case.size)).astype(dtype)
    per_group = case.out_channels // case.groups
    w = rng.integers(-127, 128, (case.channels, per_group, *case.kernel)).astype(np.int8)
    bias = rng.integers(-9000, 9000, case.out_channels).astype(np.int32)
    x_scale, w_scale = np.float32(0.02), (rng.random(case.out_channels) / 99).astype(np.float32)
    y_scale, y_zero_point = np.float32(0.037), np.uint8(7)
    attributes = case.attributes() | {
        "x_scale": float(x_scale),
        "x_zero_point": zero_point,
        "w_scale": [float(number) for number in w_scale],
    }
    if to_codes:
        attributes |= {"y_dtype": U8, "y_scale": float(y_scale), "y_zero_point": 7}
    if activated:
        attributes |= {"chain_codes": [SIGMOID], "chain_a": [0.0], "chain_b": [0.0]}
    result, _ = run_operator("QConvTranspose", x, [w, bias], attributes, isa)
    acc = case.image(
        [
            (case.rows(x, zero_point, group).astype(np.int64) - zero_point)
            @ case.matrix(w, group).astype(np.int64)
            + bias[group * per_group : (group + 1) * per_group]
            for group in range(case.groups)
        ]
    )
    both = x_scale * w_scale
    if to_codes and not activated:
        expected = reference.requantize(acc, both / y_scale, y_zero_point, axis=1)
    else:
        expected = reference.dequantize_accumulator(acc, both, axis=1)
        if activated:
            expected, _ = run_operator("Sigmoid", np.ascontiguousarray(expected), [], {}, isa)
        if to_codes:
            expected = reference.quantize_linear(expected, y_scale, y_zero_point)
    np.testing.assert_array_equal(result, expected)
