"""Equalised channels: the float model keeps its bits, the int8 model gets better."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from small_models import build, run, values_of

from lowprec.calibration.ranges import Range
from lowprec.config import Config
from lowprec.quantization import prepare, quantize_graph, tensors_to_calibrate
from lowprec.quantization.algorithms.equalize import stretch_of

rng = np.random.default_rng(17)
SPREAD = 10.0 ** np.linspace(-3, 0, 8, dtype=np.float32)
CONSTANTS = {
    "w": (rng.standard_normal((8, 3, 3, 3)) * SPREAD.reshape(-1, 1, 1, 1)).astype(np.float32),
    "b": (rng.standard_normal(8) * SPREAD).astype(np.float32),
    "v": (rng.standard_normal((8, 1, 3, 3)) / SPREAD.reshape(-1, 1, 1, 1)).astype(np.float32),
}
FEED = {"x": rng.standard_normal((1, 3, 12, 12)).astype(np.float32)}


def model(between: str = "h = Relu(a)", *, groups: int = 8, extra: str = "") -> ir.Model:
    outputs = "float[1,8,8,8] y" + (", float[1,8,10,10] z" if extra else "")
    constants = dict(CONSTANTS)
    if groups == 1:
        constants["v"] = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    return build(
        f"m (float[1,3,12,12] x) => ({outputs}) {{"
        f" a = Conv(x, w, b) {between} y = Conv<group={groups}>(h, v) {extra} }}",
        constants,
    )


def equalize(hub: ir.Model, feeds: list, config: Config) -> int:
    return sum(outcome.changed for outcome in prepare(hub, feeds, config))


def signal_to_noise(hub: ir.Model) -> float:
    names = tensors_to_calibrate(hub, Config())
    seen = values_of(hub, names, FEED)
    ranges = {n: Range(float(a.min()), float(a.max()), "minmax") for n, a in seen.items()}
    (expected,) = run(hub, FEED)
    (actual,) = run(quantize_graph(hub, ranges, Config()).model, FEED)
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - actual).sum()))


@pytest.mark.parametrize("between", ["h = Relu(a)", "h = LeakyRelu<alpha=0.1>(a)", "h = Neg(a)"])
def test_the_float_result_keeps_its_bits(between: str) -> None:
    hub = model(between)
    before = run(hub, FEED)
    changed = equalize(hub, [FEED], Config())
    assert changed == (0 if "Neg" in between else 1)
    for expected, actual in zip(before, run(hub, FEED), strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_int8_gets_better() -> None:
    plain, equalized = model(), model()
    equalize(equalized, [FEED], Config())
    assert signal_to_noise(equalized) > signal_to_noise(plain) + 10


def test_equalised_channels_have_the_same_range_up_to_a_power_of_two() -> None:
    hub = model()
    equalize(hub, [FEED], Config())
    (h,) = values_of(hub, ["h"], FEED).values()
    largest = h.max(axis=(0, 2, 3))
    assert largest.max() / largest.min() <= 2 * 2**0.5


@pytest.mark.parametrize(
    "hub",
    [
        pytest.param(lambda: model("h = HardSwish(a)"), id="not homogeneous"),
        pytest.param(lambda: model(groups=1), id="not depthwise"),
        pytest.param(lambda: model(extra="z = Sigmoid(h)"), id="another reader"),
        pytest.param(lambda: model(extra="z = Sigmoid(a)"), id="another reader before"),
    ],
)
def test_other_surroundings_are_left_alone(hub) -> None:
    assert equalize(hub(), [FEED], Config()) == 0


def test_the_config_turns_it_off() -> None:
    off = Config.of({"algorithms": {"equalization": False}})
    excluded = Config.of({"layers": [{"op_type": "Conv", "precision": "f32"}]})
    assert equalize(model(), [FEED], off) == 0
    assert equalize(model(), [FEED], excluded) == 0
    assert equalize(model(), [], Config()) == 0


def test_the_stretch_is_a_bounded_power_of_two() -> None:
    stretch = stretch_of(np.array([4, 3, 1, 0, 1e-9], np.float32))
    np.testing.assert_array_equal(stretch, [1, 1, 0.25, 1, 2.0**-16])
    np.testing.assert_array_equal(stretch_of(np.array([1, np.nan], np.float32)), [1, 1])
    np.testing.assert_array_equal(stretch_of(np.zeros(3, np.float32)), [1, 1, 1])
