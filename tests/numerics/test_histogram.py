"""Histograms do not depend on the order or the cutting of the data, nor on the instruction set."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from guarded import guarded
from hypothesis import given
from hypothesis import strategies as st
from number_strategies import (
    EDGE_VALUES,
    ISAS,
    assert_same_bits,
    float_arrays,
    float_mode,
)

from lowprec import numerics
from lowprec._ext import _core
from lowprec.errors import DataError, InputError
from lowprec.numerics import reference

every_isa = pytest.mark.parametrize("isa", ISAS)


def observe(parts, isa, bins=2048):
    observer = _core.TensorObserver(bins, isa=isa)
    assert observer.isa == isa
    for part in parts:
        observer.update(part)
    return observer


def assert_is_the_definition(observer, x):
    counts, first, width = observer.histogram()
    assert counts.shape == (observer.bins,)
    expected, expected_width = reference.growing_counts(x, observer.bins)
    assert width == expected_width
    assert {first + i: n for i, n in enumerate(counts.tolist()) if n} == expected
    finite = x[np.isfinite(x)]
    assert observer.count == finite.size
    assert observer.nonfinite == x.size - finite.size
    if finite.size:
        assert observer.minimum == finite.min()
        assert observer.maximum == finite.max()
        assert math.copysign(1, observer.minimum) == (-1 if finite.min() < 0 else 1)
    else:
        assert (observer.minimum, observer.maximum) == (np.inf, -np.inf)


@every_isa
@given(st.lists(float_arrays(), max_size=4), st.sampled_from([16, 17, 100, 2048, 4096]))
def test_counts_are_the_definition_s(isa, parts, bins):
    assert_is_the_definition(observe(parts, isa, bins), np.concatenate([*parts, np.float32([])]))


@every_isa
@pytest.mark.parametrize("bins", [64, 2048, 2050])
def test_long_tensors_are_counted_as_short_ones(isa, bins):
    # Long enough for several blocks, with a heavy bin (as after a Relu) and values of no bin.
    rng = np.random.default_rng(bins)
    x = np.maximum(rng.standard_normal(200_003).astype(np.float32), -0.25)
    x[rng.random(x.size) < 0.01] = np.nan
    x[rng.random(x.size) < 0.001] = -np.inf
    observer = observe([x], isa, bins)
    counts, first, width = observer.histogram()
    finite = x[np.isfinite(x)]
    index = np.floor(finite.astype(np.float64) / width).astype(np.int64) - first
    np.testing.assert_array_equal(counts, np.bincount(index, minlength=bins))
    assert observer.count == finite.size
    assert observer.nonfinite == x.size - finite.size
    assert (observer.minimum, observer.maximum) == (finite.min(), finite.max())


@every_isa
@pytest.mark.parametrize("bins", [16, 2048, 2049])
def test_one_bin_may_hold_everything(isa, bins):
    # The kernel counts in small tables: none of them may run over.
    x = np.full(400_003, 0.25, np.float32)
    x[:5] = [np.nan, -1e-45, -1, 1e30, np.inf]
    counts = np.zeros(bins, np.int64)
    assert _core.count_bins(x, counts, inverse_width=2, origin=-2, isa=isa) == isa
    expected = np.zeros(bins, np.int64)
    expected[[0, 1, 2, -1]] = [1, 1, 399_998, 1]  # what is outside counts in the last bin
    np.testing.assert_array_equal(counts, expected)


@every_isa
@given(st.lists(float_arrays(), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_order_and_cutting_do_not_matter(isa, parts, random):
    whole = observe([np.concatenate(parts)], isa)
    shuffled = parts.copy()
    random.shuffle(shuffled)
    merged = observe([], isa)
    for part in shuffled:
        merged.merge(observe([part], isa))
    for other in (observe(shuffled, isa), merged):
        assert_same_bits(other.histogram()[0], whole.histogram()[0])
        assert other.histogram()[1:] == whole.histogram()[1:]
        for name in ("count", "nonfinite", "minimum", "maximum"):
            assert getattr(other, name) == getattr(whole, name)


@every_isa
@pytest.mark.parametrize("size", [1, 7, 15, 17, 33, 4099])
def test_observing_reads_nothing_behind_the_array(isa, size):
    x = np.random.default_rng(size).standard_normal(size).astype(np.float32)
    observer = observe([guarded(x)], isa)
    assert (observer.minimum, observer.maximum) == (x.min(), x.max())
    assert observer.histogram()[0].sum() == size


@every_isa
def test_flush_to_zero_of_another_library_changes_nothing(isa):
    x = np.concatenate([EDGE_VALUES[np.abs(EDGE_VALUES) < 2.0**-100], np.float32([2.0**-128])])
    with float_mode(0x8040 | 0x4000) as read:
        before = read()
        observer = observe([x], isa)
        assert read() == before
    assert_is_the_definition(observer, x)


@every_isa
def test_batches_have_extremes_of_their_own(isa):
    observer = _core.TensorObserver(isa=isa)
    observer.begin_batch()
    observer.update(np.float32([1, 5]))
    observer.update(np.float32([-2]))
    observer.end_batch()
    assert (observer.batch_minimum, observer.batch_maximum) == (-2, 5)
    observer.begin_batch()
    observer.update(np.float32([3]))
    observer.end_batch()
    assert (observer.batch_minimum, observer.batch_maximum) == (3, 3)
    assert (observer.minimum, observer.maximum) == (-2, 5)
    assert observer.batches == 2


def test_observer_takes_any_shape_and_strides():
    x = np.arange(60, dtype=np.float32).reshape(3, 4, 5)[:, ::2, ::-1]
    observer = _core.TensorObserver()
    observer.update(x)
    assert (observer.count, observer.minimum, observer.maximum) == (30, x.min(), x.max())


def test_threads_may_feed_one_observer():
    x = np.random.default_rng(0).standard_normal((8, 50_000)).astype(np.float32)
    histogram = numerics.Histogram()
    threads = [threading.Thread(target=histogram.update, args=(row,)) for row in x]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = numerics.Histogram()
    alone.update(x)
    assert histogram.count == x.size
    assert_same_bits(histogram.counts, alone.counts)


def test_histogram_properties_agree():
    histogram = numerics.Histogram(bins=32)
    histogram.update([-1.0, 0.25, 3.0, np.nan])
    assert histogram.bins == 32
    assert (histogram.count, histogram.nonfinite) == (3, 1)
    assert (histogram.minimum, histogram.maximum) == (-1, 3)
    counts, edges = histogram.counts, histogram.edges
    for value in (-1, 0.25, 3):
        (bin_,) = np.flatnonzero((edges[:-1] <= value) & (value < edges[1:]))
        assert counts[bin_] == 1
    assert counts.sum() == 3
    assert edges[0] == histogram.origin == -1
    assert "count=3" in repr(histogram)
    assert "empty" in repr(numerics.Histogram())


@given(float_arrays(finite=True), st.floats(0, 100))
def test_a_percentile_has_that_share_below_it(x, p):
    if x.size == 0:
        return
    histogram = numerics.Histogram()
    histogram.update(x)
    x = x.astype(np.float64)
    value = float(histogram.percentile(p))
    assert histogram.minimum <= value <= histogram.maximum
    # The share is interpolated within a bin: one width to the left are fewer, to the right more.
    wanted = p / 100 * x.size
    assert np.count_nonzero(x <= value + histogram.width) >= wanted - 1e-6
    assert np.count_nonzero(x < value - histogram.width) <= wanted + 1e-6


def test_percentiles_of_evenly_spread_values_are_exact():
    histogram = numerics.Histogram()
    histogram.update(np.arange(2048, dtype=np.float32) + np.float32(0.5))
    assert histogram.width == 1
    np.testing.assert_allclose(
        histogram.percentile([0, 25, 50, 99, 100]),
        [0.5, 512, 1024, 0.99 * 2048, 2047.5],
        rtol=1e-12,
    )


def test_merging_counts_both():
    one, other = numerics.Histogram(), numerics.Histogram()
    one.update([1.0, 2.0])
    other.update([-1000.0, np.inf])
    one.merge(other)
    assert (one.count, one.nonfinite, one.minimum, one.maximum) == (3, 1, -1000, 2)
    assert (other.count, other.nonfinite) == (1, 1)
    one.merge(one)
    assert one.count == 6


def test_wrong_uses_are_refused():
    for bins in (15, 65537):
        with pytest.raises(InputError, match="bins"):
            numerics.Histogram(bins)
    with pytest.raises(InputError, match="bins"):
        numerics.Histogram(32).merge(numerics.Histogram(64))
    with pytest.raises(InputError, match="float32"):
        numerics.Histogram().update([1, 2])
    with pytest.raises(DataError, match="no finite value"):
        numerics.Histogram().percentile(50)
    histogram = numerics.Histogram()
    histogram.update([1.0])
    for p in (-1, 101, np.nan):
        with pytest.raises(InputError, match="percentage"):
            histogram.percentile(p)
