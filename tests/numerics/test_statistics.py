"""Fixed bins, moments, channels: the definition, exact, mergeable, on every instruction set."""

from __future__ import annotations

import math
import pickle
import threading
from fractions import Fraction

import numpy as np
import pytest
from guarded import both_ends
from hypothesis import given
from hypothesis import strategies as st
from number_strategies import EDGE_VALUES, ISAS, assert_same_bits, float_arrays, float_mode

import lowprec
from lowprec import numerics
from lowprec._ext import _core
from lowprec.errors import DataError, InputError
from lowprec.numerics import reference

every_isa = pytest.mark.parametrize("isa", ISAS)


def sums_of(x: np.ndarray, isa: str) -> tuple[Fraction, Fraction]:
    observer = _core.TensorObserver(16, moments=True, isa=isa)
    observer.update(x)
    unit = Fraction(2) ** observer.LOWEST
    values, squares = observer.sums()
    return values * unit, squares * unit


def counted(x: np.ndarray, low: float, high: float, bins: int, isa: str):
    edges = np.linspace(low, high, bins + 1).astype(np.float32)
    observer = _core.TensorObserver(bins, edges=edges, isa=isa)
    observer.update(x)
    return observer.histogram()[0], observer.below, observer.above


def assert_counts(actual, expected):
    np.testing.assert_array_equal(actual[0], expected[0])
    assert actual[1:] == expected[1:]


@every_isa
@given(float_arrays())
def test_sums_are_exact_for_any_floats(isa, x):
    assert sums_of(x, isa) == reference.exact_sums(x)


@every_isa
@pytest.mark.parametrize("spread", [0, 5, 20, 60, 250])
def test_sums_of_long_tensors_are_exact(isa, spread):
    # Exponents over many windows of magnitude, blocks that end anywhere, both signs.
    rng = np.random.default_rng(spread)
    x = rng.standard_normal(20_011) * 2.0 ** rng.uniform(-spread / 2, spread / 2, 20_011)
    x = x.astype(np.float32)
    x[rng.random(x.size) < 0.01] = 0
    x[:4] = [np.inf, -np.inf, np.nan, 1e-45]
    assert sums_of(x, isa) == reference.exact_sums(x)


@every_isa
@pytest.mark.parametrize("bits", [0x7F7FFFFF, 0x00800000, 0x007FFFFF, 0x00000001, 0x3F800001])
def test_sums_of_equal_values_do_not_run_over(isa, bits):
    # The largest sums a block can have, of numbers with all bits set.
    x = np.full(100_003, bits, np.uint32).view(np.float32)
    value = Fraction(float(x[0]))
    assert sums_of(x, isa) == (x.size * value, x.size * value**2)
    assert sums_of(-x, isa) == (-x.size * value, x.size * value**2)


