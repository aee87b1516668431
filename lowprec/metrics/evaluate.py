"""From a metric's name and labelled batches to a function that scores any model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lowprec.config_text import Mistakes, Path, Source, dotted, named, word
from lowprec.errors import DataError
from lowprec.functions import find_function, is_function_name
from lowprec.metrics import classification, detection, regression
from lowprec.metrics.metric import Metric

Array = NDArray[Any]

METRICS: dict[str, type[Metric]] = {
    "topk": classification.TopK,
    "Accuracy": classification.Accuracy,
    "F1": classification.F1,
    "ROC": classification.ROC,
    "CrossEntropy": classification.CrossEntropy,
    "mIOU": classification.MeanIoU,
    "MSE": regression.MSE,
    "RMSE": regression.RMSE,
    "MAE": regression.MAE,
    "Loss": regression.Loss,
    "Pearson": regression.Pearson,
    "Spearman": regression.Spearman,
    "mAP": detection.MeanAP,
    "COCOmAP": detection.COCOmAP,
    "VOCmAP": detection.VOCmAP,
}


def make_metrics(specification: object) -> dict[str, Any]:
    """Return metrics by name, new ones.

    Args:
        specification: A name, {name: options}, a list of either, or module:function. The function
            (or class) is called without arguments when it makes an object with `update` and
            `result`; otherwise it is called as function(outputs, labels) with all batches joined.

    Raises:
        ConfigError: an unknown name or option.
        DataError: a function that cannot be found.
    """
    mistakes = Mistakes(Source(None, "metric"))
    functions, rest = _split(specification)
    found: dict[str, Any] = dict(named(rest, METRICS, "a metric", (), mistakes))
    mistakes.raise_any()
    for text in functions:
        found[text.rpartition(":")[2]] = _own_metric(find_function(text, "evaluation.metric"))
    return found


def check_metric(value: object, path: Path, mistakes: Mistakes) -> object:
    """Note what is wrong with the names and options of metrics; null is right.

    Returns:
        `value`, which stays plain data.
    """
    if value is None:
        return value
    if not isinstance(value, (str, Mapping, list, tuple)):
        mistakes.add(
            path, f"{dotted(path)} is {word(value)}; accepted are a name, NAME: options, or a list"
        )
        return value
    named(_split(value)[1], METRICS, "a metric", path, mistakes)
    return tuple(value) if isinstance(value, list) else value


def _split(specification: object) -> tuple[list[str], object]:
    """Return the functions' names, and the rest."""
    items = specification if isinstance(specification, (list, tuple)) else [specification]
    functions = [item for item in items if isinstance(item, str) and is_function_name(item)]
    if not functions:
        return [], specification
    return functions, [item for item in items if item not in functions]


class _Joined:
    """A metric of a user's function(outputs, labels)."""

    def __init__(self, function: Callable[[Any, Any], float]) -> None:
        self._function = function
        self.higher_is_better = bool(getattr(function, "higher_is_better", True))
        self.reset()

    def reset(self) -> None:
        self._outputs: list[Any] = []
        self._labels: list[Any] = []

    def update(self, outputs: Any, labels: Any) -> None:
        self._outputs.append(outputs)
        self._labels.append(labels)

    def result(self) -> float:
        columns = [_joined(column) for column in zip(*self._outputs, strict=True)]
        outputs = columns[0] if len(columns) == 1 else columns
        return float(self._function(outputs, _joined(self._labels)))


def _joined(parts: Any) -> Any:
    if all(isinstance(part, np.ndarray) for part in parts):
        same = len({part.shape[1:] for part in parts}) == 1
        return np.concatenate(parts) if same else list(parts)
    return [item for part in parts for item in (part if isinstance(part, list) else [part])]


def _own_metric(function: Callable[..., Any]) -> Any:
    if isinstance(function, type):
        made = function()
        if not (
            callable(getattr(made, "update", None)) and callable(getattr(made, "result", None))
        ):
            raise DataError(
                f"the metric {function.__name__} has no update(outputs, labels) and result()"
            )
        return made
    return _Joined(function)


def make_evaluate(
    metric: Any, data: Iterable[tuple[Any, Any]] | Callable[[], Iterable[tuple[Any, Any]]]
) -> Callable[[Any], float]:
    """Return a function that scores a model: for `quantize(evaluate=...)`.

    Args:
        metric: An object with update(outputs, labels) and result(), and reset() if it has state;
            for example lowprec.metrics.TopK(k=5).
        data: (inputs, labels) batches, iterated again for every model; or a function that returns
            them. inputs: an array, a tuple in the order of the model's inputs, or a dict by name.

    Returns:
        A function of a model with `inputs` and `run` (lowprec's own), of a Keras model, or of one
        that is called with the inputs in order. It has the metric's `higher_is_better`.
    """

    def evaluate(model: Any) -> float:
        scorer = copy.deepcopy(metric)  # models may be scored at the same time
        if hasattr(scorer, "reset"):
            scorer.reset()
        batches = data() if callable(data) and not hasattr(data, "__iter__") else data
        number = -1
        for number, item in enumerate(batches):
            inputs, labels = _pair(item, number)
            scorer.update(_run(model, inputs), labels)
        if number < 0:
            raise DataError(
                "the evaluation data holds no batches: it is empty, or an iterator that was used "
                "up before; give a list, a loader or a function"
            )
        return float(scorer.result())

    evaluate.higher_is_better = getattr(metric, "higher_is_better", True)  # type: ignore[attr-defined]
    return evaluate


def _pair(item: Any, number: int) -> tuple[Any, Any]:
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise DataError(
            f"batch {number} of the evaluation data is a {type(item).__name__}, not "
            "(inputs, labels)"
        )
    return item[0], item[1]


def _run(model: Any, inputs: Any) -> list[Array]:
    """Return the model's outputs in order."""
    is_keras = hasattr(model, "predict_on_batch")  # lowprec's own, too: `inputs` is Keras's there
    if is_keras or not (hasattr(model, "run") and hasattr(model, "inputs")):
        parts = inputs if isinstance(inputs, tuple) else (inputs,)
        if is_keras:  # several inputs are one argument
            results = model.predict_on_batch(list(inputs) if len(parts) > 1 else inputs)
        else:
            results = model(**inputs) if isinstance(inputs, Mapping) else model(*parts)
        if isinstance(results, Mapping):
            results = list(results.values())
        several = results if isinstance(results, (tuple, list)) else [results]
        return [np.asarray(result) for result in several]
    if isinstance(inputs, Mapping):
        names = [info.name for info in model.inputs]
        feeds = {name: inputs[name] for name in names if name in inputs}
    else:
        parts = inputs if isinstance(inputs, tuple) else (inputs,)
        if len(parts) != len(model.inputs):
            raise DataError(
                f"a batch of the evaluation data has {len(parts)} inputs, the model has "
                f"{len(model.inputs)}: {', '.join(info.name for info in model.inputs)}"
            )
        feeds = {info.name: part for info, part in zip(model.inputs, parts, strict=True)}
    for info in model.inputs:
        part = np.asarray(feeds[info.name]) if info.name in feeds else None
        if part is not None and part.dtype == np.float64 and info.dtype == np.float32:
            feeds[info.name] = part.astype(np.float32)
    return list(model.run(feeds))
