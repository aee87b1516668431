"""Scores of classes equal their definitions, whatever the batches are."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused
from sklearn.metrics import f1_score, jaccard_score, log_loss, roc_auc_score

from lowprec.errors import DataError
from lowprec.metrics import F1, ROC, Accuracy, CrossEntropy, MeanIoU, TopK

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(50, 7)).astype(np.float32)
LABELS = np.where(RNG.random(50) < 0.5, SCORES.argmax(axis=1), RNG.integers(0, 7, 50))


def score(metric, outputs, labels, batch=8):
    for start in range(0, len(outputs), batch):
        metric.update([outputs[start : start + batch]], labels[start : start + batch])
    return metric.result()


@pytest.mark.parametrize("k", [1, 2, 5, 7, 9])
def test_top_k(k):
    best = np.argsort(-SCORES, axis=1, kind="stable")[:, :k]
    expected = (best == LABELS[:, None]).any(axis=1).mean()
    assert score(TopK(k=k), SCORES, LABELS) == expected
    assert score(TopK(k=k), SCORES[:, :, None, None], LABELS[:, None]) == expected
    assert score(TopK(k=k), SCORES, np.eye(7)[LABELS]) == expected


def test_equal_scores_rank_by_class_and_nan_is_never_right():
    flat = np.zeros((3, 4), np.float32)
    assert score(TopK(), flat, np.array([0, 1, 2])) == pytest.approx(1 / 3)
    assert score(TopK(k=2), flat, np.array([0, 1, 2])) == pytest.approx(2 / 3)
    assert score(TopK(), np.full((2, 3), np.nan, np.float32), np.array([0, 1])) == 0
    assert score(TopK(k=9), flat, np.array([-1, 4, 0])) == pytest.approx(1 / 3)


def test_accuracy_by_class_axis_by_threshold_and_by_equality():
    expected = (SCORES.argmax(axis=1) == LABELS).mean()
    assert score(Accuracy(), SCORES, LABELS) == expected
    assert score(Accuracy(), SCORES, np.eye(7)[LABELS]) == expected
    maps = RNG.normal(size=(4, 3, 5, 6))
    truth = RNG.integers(0, 3, (4, 5, 6))
    assert score(Accuracy(), maps, truth, 3) == (maps.argmax(axis=1) == truth).mean()
    single = RNG.random((9, 1))
    known = RNG.integers(0, 2, 9)
    assert score(Accuracy(), single, known) == ((single[:, 0] > 0.5) == known).mean()
    assert score(Accuracy(threshold=0.9), single, known) == ((single[:, 0] > 0.9) == known).mean()
    assert score(Accuracy(), np.array([1, 2, 3]), np.array([1, 2, 4])) == pytest.approx(2 / 3)


@pytest.mark.parametrize("average", ["auto", "micro", "macro", "weighted"])
def test_f1_is_scikit_learn_s(average):
    predicted = SCORES.argmax(axis=1)
    named = "macro" if average == "auto" else average
    expected = f1_score(LABELS, predicted, average=named, zero_division=0.0)
    assert score(F1(average=average), SCORES, LABELS) == pytest.approx(expected)


def test_f1_of_two_classes_is_binary():
    scores, known = RNG.random(40).astype(np.float32), RNG.integers(0, 2, 40)
    assert score(F1(), scores, known) == pytest.approx(f1_score(known, scores > 0.5))
    with refused(DataError, "binary"):
        score(F1(average="binary"), SCORES, LABELS)


def test_roc_is_scikit_learn_s():
    known = RNG.integers(0, 2, 50)
    expected = roc_auc_score(known, SCORES[:, 1])
    assert score(ROC(), SCORES[:, 1], known) == pytest.approx(expected)
    assert score(ROC(), SCORES[:, :2], known) == pytest.approx(expected)
    shares = np.exp(SCORES.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    expected = roc_auc_score(LABELS, shares, multi_class="ovr")
    assert score(ROC(), SCORES, LABELS) == pytest.approx(expected)
    with refused(DataError, "two classes"):
        score(ROC(), SCORES[:, 1], np.zeros(50))


def test_cross_entropy_of_logits_and_of_probabilities():
    shares = np.exp(SCORES.astype(np.float64))
    shares /= shares.sum(axis=1, keepdims=True)
    expected = log_loss(LABELS, shares, labels=np.arange(7))
    assert score(CrossEntropy(), SCORES, LABELS) == pytest.approx(expected)
    assert score(CrossEntropy(from_logits=False), shares, LABELS) == pytest.approx(expected)
    assert CrossEntropy.higher_is_better is False
    with refused(DataError, "class 7"):
        score(CrossEntropy(), SCORES, LABELS + 1)


def test_mean_iou_is_the_mean_jaccard_index():
    maps, truth = RNG.normal(size=(4, 5, 6, 6)), RNG.integers(0, 5, (4, 6, 6))
    expected = jaccard_score(truth.ravel(), maps.argmax(axis=1).ravel(), average="macro")
    assert score(MeanIoU(num_classes=9), maps, truth) == pytest.approx(expected)
    truth[0] = 255  # left out
    expected = jaccard_score(truth[1:].ravel(), maps[1:].argmax(axis=1).ravel(), average="macro")
    assert score(MeanIoU(num_classes=5), maps, truth) == pytest.approx(expected)


@pytest.mark.parametrize("kind", [TopK, Accuracy, F1, ROC, CrossEntropy, MeanIoU])
def test_without_samples_labels_or_fitting_shapes_there_is_no_score(kind):
    with refused(DataError):
        kind().result()
    with refused(DataError, "needs labels"):
        kind().update([SCORES], None)
    with refused(DataError, "shape"):
        kind().update([SCORES], np.zeros((49, 3)))
    with refused(DataError, "output 2", "has 1"):
        kind(output=2).update([SCORES], LABELS)


def test_reset_forgets():
    metric = TopK()
    first = score(metric, SCORES, LABELS)
    metric.reset()
    assert score(metric, SCORES[:10], LABELS[:10]) == score(TopK(), SCORES[:10], LABELS[:10])
    metric.reset()
    assert score(metric, SCORES, LABELS) == first
    with refused(DataError, "whole numbers"):
        metric.update([SCORES], LABELS + 0.5)
