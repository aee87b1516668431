"""Workers see what one would have seen, bit for bit, whoever runs them."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import build

from lowprec.calibration import Observation, calibrate, observe
from lowprec.calibration.parallel import forget_models
from lowprec.config import METHODS, Config
from lowprec.errors import ConfigError, DataError

joblib = pytest.importorskip("joblib")

rng = np.random.default_rng(7)
W = {name: rng.standard_normal((8, 8)).astype(np.float32) for name in "wv"}
TEXT = "m (float[N,8] x) => (float[N,8] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, v) }"
NAMES = ["x", "a", "r"]


def feeds(count: int = 37) -> list[dict[str, np.ndarray]]:
    """Return feeds of different sizes and magnitudes, so that bins have to grow."""
    data = np.random.default_rng(1)
    return [
        {"x": data.standard_normal((1 + i % 4, 8)).astype(np.float32) * (1 + i)}
        for i in range(count)
    ]


def config(**calibration: object) -> Config:
    return Config.of({"calibration": {"samples": 100, **calibration}})


def assert_same(found: Observation, expected: Observation) -> None:
    assert found.samples == expected.samples
    assert found.input_shapes == expected.input_shapes
    assert found.extremes == expected.extremes
    states = expected.states()
    for name, state in found.states().items():
        assert state.tobytes() == states[name].tobytes(), name


@pytest.fixture(autouse=True)
def _forget():
    yield
    forget_models()


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_four_workers_equal_one_bit_for_bit(backend: str) -> None:
    model = build(TEXT, W)
    expected = observe(model, NAMES, feeds(), config())
    found = observe(model, NAMES, feeds(), config(n_jobs=4, backend=backend))
    assert_same(found, expected)


def test_every_method_gives_the_same_ranges_with_workers() -> None:
    model = build(TEXT, W)
    for method in METHODS:  # the moving average, too: shares are put together in order
        one = calibrate(model, NAMES, feeds(), config(method=method))
        some = calibrate(
            model, NAMES, feeds(), config(method=method, n_jobs=2, backend="threading")
        )
        assert one.ranges == some.ranges, method


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_parts_merge_in_any_order(order: list[int]) -> None:
    model, data = build(TEXT, W), feeds(12)
    whole = observe(model, NAMES, data, config()).states()
    parts = [observe(model, NAMES, data[i::3], config()) for i in range(3)]
    merged = parts[order[0]]
    for i in order[1:]:
        merged.merge(parts[i])
    for name, state in merged.states().items():
        assert state.tobytes() == whole[name].tobytes()


def test_bytes_hold_everything() -> None:
    found = observe(build(TEXT, W), NAMES, feeds(5), config())
    assert_same(Observation.from_bytes(found.to_bytes()), found)


@pytest.mark.parametrize("damage", ["text", "cut", "width", "counts", "extremes"])
def test_damaged_bytes_are_refused(damage: str) -> None:
    import io

    data = observe(build(TEXT, W), NAMES, feeds(3), config()).to_bytes()
    if damage == "text":
        data = b"no numbers at all"
    elif damage == "cut":
        data = data[: len(data) // 2]
    else:
        with np.load(io.BytesIO(data)) as file:
            arrays = {name: file[name].copy() for name in file.files}
        state = arrays["state1"]
        if damage == "width":
            state[0] -= 9  # the values would lie outside the bins
        elif damage == "counts":
            state[70] = -1
        else:
            state[1] = np.array([np.nan, 1], np.float32).view(np.int64)[0]
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        data = buffer.getvalue()
    with pytest.raises(DataError, match="no observation of lowprec"):
        Observation.from_bytes(data)


def test_other_tensors_or_bins_do_not_merge() -> None:
    model = build(TEXT, W)
    found = observe(model, NAMES, feeds(2), config())
    with pytest.raises(DataError, match="same names"):
        found.merge(observe(model, ["x"], feeds(2), config()))
    with pytest.raises(DataError, match="512 bins there and 2048 here"):
        found.merge(observe(model, NAMES, feeds(2), config(bins=512)))


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_a_bad_sample_is_named_by_its_number(backend: str) -> None:
    data = feeds(20)
    data[13]["x"][0, 0] = np.nan
    with pytest.raises(DataError, match="calibration batch 13 holds 1 NaN"):
        observe(build(TEXT, W), NAMES, data, config(n_jobs=2, backend=backend))


def test_no_more_samples_are_read_than_wanted_and_progress_is_told() -> None:
    asked, told = 0, []

    def endless():
        nonlocal asked
        while True:
            asked += 1
            yield feeds(1)[0]

    wanted = config(n_jobs=2, backend="threading", samples=21)
    model = build(TEXT, W)
    found = observe(model, NAMES, endless(), wanted, lambda *a: told.append(a))
    assert found.samples == asked == 21
    assert told[-1] == (21, 21)


def test_no_data_is_an_error_with_workers_too() -> None:
    with pytest.raises(DataError, match="no calibration data"):
        observe(build(TEXT, W), NAMES, [], config(n_jobs=2, backend="threading"))


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ConfigError, match=r"calibration\.backend is 'abacus'.*loky"):
        observe(build(TEXT, W), NAMES, feeds(2), config(n_jobs=2, backend="abacus"))


def test_the_users_parallel_config_is_enough() -> None:
    model = build(TEXT, W)
    expected = observe(model, NAMES, feeds(9), config())
    with joblib.parallel_config(backend="threading", n_jobs=3):
        assert_same(observe(model, NAMES, feeds(9), config()), expected)


def test_a_cluster_of_two_dask_workers_calibrates() -> None:
    distributed = pytest.importorskip("distributed")
    model = build(TEXT, W)
    expected = observe(model, NAMES, feeds(), config())
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",  # any free port: other clusters may run here
            host="127.0.0.1",
        ) as cluster,
        distributed.Client(cluster),
    ):
        found = observe(model, NAMES, feeds(), config(n_jobs=2, backend="dask"))
    assert_same(found, expected)
