"""Calibration streams, stops, names what is wrong with the data, and forgets the samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from small_models import build, values_of

from lowprec.calibration import Range, calibrate
from lowprec.calibration.rules import MinMax
from lowprec.config import Config
from lowprec.errors import ConfigError, DataError

rng = np.random.default_rng(31)
W = rng.standard_normal((8, 8)).astype(np.float32)
TEXT = "m (float[N,8] x) => (float[N,8] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, w) }"
NAMES = ["x", "r"]


def batches(count: int, *, seed: int = 0) -> list[dict[str, np.ndarray]]:
    data = np.random.default_rng(seed)
    return [{"x": data.standard_normal((1 + i % 3, 8)).astype(np.float32)} for i in range(count)]


def config(**calibration: object) -> Config:
    return Config.of({"calibration": {"method": "minmax", **calibration}})


def test_ranges_are_those_of_the_values_that_ran() -> None:
    model = build(TEXT, {"w": W})
    data = batches(7)
    found = calibrate(model, NAMES, data, config())
    for name in NAMES:
        seen = [values_of(model, [name], feed)[name] for feed in data]
        assert found.ranges[name].rmin == pytest.approx(min(a.min() for a in seen), rel=1e-5)
        assert found.ranges[name].rmax == pytest.approx(max(a.max() for a in seen), rel=1e-5)
        assert found.observers[name].count == sum(a.size for a in seen)
    assert found.samples == 7
    assert found.input_shapes == {"x": (1, 8)}


def test_it_stops_at_the_configured_number_and_asks_for_no_more() -> None:
    asked = 0

    def endless() -> Iterator[dict[str, np.ndarray]]:
        nonlocal asked
        while True:
            asked += 1
            yield batches(1, seed=asked)[0]

    progress: list[tuple[int, int]] = []
    found = calibrate(
        build(TEXT, {"w": W}),
        NAMES,
        endless(),
        config(samples=5),
        lambda done, total: progress.append((done, total)),
    )
    assert found.samples == 5
    assert asked == 5
    assert progress == [(i, 5) for i in range(1, 6)]


def test_the_batches_are_not_kept() -> None:
    import gc
    import weakref

    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def watched() -> Iterator[dict[str, np.ndarray]]:
        nonlocal most
        for feed in batches(30):
            gc.collect()
            most = max(most, sum(ref() is not None for ref in alive))
            array = feed["x"].copy()
            alive.append(weakref.ref(array))
            yield {"x": array}

    calibrate(build(TEXT, {"w": W}), NAMES, watched(), config())
    assert most <= 2


@pytest.mark.parametrize("data", [[], iter([])], ids=["empty list", "exhausted iterator"])
def test_no_data_is_an_error_with_a_remedy(data: object) -> None:
    with pytest.raises(DataError, match=r"no calibration data.*pass a list"):
        calibrate(build(TEXT, {"w": W}), NAMES, data, config())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_number_in_the_data_names_input_and_batch(bad: float) -> None:
    data = batches(5)
    data[3]["x"][0, 2] = bad
    with pytest.raises(DataError, match="input 'x' of calibration batch 3 holds 1 NaN or inf"):
        calibrate(build(TEXT, {"w": W}), NAMES, data, config())


def test_a_bad_number_that_arises_inside_names_tensor_and_batch() -> None:
    text = "m (float[N,8] x) => (float[N,8] y) { a = Log(x) y = MatMul(a, w) }"
    data = [{"x": np.full((2, 8), 2, np.float32)} for _ in range(3)]
    data[2]["x"][1, 1] = 0
    with pytest.raises(DataError, match=r"tensor 'a' holds 1 NaN or inf.*batch 2"):
        calibrate(build(text, {"w": W}), ["a"], data, config())


def test_all_zero_data_is_legal() -> None:
    data = [{"x": np.zeros((2, 8), np.float32)}]
    found = calibrate(build(TEXT, {"w": W}), NAMES, data, Config())
    assert found.ranges["r"].rmin == found.ranges["r"].rmax == 0


def test_the_model_is_not_changed() -> None:
    import onnx_ir as ir

    model = build(TEXT, {"w": W})
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    calibrate(model, NAMES, batches(2), config())
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_plugin_can_add_a_rule() -> None:
    class Wide(MinMax):
        def range(self, tensor) -> Range:
            found = super().range(tensor)
            return Range(2 * found.rmin, 2 * found.rmax, "entropy")

    model = build(TEXT, {"w": W})
    plain = calibrate(model, NAMES, batches(3), config())
    wide = calibrate(model, NAMES, batches(3), config(method="entropy"), rules={"entropy": Wide})
    assert wide.ranges["r"].rmax == 2 * plain.ranges["r"].rmax


def test_an_unknown_method_names_the_accepted_ones() -> None:
    with pytest.raises(ConfigError, match=r"'toy\.median'; accepted are auto, entropy"):
        calibrate(build(TEXT, {"w": W}), NAMES, batches(1), config(method="toy.median"))
