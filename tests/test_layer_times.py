"""Steps of a run are given to layers: by name, or to the reader of what they round."""

from __future__ import annotations

import numpy as np
import pytest
from sensitive_network import ASK, workbench

from lowprec.engine import StepRow, StepTime
from lowprec.layer_times import layer_times
from lowprec.report import LayerRecord


class Rounds:
    """A session whose steps take what is written down, round by round, in milliseconds."""

    def __init__(self, *rounds: dict[str, float]) -> None:
        self._rounds = iter(rounds)
        self._started = False

    def profile(self, feed: object, *, repeats: int, warm: bool) -> list[StepTime]:
        assert repeats == 1
        assert warm == self._started  # the first run may have to plan
        self._started = True
        return [
            StepTime(StepRow("op", name, "kernel", "isa", "f32[1]", 0.0, "", True), ms / 1e3)
            for name, ms in next(self._rounds).items()
        ]


LAYERS = [
    LayerRecord("conv", "Conv", "int8", "", tensor="x"),
    LayerRecord("gemm", "Gemm", "int8", "", tensor="x"),
    LayerRecord("add", "Add", "f32", "float"),
]


def test_the_shortest_of_each_step_and_what_rounds_goes_to_the_first_reader() -> None:
    original = Rounds({"conv": 3.0, "add": 1.0}, {"conv": 2.0, "add": 5.0})
    quantized = Rounds(
        {"x_quantized": 0.5, "conv": 1.0, "gemm": 2.0, "elsewhere": 9.0},
        {"x_quantized": 0.25, "conv": 4.0, "gemm": 1.5, "elsewhere": 9.0},
    )
    before, after = layer_times(LAYERS, original, quantized, {}, repeats=2)  # type: ignore[arg-type]
    assert before == pytest.approx({"conv": 2.0, "add": 1.0})
    assert after == pytest.approx({"conv": 1.25, "gemm": 1.5})


def test_a_branch_that_went_another_way_is_left_out() -> None:
    rounds = [{"conv": 3.0, "add": 1.0}, {"conv": 0.1}, {"conv": 2.0, "add": 2.0}]
    before, _ = layer_times(LAYERS, Rounds(*rounds), Rounds({}, {}, {}), {}, repeats=3)  # type: ignore[arg-type]
    assert before == pytest.approx({"conv": 2.0, "add": 1.0})


def test_a_report_holds_the_times_in_memory_only() -> None:
    model = workbench().quantize(ASK)
    for name in ("first", "second", "third"):
        both = model.report.times[name]
        assert set(both) == {"float", "int8"}
        assert 0 < both["float"] < 1e3
        assert 0 < both["int8"] < 1e3
    assert "times" not in model.report.to_json()
    assert '"times"' in model.report.to_json(times=True)
    assert "ms int8" in str(model.report)
    histogram = model.report.histograms[model.report.layers[0].tensor or ""]
    assert len(histogram["counts"]) == 64
    assert np.sum(histogram["counts"]) > 1000
