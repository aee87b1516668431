"""What a trial log is of: model and data, configuration, strategy, evaluation function."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from lowprec.config import Config
from lowprec.tuning.changes import digest, what_decides
from lowprec.tuning.scoring import Evaluate

LIMITS = ("max_trials", "timeout", "stop", "n_jobs", "backend", "log")  # may differ on resuming


def log_header(workbench: Any, config: Config, functions: Mapping[str, Evaluate]) -> dict[str, Any]:
    """Return what a log must be of, for a search to go on from it."""
    from importlib.metadata import version

    tuning = {k: v for k, v in config.to_dict()["tuning"].items() if k not in LIMITS}
    return {
        "lowprec": version("lowprec"),
        "key": str(workbench.key(config.calibration.samples)),
        "strategy": config.tuning.strategy,
        "metrics": list(functions),
        "config": digest({"quantisation": what_decides(config), "tuning": tuning}),
        "evaluate": digest([_code(function) for function in functions.values()]),
    }


def _code(function: Any) -> list[str]:
    """Return what tells an edited function from the one that the log is of, as far as that goes.

    What the function calls is not looked at: that may be the whole of Python.
    """
    while isinstance(function, partial):
        function = function.func
    call = function if hasattr(function, "__code__") else type(function).__call__
    parts = [getattr(function, "__qualname__", type(function).__qualname__)]
    pending = [getattr(call, "__code__", None)]
    while pending:
        code = pending.pop()
        if code is None:
            continue
        parts.append(code.co_code.hex())
        parts.append(repr(code.co_names))
        for constant in code.co_consts:
            if hasattr(constant, "co_code"):
                pending.append(constant)
            elif isinstance(constant, (str, int, float, bytes)):
                parts.append(repr(constant))
    return parts
