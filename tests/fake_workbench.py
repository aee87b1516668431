"""A workbench without a model: what a configuration costs is known exactly, and instantly.

Twelve layers; each loses its own amount in int8, half of it with calibration method mse, a tenth in
bf16, nothing in f32. Latency is not measured, unless `feeds` are given: a model in int8 then takes
half the work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lowprec.config import Config
from lowprec.errors import UnsupportedError
from lowprec.report import LayerRecord, Report

LOSSES = {f"layer.{n}": loss for n, loss in enumerate([8, 1, 30, 2, 1, 50, 4, 1, 2, 16, 1, 3])}
TYPES = {name: "Conv" if n % 3 else "MatMul" for n, name in enumerate(LOSSES)}
FLOAT_SCORE = 1.0
UNIT = 1e-3  # of the score, per unit of loss


def loss_of(config: Config) -> float:
    factor = {"mse": 0.5}.get(config.calibration.method, 1.0)
    return UNIT * sum(
        factor * loss * {"f32": 0.0, "bf16": 0.1}.get(precision_of(config, name), 1.0)
        for name, loss in LOSSES.items()
    )


def precision_of(config: Config, name: str) -> str:
    return config.layer_precision(name, TYPES[name]) or config.precision


@dataclass
class FakeModel:
    score: float
    report: Report
    work: int = 1
    runs: int = field(default=0)

    def run(self, feed: dict[str, Any]) -> list[Any]:
        self.runs += 1
        x = feed["x"]
        for _ in range(self.work):
            x = np.sin(x)
        return [x]


@dataclass
class FakeFeeds:
    feeds: list[dict[str, Any]]

    def first(self, count: int) -> list[dict[str, Any]]:
        return self.feeds[:count]


class FakeWorkbench:
    """What `tune` needs of a workbench; `quantized` counts the calls."""

    def __init__(self, *, name: str = "fake", feeds: FakeFeeds | None = None) -> None:
        self.name = name
        self.feeds = feeds
        self.original = FakeModel(FLOAT_SCORE, Report("fake"), work=40)
        self.quantized: list[Config] = []

    def key(self, samples: int) -> str:
        return f"{self.name}-{samples}"

    def quantize(self, config: Config, progress: Any = None, *, measure: bool = True) -> FakeModel:
        self.quantized.append(config)
        if config.algorithms.rounding == "adaptive":
            raise UnsupportedError("algorithms.rounding: 'adaptive' is not in the fake")
        layers = [
            LayerRecord(
                name,
                TYPES[name],
                precision_of(config, name),
                "",
                macs=100 - n,
                activation_sqnr=60.0 - LOSSES[name],
            )
            for n, name in enumerate(LOSSES)
        ]
        in_float = sum(layer.precision == "f32" for layer in layers)
        report = Report(
            "fake",
            config=config.to_dict(),
            layers=layers,
            float_bytes=1200,
            int8_bytes=300 + 75 * in_float,
        )
        return FakeModel(FLOAT_SCORE - loss_of(config), report, work=20 + in_float)


def score(model: FakeModel) -> float:
    return model.score
