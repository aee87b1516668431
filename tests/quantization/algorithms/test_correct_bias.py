"""Bias correction: channels of the quantised model have the float model's mean."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks import IN_INT8, integer_constants, quantized, sqnr
from small_models import build

from lowprec.config import Config
from lowprec.quantization import refine
from lowprec.quantization.algorithms import sequence
from lowprec.quantization.algorithms.correct_bias import mean_errors
from lowprec.quantization.algorithms.integer_layers import find_integer_layers
from lowprec.quantization.algorithms.outcome import Outcome

rng = np.random.default_rng(3)
ALONE = {"rounding": "nearest"}
ON = Config.of({"algorithms": {"bias_correction": True, **ALONE}, **IN_INT8})
CONSTANTS = {
    "w": rng.standard_normal((16, 3, 3, 3)).astype(np.float32),
    "b": rng.standard_normal(16).astype(np.float32),
    "v": (rng.standard_normal((16, 1, 3, 3)) * np.geomspace(1, 40, 9).reshape(1, 1, 3, 3)).astype(
        np.float32
    ),
    "u": rng.standard_normal((16, 10)).astype(np.float32),
    "c": rng.standard_normal(10).astype(np.float32),
}
FEEDS = [{"x": rng.random((2, 3, 12, 12)).astype(np.float32)} for _ in range(12)]


def network(bias: str = ", b", tail: str = "y = Add(m, c)") -> ir.Model:
    return build(
        "m (float[2,3,12,12] x) => (float[2,10] y) {"
        f" a = Conv(x, w{bias}) h = Relu(a) d = Conv<group=16>(h, v) k = Relu(d)"
        f" g = GlobalAveragePool(k) f = Flatten(g) m = MatMul(f, u) {tail} }}",
        CONSTANTS,
    )


FORMS = [
    pytest.param(", b", "y = Add(m, c)", id="bias"),
    pytest.param("", "y = Add(m, c)", id="no bias"),
    pytest.param(", b", "y = Relu(m)", id="no sum behind the matrix"),
]


@pytest.mark.parametrize(("bias", "tail"), FORMS)
def test_the_outputs_get_better(bias: str, tail: str) -> None:
    hub = network(bias, tail)
    result = quantized(hub, FEEDS[:8], ON)
    before = sqnr(hub, result.model, FEEDS[8:])
    (outcome,) = refine(hub, result, FEEDS[:8], ON)
    after = sqnr(hub, result.model, FEEDS[8:])
    assert outcome.name == "bias_correction"
    assert outcome.changed == 3
    assert outcome.gain is not None
    assert outcome.gain > 1
    assert after > before + 1


@pytest.mark.parametrize(("bias", "tail"), FORMS)
def test_no_mean_error_is_left(bias: str, tail: str) -> None:
    hub = network(bias, tail)
    result = quantized(hub, FEEDS[:8], ON)

    def largest_error() -> list[float]:
        layers = find_integer_layers(hub, result.model)
        errors = mean_errors(hub, result.model, layers, FEEDS[4:8])
        if tail == "y = Relu(m)":  # the sum that was added stands behind the layer
            errors = errors[:-1]
        return [float(np.abs(error).max()) for error in errors]

    before = largest_error()
    refine(hub, result, FEEDS[:8], ON)
    after = largest_error()
    # The means of a run whose sums are shifted feed by feed are not quite those of one that is not.
    assert max(after[:-1]) < 0.2 * max(before[:-1])


def test_weights_and_scales_stay_what_they_are() -> None:
    hub = network()
    result = quantized(hub, FEEDS[:8], ON)
    codes = integer_constants(result.model, np.int8)
    biases = {name: a.copy() for name, a in integer_constants(result.model, np.int32).items()}
    refine(hub, result, FEEDS[:8], ON)
    for name, array in integer_constants(result.model, np.int8).items():
        np.testing.assert_array_equal(array, codes[name])
    assert any(
        (array != biases[name]).any()
        for name, array in integer_constants(result.model, np.int32).items()
    )


def test_a_step_that_loses_is_undone(monkeypatch) -> None:
    from lowprec.quantization.algorithms import correct_bias

    honest = correct_bias.mean_errors
    monkeypatch.setattr(correct_bias, "mean_errors", lambda *a: [-9 * e for e in honest(*a)])
    hub = network()
    result = quantized(hub, FEEDS[:8], ON)
    before = sqnr(hub, result.model, FEEDS)
    (outcome,) = refine(hub, result, FEEDS[:8], ON)
    assert outcome.changed == 0
    assert "undone" in outcome.note
    assert outcome.gain is not None
    assert outcome.gain < 0
    assert sqnr(hub, result.model, FEEDS) == before


def test_auto_leaves_products_and_large_models_alone_and_false_all() -> None:
    hub = network()
    auto = Config.of({"algorithms": ALONE, **IN_INT8})
    off = Config.of({"algorithms": {"bias_correction": False, **ALONE}})
    everywhere = Config.of({**IN_INT8, "algorithms": {"bias_correction": True, **ALONE}})
    result = quantized(hub, FEEDS[:8], everywhere)
    assert [o.changed for o in refine(hub, result, FEEDS[:8], everywhere)] == [3]
    result = quantized(hub, FEEDS[:8], auto)
    assert [o.changed for o in refine(hub, result, FEEDS[:8], auto)] == [2]
    result = quantized(hub, FEEDS[:8], auto)
    assert refine(hub, result, FEEDS[:8], off) == []
    result.total_macs = 10**10
    assert refine(hub, result, FEEDS[:8], auto) == []


def test_it_learns_from_more_feeds_than_those_that_judge(monkeypatch) -> None:
    seen: list[list[float]] = []

    def spy(hub: ir.Model, quantized: ir.Model, feeds: list, config: Config) -> Outcome:
        seen.append([float(feed["x"][0, 0, 0, 0]) for feed in feeds])
        return Outcome("bias_correction", 0, None, "")

    monkeypatch.setattr(sequence, "correct_bias", spy)
    hub = network()
    feeds = [{"x": np.full((2, 3, 12, 12), n, np.float32)} for n in range(30)]
    result = quantized(hub, FEEDS[:8], ON)
    refine(hub, result, feeds, ON)
    refine(hub, result, feeds[:6], ON)  # too few to keep some for judging
    result.total_macs = 10**10
    refine(hub, result, feeds, ON)  # wanted of a large model: it takes its time as it is
    assert seen == [[*range(4, 20)], [*range(6)], [*range(4, 8)]]


def test_large_batches_are_cut_before_more_of_them_are_read() -> None:
    text = "m (float[n,4] x) => (float[n,4] y) { y = Relu(x) }"
    batches = [{"x": np.full((8, 4), n, np.float32)} for n in range(30)]
    read = iter(batches)
    given = [next(read) for _ in range(8)]
    cut = sequence._more_samples(build(text), given, read)
    assert [float(feed["x"][0, 0]) for feed in cut] == [*range(8), *range(8), *range(4)]
    assert next(read) is batches[8]
