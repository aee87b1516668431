"""What a configuration says about data and metrics, as quantize() takes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lowprec.config import Accuracy, Config, Data, Evaluation, MetricGoal, Tuning
from lowprec.errors import ConfigError, DataError
from lowprec.functions import find_function, is_function_name

if TYPE_CHECKING:
    from lowprec.data import Loader

Evaluate = Callable[[Any], float]


def resolve(
    config: Config, calibration: object, evaluate: Evaluate | Mapping[str, Evaluate] | None
) -> tuple[Config, object, Evaluate | Mapping[str, Evaluate] | None]:
    """Return how to quantise, calibration data, and scores; what is None comes from `config`.

    Args:
        config: With `data` and `evaluation`, or without.
        calibration: Calibration data that was given; None: what `data.calibration` names.
        evaluate: Scores that were given; None: `evaluation.metric` on `data.evaluation`.

    Returns:
        `config` without what it says about model and data (paths of this machine are nobody's
        business who gets the quantised model), with the directions of the metrics it names.

    Raises:
        ConfigError: a metric without data, or the other way round.
        DataError: data that cannot be found or read.
    """
    tuning = config.tuning
    if calibration is None:
        calibration = find_data(config.data.calibration, "data.calibration")
    if evaluate is None:
        evaluate, tuning = _scores(config.evaluation.metric, config.data.evaluation, tuning)
    settings = msgspec.structs.replace(
        config, model=None, output=None, data=Data(), evaluation=Evaluation(), tuning=tuning
    )
    return settings, calibration, evaluate


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


def _scores(
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
            "a metric is named, but no data to evaluate on; give data.evaluation (--evaluation), "
            "or a metric module:function that takes the model"
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
