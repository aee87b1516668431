"""Quantiles and expected errors from a histogram agree with the values that were counted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowprec.calibration.statistics import Histogram, expected_error, squared_error
from lowprec.numerics import reference


def evenly_spread(counts: np.ndarray, first: int, width: float, per_count: int = 64) -> np.ndarray:
    """Return values that lie in the bins as the histogram's definition has it."""
    parts = [
        (first + i + (np.arange(n * per_count) + 0.5) / (n * per_count)) * width
        for i, n in enumerate(counts)
        if n
    ]
    return np.concatenate(parts)


histograms = st.tuples(
    st.lists(st.integers(0, 9), min_size=16, max_size=64).filter(any),
    st.integers(-40, 0),
    st.sampled_from([2.0**-6, 0.125, 2.0]),
)


@given(histograms, st.floats(0, 1))
def test_quantile_is_the_inverse_of_the_share_below(parts, fraction) -> None:
    counts, first, width = np.array(parts[0]), parts[1], parts[2]
    histogram = Histogram(counts, first * width, width)
    value = histogram.quantile(fraction)
    assert histogram.share_below(value) == pytest.approx(fraction, abs=1e-9)


@given(histograms, st.floats(-3, 0), st.floats(0.01, 3), st.booleans())
def test_expected_error_is_the_error_of_evenly_spread_values(parts, rmin, rmax, symmetric) -> None:
    counts, first, width = np.array(parts[0]), parts[1], parts[2]
    histogram = Histogram(counts, first * width, width)
    values = evenly_spread(counts, first, width)
    scale, zero_point = reference.choose_qparams(
        np.float32(rmin), np.float32(rmax), 0, 255, symmetric
    )
    codes = np.clip(np.rint(values / float(scale)) + zero_point, 0, 255)
    error = np.square(values - (codes - zero_point) * float(scale)).mean() * counts.sum()
    expected = expected_error(histogram, rmin, rmax, qmin=0, qmax=255, symmetric=symmetric)
    # 64 points a count are not the integral: their spacing enters squared.
    slack = counts.sum() * ((width / 64) ** 2 + 1e-3 * float(scale) ** 2)
    assert expected == pytest.approx(error, rel=0.02, abs=slack)


def test_fine_steps_give_a_twelfth_of_the_step_squared() -> None:
    histogram = Histogram(np.full(128, 1000), 0.0, 1 / 128)
    assert squared_error(histogram, 1 / 255, 0, 255) == pytest.approx(
        128_000 / 255**2 / 12, rel=1e-3
    )


def test_power_is_the_sum_of_squares() -> None:
    histogram = Histogram(np.array([0, 5, 0, 7]), -2.0, 1.0)
    values = evenly_spread(histogram.counts, -2, 1.0, per_count=1000)
    assert histogram.power() == pytest.approx(np.square(values).mean() * 12, rel=1e-5)
