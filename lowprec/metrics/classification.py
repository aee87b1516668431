"""Scores of classes: top-k, accuracy, F1, ROC AUC, cross entropy, mean intersection over union."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from lowprec.errors import DataError
from lowprec.metrics.metric import Array, Metric, Outputs
from lowprec.optional import require

Classes = NDArray[np.int64]


class TopK(Metric, kw_only=True):
    """Share of the samples whose label is among the k highest scores, 0 to 1.

    Scores are (N, C), labels (N,), (N, 1), or one-hot (N, C). Of equal scores the lower class
    comes first.
    """

    shorthand: ClassVar[str | None] = "k"

    k: Annotated[int, Meta(ge=1)] = 1

    def reset(self) -> None:
        """Forget all batches."""
        self._hits = 0
        self._count = 0

    def update(self, outputs: Outputs, labels: object) -> None:
        """Add a batch of scores."""
        scores, classes = self._scores_and_classes(outputs, labels)
        rows = np.arange(len(scores))
        inside = (classes >= 0) & (classes < scores.shape[1])
        own = scores[rows, np.where(inside, classes, 0)][:, None]
        before = np.arange(scores.shape[1]) < classes[:, None]
        rank = ((scores > own) | ((scores == own) & before)).sum(axis=1)
        # A score that is no number is above nothing.
        self._hits += int((inside & (rank < self.k) & (own[:, 0] == own[:, 0])).sum())
        self._count += len(scores)

    def _scores_and_classes(self, outputs: Outputs, labels: object) -> tuple[Array, Classes]:
        scores, known = self._chosen(outputs), self._labels(labels)
        scores = scores.reshape(len(scores), -1) if scores.ndim > 2 else scores
        if scores.ndim != 2:
            raise self._misfit(scores, known)
        return scores, _class_numbers(self, scores, known)

    def result(self) -> float:
        """Return hits / samples."""
        return self._mean(self._hits, self._count)


class Accuracy(Metric, kw_only=True):
    """Share of the predictions that equal their labels, 0 to 1.

    An output with a class axis (axis 1) more than the labels is reduced to the highest score. One
    of the labels' shape is compared with them: floats by being above `threshold`.
    """

    threshold: float = 0.5

    def reset(self) -> None:
        """Forget all batches."""
        self._hits = 0
        self._count = 0

    def update(self, outputs: Outputs, labels: object) -> None:
        """Add a batch."""
        predicted, known = _predictions(self, outputs, labels, self.threshold)
        self._hits += int((predicted == known).sum())
        self._count += predicted.size

    def result(self) -> float:
        """Return equal ones / all."""
        return self._mean(self._hits, self._count)


class F1(Metric, kw_only=True):
    """2 precision recall / (precision + recall), by scikit-learn's f1_score (extra `metrics`).

    Predictions are as for Accuracy. `average` auto: binary for the classes 0 and 1, else macro.
    """

    average: Literal["auto", "binary", "micro", "macro", "weighted"] = "auto"
    threshold: float = 0.5

    def reset(self) -> None:
        """Forget all batches."""
        self._pairs: list[tuple[Array, Array]] = []

    def update(self, outputs: Outputs, labels: object) -> None:
        """Add a batch."""
        predicted, known = _predictions(self, outputs, labels, self.threshold)
        self._pairs.append((predicted.ravel(), known.ravel()))

    def result(self) -> float:
        """Return the score."""
        predicted, known = _joined(self, self._pairs)
        binary = set(np.unique(np.concatenate([predicted, known])).tolist()) <= {0, 1}
        average = self.average
        if average == "auto":
            average = "binary" if binary else "macro"
        if average == "binary" and not binary:
            raise DataError("the metric F1 has average: binary, and the classes are not 0 and 1")
        sklearn = require("sklearn.metrics", "metrics", "the metric F1")
        return float(sklearn.f1_score(known, predicted, average=average, zero_division=0.0))


class ROC(Metric, kw_only=True):
    """Area under the ROC curve, by scikit-learn's roc_auc_score (extra `metrics`).

    Scores are (N,), (N, 1), (N, 2) (the second column), or (N, C): one class against the rest,
    averaged over the classes, on softmax(scores) where rows do not sum to 1. Labels are (N,).
    """

    def reset(self) -> None:
        """Forget all batches."""
        self._pairs: list[tuple[Array, Array]] = []

    def update(self, outputs: Outputs, labels: object) -> None:
        """Add a batch."""
        scores, known = self._chosen(outputs), self._labels(labels)
        scores = scores.reshape(len(scores), -1) if scores.ndim else scores.reshape(1, 1)
        known = known.reshape(-1)
        if len(known) != len(scores):
            raise self._misfit(scores, known)
        self._pairs.append((scores[:, -1:] if scores.shape[1] <= 2 else scores, known))

    def result(self) -> float:
        """Return the area."""
        scores, known = _joined(self, self._pairs)
        if len(np.unique(known)) < 2:
            raise DataError("the metric ROC needs samples of at least two classes")
        sklearn = require("sklearn.metrics", "metrics", "the metric ROC")
        values: Any = np.asarray(scores, np.float64)
        if values.shape[1] == 1:
            return float(sklearn.roc_auc_score(known, values[:, 0]))
        if not np.allclose(values.sum(axis=1), 1.0, atol=1e-6):
            values = np.exp(_log_softmax(values))
        classes = np.arange(values.shape[1])
        return float(
            sklearn.roc_auc_score(known, values, multi_class="ovr", average="macro", labels=classes)
        )


class CrossEntropy(Metric, kw_only=True):
    """Mean of -log p(label); lower is better.

    Outputs are logits (N, C), or probabilities with `from_logits: false`; labels as for topk.
    """

    higher_is_better: ClassVar[bool] = False

    from_logits: bool = True

    def reset(self) -> None:
        """Forget all batches."""
        self._total = 0.0
        self._count = 0

    def update(self, outputs: Outputs, labels: object) -> None:
        """Add a batch."""
        scores, known = self._chosen(outputs), self._labels(labels)
        if scores.ndim != 2:
            raise self._misfit(scores, known)
        classes = _class_numbers(self, scores, known)
        if classes.size and not 0 <= classes.min() <= classes.max() < scores.shape[1]:
            raise DataError(
                f"the metric CrossEntropy saw the class {int(classes.max())}, the model has "
                f"{scores.shape[1]}, counted from 0"
            )
        values = scores.astype(np.float64)
        tiny = np.finfo(np.float64).tiny
        logs = _log_softmax(values) if self.from_logits else np.log(np.maximum(values, tiny))
        self._total -= float(logs[np.arange(len(logs)), classes].sum())
        self._count += len(scores)

    def result(self) -> float:
        """Return the mean."""
        return self._mean(self._total, self._count)


class MeanIoU(Metric, kw_only=True):
    """Intersection over union of predicted and true pixels, averaged over the classes seen.

    Outputs are (N, C, ...) scores or (N, ...) classes; labels (N, ...). Labels outside
    0 .. num_classes - 1 are left out.
    """

    num_classes: Annotated[int, Meta(ge=1, le=65536)] = 21

    def reset(self) -> None:
        """Forget all batches."""
        self._common = np.zeros(self.num_classes, np.int64)
        self._predicted = np.zeros(self.num_classes, np.int64)
        self._known = np.zeros(self.num_classes, np.int64)

    def update(self, outputs: Outputs, labels: object) -> None:
        """Add a batch."""
        predicted, known = _predictions(self, outputs, labels, 0.5)
        counted = (known >= 0) & (known < self.num_classes)
        predicted, known = predicted[counted], known[counted]
        inside = (predicted >= 0) & (predicted < self.num_classes)
        self._common += self._count(known[inside & (predicted == known)])
        self._predicted += self._count(predicted[inside])
        self._known += self._count(known)

    def _count(self, classes: Classes) -> Classes:
        return np.bincount(classes, minlength=self.num_classes).astype(np.int64)

    def result(self) -> float:
        """Return the mean over the classes that are predicted or true somewhere."""
        union = self._predicted + self._known - self._common
        seen = union > 0
        return self._mean(float((self._common[seen] / union[seen]).sum()), int(seen.sum()))


# ---- what several metrics need ----


def _class_numbers(metric: Metric, scores: Array, labels: Array) -> Classes:
    """Return labels (N,) for labels (N,), (N, 1) or one-hot (N, C)."""
    if labels.ndim == 2 and labels.shape == scores.shape and labels.shape[1] > 1:
        return np.asarray(labels.argmax(axis=1), np.int64)
    if labels.size != len(scores):
        raise metric._misfit(scores, labels)
    return _whole(metric, labels.reshape(-1))


def _predictions(
    metric: Metric, outputs: Outputs, labels: object, threshold: float
) -> tuple[Classes, Classes]:
    """Return predicted and true classes, of the same shape."""
    scores, known = metric._chosen(outputs), metric._labels(labels)
    if scores.ndim == 2 and scores.shape[1] > 1 and known.shape in ((len(scores), 1), scores.shape):
        one_hot = known.shape == scores.shape and bool((known.sum(axis=1) == 1).all())
        if known.shape[1] == 1 or one_hot:
            return np.asarray(scores.argmax(axis=1), np.int64), _class_numbers(
                metric, scores, known
            )
    if scores.ndim == known.ndim + 1 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.ndim == known.ndim + 1 and scores.shape == (
        len(known),
        scores.shape[1],
        *known.shape[1:],
    ):
        return np.asarray(scores.argmax(axis=1), np.int64), _whole(metric, known)
    if scores.size != known.size:
        raise metric._misfit(scores, known)
    scores = scores.reshape(known.shape)
    predicted = scores > threshold if scores.dtype.kind == "f" else scores
    return predicted.astype(np.int64), _whole(metric, known)


def _whole(metric: Metric, labels: Array) -> Classes:
    numbers = labels.astype(np.int64)
    if labels.dtype.kind not in "iub" and not np.array_equal(numbers, labels):
        raise DataError(f"the metric {metric.name} needs whole numbers as labels: classes")
    return numbers


def _joined(metric: Metric, pairs: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    metric._mean(0.0, len(pairs))
    return np.concatenate([pair[0] for pair in pairs]), np.concatenate([pair[1] for pair in pairs])


def _log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = values - values.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
