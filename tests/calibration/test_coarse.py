"""The histogram that reports show: where values were seen, and hardly any bytes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lowprec._ext._core import TensorObserver
from lowprec.calibration.coarse import coarse_histogram, coarse_histograms


def observed(values: np.ndarray) -> TensorObserver:
    observer = TensorObserver(2048)
    observer.begin_batch()
    observer.update(np.asarray(values, np.float32))
    observer.end_batch()
    return observer


def test_counts_are_where_the_values_are() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(200_000).astype("f")
    found = coarse_histogram(observed(values))
    assert (found["low"], found["high"]) == (values.min(), values.max())
    exact, _ = np.histogram(values, 64, (float(values.min()), float(values.max())))
    np.testing.assert_allclose(found["counts"], exact, rtol=0.08, atol=25)


def test_the_ends_are_seen() -> None:
    values = np.concatenate([np.zeros(1000), [-3.0, 11.0]]).astype("f")
    counts = coarse_histogram(observed(values))["counts"]
    assert counts[0] == counts[-1] == 1
    assert sum(counts) == 1002 or counts[64 * 3 // 14] == 1000


@pytest.mark.parametrize("value", [0.0, 2.5, -1e-3])
def test_one_value_alone(value: float) -> None:
    found = coarse_histogram(observed(np.full(7, value)))
    assert found["low"] == found["high"] == np.float32(value)
    assert sum(found["counts"]) == 7


def test_two_digits_are_kept() -> None:
    found = coarse_histogram(observed(np.random.default_rng(1).uniform(0, 1, 1_000_000)))
    assert all(count == float(f"{count:.1e}") for count in found["counts"])
    assert len(json.dumps(found)) < 700


def test_tensors_that_were_never_seen_are_left_out() -> None:
    observers = {"a": observed(np.ones(3)), "b": TensorObserver(2048)}
    assert list(coarse_histograms(observers, ["b", None, "a", "a", "c"])) == ["a"]
