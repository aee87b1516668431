"""Reductions, softmax, norms: sixteen partial sums in logical order, in any layout."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from one_node import run_both_layouts, run_everywhere, run_node

from lowprec._ext import _core
from lowprec.numerics import reference

RNG = np.random.default_rng(3)
f32 = np.float32


def normal(*shape):
    return RNG.normal(size=shape).astype(f32)


def rows_of(x, axes):
    """Bring the reduced axes together, in logical order, as the last axis."""
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    shape = [x.shape[axis] for axis in kept]
    return x.transpose([*kept, *sorted(axes)]).reshape([*shape, -1])


FLOAT = {
    "ReduceSum": reference.sum_rows_f32,
    "ReduceMean": lambda rows: reference.sum_rows_f32(rows) / f32(rows.shape[-1]),
    "ReduceL1": lambda rows: reference.sum_rows_f32(np.abs(rows)),
    "ReduceL2": lambda rows: np.sqrt(reference.sum_rows_f32(rows * rows)),
    "ReduceSumSquare": lambda rows: reference.sum_rows_f32(rows * rows),
    "ReduceMax": lambda rows: rows.max(-1),
    "ReduceMin": lambda rows: rows.min(-1),
}
AXES = [axes for n in range(1, 5) for axes in itertools.combinations(range(4), n)]


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("op", FLOAT)
def test_reduces_any_axes_of_either_layout_to_the_same_bits(op, axes):
    x = normal(2, 21, 5, 7) * f32(100)
    wanted = FLOAT[op](rows_of(x, axes))
    given = np.array([a - 4 if a % 2 else a for a in axes], np.int64)
    flat = run_both_layouts(op, [x, given], {"keepdims": 0}, constant=(1,))
    assert flat.shape == wanted.shape
    assert flat.tobytes() == wanted.astype(f32).tobytes()
    kept = run_both_layouts(op, [x, given], constant=(1,))
    assert kept.shape == tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    assert kept.tobytes() == flat.tobytes()


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 32, 33, 1000, 6625])
@pytest.mark.parametrize("inner", [1, 3, 8, 16, 19])
def test_sums_of_every_length(count, inner):
    x = normal(2, count, inner) * f32(1000)
    wanted = reference.sum_rows_f32(rows_of(x, (1,)))
    result = run_everywhere("ReduceSum", [x], {"axes": [1], "keepdims": 0})
    assert result.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 130])
@pytest.mark.parametrize("count", [1, 2, 3, 15])
def test_many_short_rows(rows, count):
    x = normal(rows, count) * f32(1000)
    x[-1, 0] = np.nan
    for op in ("ReduceSum", "ReduceMax"):
        result = run_everywhere(op, [x], {"axes": [1], "keepdims": 0})
        np.testing.assert_array_equal(result, FLOAT[op](x))


def test_the_other_reductions():
    x = np.abs(normal(3, 37, 5)) + f32(0.5)
    exact = x.astype(np.float64)
    for op, wanted in {
        "ReduceProd": exact.prod(1),
        "ReduceLogSum": np.log(exact.sum(1)),
        "ReduceLogSumExp": np.log(np.exp(exact).sum(1)),
    }.items():
        result = run_both_layouts(op, [x], {"axes": [1], "keepdims": 0})
        np.testing.assert_allclose(result, wanted, rtol=3e-6)


def test_log_sum_exp_does_not_overflow():
    x = np.array([[1000, 1000], [-np.inf, 3], [-np.inf, -np.inf], [np.inf, 0]], f32)
    with np.errstate(divide="ignore"):
        wanted = np.array([1000 + np.log(2), 3, -np.inf, np.inf], f32)
    result = run_everywhere("ReduceLogSumExp", [x], {"axes": [1], "keepdims": 0})
    np.testing.assert_allclose(result, wanted, rtol=1e-6)


def test_extremes_keep_nan_wherever_it_is():
    for at in (0, 5, 16, 36):
        x = normal(37)
        x[at] = np.nan
        assert np.isnan(run_everywhere("ReduceMax", [x], {"keepdims": 0}))
        assert np.isnan(run_everywhere("ReduceMin", [x], {"keepdims": 0}))


def test_no_axes_are_all_axes_or_none():
    x = normal(3, 5)
    nothing = np.zeros(0, np.int64)
    everything = run_everywhere("ReduceSum", [x, nothing], {"keepdims": 0}, constant=(1,))
    assert everything == reference.sum_rows_f32(x.reshape(-1))
    same = run_everywhere("ReduceSum", [x, nothing], {"noop_with_empty_axes": 1}, constant=(1,))
    np.testing.assert_array_equal(same, x)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.float64])
@pytest.mark.parametrize("axes", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_whole_numbers(dtype, axes):
    x = RNG.integers(0, 5, (3, 4, 5)).astype(dtype)
    functions = {
        "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod,
    }  # fmt: skip
    for op, function in functions.items():
        result = run_everywhere(op, [x], {"axes": list(axes), "keepdims": 0})
        np.testing.assert_array_equal(result, function(x, axis=axes).astype(dtype))


def test_global_pools_are_reductions_over_space():
    x = normal(2, 37, 5, 9)
    rows = rows_of(x, (2, 3))[:, :, None, None, :]
    mean = run_both_layouts("GlobalAveragePool", [x])
    assert mean.tobytes() == reference.global_average_pool(x).tobytes()
    assert run_both_layouts("GlobalMaxPool", [x]).tobytes() == rows.max(-1).tobytes()


# ------------------------------------------------------------------------------------- softmax


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((3, 6625), -1), ((2, 37, 5), 1), ((2, 33, 4, 6), 1), ((2, 33, 4, 6), 2), ((2, 33, 4, 6), 3),
     ((2, 33, 4, 6), 0), ((1,), 0), ((5, 16), 1), ((4, 17, 16), 1), ((2, 3, 5, 7), 1),
     ((1, 16, 4, 4), 1)],
)  # fmt: skip
def test_softmax(shape, axis):
    x = normal(*shape) * f32(5)
    exact = x.astype(np.float64)
    exponentials = np.exp(exact - exact.max(axis, keepdims=True))
    wanted = exponentials / exponentials.sum(axis, keepdims=True)
    both = run_both_layouts if x.ndim in (3, 4) else run_everywhere
    result = both("Softmax", [x], {"axis": axis})
    np.testing.assert_allclose(result, wanted, rtol=2e-6, atol=1e-9)
    logarithm = both("LogSoftmax", [x], {"axis": axis})
    np.testing.assert_allclose(logarithm, np.log(wanted), rtol=3e-6, atol=3e-6)


def test_softmax_ignores_masked_elements_and_large_shifts():
    x = np.full((2, 21), -np.inf, f32)
    x[:, [3, 20]] = [[1e30, 1e30], [-1e30, -1e30]]
    result = run_everywhere("Softmax", [x])
    assert result[:, [3, 20]].tolist() == [[0.5, 0.5]] * 2
    assert np.count_nonzero(result) == 4
    assert np.isnan(run_everywhere("Softmax", [np.full((1, 3), -np.inf, f32)])).all()


# --------------------------------------------------------------------------------------- norms


@pytest.mark.parametrize("shape", [(2, 3, 64), (5, 17), (2, 4, 120), (1, 1)])
def test_layer_norm(shape):
    x = normal(*shape) * f32(3) + f32(10)
    gamma, beta = normal(shape[-1]), normal(shape[-1])
    exact = x.astype(np.float64)
    mean, variance = exact.mean(-1, keepdims=True), exact.var(-1, keepdims=True)
    inverse = 1 / np.sqrt(variance + np.float64(f32(1e-5)))
    y, got_mean, got_inverse = run_node("LayerNormalization", [x, gamma, beta], outputs=3)
    np.testing.assert_allclose(got_mean, mean, rtol=1e-6)
    np.testing.assert_allclose(got_inverse, inverse, rtol=1e-4)
    np.testing.assert_allclose(y, (exact - mean) * inverse * gamma + beta, rtol=1e-4, atol=1e-4)
    assert run_everywhere("LayerNormalization", [x, gamma, beta]).tobytes() == y.tobytes()
    unshifted = run_everywhere("LayerNormalization", [x, gamma])
    np.testing.assert_allclose(unshifted + beta, y, rtol=1e-4, atol=1e-5)


def test_layer_norm_over_several_axes():
    x, gamma = normal(2, 3, 4, 5), normal(3, 4, 5)
    exact = x.astype(np.float64)
    mean, variance = exact.mean((1, 2, 3), keepdims=True), exact.var((1, 2, 3), keepdims=True)
    result = run_both_layouts("LayerNormalization", [x, gamma], {"axis": 1, "epsilon": 0.1})
    wanted = (exact - mean) / np.sqrt(variance + 0.1) * gamma
    np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-5)


def test_root_mean_square_norm():
    x, gamma = normal(4, 35), normal(35)
    exact = x.astype(np.float64)
    wanted = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-5) * gamma
    result = run_everywhere("RMSNormalization", [x, gamma])
    np.testing.assert_allclose(result, wanted, rtol=2e-6)


@pytest.mark.parametrize(
    ("op", "groups"), [("InstanceNormalization", 6), ("GroupNormalization", 2)]
)
def test_instance_and_group_norm(op, groups):
    x, gamma, beta = normal(2, 6, 5, 7), normal(6), normal(6)
    exact = x.astype(np.float64).reshape(2, groups, -1)
    normed = exact - exact.mean(-1, keepdims=True)
    normed /= np.sqrt(exact.var(-1, keepdims=True) + np.float64(f32(1e-5)))
    wanted = normed.reshape(x.shape) * gamma[:, None, None] + beta[:, None, None]
    result = run_both_layouts(op, [x, gamma, beta], {"num_groups": groups})
    np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 19, 3, 5), (2, 19, 7), (3, 19), (2, 19, 2, 3, 2)])
def test_batch_norm(shape):
    x = normal(*shape)
    gamma, beta, mean, variance = normal(19), normal(19), normal(19), np.abs(normal(19)) + f32(0.1)

    def channel(v):
        return v.astype(np.float64).reshape([1, 19] + [1] * (len(shape) - 2))

    wanted = (x - channel(mean)) / np.sqrt(channel(variance) + 1e-3) * channel(gamma) + channel(
        beta
    )
    both = run_both_layouts if len(shape) in (3, 4) else run_everywhere
    inputs = [x, gamma, beta, mean, variance]
    result = both("BatchNormalization", inputs, {"epsilon": 1e-3})
    np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beta", [0.75, 0.5])
@pytest.mark.parametrize("size", [1, 4, 5])
def test_local_response_norm(size, beta):
    x = normal(2, 9, 3, 5)
    squares = np.zeros(x.shape)
    for c in range(9):
        first, last = max(0, c - (size - 1) // 2), min(8, c + size // 2)
        squares[:, c] = (x[:, first : last + 1].astype(np.float64) ** 2).sum(1)
    attributes = {"size": size, "alpha": 0.5, "beta": beta, "bias": 2.0}
    result = run_both_layouts("LRN", [x], attributes)
    np.testing.assert_allclose(result, x / (2 + 0.5 / size * squares) ** beta, rtol=3e-6)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("axis", [1, -1])
def test_lp_norm_leaves_zeros(p, axis):
    x = normal(3, 5, 18)
    x[1] = 0
    with np.errstate(invalid="ignore"):
        wanted = x / np.linalg.norm(x.astype(np.float64), p, axis=axis, keepdims=True)
    result = run_both_layouts("LpNormalization", [x], {"axis": axis, "p": p})
    np.testing.assert_allclose(result, np.nan_to_num(wanted), rtol=2e-6)


# ---------------------------------------------------------------------- positions, running sums


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("dtype", [f32, np.int64, np.uint8])
def test_positions_of_extremes(dtype, axis):
    x = RNG.integers(0, 5, (2, 7, 3, 4)).astype(dtype)  # many ties: the first one counts
    for op, function in (("ArgMax", np.argmax), ("ArgMin", np.argmin)):
        result = run_both_layouts(op, [x], {"axis": axis})
        np.testing.assert_array_equal(result, function(x, axis, keepdims=True))
        last = run_both_layouts(op, [x], {"axis": axis, "keepdims": 0, "select_last_index": 1})
        np.testing.assert_array_equal(last, x.shape[axis] - 1 - function(np.flip(x, axis), axis))


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_running_sums(exclusive, reverse):
    x = RNG.integers(-9, 9, (3, 5, 4)).astype(np.int64)
    wanted = np.flip(x, 1) if reverse else x
    wanted = np.cumsum(wanted, 1)
    if exclusive:
        wanted = np.concatenate([np.zeros((3, 1, 4), np.int64), wanted[:, :-1]], 1)
    wanted = np.flip(wanted, 1) if reverse else wanted
    attributes = {"exclusive": exclusive, "reverse": reverse}
    for values in (x, x.astype(f32)):
        result = run_everywhere("CumSum", [values, np.int64(-2)], attributes, constant=(1,))
        np.testing.assert_array_equal(result, wanted)


def test_what_is_not_native_is_refused():
    x = normal(2, 4, 3)
    with pytest.raises(_core.Unsupported, match="s32"):
        run_node("Softmax", [x.astype(np.int32)])
    with pytest.raises(_core.Unsupported, match="broadcast"):
        run_node("LayerNormalization", [x, normal(1)])
    with pytest.raises(_core.EngineError, match="axis 3"):
        run_node("ReduceSum", [x], {"axes": [3]})
