"""mse finds the least error, l2 what torch finds, percentiles what the tools' own code finds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lowprec._ext._core import TensorObserver
from lowprec.calibration.codes import Codes, codes_of
from lowprec.calibration.protocol import range_error
from lowprec.calibration.ranges import Range
from lowprec.calibration.rules import RULES
from lowprec.calibration.settings import settings_of
from lowprec.config import Config

rng = np.random.default_rng(43)
DATA = {
    "normal": rng.standard_normal(200_000),
    "laplace": rng.laplace(size=200_000),
    "relu": np.maximum(rng.standard_normal(200_000) - 0.3, 0),
    "hard-swish": (lambda x: x * np.clip(x + 3, 0, 6) / 6)(rng.standard_normal(200_000) * 3),
    "heavy": rng.standard_t(3, size=200_000),
}


def seen(x: NDArray[np.floating], config: Config) -> TensorObserver:
    tensor = TensorObserver(settings_of(config).observed_bins)
    tensor.update(x.astype(np.float32))
    return tensor


def observed(x: NDArray[np.floating], **sections: dict[str, object]) -> Range:
    config = Config.of(sections)
    return RULES[settings_of(config).method](config).range(seen(x, config))


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("scheme", ["asymmetric", "symmetric"])
def test_mse_is_within_a_fiftieth_of_the_best_range_of_a_fine_grid(name: str, scheme: str) -> None:
    x = DATA[name]
    config = Config.of({"calibration": {"method": "mse"}, "activations": {"scheme": scheme}})
    tensor, codes = seen(x, config), codes_of(config)
    found = RULES["mse"](config).range(tensor)
    shrinkings = np.linspace(0.02, 1, 60)
    lows = shrinkings if tensor.minimum < 0 and scheme == "asymmetric" else [1.0]
    best = min(
        range_error(tensor, tensor.minimum * low, tensor.maximum * high, codes)
        for low in lows
        for high in shrinkings
    )
    assert range_error(tensor, found.rmin, found.rmax, codes) <= 1.02 * best


@pytest.mark.parametrize("name", DATA)
def test_the_error_that_mse_promises_is_that_of_the_codes(name: str) -> None:
    x = DATA[name].astype(np.float32)
    config = Config.of({"calibration": {"method": "mse"}})
    found = RULES["mse"](config).range(seen(x, config))
    scale, zero_point = codes_of(config).parameters(found.rmin, found.rmax)
    back = (np.clip(np.rint(x / scale) + zero_point, 0, 255) - zero_point) * scale
    noise, power = np.square(x - back).mean(), np.square(x).mean()
    assert found.sqnr == pytest.approx(10 * np.log10(power / noise), abs=0.2)
    assert found.clipped == pytest.approx(((x < found.rmin) | (x > found.rmax)).mean(), abs=1e-4)


@pytest.mark.parametrize("name", DATA)
def test_preset_torch_is_its_histogram_observer(name: str) -> None:
    """Within 2 % of the range: its bins lie between the extremes, ours are recounted into them."""
    observer = pytest.importorskip("torch.ao.quantization.observer")
    torch = pytest.importorskip("torch")
    x = DATA[name].astype(np.float32)
    theirs = observer.HistogramObserver(dtype=torch.quint8, bins=2048)
    theirs(torch.from_numpy(x))
    low, high = (float(bound) for bound in theirs._non_linear_param_search())
    found = observed(x, calibration={"preset": "torch"})
    assert found.method == "l2"
    tolerance = 0.02 * (high - low)
    assert found.rmin == pytest.approx(max(low, float(x.min())), abs=tolerance)
    assert found.rmax == pytest.approx(min(high, float(x.max())), abs=tolerance)


def test_preset_torch_averages_as_its_moving_average_observer() -> None:
    observer = pytest.importorskip("torch.ao.quantization.observer")
    torch = pytest.importorskip("torch")
    theirs = observer.MovingAverageMinMaxObserver(dtype=torch.quint8)
    config = Config.of({"calibration": {"preset": "torch", "method": "moving-average"}})
    tensor, rule = TensorObserver(2048), RULES["moving-average"](config)
    for i in range(9):
        x = (rng.standard_normal(100) * (1 + i)).astype(np.float32)
        theirs(torch.from_numpy(x))
        tensor.begin_batch()
        tensor.update(x)
        tensor.end_batch()
        rule.end_batch(tensor)
    found = rule.range(tensor)
    assert (found.rmin, found.rmax) == pytest.approx(
        (float(theirs.min_val), float(theirs.max_val)), rel=1e-5
    )


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("percentile", [98, 99, 99.9])
def test_preset_ort_is_its_percentile(symmetric: bool, percentile: float) -> None:
    """Within two of its 2048 bins: it takes a bin's edge, we interpolate in bins of our own."""
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    x = DATA["laplace"].astype(np.float32)
    collector = calibrate.HistogramCollector("percentile", symmetric, 2048, 128, percentile, None)
    collector.collect({"t": [x]})
    low, high = (float(bound) for bound in collector.compute_percentile()["t"][:2])
    found = observed(
        x,
        calibration={"preset": "ort", "method": "percentile", "percentile": percentile},
        activations={"scheme": "symmetric" if symmetric else "asymmetric"},
    )
    width = 2 * float(x.max() - x.min()) / 2048
    if symmetric:
        assert max(-found.rmin, found.rmax) == pytest.approx(high, abs=width)
    else:
        assert (found.rmin, found.rmax) == pytest.approx((low, high), abs=width)


