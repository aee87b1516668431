"""Channels are observed inside a run, whatever the layout, and say what NumPy says."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import build, values_of

from lowprec._ext._core import ChannelObserver
from lowprec.calibration import observe_channels
from lowprec.errors import DataError, InputError, ModelError

rng = np.random.default_rng(11)
IMAGES = (
    "m (float[N,3,H,W] x) => (float[N,7,H,W] y) "
    "{ a = Conv <pads=[1,1,1,1]> (x, w) r = Relu(a) y = Conv <pads=[1,1,1,1]> (r, v) }"
)
W = {
    "w": rng.standard_normal((5, 3, 3, 3)).astype(np.float32),
    "v": rng.standard_normal((7, 5, 3, 3)).astype(np.float32),
}


def images(*sizes: tuple[int, int, int]) -> list[dict[str, np.ndarray]]:
    return [{"x": rng.standard_normal((n, 3, h, w)).astype(np.float32)} for n, h, w in sizes]


@pytest.mark.parametrize("name", ["x", "a", "r", "y"])
@pytest.mark.parametrize("axis", [1, -3, 0])
def test_what_is_seen_is_what_ran(name: str, axis: int) -> None:
    model = build(IMAGES, W)
    feeds = images((2, 9, 6), (2, 40, 41), (2, 1, 1))
    found = observe_channels(model, {name: axis}, feeds)[name]
    ran = [np.moveaxis(values_of(model, [name], feed)[name], axis, 0) for feed in feeds]
    values = np.concatenate([array.reshape(len(array), -1) for array in ran], axis=1)
    assert found.count == values.shape[1]
    np.testing.assert_allclose(found.minimum, values.min(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.maximum, values.max(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.mean, values.mean(1, dtype=np.float64), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.variance, values.var(1, dtype=np.float64), rtol=1e-4)
    assert (found.absolute_maximum == np.maximum(-found.minimum, found.maximum)).all()


def test_histograms_are_those_of_each_channel_alone() -> None:
    from lowprec.numerics import Histogram

    model = build(IMAGES, W)
    feeds = images((1, 30, 30), (2, 8, 8))
    found = observe_channels(model, {"x": 1, "r": 1}, feeds, bins=64)
    expected = Histogram(64, axis=1)
    for feed in feeds:
        expected.update(feed["x"])
    for channel, histogram in enumerate(found["x"].histograms):
        np.testing.assert_array_equal(histogram.counts, expected.counts[channel])
        assert histogram.width == expected.width[channel]
    assert len(found["r"].histograms) == 5
    assert all(h.total == found["r"].count for h in found["r"].histograms)


def test_the_order_of_the_feeds_and_the_threads_change_no_bit() -> None:
    import lowprec

    feeds = images((4, 64, 64), (1, 7, 5), (3, 20, 20))
    runs = []
    before = lowprec.get_num_threads()
    try:
        for threads, order in ((1, feeds), (2, feeds[::-1])):
            lowprec.set_num_threads(threads)
            runs.append(observe_channels(build(IMAGES, W), {"r": 1, "x": 3 - 2}, order)["r"])
    finally:
        lowprec.set_num_threads(before)
    for field in ("minimum", "maximum", "mean", "variance"):
        assert getattr(runs[0], field).tobytes() == getattr(runs[1], field).tobytes()


@pytest.mark.parametrize("shape", [(700, 6), (3, 6, 5000), (1, 6), (2, 6, 1, 3)])
def test_parts_merge_into_the_whole(shape: tuple[int, ...]) -> None:
    arrays = [rng.standard_normal(shape).astype(np.float32) * 10**i for i in range(4)]
    whole = ChannelObserver(1, bins=32)
    parts = [ChannelObserver(1, bins=32) for _ in range(2)]
    for i, array in enumerate(arrays):
        whole.update(array)
        parts[i % 2].update(array)
    parts[1].merge(parts[0])
    for channel in range(6):
        assert parts[1].sums(channel) == whole.sums(channel)
        counts, *place = parts[1].histogram(channel)
        expected, *same_place = whole.histogram(channel)
        assert (counts.tolist(), place) == (expected.tolist(), same_place)
    np.testing.assert_array_equal(parts[1].extremes(), whole.extremes())
    assert parts[1].count == whole.count


def test_what_is_not_finite_is_counted_and_kept_out() -> None:
    array = rng.standard_normal((300, 4)).astype(np.float32)
    array[7, 1], array[9, 2], array[299, 3] = np.nan, np.inf, -np.inf
    for x in (array, np.ascontiguousarray(array.T)):
        observer = ChannelObserver(1 if x is array else 0)
        observer.update(x)
        assert observer.nonfinite == 3
        clean = np.where(np.isfinite(array), array, 0)
        low, high = observer.extremes()
        np.testing.assert_array_equal(low, clean.min(0))
        np.testing.assert_array_equal(high, clean.max(0))


def test_mistakes_are_named() -> None:
    model = build("m (float[N,C] x) => (float[N,C] y) { y = Log(x) }", {})
    with pytest.raises(ModelError, match="no value is called 'z'"):
        observe_channels(model, {"z": 1}, [])
    ones = {"x": np.ones((2, 3), np.float32)}
    with pytest.raises(DataError, match=r"tensor 'y' holds 2 NaN or inf.*batch 1"):
        observe_channels(model, {"y": 1}, [ones, {"x": np.float32([[0, 1, 0]])}])
    with pytest.raises(InputError, match="4 channels here and 3 before"):
        observe_channels(model, {"y": 1}, [ones, {"x": np.ones((2, 4), np.float32)}])
    with pytest.raises(InputError, match="axis"):
        observe_channels(model, {"y": 2}, [ones])
