"""A whole run from one configuration: model, samples, scores, search, what is written.

run = plan_run(Config.from_yaml("conf.yaml"))     # files are looked at, names are resolved
result = run.execute()                            # quantised, tuned where there is a metric
result.model.save(run.output)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lowprec.config import Accuracy, Config, Data, Evaluation, MetricGoal, Tuning
from lowprec.errors import ConfigError, DataError, ModelError
from lowprec.functions import find_function, is_function_name

if TYPE_CHECKING:
    from lowprec.data import Loader
    from lowprec.hookspecs import Captured
    from lowprec.tuning import TuningResult

Evaluate = Callable[[Any], float]
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
        evaluate: Scores by metric; None where no metric is named.
        output: The file to write.
        notes: Lines for the report: how a foreign configuration was understood.
    """

    model: str
    config: Config
    calibration: object
    evaluate: Mapping[str, Evaluate] | None
    output: Path
    notes: tuple[str, ...] = ()

    def execute(self, progress: Progress | None = None) -> Result:
        """Quantise; search where there is a metric. Nothing is written but the trial log.

        Args:
            progress: Called as progress(done, total).
        """
        from lowprec import api

        self.config.check_supported()
        captured: Captured = api.capture(self.model)
        workbench = api.open_workbench(captured, self.calibration, self.config)
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
        output: The file to write.
        notes: Lines for the report.

    Raises:
        ConfigError: no model, or a metric without data, or the other way round.
        DataError: data that cannot be found or read.
    """
    path = _find_model(model, config.model)
    samples = find_data(calibration or config.data.calibration, "calibration")
    evaluate, tuning = _evaluate_by(
        metric or config.evaluation.metric, evaluation or config.data.evaluation, config.tuning
    )
    target = Path(output or config.output or f"{Path(path).stem}.{config.precision}.onnx")
    if output is None and config.output is not None:
        _make_folder(target)
    settings = msgspec.structs.replace(
        config, model=None, output=None, data=Data(), evaluation=Evaluation(), tuning=tuning
    )
    return Run(path, settings, samples, evaluate, target, tuple(notes))


def find_data(data: str | Mapping[str, Any] | None, what: str) -> object:
    """Return feeds as `lowprec.quantize` takes them, from a path, module:function or a mapping.

    Args:
        data: What a configuration or an option says.
        what: Who asked for it, for messages.
    """
    if data is None:
        return None
    if isinstance(data, Mapping):
        from lowprec.data import open_data

        return _Inputs(open_data(data))
    if Path(data).exists() or data.endswith(".npz") or not is_function_name(data):
        return data
    return find_function(data, what)


class _Inputs:
    """The inputs of labelled batches, without the labels."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        for inputs, _ in self._loader:
            yield inputs

    def __len__(self) -> int:
        return len(self._loader)


def _find_model(given: str | None, named: str | None) -> str:
    if given is not None:
        return given
    if named is None:
        raise ConfigError(
            "no model is named; give it as an argument, or as 'model' in the configuration"
        )
    for candidate in (named, f"{named}.onnx"):
        if Path(candidate).exists():
            return candidate
    raise ModelError(
        f"the configuration names the model '{named}', and there is no {named} nor {named}.onnx in "
        "the working directory; give the model's path as an argument, or correct the name"
    )


def _evaluate_by(
    metric: object, data: str | Mapping[str, Any] | None, tuning: Tuning
) -> tuple[dict[str, Evaluate] | None, Tuning]:
    """Return scores by name, and the goals with each metric's own direction."""
    if metric is None:
        if data is not None:
            raise ConfigError(
                "evaluation data is named, but no metric; give evaluation.metric, for example topk"
            )
        return None, tuning
    if data is None:
        if isinstance(metric, str) and is_function_name(metric):
            function = find_function(metric, "evaluation.metric")
            return {metric.rpartition(":")[2]: function}, tuning
        raise ConfigError(
            "a metric is named, but no data to evaluate on; give data.evaluation, or a metric "
            "module:function that takes the model"
        )
    from lowprec.metrics import make_evaluate, make_metrics

    batches = _labelled(data)
    scores: dict[str, Evaluate] = {}
    for name, instance in make_metrics(metric).items():
        score = make_evaluate(instance, batches)
        # A trial log is of one score: the name tells its data and options apart.
        score.__qualname__ = f"{instance!r} on {json.dumps(data, default=str, sort_keys=True)}"
        scores[name] = score
    return scores, _with_directions(tuning, scores)


def _labelled(data: str | Mapping[str, Any]) -> Any:
    from lowprec.data import open_data

    if isinstance(data, Mapping):
        return open_data(data)
    if not Path(data).exists() and is_function_name(data):
        return find_function(data, "data.evaluation")
    if not data.endswith(".npz"):
        raise DataError(
            f"evaluation data '{data}' is no .npz file; give one with labels, module:function, or "
            "in a configuration a data set"
        )
    return open_data({"dataset": {"npz": {"path": data}}})


def _with_directions(tuning: Tuning, scores: Mapping[str, Evaluate]) -> Tuning:
    """Return the goals with `higher_is_better` as the metrics say themselves."""
    lower = [name for name, score in scores.items() if not _is_higher_better(score)]
    goals = dict(tuning.metrics)
    for name in scores:
        stated = goals[name].higher_is_better if name in goals else None
        if stated is None and len(scores) == 1 and not tuning.accuracy.higher_is_better:
            stated = False
        if stated is False and name not in lower:
            raise ConfigError(
                f"of the metric {name} higher is better, and the configuration says "
                "higher_is_better: false; take it out"
            )
        if name in lower and stated is None:
            goal = goals.get(name, MetricGoal())
            goals[name] = msgspec.structs.replace(goal, higher_is_better=False)
    if len(scores) == 1 and lower and set(goals) <= set(lower) and not tuning.metrics:
        accuracy: Accuracy = msgspec.structs.replace(tuning.accuracy, higher_is_better=False)
        return msgspec.structs.replace(tuning, accuracy=accuracy)
    return msgspec.structs.replace(tuning, metrics=goals)


def _is_higher_better(score: Evaluate) -> bool:
    return bool(getattr(score, "higher_is_better", True))


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder '{path.parent}' cannot be made: {error.strerror}; name another one"
        ) from None