def test_preset_ort_takes_its_percentile_and_its_method_where_none_is_given() -> None:
    x = DATA["laplace"]
    found = observed(x, calibration={"preset": "ort", "method": "percentile"})
    assert found.method == "percentile 99.999"
    assert observed(x, calibration={"preset": "ort"}).method == "minmax"
    own = observed(x, calibration={"preset": "ort", "method": "percentile", "percentile": 98})
    assert own.method == "percentile 98"


def test_preset_tensorrt_cuts_magnitudes() -> None:
    x = np.abs(DATA["laplace"]) * np.where(np.arange(200_000) % 10, 1, -1)
    found = observed(x, calibration={"preset": "tensorrt", "method": "percentile"})
    limit = np.quantile(np.abs(x), 0.9999)
    assert (found.rmin, found.rmax) == pytest.approx((-limit, limit), rel=0.05)


def test_bins_that_hold_half_of_the_values_cost_l2_no_time() -> None:
    from time import perf_counter

    x = np.where(rng.uniform(size=400_000) < 0.9, 0, rng.standard_normal(400_000))
    start = perf_counter()
    observed(x, calibration={"method": "l2"})
    assert perf_counter() - start < 1.5


@pytest.mark.parametrize(
    ("dtype", "scheme", "reduced", "qmin", "qmax", "zero_point"),
    [
        ("u8", "asymmetric", False, 0, 255, 64),
        ("u8", "asymmetric", True, 0, 127, 32),
        ("s8", "asymmetric", False, -128, 127, -64),
        ("s8", "asymmetric", True, -64, 63, -32),
        ("u8", "symmetric", False, 1, 255, 128),
        ("u8", "symmetric", True, 1, 127, 64),
        ("s8", "symmetric", False, -127, 127, 0),
        ("s8", "symmetric", True, -63, 63, 0),
    ],
)
def test_the_table_of_codes(
    dtype: str, scheme: str, reduced: bool, qmin: int, qmax: int, zero_point: int
) -> None:
    activations = {"dtype": dtype, "scheme": scheme, "reduce_range": reduced}
    codes = codes_of(Config.of({"activations": activations}))
    assert (codes.qmin, codes.qmax) == (qmin, qmax)
    scale, zero = codes.parameters(-1, 3)
    assert zero == zero_point
    ends = np.float32([-3, 3] if scheme == "symmetric" else [-1, 3]) / scale + zero
    assert ends == pytest.approx([qmin, qmax], abs=0.51)
    assert isinstance(codes, Codes)
