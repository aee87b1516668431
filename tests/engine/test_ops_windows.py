"""Pools and convolutions in any number of axes, and what puts windows back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from one_node import run_both_layouts, run_everywhere, run_node
from reference_node import reference

from lowprec._ext import _core

RNG = np.random.default_rng(3)


GEOMETRIES = [
    {"kernel_shape": [2, 3, 2]},
    {"kernel_shape": [3, 3, 3], "strides": [2, 1, 2], "pads": [1, 0, 1, 1, 1, 0]},
    {"kernel_shape": [2, 2, 2], "dilations": [2, 1, 2]},
    {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 2, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2, 2]},
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_pools_in_three_axes(geometry):
    x = RNG.standard_normal((2, 3, 6, 7, 5)).astype(np.float32)
    (wanted,) = reference("MaxPool", [x], geometry)
    np.testing.assert_array_equal(run_both_layouts("MaxPool", [x], geometry), wanted)
    if "ceil_mode" not in geometry:
        (wanted,) = reference("AveragePool", [x], geometry)
        got = run_both_layouts("AveragePool", [x], geometry)
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    doubles = run_everywhere("MaxPool", [x.astype(np.float64)], geometry)
    np.testing.assert_array_equal(doubles, run_everywhere("MaxPool", [x], geometry))


@pytest.mark.parametrize("border", [0, 1])
def test_two_axes_agree_with_the_planned_pools(border):
    """An image of one row more axis: the same pool, by the other code."""
    x = RNG.standard_normal((2, 5, 9, 8)).astype(np.float32)
    flat = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": 1}
    deep = {"kernel_shape": [1, 3, 2], "strides": [1, 2, 2], "pads": [0, 1, 0, 0, 1, 1]}
    for op in ("MaxPool", "AveragePool"):
        extra = {"count_include_pad": border} if op == "AveragePool" else {}
        planned = run_everywhere(op, [x], {**flat, **extra})
        general = run_everywhere(op, [x[:, :, None]], {**deep, **extra, "ceil_mode": 1})
        np.testing.assert_array_equal(planned, general[:, :, 0], err_msg=op)


@pytest.mark.parametrize("order", [0, 1])
def test_places_of_maxima_and_back(order):
    x = RNG.permutation(2 * 3 * 6 * 4).reshape(2, 3, 6, 4).astype(np.float32)
    geometry = {"kernel_shape": [2, 2], "strides": [2, 2]}
    values, places = run_node("MaxPool", [x], {**geometry, "storage_order": order}, outputs=2)
    plane, inner = np.divmod(places, 24)
    row, column = np.divmod(inner, 4) if order == 0 else np.divmod(inner, 6)[::-1]
    for index in np.ndindex(places.shape):
        n, c = index[:2]
        assert plane[index] == n * 3 + c
        assert x[n, c, row[index], column[index]] == values[index]
    if order == 0:
        back = run_everywhere("MaxUnpool", [values, places], geometry)
        np.testing.assert_array_equal(back, np.where(np.isin(x, values), x, 0))
        with pytest.raises(_core.EngineError, match="outside an axis"):
            run_node("MaxUnpool", [values, places + 999], geometry)


@pytest.mark.parametrize("p", [1, 2, 3, 7])
def test_powers(p):
    x = RNG.standard_normal((2, 3, 5, 6)).astype(np.float32)
    got = run_everywhere("LpPool", [x], {"kernel_shape": [2, 3], "p": p})
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (2, 3), (2, 3))
    wanted = (abs(windows) ** p).sum((-1, -2)) ** (1 / p)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    got = run_everywhere("GlobalLpPool", [x], {"p": p})
    wanted = (abs(x.astype(np.float64)) ** p).sum((2, 3), keepdims=True) ** (1 / p)
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_columns_add_up_where_they_overlap():
    columns = RNG.standard_normal((2, 2 * 6, 12)).astype(np.float32)
    got = run_everywhere("Col2Im", [columns, np.array([4, 6]), np.array([2, 3])], known=(1, 2))
    wanted = np.zeros((2, 2, 4, 6), np.float32)
    for n, c, k, at in itertools.product(range(2), range(2), range(6), range(12)):
        wanted[n, c, at // 4 + k // 3, at % 4 + k % 3] += columns[n, c * 6 + k, at]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(_core.EngineError, match="windows"):
        run_node("Col2Im", [columns, np.array([5, 6]), np.array([2, 3])], known=(1, 2))


CONVOLUTIONS = [
    ("Conv", (2, 4, 6, 5, 7), (6, 4, 2, 3, 2), {}),
    ("Conv", (1, 4, 6, 5, 7), (6, 2, 3, 3, 3), {"group": 2, "pads": [1] * 6, "strides": [2, 1, 2]}),
    ("Conv", (1, 2, 5, 5, 5), (3, 2, 2, 2, 2), {"dilations": [2, 1, 3]}),
    ("Conv", (1, 2, 5, 5), (3, 2, 3, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    ("ConvTranspose", (1, 4, 3, 4, 2), (4, 2, 2, 3, 2), {"group": 2, "strides": [2, 1, 3]}),
    ("ConvTranspose", (2, 3, 4, 5), (3, 2, 3, 3), {"strides": [2, 2], "output_padding": [1, 0]}),
    ("ConvTranspose", (1, 3, 7), (3, 2, 4), {"strides": [3], "dilations": [2], "pads": [2, 1]}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "x_shape", "w_shape", "attributes"), CONVOLUTIONS)
def test_convolutions_in_any_number_of_axes(op, x_shape, w_shape, attributes):
    x, w = (RNG.standard_normal(shape).astype(np.float32) for shape in (x_shape, w_shape))
    out = w_shape[0] if op == "Conv" else w_shape[1] * attributes.get("group", 1)
    bias = RNG.standard_normal(out).astype(np.float32)
    # Group by group: the reference's own way with groups of a transposed one fails.
    groups = attributes.get("group", 1)
    alone = {name: value for name, value in attributes.items() if name != "group"}
    wanted = np.concatenate(
        [
            reference(op, list(part), alone)[0]
            for part in zip(
                np.split(x, groups, 1), np.split(w, groups), np.split(bias, groups), strict=True
            )
        ],
        1,
    )
    fed = run_both_layouts(op, [x, w, bias], attributes)
    np.testing.assert_allclose(fed, wanted, rtol=1e-4, atol=1e-4)
    constant = run_both_layouts(op, [x, w, bias], attributes, constant=(1, 2))
    assert constant.tobytes() == fed.tobytes(), "weights made at run time give other bits"


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_transposed_convolutions_of_a_given_size(mode):
    x, w = RNG.standard_normal((1, 2, 4, 5)), RNG.standard_normal((2, 3, 3, 3))
    x, w = x.astype(np.float32), w.astype(np.float32)
    full = run_everywhere("ConvTranspose", [x, w], {"strides": [2, 2]})  # 9 x 11
    got = run_everywhere("ConvTranspose", [x, w], {"strides": [2, 2], "auto_pad": mode})
    assert got.shape == (1, 3, 8, 10)
    cut = 1 if mode == "SAME_LOWER" else 0
    np.testing.assert_array_equal(got, full[:, :, cut : cut + 8, cut : cut + 10])
    sized = {"strides": [2, 2], "output_shape": [9, 11]}
    np.testing.assert_array_equal(run_everywhere("ConvTranspose", [x, w], sized), full)


def test_what_does_not_fit_is_named():
    x, w = np.ones((1, 2, 3, 3, 3), np.float32), np.ones((4, 2, 1, 1, 1), np.float32)
    with pytest.raises(_core.EngineError, match="one f32 for each of 4"):
        run_node("Conv", [x, w, np.ones(3, np.float32)])
    with pytest.raises(_core.EngineError, match="the weights want 2"):
        run_node("Conv", [x[:, :1], w])
    with pytest.raises(_core.EngineError, match="does not fit"):
        run_node("Conv", [x, np.ones((4, 2, 5, 1, 1), np.float32)])
