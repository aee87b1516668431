"""Windows: clipped at the borders, in order, the same bits in every layout and on every ISA."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from one_node import run_both_layouts, run_node

from lowprec._ext import _core
from lowprec.numerics import reference

RNG = np.random.default_rng(2)
f32 = np.float32


def slow_pool(x, make, kernel, strides, pads, dilations, sizes):
    """Apply `make` to the list of values (N, C) inside each window, tap by tap."""
    axes = len(kernel)
    result = np.zeros((*x.shape[:2], *sizes), x.dtype)
    for position in itertools.product(*(range(n) for n in sizes)):
        inside = []
        for tap in itertools.product(*(range(k) for k in kernel)):
            at = [position[k] * strides[k] - pads[k] + tap[k] * dilations[k] for k in range(axes)]
            if all(0 <= a < n for a, n in zip(at, x.shape[2:], strict=True)):
                inside.append(x[(slice(None), slice(None), *at)])
        result[(slice(None), slice(None), *position)] = make(inside)
    return result


def mean_in_order(values):
    total = np.zeros_like(values[0])
    for value in values:
        total = total + value
    return total / f32(len(values))


# image, kernel, strides, pads, dilations, output
WINDOWS = [
    ((7, 6), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1), (3, 3)),
    ((7, 6), (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), (7, 6)),
    ((7, 6), (3, 2), (2, 1), (2, 0, 1, 1), (1, 1), (4, 6)),
    ((9, 8), (3, 2), (1, 2), (2, 1, 2, 1), (2, 3), (9, 4)),
    ((1, 13), (1, 5), (1, 3), (0, 2, 0, 2), (1, 1), (1, 5)),
    ((5, 4), (5, 4), (1, 1), (0, 0, 0, 0), (1, 1), (1, 1)),
]


@pytest.mark.parametrize("channels", [1, 3, 4, 7, 10, 17, 28, 64, 83])
@pytest.mark.parametrize(("image", "kernel", "strides", "pads", "dilations", "sizes"), WINDOWS)
def test_pools(image, kernel, strides, pads, dilations, sizes, channels):
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations}
    x = RNG.normal(size=(2, channels, *image)).astype(f32)
    geometry = (kernel, strides, pads, dilations, sizes)
    most = run_both_layouts("MaxPool", [x], attributes)
    np.testing.assert_array_equal(most, slow_pool(x, lambda v: np.max(v, 0), *geometry))
    mean = run_both_layouts("AveragePool", [x], attributes)
    assert mean.tobytes() == slow_pool(x, mean_in_order, *geometry).tobytes()
    for dtype in (np.uint8, np.int8):
        info = np.iinfo(dtype)
        codes = RNG.integers(info.min, info.max + 1, x.shape).astype(dtype)
        result = run_both_layouts("MaxPool", [codes], attributes)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, slow_pool(codes, lambda v: np.max(v, 0), *geometry))


def test_average_with_padding_is_the_reference():
    x = RNG.normal(size=(2, 19, 8, 7)).astype(f32)
    attributes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 2, 1]}
    for count in (0, 1):
        result = run_both_layouts("AveragePool", [x], {**attributes, "count_include_pad": count})
        wanted = reference.average_pool(
            x, [3, 3], strides=[2, 2], pads=[1, 0, 2, 1], count_include_pad=bool(count)
        )
        assert result.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_one_spatial_axis_is_an_image_of_height_one(op):
    x = RNG.normal(size=(2, 21, 17)).astype(f32)
    line = {"kernel_shape": [4], "strides": [2], "pads": [1, 2]}
    flat = {"kernel_shape": [1, 4], "strides": [1, 2], "pads": [0, 1, 0, 2]}
    result = run_both_layouts(op, [x], line)
    image = run_both_layouts(op, [x[:, :, None]], flat)
    assert result.shape == (2, 21, 9)
    assert result.tobytes() == image.tobytes()


def test_rounding_up_starts_no_window_in_the_padding():
    x = np.arange(1, 7, dtype=f32).reshape(1, 1, 6)
    up = {"kernel_shape": [2], "strides": [3], "pads": [0, 1], "ceil_mode": 1}
    assert run_both_layouts("MaxPool", [x], up).tolist() == [[[2, 5]]]
    up = {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}
    assert run_both_layouts("MaxPool", [x], up).tolist() == [[[3, 5, 6]]]
    # The window at the end sticks out of the padded image: only what is inside counts.
    padded = {**up, "strides": [3], "pads": [1, 0], "count_include_pad": 1}
    assert run_both_layouts("AveragePool", [x], padded).tolist() == [[[1, 4, 6]]]


@pytest.mark.parametrize(
    ("auto_pad", "wanted"),
    [("SAME_UPPER", [2, 4, 5]), ("SAME_LOWER", [1, 3, 5]), ("VALID", [2, 4])],
)
def test_automatic_padding(auto_pad, wanted):
    x = np.array([[[1, 2, 3, 4, 5]]], f32)
    attributes = {"kernel_shape": [2], "strides": [2], "auto_pad": auto_pad}
    assert run_both_layouts("MaxPool", [x], attributes).tolist() == [[wanted]]


def test_nan_and_infinity():
    x = np.full((1, 18, 4, 4), -np.inf, f32)
    x[0, 3, 1, 1] = np.nan
    x[0, 4, 1, 1] = np.inf
    result = run_both_layouts("MaxPool", [x], {"kernel_shape": [2, 2], "strides": [2, 2]})
    assert np.isnan(result[0, 3, 0, 0])
    assert np.isnan(result).sum() == 1
    assert result[0, 4, 0, 0] == np.inf
    assert result[0, 5, 0, 0] == -np.inf


def test_what_is_not_native_is_refused():
    x = np.zeros((1, 2, 4, 4), f32)
    with pytest.raises(_core.Unsupported, match="f16"):
        run_node("MaxPool", [x.astype(np.float16)], {"kernel_shape": [2, 2]})
    with pytest.raises(_core.Unsupported, match="s32"):
        run_node("AveragePool", [x.astype(np.int32)], {"kernel_shape": [2, 2]})
    with pytest.raises(_core.EngineError, match="larger than the padded image"):
        run_node("MaxPool", [x], {"kernel_shape": [5, 1]})
    with pytest.raises(_core.EngineError, match="do not fit"):
        run_node("MaxPool", [x], {"kernel_shape": [2]})
