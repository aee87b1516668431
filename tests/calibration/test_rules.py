"""Each rule gives the range that its definition names, and `auto` never an absurd one."""

from __future__ import annotations

import numpy as np
import pytest

from lowprec._ext._core import TensorObserver
from lowprec.calibration.automatic import CANDIDATES, MAX_CLIPPED
from lowprec.calibration.ranges import Range
from lowprec.calibration.rules import RULES
from lowprec.config import Config

rng = np.random.default_rng(23)


def observe(method: str, *batches: np.ndarray, **calibration: float) -> Range:
    config = Config.of({"calibration": {"method": method, **calibration}})
    tensor = TensorObserver(config.calibration.bins)
    rule = RULES[method](config)
    for batch in batches:
        tensor.begin_batch()
        tensor.update(batch)
        tensor.end_batch()
        rule.end_batch(tensor)
    return rule.range(tensor)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_minmax_is_the_extremes_of_all_batches() -> None:
    found = observe("minmax", floats(-1, 2), floats(-3, 1), floats(5))
    assert (found.rmin, found.rmax, found.method, found.clipped) == (-3, 5, "minmax", 0)


def test_moving_average_is_99_to_1_from_the_first_batch_on() -> None:
    found = observe("moving-average", floats(-1, 1), floats(-3, 2), floats(0, 101))
    assert found.rmin == pytest.approx(0.99 * (0.99 * -1 + 0.01 * -3) + 0.01 * 0)
    assert found.rmax == pytest.approx(0.99 * (0.99 * 1 + 0.01 * 2) + 0.01 * 101)
    assert 0 < found.clipped < 0.5


@pytest.mark.parametrize("percentile", [90, 99, 99.9, 99.99])
def test_percentile_cuts_off_exactly_its_share(percentile: float) -> None:
    values = rng.standard_normal(400_000).astype(np.float32)
    found = observe("percentile", values, percentile=percentile)
    tail = (100 - percentile) / 200
    low, high = np.quantile(values, [tail, 1 - tail])
    width = 2.0**-7  # of a bin: about 10 / 2048, as a power of two
    assert found.rmin == pytest.approx(low, abs=width)
    assert found.rmax == pytest.approx(high, abs=width)
    outside = ((values < found.rmin) | (values > found.rmax)).mean()
    assert outside == pytest.approx(1 - percentile / 100, rel=0.2, abs=1e-5)
    assert found.clipped == pytest.approx(outside, rel=0.2, abs=1e-5)
    assert found.method == f"percentile {percentile:g}"


def test_percentile_100_is_minmax() -> None:
    values = rng.standard_normal(1000).astype(np.float32)
    found = observe("percentile", values, percentile=100)
    assert (found.rmin, found.rmax) == (values.min(), values.max())


@pytest.mark.parametrize("method", RULES)
def test_a_tensor_of_zeros_has_the_range_zero(method: str) -> None:
    found = observe(method, np.zeros(1000, np.float32))
    assert (found.rmin, found.rmax, found.sqnr) == (0, 0, None)


@pytest.mark.parametrize("method", sorted({*RULES} - {"moving-average"}))
def test_ranges_do_not_depend_on_how_the_data_is_cut(method: str) -> None:
    values = rng.standard_normal(9000).astype(np.float32)
    assert observe(method, values) == observe(method, values[:10], values[10:1010], values[1010:])


def test_auto_cuts_an_outlier_that_costs_more_than_it_is_worth() -> None:
    values = rng.standard_normal(1_000_000).astype(np.float32)
    values[0] = 12
    found = observe("auto", values)
    assert found.method.startswith("percentile")
    assert found.rmax < 6
    minmax = observe("minmax", values)
    assert found.sqnr is not None
    assert minmax.sqnr is not None
    assert found.sqnr > minmax.sqnr


def test_auto_keeps_a_mask_value_however_rare_it_is() -> None:
    values = rng.standard_normal(1_000_000).astype(np.float32)
    values[:3] = -10_000  # three in a million, but nearly all of the energy
    assert observe("auto", values).method == "minmax"


def test_auto_keeps_the_whole_range_of_even_data() -> None:
    values = rng.uniform(-1, 1, 100_000).astype(np.float32)
    assert observe("auto", values).method == "minmax"


def test_auto_never_clips_more_than_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    values = (rng.standard_normal(200_000) ** 5).astype(np.float32)
    monkeypatch.setattr("lowprec.calibration.automatic.CANDIDATES", (*CANDIDATES, 99, 90, 50))
    found = observe("auto", values)
    assert found.clipped <= MAX_CLIPPED


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_the_choice_does_not_depend_on_the_unit(scale: float) -> None:
    values = rng.standard_normal(1_000_000).astype(np.float32)
    values[0] = 12
    plain, scaled = observe("auto", values), observe("auto", values * np.float32(scale))
    assert plain.method == scaled.method
    assert scaled.rmax == pytest.approx(plain.rmax * scale, rel=0.02)


def test_auto_says_what_it_did_and_what_it_rejected() -> None:
    values = rng.standard_normal(1_000_000).astype(np.float32)
    values[0] = 12
    assert "dB better than minmax" in observe("auto", values).note
    masked = values.copy()
    masked[:3] = -10_000
    assert observe("auto", masked).note
    even = rng.uniform(-1, 1, 100_000).astype(np.float32)
    assert observe("auto", even).note
    assert observe("minmax", values).note == ""


def test_exact_zeros_are_no_noise() -> None:
    values = np.maximum(rng.standard_normal(500_000), 0).astype(np.float32)
    found = observe("minmax", values)
    scale = np.float32(found.rmax) / np.float32(255)
    back = np.rint(values / scale) * scale
    exact = 10 * np.log10(np.square(values).mean() / np.square(values - back).mean())
    assert found.sqnr == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize("momentum", [0, 0.5, 0.9])
def test_momentum_is_a_key(momentum: float) -> None:
    found = observe("moving-average", floats(0, 10), floats(0, 20), momentum=momentum)
    assert found.rmax == pytest.approx(momentum * 10 + (1 - momentum) * 20)


def test_auto_rejects_what_clips_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    values = rng.standard_normal(1_000_000).astype(np.float32)
    values[0] = 12
    monkeypatch.setattr("lowprec.calibration.automatic.MAX_CLIPPED", 1e-7)
    found = observe("auto", values)
    assert found.method == "minmax"
    assert "% of the values" in found.note
    monkeypatch.setattr("lowprec.calibration.automatic.MAX_CLIPPED", 1e-3)
    monkeypatch.setattr("lowprec.calibration.automatic.MAX_CLIPPED_POWER", 1e-9)
    found = observe("auto", values)
    assert found.method == "minmax"
    assert "% of the tensor's energy" in found.note
