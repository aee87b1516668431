"""Equalised channels: the float model keeps its bits, the int8 model gets better."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from small_models import build, values_of

from lowprec.calibration.ranges import Range
from lowprec.config import Config
from lowprec.engine import compile_model
from lowprec.quantization import apply_precisions, prepare, tensors_to_calibrate

rng = np.random.default_rng(17)
SPREAD = 10.0 ** np.linspace(-3, 0, 8, dtype=np.float32)
CONSTANTS = {
    "w": (rng.standard_normal((8, 3, 3, 3)) * SPREAD.reshape(-1, 1, 1, 1)).astype(np.float32),
    "b": (rng.standard_normal(8) * SPREAD).astype(np.float32),
    "v": (rng.standard_normal((8, 1, 3, 3)) / SPREAD.reshape(-1, 1, 1, 1)).astype(np.float32),
    "slope": np.full((8, 1, 1), 0.1, np.float32),
    "half": np.float32(0.5),
}
FEED = {"x": rng.standard_normal((1, 3, 12, 12)).astype(np.float32)}
EVERYWHERE = Config.of({"algorithms": {"equalization": True, "smoothing": False}})
PER_TENSOR = Config.of({"weights": {"granularity": "per_tensor"}})


def run(hub: ir.Model, feed: dict) -> list:
    return compile_model(hub).run(feed)


def equalize(hub: ir.Model, feeds: list, config: Config = Config()) -> int:  # noqa: B008
    return sum(o.changed for o in prepare(hub, feeds, config) if o.name == "equalization")


def model(between: str = "h = Relu(a)", *, groups: int = 8, extra: str = "") -> ir.Model:
    outputs = "float[1,8,8,8] y" + (", float[1,8,10,10] z" if extra else "")
    constants = dict(CONSTANTS)
    if groups == 1:
        unscaled = rng.standard_normal((8, 8, 3, 3)) / SPREAD.reshape(1, -1, 1, 1)
        constants["v"] = unscaled.astype(np.float32)
    return build(
        f"m (float[1,3,12,12] x) => ({outputs}) {{"
        f" a = Conv(x, w, b) {between} y = Conv<group={groups}>(h, v) {extra} }}",
        constants,
    )


def signal_to_noise(hub: ir.Model, config: Config = Config()) -> float:  # noqa: B008
    names = tensors_to_calibrate(hub, config)
    seen = values_of(hub, names, FEED)
    ranges = {n: Range(float(a.min()), float(a.max()), "minmax") for n, a in seen.items()}
    (expected,) = run(hub, FEED)
    (actual,) = run(apply_precisions(hub, ranges, config).model, FEED)
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - actual).sum()))


@pytest.mark.parametrize(
    "between",
    [
        "h = Relu(a)",
        "h = LeakyRelu<alpha=0.1>(a)",
        "h = PRelu(a, slope)",
        "c = Add(a, half) h = Relu(c)",
        "c = Relu(a) h = AveragePool<kernel_shape=[1, 1]>(c)",
    ],
)
def test_the_float_result_keeps_its_bits(between: str) -> None:
    hub = model(between)
    before = run(hub, FEED)
    assert equalize(hub, [FEED]) == 1
    for expected, actual in zip(before, run(hub, FEED), strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_int8_gets_better() -> None:
    plain, equalized = model(), model()
    assert equalize(equalized, [FEED]) == 1
    assert signal_to_noise(equalized) > signal_to_noise(plain) + 10


def test_a_layer_over_all_channels_is_equalised_on_demand() -> None:
    plain, equalized = model(groups=1), model(groups=1)
    assert equalize(model(groups=1), [FEED]) == 0
    before = run(equalized, FEED)
    assert equalize(equalized, [FEED], EVERYWHERE) == 1
    for expected, actual in zip(before, run(equalized, FEED), strict=True):
        np.testing.assert_array_equal(expected, actual)
    assert signal_to_noise(equalized) > signal_to_noise(plain) + 6


def test_one_scale_for_all_weights_is_reason_enough() -> None:
    plain, equalized = model(groups=1), model(groups=1)
    assert equalize(equalized, [FEED], PER_TENSOR) == 1
    assert signal_to_noise(equalized, PER_TENSOR) > signal_to_noise(plain, PER_TENSOR) + 6


def test_matrices_are_equalised_too() -> None:
    constants = {
        "w": (rng.standard_normal((6, 8)) * SPREAD).astype(np.float32),
        "v": (rng.standard_normal((5, 8)) / SPREAD).astype(np.float32),
        "b": (rng.standard_normal(8) * SPREAD).astype(np.float32),
    }
    text = (
        "m (float[65,6] x) => (float[65,5] y) {"
        " a = MatMul(x, w) c = Add(a, b) h = Relu(c) y = Gemm<transB=1>(h, v) }"
    )
    hub = build(text, constants)
    feed = {"x": rng.standard_normal((65, 6)).astype(np.float32)}
    before = run(hub, feed)
    assert equalize(hub, [feed], EVERYWHERE) == 1
    np.testing.assert_array_equal(before[0], run(hub, feed)[0])
    (h,) = values_of(hub, ["h"], feed).values()
    assert h.max(axis=0).max() < 100 * h.max(axis=0).min()  # of 1000 before


def test_equalised_channels_have_the_same_range_up_to_a_power_of_two() -> None:
    hub = model()
    equalize(hub, [FEED])
    (h,) = values_of(hub, ["h"], FEED).values()
    largest = h.max(axis=(0, 2, 3))
    assert largest.max() / largest.min() <= 2 * 2**0.5


@pytest.mark.parametrize(
    "hub",
    [
        pytest.param(lambda: model("h = HardSwish(a)"), id="not homogeneous"),
        pytest.param(lambda: model("h = Neg(a)"), id="negative"),
        pytest.param(lambda: model(extra="z = Sigmoid(h)"), id="another reader"),
        pytest.param(lambda: model(extra="z = Sigmoid(a)"), id="another reader before"),
    ],
)
def test_other_surroundings_are_left_alone(hub) -> None:
    assert equalize(hub(), [FEED], EVERYWHERE) == 0


def test_the_config_turns_it_off() -> None:
    off = Config.of({"algorithms": {"equalization": False}})
    excluded = Config.of({"layers": [{"op_type": "Conv", "precision": "f32"}]})
    assert equalize(model(), [FEED], off) == 0
    assert equalize(model(), [FEED], excluded) == 0
    assert equalize(model(), []) == 0
