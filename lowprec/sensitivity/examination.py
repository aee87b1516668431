"""A report with everything that can be found out: quantised, analysed, advised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lowprec.sensitivity.advice import Evaluate, advise
from lowprec.sensitivity.analysis import analyse

if TYPE_CHECKING:
    from lowprec.config import Config
    from lowprec.report import Report
    from lowprec.workbench import Workbench


def examine(
    workbench: Workbench,
    config: Config,
    *,
    feeds: int = 8,
    evaluate: Mapping[str, Evaluate] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Return the report of quantising with `config`, with sensitivity and advice.

    Args:
        workbench: The captured model and its data.
        config: What the whole model is quantised with.
        feeds: Calibration feeds to measure on.
        evaluate: Functions from a model to a score, by name: the advice says what they win.
        progress: Called as progress(done, total) while layers are measured.

    Raises:
        DataError: the workbench has no data.
    """
    report = workbench.quantize(config).report
    found = analyse(workbench, config, feeds=feeds, progress=progress)
    report.sensitivity = [layer.to_dict() for layer in found]
    advice = advise(workbench, config, found, feeds=feeds, evaluate=evaluate)
    if advice is not None:
        report.advice = advice.to_dict()
        for name, score in advice.before.scores.items():
            original = (evaluate or {})[name](workbench.original)
            report.accuracy[name] = {"float": float(original), report.precision: score}
    return report
