"""The entropy method is its definition: against plain loops, and against the tools that have it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lowprec._ext._core import TensorObserver
from lowprec.calibration.entropy import Variant, divergences
from lowprec.calibration.ranges import Range
from lowprec.calibration.rules import RULES
from lowprec.calibration.settings import settings_of
from lowprec.config import Config
from lowprec.errors import ConfigError

rng = np.random.default_rng(41)


def observed(x: NDArray[np.float32], **sections: dict[str, object]) -> Range:
    config = Config.of(sections)
    tensor = TensorObserver(settings_of(config).observed_bins)
    tensor.update(x)
    return RULES[settings_of(config).method](config).range(tensor)


def smoothed(counts: NDArray[np.float64], smoothing: float) -> NDArray[np.float64]:
    empty = counts == 0
    given = smoothing * empty.sum() / (~empty).sum()
    return np.where(empty, smoothing, counts - given)


def divergence(counts: NDArray[np.int64], start: int, end: int, variant: Variant) -> float:
    """The definition in the module's text, bin by bin."""
    window = counts[start:end].astype(np.float64)
    p = window.copy()
    p[0] += counts[:start].sum()
    p[-1] += counts[end:].sum()
    size, levels = end - start, variant.levels
    borders = [
        i * (size // levels) if variant.whole_bins else i * size // levels for i in range(levels)
    ]
    q = np.zeros(size)
    for first, last in zip(borders, [*borders[1:], size], strict=True):
        filled = p[first:last] > 0
        if filled.any():
            q[first:last] = np.where(filled, window[first:last].sum() / filled.sum(), 0)
    if variant.smoothing:
        p, q = smoothed(p, variant.smoothing), smoothed(q, variant.smoothing)
    p, q = p / p.sum(), q / q.sum()
    if ((p > 0) & (q == 0)).any():
        return np.inf
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


@pytest.mark.parametrize(
    "variant",
    [Variant(128), Variant(255, whole_bins=True), Variant(64, 0.0), Variant(7, 0.01)],
    ids=str,
)
@pytest.mark.parametrize("shape", ["normal", "sparse", "outliers"])
def test_it_is_the_definition(variant: Variant, shape: str) -> None:
    x = rng.standard_normal(20_000)
    if shape == "sparse":
        x = np.round(x, 1)
    elif shape == "outliers":
        x[:20] *= 10
    counts, _ = np.histogram(x, 600, (-9, 9))
    half = np.arange(variant.levels // 2 + 1, 300, 11)
    starts, ends = 300 - half, 300 + half
    found = divergences(counts, starts, ends, variant)
    expected = [divergence(counts, a, b, variant) for a, b in zip(starts, ends, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


ORT = Variant(128, whole_bins=True, spread_rest=False, only_filled=False, truncate=True)


def onnxruntimes_window(
    x: NDArray[np.float32], bins: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], int, int]:
    """Return counts, edges, and the bins between which onnxruntime's own function cuts."""
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    largest = np.abs(x).max()
    counts, edges = np.histogram(x, bins, (-largest, largest))
    low, high = calibrate.HistogramCollector.get_entropy_threshold(
        None, (counts, edges, -np.float32(np.inf), np.float32(np.inf)), 128
    )
    return counts, edges, int(np.argmin(abs(edges - low))), int(np.argmin(abs(edges - high)))


@pytest.mark.parametrize("bins", [256, 700, 1024])
def test_onnxruntimes_loop_chooses_what_we_find_best(bins: int) -> None:
    """Its sums are float32: of windows that are as good to one part in a thousand it takes any."""
    x = rng.laplace(size=100_000).astype(np.float32)
    counts, _, first, last = onnxruntimes_window(x, bins)
    half = np.arange(64, bins // 2 + 1)
    starts, ends = bins // 2 - half, np.minimum(bins // 2 + half + 1, bins)
    found = divergences(counts, starts, ends, ORT)
    (theirs,) = found[(starts == first) & (ends == last)]
    assert theirs <= 1.001 * found.min()
    assert found.max() > 1.5 * found.min()


def test_preset_ort_is_onnxruntimes_entropy_with_as_many_bins() -> None:
    """Our bins are recounted into its grid; what we choose is as good as its choice there."""
    x = rng.laplace(size=160_000).astype(np.float32)
    counts, edges, first, last = onnxruntimes_window(x, 1024)
    found = observed(x, calibration={"preset": "ort", "method": "entropy", "bins": 1024})
    ours = np.array([np.argmin(abs(edges - end)) for end in (found.rmin, found.rmax)])
    rated = divergences(counts, np.array([first, 1025 - ours[1]]), np.array([last, ours[1]]), ORT)
    assert rated[1] <= 1.1 * rated[0]


def test_preset_mxnet_is_its_definition() -> None:
    x = rng.standard_normal(160_000).astype(np.float32)
    x[0] = 40
    largest = np.abs(x).max()
    counts, edges = np.histogram(x, 8001, (-largest, largest))
    variant = Variant(255, whole_bins=True)
    half = np.arange(127, 4001)
    exact = divergences(counts, 4000 - half, 4001 + half, variant)
    best = int(half[np.argmin(exact)])
    assert divergence(counts, 4000 - best, 4001 + best, variant) == pytest.approx(exact.min())
    found = observed(x, calibration={"preset": "mxnet"})
    assert found.method == "entropy"
    # 8001 bins of 0.01: (+-3.82) is what the tool itself finds on such data.
    assert found.rmax == pytest.approx(edges[4001 + best], abs=0.1)
    assert -found.rmin == pytest.approx(found.rmax, abs=0.02)


def test_preset_tensorrt_is_its_definition() -> None:
    x = rng.laplace(size=160_000).astype(np.float32)
    largest = np.abs(x).max()
    counts, _ = np.histogram(np.abs(x), 2048, (0, largest))
    ends = np.arange(128, 2048)
    exact = np.array([divergence(counts, 0, end, Variant(128, 0.0)) for end in ends[::16]])
    found = observed(x, calibration={"preset": "tensorrt"}, activations={"scheme": "symmetric"})
    assert found.method == "entropy"
    chosen = round(found.rmax / largest * 2048 - 0.5)  # the middle of the bin behind the window
    assert divergence(counts, 0, chosen, Variant(128, 0.0)) <= 1.02 * exact.min()
    assert exact[np.isfinite(exact)].max() > 2 * exact.min()


def test_the_default_cuts_an_outlier_and_no_more() -> None:
    x = rng.standard_normal(400_000).astype(np.float32)
    x[:4] = [-60, 50, 60, 45]
    found = observed(x, calibration={"method": "entropy"})
    assert 3 < found.rmax < 20
    assert 3 < -found.rmin < 20
    assert found.clipped < 0.01


def test_one_sided_data_keeps_its_zero() -> None:
    x = np.maximum(rng.standard_normal(200_000), 0).astype(np.float32)  # half of it zeros
    found = observed(x, calibration={"method": "entropy"})
    assert found.rmin == 0
    assert 2.5 < found.rmax <= x.max()


@pytest.mark.parametrize("scheme", ["symmetric", "asymmetric"])
def test_few_values_keep_their_range(scheme: str) -> None:
    x = np.array([-1, 0.5, 3], np.float32)
    found = observed(x, calibration={"method": "entropy"}, activations={"scheme": scheme})
    assert (found.rmin, found.rmax) == (-1, 3)


def test_too_few_bins_for_the_levels_are_refused() -> None:
    """A histogram that has no more bins than levels has one candidate: the whole range."""
    x = rng.standard_normal(1000).astype(np.float32)
    with pytest.raises(ConfigError, match=r"bins is 512: with 256 levels .* more than 512 bins"):
        observed(x, calibration={"method": "entropy", "bins": 512})
    observed(x, calibration={"method": "entropy", "bins": 513})
    observed(x, calibration={"method": "entropy", "bins": 512, "levels": 128})


def test_levels_window_and_smoothing_matter() -> None:
    x = rng.laplace(size=200_000).astype(np.float32)
    ranges = {
        observed(x, calibration={"method": "entropy", **options}).rmax
        for options in ({}, {"levels": 64}, {"window": 1500}, {"smoothing": 0.5})
    }
    assert len(ranges) >= 3
