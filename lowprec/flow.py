"""A whole run from one configuration: model, samples, scores, search, what is written.

run = plan_run(Config.from_yaml("conf.yaml"))     # files are looked at, names are resolved
result = run.execute()                            # quantised, tuned where there is a metric
result.model.save(run.output)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lowprec.config import Config, Data, Evaluation
from lowprec.errors import ConfigError, ModelError
from lowprec.sources import Evaluate, resolve

if TYPE_CHECKING:
    from lowprec.hookspecs import Captured
    from lowprec.tuning import TuningResult

ENDINGS = (".onnx", ".pb", ".keras", ".h5")  # of model files that a configuration may name without

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Result:
    """What a run made.

    Attributes:
        model: The quantised model, of the original's kind, with its report.
        met: Whether the criterion of `tuning` is met; None when nothing was evaluated.
        tuning: The search with all its trials; None when there was none.
    """

    model: Any
    met: bool | None
    tuning: TuningResult | None


@dataclass(frozen=True)
class Run:
    """A run that is ready to start.

    Attributes:
        model: The model's file or folder.
        config: How to quantise and to search; what it said about model and data is resolved.
        calibration: Calibration data as `lowprec.quantize` takes it; None where none is named.
        evaluate: The score, or scores by metric; None where no metric is named.
        output: The file to write.
        notes: Lines for the report: how a foreign configuration was understood.
    """

    model: str
    config: Config
    calibration: object
    evaluate: Evaluate | Mapping[str, Evaluate] | None
    output: Path
    notes: tuple[str, ...] = ()

    def execute(self, progress: Progress | None = None) -> Result:
        """Quantise; search where there is a metric. Nothing is written but the trial log.

        Args:
            progress: Called as progress(done, total).
        """
        from lowprec import api

        captured: Captured = api.capture(
            self.model,
            calibration_data=self.calibration,
            samples=self.config.calibration.samples,
        )
        workbench = api.open_workbench(captured, self.calibration, self.config)
        api.verify(captured, workbench.original)
        found: TuningResult | None = None
        if self.evaluate is None and self.config.precision != "auto":
            quantized = workbench.quantize(self.config, progress)
        else:
            if self.config.tuning.log is not None:
                _make_folder(Path(self.config.tuning.log))
            found = api.search(workbench, captured, self.config, self.evaluate, progress)
            quantized = found.model
        quantized.report.notes += [
            note for note in self.notes if note not in quantized.report.notes
        ]
        met = found.met if found is not None and self.evaluate is not None else None
        return Result(api.rebuild(quantized, captured), met, found)


def plan_run(
    config: Config,
    *,
    model: str | None = None,
    calibration: str | None = None,
    evaluation: str | None = None,
    metric: str | None = None,
    evaluate: Evaluate | Mapping[str, Evaluate] | None = None,
    output: str | None = None,
    notes: tuple[str, ...] | list[str] = (),
) -> Run:
    """Return the run that `config` describes; arguments that are given replace its keys.

    Args:
        config: With `model`, `data`, `evaluation` and `output` where arguments leave them open.
        model: Path of the model.
        calibration: An .npz file, a folder of them, or module:function.
        evaluation: An .npz file with labels, or module:function returning (inputs, labels).
        metric: Name of a metric, or module:function.
        evaluate: Scores instead of a metric on data.
        output: The file to write.
        notes: Lines for the report.

    Raises:
        ConfigError: no model, or a metric without data, or the other way round.
        DataError: data that cannot be found or read.
    """
    path = _find_model(model, config.model)
    described = msgspec.structs.replace(
        config,
        data=Data(
            calibration=calibration or config.data.calibration,
            evaluation=evaluation or config.data.evaluation,
        ),
        evaluation=Evaluation(metric=metric or config.evaluation.metric),
    )
    target = Path(output or config.output or _default_output(Path(path), config.precision))
    if output is None and config.output is not None:
        _make_folder(target)
    settings, samples, scores = resolve(described, None, evaluate)
    return Run(path, settings, samples, scores, target, tuple(notes))


def _find_model(given: str | None, named: str | None) -> str:
    if given is not None:
        return given
    if named is None:
        raise ConfigError(
            "no model is named; give it as an argument, or as 'model' in the configuration"
        )
    for ending in ("", *ENDINGS):
        if Path(f"{named}{ending}").exists():
            return f"{named}{ending}"
    tried = ", ".join(f"{named}{ending}" for ending in ENDINGS)
    raise ModelError(
        f"the configuration names the model '{named}', and the working directory holds no {named} "
        f"nor {tried}; give the model's path as an argument, or correct the name"
    )


def _default_output(model: Path, precision: str) -> str:
    """Return a name beside which nothing else has to be said: of the model's own form."""
    if model.is_dir():
        return f"{model.name}.{precision}"
    ending = model.suffix if model.suffix in ENDINGS else ".onnx"
    return f"{model.stem}.{precision}{'.keras' if ending == '.h5' else ending}"


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder '{path.parent}' cannot be made: {error.strerror}; name another one"
        ) from None
