"""Mean average precision equals hand-made cases and a plain, slow definition."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from lowprec.errors import DataError
from lowprec.metrics import COCOmAP, VOCmAP
from lowprec.metrics.detection import COCO_THRESHOLDS, MeanAP, overlaps

RNG = np.random.default_rng(0)
BOX = [0.0, 0.0, 10.0, 10.0]
FAR = [100.0, 100.0, 110.0, 110.0]


def outputs(boxes, scores, classes):
    return [np.array([boxes], float), np.array([scores], float), np.array([classes])]


def truth(boxes, classes):
    return [{"boxes": np.array(boxes, float).reshape(-1, 4), "labels": np.array(classes, int)}]


def test_overlaps():
    a = np.array([[0.0, 0, 2, 2], [0, 0, 0, 0]])
    b = np.array([[1.0, 1, 3, 3], [5, 5, 6, 6], [0, 0, 2, 2], [0, 0, 0, 0]])
    np.testing.assert_allclose(overlaps(a, b), [[1 / 7, 0, 1, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize("kind", [VOCmAP, COCOmAP])
def test_perfect_missing_and_wrong(kind):
    metric = kind()
    metric.update(outputs([BOX], [0.9], [1]), truth([BOX], [1]))
    assert metric.result() == 1.0
    metric.update(outputs([FAR], [0.8], [1]), truth([BOX], [1]))
    assert metric.result() == pytest.approx(51 / 101 if kind is COCOmAP else 0.5)
    metric = kind()
    metric.update(outputs([BOX], [0.9], [2]), truth([BOX], [1]))
    assert metric.result() == 0.0


def test_one_wrong_before_the_right_one_halves_the_precision():
    metric = VOCmAP()
    metric.update(outputs([FAR, BOX], [0.9, 0.8], [1, 1]), truth([BOX], [1]))
    assert metric.result() == 0.5
    eleven = MeanAP(points=11)
    eleven.update(outputs([BOX, FAR, FAR], [0.9, 0.8, 0.7], [1, 1, 1]), truth([BOX, FAR], [1, 1]))
    assert eleven.result() == 1.0
    eleven.reset()
    eleven.update(outputs([BOX], [0.9], [1]), truth([BOX, FAR], [1, 1]))
    assert eleven.result() == pytest.approx(6 / 11)


def test_a_box_is_found_once_and_coco_gives_the_next_best():
    near = [0.0, 0.0, 10.0, 9.0]
    boxes, scores = [BOX, BOX], [0.9, 0.8]
    voc, coco = VOCmAP(), MeanAP(rematch=True)
    for metric in (voc, coco):
        metric.update(outputs(boxes, scores, [1, 1]), truth([BOX, near], [1, 1]))
    assert voc.result() == 0.5
    assert coco.result() == 1.0


def test_thresholds_of_coco():
    assert COCO_THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
    metric = COCOmAP()
    metric.update(outputs([[0, 0, 10, 7.2]], [0.9], [1]), truth([BOX], [1]))
    assert metric.result() == pytest.approx(0.5)  # 0.5, 0.55, ... 0.7 of ten


def slow_coco(images) -> float:
    """Mean of AP at 101 recalls over classes and thresholds, one detection at a time."""
    results = []
    classes = sorted({c for *_, known in images for c in known["labels"]})
    for label in classes:
        count = sum(int((known["labels"] == label).sum()) for *_, known in images)
        for threshold in COCO_THRESHOLDS:
            rows = []
            for boxes, scores, found, known in images:
                free = [box for box, c in zip(known["boxes"], known["labels"], strict=True)
                        if c == label]  # fmt: skip
                mine = sorted((-s, n) for n, s in enumerate(scores) if found[n] == label)
                for negative, n in mine:
                    best, which = threshold, None
                    for k, box in enumerate(free):
                        overlap = overlaps(boxes[n][None], box[None])[0, 0]
                        if overlap > best or (overlap == best and which is None):
                            best, which = overlap, k
                    rows.append((negative, which is not None))
                    if which is not None:
                        free.pop(which)
            rows.sort(key=lambda row: row[0])
            hits = np.cumsum([hit for _, hit in rows])
            precision = hits / np.arange(1, len(rows) + 1) if rows else np.zeros(0)
            recall = hits / count if rows else np.zeros(0)
            total = 0.0
            for wanted in np.linspace(0, 1, 101):
                reached = [p for p, r in zip(precision, recall, strict=True) if r >= wanted]
                total += max(reached, default=0.0)
            results.append(total / 101)
    return float(np.mean(results))


def test_random_scenes_equal_the_slow_definition():
    images, metric = [], COCOmAP()
    for _ in range(6):
        known = RNG.uniform(0, 50, (4, 2))
        known = np.concatenate([known, known + RNG.uniform(10, 30, (4, 2))], axis=1)
        boxes = np.concatenate([known + RNG.normal(0, 2, (4, 4)), known[:2] + RNG.normal(0, 9, 4)])
        classes, labels = RNG.integers(0, 3, 6), RNG.integers(0, 3, 4)
        classes[:3] = labels[:3]
        scores = RNG.random(6)
        label = {"boxes": known, "labels": labels}
        images.append((boxes, scores, classes, label))
        metric.update(outputs(boxes, scores, classes), [label])
    expected = slow_coco(images)
    assert 0.1 < expected < 0.9
    assert metric.result() == pytest.approx(expected)


def test_padding_and_order_of_outputs():
    boxes, scores, classes = outputs([BOX, FAR], [0.5, 0.9], [1, 1])
    metric = VOCmAP(boxes=2, scores=0, classes=1, detections=3)
    metric.update([scores, classes, boxes, np.array([1])], [([BOX], [1])])
    assert metric.result() == 1.0


def test_bad_shapes_and_labels_are_named():
    good = outputs([BOX], [0.9], [1])
    with refused(DataError, "one per image"):
        VOCmAP().update(good, np.zeros(3))
    with refused(DataError, "a label of mean average precision", "dict"):
        VOCmAP().update(good, [{"box": []}])
    with refused(DataError, "2 boxes and 1 classes"):
        VOCmAP().update(good, [([BOX, BOX], [1])])
    with refused(DataError, "output 1", "has 1"):
        VOCmAP().update(good[:1], truth([BOX], [1]))
    with refused(DataError, "shape"):
        VOCmAP().update([good[1], good[1], good[1]], truth([BOX], [1]))
    metric = VOCmAP()
    metric.update(good, truth([], []))
    with refused(DataError, "no true boxes"):
        metric.result()