@given(st.lists(float_arrays(), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_moments_do_not_depend_on_order_and_cutting(parts, random):
    whole = numerics.Histogram()
    whole.update(np.concatenate(parts))
    random.shuffle(parts)
    merged = numerics.Histogram()
    for part in parts:
        one = numerics.Histogram()
        one.update(part)
        merged.merge(one)
    for name in ("sum", "sum_of_squares", "mean", "variance", "nan", "infinite", "count"):
        assert_same_bits(np.float64(getattr(merged, name)), np.float64(getattr(whole, name)))


def test_moments_are_rounded_once():
    x = np.random.default_rng(0).standard_normal(5000).astype(np.float32) + np.float32(1000)
    histogram = numerics.Histogram()
    histogram.update(x)
    values, squares = reference.exact_sums(x)
    assert histogram.sum == float(values)
    assert histogram.sum_of_squares == float(squares)
    assert histogram.mean == float(values / x.size)
    assert histogram.variance == float(squares / x.size - (values / x.size) ** 2)
    assert histogram.standard_deviation == math.sqrt(histogram.variance)
    assert histogram.variance == pytest.approx(x.astype(np.float64).var(), rel=1e-9)
    assert histogram.absolute_maximum == np.abs(x).max()
    empty = numerics.Histogram()
    assert math.isnan(empty.mean)
    assert math.isnan(empty.variance)
    assert (empty.sum, empty.absolute_maximum) == (0, 0)


@every_isa
@given(
    float_arrays(),
    st.floats(-1000, 1000, width=32),
    st.floats(2**-10, 1000, width=32),
    st.sampled_from([1, 2, 7, 100, 2048]),
)
def test_fixed_bins_are_the_definition_s(isa, x, low, width, bins):
    edges = np.linspace(low, low + width, bins + 1).astype(np.float32)
    if (edges[1:] <= edges[:-1]).any():
        return
    # Edges, their neighbours, and values that fall between them.
    inside = np.random.default_rng(bins).uniform(low, low + width, 50).astype(np.float32)
    near = np.concatenate([np.nextafter(edges, np.float32(s)) for s in (-np.inf, np.inf)])
    x = np.concatenate([x, inside, edges, near])
    expected = reference.edge_counts(x, low, low + width, bins)
    assert_counts(counted(x, low, low + width, bins, isa), expected)


@every_isa
@pytest.mark.parametrize("bins", [1, 10, 2048, 5000])
@pytest.mark.parametrize("limits", [(-1, 1), (0, 255), (-3e38, 3e38), (1000, 1001), (1e-40, 1e-38)])
def test_fixed_bins_of_long_tensors(isa, bins, limits):
    edges = np.linspace(*limits, bins + 1).astype(np.float32)
    if (edges[1:] <= edges[:-1]).any():
        pytest.skip("no such float32 edges")
    rng = np.random.default_rng(bins)
    width = limits[1] - limits[0]
    x = rng.uniform(limits[0] - width / 9, limits[1] + width / 9, 70_001)
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    x[::3] = rng.choice(edges, x[::3].size)
    x[::1000] = np.nan
    x[1::1000] = np.inf
    assert_counts(counted(x, *limits, bins, isa), reference.edge_counts(x, *limits, bins))


@pytest.mark.parametrize("bins", [1, 3, 10, 100, 2048])
@pytest.mark.parametrize("limits", [(0.0, 1.0), (-4.0, 4.0), (-0.1, 0.7), (10.0, 300.0)])
def test_fixed_bins_are_numpy_s(bins, limits):
    x = np.random.default_rng(1).uniform(-5, 310, 30_000).astype(np.float32)
    x = np.concatenate([x, np.linspace(*limits, bins + 1).astype(np.float32)])
    histogram = numerics.Histogram(bins, range=limits)
    histogram.update(x)
    counts, edges = np.histogram(x, bins, limits)
    np.testing.assert_array_equal(histogram.counts, counts)
    np.testing.assert_array_equal(histogram.edges, edges.astype(np.float64))
    assert histogram.below + histogram.above + counts.sum() == x.size
    assert histogram.range == limits


@every_isa
def test_infinity_is_counted_by_itself(isa):
    x = np.float32([np.inf, -np.inf, -np.inf, np.nan, 5, -5, 0.5])
    edges = np.float32([0, 1])
    observer = _core.TensorObserver(1, edges=edges, moments=True, isa=isa)
    observer.update(x)
    assert (observer.nonfinite, observer.nan, observer.count) == (4, 1, 3)
    assert (observer.below, observer.above, observer.histogram()[0].tolist()) == (1, 1, [1])


@every_isa
@pytest.mark.parametrize("size", [1, 7, 15, 17, 33, 4097])
def test_statistics_read_nothing_outside_the_array(isa, size):
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    edges = np.linspace(-1, 1, 65).astype(np.float32)
    for array in both_ends(x):
        observer = _core.TensorObserver(64, edges=edges, moments=True, isa=isa)
        observer.update(array)
        assert observer.count == size


@every_isa
def test_flush_to_zero_of_another_library_changes_nothing(isa):
    x = EDGE_VALUES[np.abs(EDGE_VALUES) < 2.0**-100]
    expected = reference.exact_sums(x)
    with float_mode(0x8040 | 0x4000) as read:
        before = read()
        actual = sums_of(x, isa)
        assert read() == before
    assert actual == expected


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(0, 3),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_channels_are_histograms_of_their_own(shape, axis, fixed, seed):
    axis %= len(shape)
    rng = np.random.default_rng(seed)
    limits = (-1.0, 1.0) if fixed else None
    together = numerics.Histogram(32, range=limits, axis=axis)
    alone = [numerics.Histogram(32, range=limits) for _ in range(shape[axis])]
    for _ in range(2):
        x = rng.standard_normal(shape).astype(np.float32)
        x = np.flip(np.stack([x, x], 0)[0], 0) if seed % 2 else x
        together.update(x)
        for c, histogram in enumerate(alone):
            histogram.update(x.take(c, axis))
    for name in ("counts", "edges", "count", "minimum", "maximum", "sum", "variance", "below",
                 "absolute_maximum", "origin", "width"):  # fmt: skip
        expected = np.array([getattr(histogram, name) for histogram in alone])
        np.testing.assert_array_equal(getattr(together, name), expected)
    np.testing.assert_array_equal(
        together.percentile([0, 30, 100]), [h.percentile([0, 30, 100]) for h in alone]
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_channels_of_a_large_tensor(axis):
    x = np.random.default_rng(axis).standard_normal((40, 70, 90)).astype(np.float32)
    histogram = numerics.Histogram(axis=axis)
    histogram.update(x)
    assert histogram.counts.shape == (x.shape[axis], 2048)
    for c in (0, x.shape[axis] - 1):
        one = numerics.Histogram()
        one.update(x.take(c, axis))
        np.testing.assert_array_equal(histogram.counts[c], one.counts)
        assert histogram.sum[c] == one.sum


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16", ">f4"])
def test_other_floats_are_rounded_first_and_strides_do_not_matter(dtype):
    import ml_dtypes

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    x = np.random.default_rng(0).standard_normal((60, 70)).astype(kind)[::2, ::-3]
    histogram, expected = numerics.Histogram(), numerics.Histogram()
    histogram.update(x)
    expected.update(np.ascontiguousarray(x.astype(np.float32)))
    assert_same_bits(histogram.counts, expected.counts)
    assert histogram.sum == expected.sum


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_any_number_of_threads_counts_the_same(threads):
    x = np.random.default_rng(0).standard_normal(1_500_000).astype(np.float32)
    before = lowprec.get_num_threads()
    try:
        lowprec.set_num_threads(threads)
        histogram, fixed = numerics.Histogram(), numerics.Histogram(range=(-2, 2))
        histogram.update(x)
        fixed.update(x)
        lowprec.set_num_threads(1)
        alone = numerics.Histogram()
        for part in np.array_split(x, 7):
            alone.update(part)
    finally:
        lowprec.set_num_threads(before)
    assert_same_bits(histogram.counts, alone.counts)
    assert (histogram.sum, histogram.variance) == (alone.sum, alone.variance)
    assert (fixed.sum, fixed.count) == (alone.sum, x.size)
    np.testing.assert_array_equal(fixed.counts, np.histogram(x, 2048, (-2, 2))[0])


def test_four_workers_merged_are_one_worker():
    x = np.random.default_rng(3).standard_normal((8, 30_000)).astype(np.float32)
    x[3] *= 100
    workers = [numerics.Histogram() for _ in range(4)]
    threads = [
        threading.Thread(target=worker.update, args=(x[i::4],)) for i, worker in enumerate(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # As if they came from other processes.
    merged, *others = [pickle.loads(pickle.dumps(worker)) for worker in workers]
    for other in others:
        merged.merge(other)
    one = numerics.Histogram()
    one.update(x)
    assert_same_bits(merged.counts, one.counts)
    for name in ("sum", "variance", "minimum", "maximum", "count", "width", "origin"):
        assert getattr(merged, name) == getattr(one, name)


@pytest.mark.parametrize(
    "options", [{}, {"range": (-1, 1)}, {"axis": 0}, {"axis": 1, "range": (0, 2)}]
)
def test_a_pickled_histogram_goes_on(options):
    x = np.random.default_rng(4).standard_normal((3, 5)).astype(np.float32)
    histogram = numerics.Histogram(64, **options)
    histogram.update(x)
    copy = pickle.loads(pickle.dumps(histogram))
    for one in (histogram, copy):
        one.update(x * 10)
    np.testing.assert_array_equal(copy.counts, histogram.counts)
    np.testing.assert_array_equal(copy.sum, histogram.sum)
    assert repr(copy) == repr(histogram)


def test_percentiles_of_a_fixed_range():
    histogram = numerics.Histogram(10, range=(0, 10))
    histogram.update(np.float32([-5, -3, *np.arange(10) + 0.5, 12, 16]))
    assert histogram.percentile(0) == -5
    assert histogram.percentile(100) == 16
    assert histogram.percentile(100 * 7 / 14) == 5


def test_wrong_uses_are_refused():
    for bins, limits in ((0, (0, 1)), (10, (1, 1)), (10, (2, 1)), (10, (0, np.inf))):
        with pytest.raises(InputError, match=r"bins|range"):
            numerics.Histogram(bins, range=limits)
    with pytest.raises(InputError, match="float32 edges"):
        numerics.Histogram(2048, range=(1, 1.0001))
    channels = numerics.Histogram(axis=1)
    with pytest.raises(DataError, match="no finite"):
        channels.percentile(5)
    channels.update(np.zeros((2, 3), np.float32))
    with pytest.raises(InputError, match="channels"):
        channels.update(np.zeros((2, 4), np.float32))
    with pytest.raises(InputError, match="axis"):
        channels.update(np.zeros(3, np.float32))
    for other in (numerics.Histogram(), numerics.Histogram(axis=0), numerics.Histogram(64, axis=1)):
        with pytest.raises(InputError, match="the same as here"):
            channels.merge(other)
    other = numerics.Histogram(axis=1)
    other.update(np.zeros((2, 4), np.float32))
    with pytest.raises(InputError, match="as many as here"):
        channels.merge(other)
    assert "channels=3" in repr(channels)
