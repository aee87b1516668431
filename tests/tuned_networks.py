"""A real workbench that tunes in a second, and scores that other processes can import."""

from __future__ import annotations

import os
import signal

import numpy as np
import small_networks

from lowprec.api import capture, open_workbench
from lowprec.config import Config
from lowprec.workbench import Workbench

RULES = [{"match": "*", "precision": "int8"}]


def start(**tuning: object) -> Config:
    """Everything int8 and no help: what a search has to mend."""
    return Config.of(
        {
            "layers": RULES,
            "calibration": {"method": "minmax", "samples": 8},
            "algorithms": {"equalization": False},
            "tuning": {"stop": "first", **tuning},
        }
    )


def open_mobile() -> Workbench:
    model, feeds = small_networks.mobile()
    return open_workbench(capture(model), feeds[:8], start())


def expected() -> tuple[list[dict[str, np.ndarray]], list[np.ndarray]]:
    """The samples that models are scored on, and what float says of them."""
    from lowprec.api import compile

    model, feeds = small_networks.mobile()
    run = compile(model).run
    return feeds[8:24], [run(feed)[0] for feed in feeds[8:24]]


class Agreement:
    """Decibels of the output, 100 for the float model; counts its calls, may kill its process."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.feeds, self.wanted = expected()
        self.calls = 0
        self.killed_at = killed_at

    def __call__(self, model) -> float:
        self.calls += 1
        if self.calls == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        noise = signal_ = 0.0
        for feed, wanted in zip(self.feeds, self.wanted, strict=True):
            found = model.run(feed)[0]
            noise += float(np.square(found - wanted, dtype=np.float64).sum())
            signal_ += float(np.square(wanted, dtype=np.float64).sum())
        return 100.0 if noise == 0 else min(100.0, 10 * np.log10(signal_ / noise))


class OwnError(Exception):
    """An error of the user's."""


def failing(model) -> float:
    if type(model).__name__ == "QuantizedModel":
        raise OwnError("in a trial")
    return 1.0
