"""Sorting, selecting, scattering: what ONNX's own cases leave out."""

from __future__ import annotations

import numpy as np
import pytest
from one_node import run_everywhere, run_node

from lowprec._ext import _core

RNG = np.random.default_rng(9)


def ints(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.uint8, np.int16])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_k_takes_the_first_of_equals(kind, axis, largest):
    x = RNG.integers(0, 9, (6, 50, 7)).astype(kind)
    k = min(x.shape[axis], 5)
    values, places = run_node(
        "TopK", [x, ints(k)], {"axis": axis, "largest": largest}, outputs=2, known=(1,)
    )
    key = -x.astype(np.float64) if largest else x.astype(np.float64)
    wanted = np.take(np.argsort(key, axis, kind="stable"), np.arange(k), axis)
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_array_equal(values, np.take_along_axis(x, wanted, axis))
    unsorted, where = run_node(
        "TopK",
        [x, ints(k)],
        {"axis": axis, "largest": largest, "sorted": 0},
        outputs=2,
        known=(1,),
    )
    np.testing.assert_array_equal(np.sort(where, axis), np.sort(wanted, axis))
    np.testing.assert_array_equal(unsorted, np.take_along_axis(x, where, axis))


def test_top_k_of_nan_and_of_nothing():
    x = np.array([1, np.nan, 3, np.nan], np.float32)
    values, places = run_node("TopK", [x, ints(3)], outputs=2, known=(1,))
    assert places.tolist() == [1, 3, 2]
    assert np.isnan(values[:2]).all()
    (values,) = run_node("TopK", [x, ints(0)], outputs=(True, False), known=(1,))
    assert values.shape == (0,)
    for k in (5, -1):
        with pytest.raises(_core.EngineError, match="axis 0 has 4 elements"):
            run_node("TopK", [x, ints(k)], outputs=2, known=(1,))


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.bool_])
def test_non_zero(kind):
    for shape in [(3, 4, 5), (7,), (2, 0)]:
        x = RNG.integers(0, 2, shape).astype(kind)
        result = run_everywhere("NonZero", [x], known=(0,))
        np.testing.assert_array_equal(result, np.array(np.nonzero(x)).reshape(len(shape), -1))
    assert run_everywhere("NonZero", [np.float32(3)], known=(0,)).tolist() == [[0]]
    with pytest.raises(_core.Unsupported, match="known before the run"):
        run_node("NonZero", [np.ones(3, np.float32)])


def test_compress():
    x = RNG.standard_normal((3, 4, 2)).astype(np.float32)
    mask = np.array([True, False, True])
    for axis in (0, 1, -3):
        got = run_everywhere("Compress", [x, mask], {"axis": axis}, known=(1,))
        np.testing.assert_array_equal(got, np.compress(mask, x, axis))
    got = run_everywhere("Compress", [x, mask], known=(1,))
    np.testing.assert_array_equal(got, np.compress(mask, x))
    with pytest.raises(_core.EngineError, match="element 2 of 2"):
        run_node("Compress", [x, mask], {"axis": 2}, known=(1,))


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
@pytest.mark.parametrize("in_order", [0, 1])
def test_unique(axis, in_order):
    x = RNG.integers(0, 2, (5, 3, 4)).astype(np.float32)
    attributes = {"sorted": in_order} | ({} if axis is None else {"axis": axis})
    y, first, group, counts = run_node("Unique", [x], attributes, outputs=4, known=(0,))
    wanted, at, inverse, number = np.unique(x, True, True, True, axis=axis)
    order = np.arange(len(at)) if in_order else np.argsort(at)
    np.testing.assert_array_equal(y, np.take(wanted, order, 0 if axis is None else axis))
    np.testing.assert_array_equal(first, at[order])
    np.testing.assert_array_equal(counts, number[order])
    np.testing.assert_array_equal(np.argsort(order)[inverse.reshape(-1)], group)


@pytest.mark.parametrize("k", [-9, -2, 0, 1, 9, 2**62, -(2**62)])
def test_eye_like(k):
    x = np.zeros((3, 5), np.int32)
    np.testing.assert_array_equal(
        run_everywhere("EyeLike", [x], {"k": k, "dtype": 1}), np.eye(3, 5, max(-9, min(k, 9)))
    )


@pytest.mark.parametrize("mode", ["add", "mul", "min", "max"])
@pytest.mark.parametrize("kind", [np.float32, np.int32, np.uint8])
def test_scattering_combines_in_order(mode, kind):
    functions = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}
    x = RNG.integers(0, 5, (4, 6)).astype(kind)
    where = RNG.integers(-4, 4, (9, 1))
    updates = RNG.integers(0, 3, (9, 6)).astype(kind)
    wanted = x.copy()
    for (row,), update in zip(where, updates, strict=True):
        wanted[row] = functions[mode](wanted[row], update)
    got = run_everywhere("ScatterND", [x, where, updates], {"reduction": mode})
    np.testing.assert_array_equal(got, wanted)
    indices = np.repeat(where, 6, 1)
    got = run_everywhere("ScatterElements", [x, indices, updates], {"reduction": mode})
    np.testing.assert_array_equal(got, wanted)


def test_sequences_turn_and_caches_fill():
    x = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    lengths = ints(4, 0, 3)
    wanted = x.copy()
    for b, n in enumerate(lengths):
        wanted[:n, b] = x[:n, b][::-1]
    np.testing.assert_array_equal(run_everywhere("ReverseSequence", [x, lengths]), wanted)
    swapped = {"batch_axis": 0, "time_axis": 1}
    got = run_everywhere("ReverseSequence", [x.swapaxes(0, 1), lengths], swapped)
    np.testing.assert_array_equal(got, wanted.swapaxes(0, 1))
    with pytest.raises(_core.EngineError, match="sequence length 5 of 4"):
        run_node("ReverseSequence", [x, ints(4, 5, 0)])
    cache, update = np.zeros((2, 5, 3), np.float32), np.ones((2, 2, 3), np.float32)
    ring = run_everywhere("TensorScatter", [cache, update, ints(4, 1)], {"mode": "circular"})
    assert ring[:, :, 0].tolist() == [[1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]
    for start in (4, -1):
        with pytest.raises(_core.EngineError, match=f"starts at {start} of 5"):
            run_node("TensorScatter", [cache, update, ints(0, start)])


def test_running_products_and_determinants():
    x = RNG.uniform(0.5, 2, (3, 5, 4))
    for kind in (np.float32, np.float64):
        got = run_everywhere("CumProd", [x.astype(kind), ints(1)[0]], known=(1,))
        np.testing.assert_allclose(got, np.cumprod(x, 1), rtol=1e-5)
        square = RNG.standard_normal((2, 3, 6, 6)).astype(kind)
        got = run_everywhere("Det", [square])
        np.testing.assert_allclose(got, np.linalg.det(square.astype(np.float64)), rtol=1e-5)
    assert run_everywhere("Det", [np.ones((4, 4), np.float32)]) == 0
    with pytest.raises(_core.EngineError, match="square"):
        run_node("Det", [np.ones((4, 3), np.float32)])
