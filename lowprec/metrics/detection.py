"""Mean average precision of detected boxes, as PASCAL VOC and COCO define it.

Detections of one class are matched to the true boxes of their image in the order of their scores.
Precision is made non-increasing from the right; its area over recall is the average precision.
Sources: M. Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 111 (2015);
COCO's "Detection Evaluation" (all object sizes, no crowd regions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from lowprec.errors import DataError
from lowprec.metrics.metric import Array, Metric, Outputs

Floats = NDArray[np.float64]

COCO_THRESHOLDS = tuple(float(value) for value in np.linspace(0.5, 0.95, 10).round(2))


class MeanAP(Metric, kw_only=True):
    """Mean of the average precision over the classes that have true boxes, and over `iou`.

    Outputs: boxes (N, D, 4) as two corners, scores (N, D), classes (N, D), by number in `boxes`,
    `scores`, `classes`; `detections` names an output (N,) with the count of valid ones. Labels:
    one per image, {"boxes": (G, 4), "labels": (G,)} or (boxes, labels), in the same units.

    Attributes:
        iou: Thresholds of intersection over union.
        points: Recalls at which precision is read; 0: the area under every step.
        rematch: Whether a detection whose best box is taken may have the next best (COCO), or is
            wrong (VOC).
        max_detections: Best ones per image and class that count.
    """

    iou: tuple[Annotated[float, Meta(gt=0, le=1)], ...] = (0.5,)
    points: Literal[0, 11, 101] = 0
    rematch: bool = False
    max_detections: Annotated[int, Meta(ge=1)] = 100
    boxes: Annotated[int, Meta(ge=0)] = 0
    scores: Annotated[int, Meta(ge=0)] = 1
    classes: Annotated[int, Meta(ge=0)] = 2
    detections: Annotated[int, Meta(ge=0)] | None = None

    def reset(self) -> None:
        """Forget all batches."""
        self._truth: dict[int, int] = {}  # class -> number of true boxes
        # class -> per image: scores, and for every threshold whether each detection is right
        self._found: dict[int, list[tuple[Floats, NDArray[np.bool_]]]] = {}
        self._images = 0

    def update(self, outputs: Outputs, labels: object) -> None:
        """Add a batch of images."""
        boxes, scores, classes = self._detected(outputs)
        valid = [scores.shape[1]] * len(scores)
        if self.detections is not None:
            counts = np.asarray(self._numbered(outputs, self.detections)).reshape(-1)
            valid = [int(count) for count in counts]
        known = _per_image(labels, len(boxes))
        for image, (true_boxes, true_classes) in enumerate(known):
            kept = slice(0, valid[image])
            self._add_image(
                boxes[image, kept], scores[image, kept], classes[image, kept], true_boxes,
                true_classes,
            )  # fmt: skip
            self._images += 1

    def _detected(self, outputs: Outputs) -> tuple[Floats, Floats, NDArray[np.int64]]:
        boxes = self._numbered(outputs, self.boxes).astype(np.float64)
        scores = self._numbered(outputs, self.scores).astype(np.float64)
        classes = self._numbered(outputs, self.classes).astype(np.int64)
        if boxes.ndim != 3 or boxes.shape[2] != 4 or boxes.shape[:2] != scores.shape:
            raise self._misfit(boxes, scores)
        if classes.shape != scores.shape:
            raise self._misfit(classes, scores)
        return boxes, scores, classes

    def _numbered(self, outputs: Outputs, number: int) -> Array:
        several = [outputs] if isinstance(outputs, np.ndarray) else outputs
        if number >= len(several):
            raise DataError(
                f"the metric {self.name} asks for output {number}, the model has {len(several)}, "
                "counted from 0; name them with boxes, scores and classes"
            )
        return np.asarray(several[number])

    def _add_image(
        self,
        boxes: Floats,
        scores: Floats,
        classes: NDArray[np.int64],
        true_boxes: Floats,
        true_classes: NDArray[np.int64],
    ) -> None:
        for label in np.union1d(classes, true_classes).tolist():
            mine = np.flatnonzero(classes == label)
            mine = mine[np.argsort(-scores[mine], kind="stable")][: self.max_detections]
            own = true_boxes[true_classes == label]
            overlap = overlaps(boxes[mine], own)
            right = np.array([self._match(overlap, threshold) for threshold in self.iou])
            self._truth[label] = self._truth.get(label, 0) + len(own)
            self._found.setdefault(label, []).append((scores[mine], right))

    def _match(self, overlap: Floats, threshold: float) -> list[bool]:
        """Return for each detection, best first, whether it has a true box of its own."""
        taken = np.zeros(overlap.shape[1], bool)
        right = []
        for row in overlap:
            candidates = np.where(taken, -1.0, row) if self.rematch else row
            best = int(candidates.argmax()) if len(row) else -1
            hit = best >= 0 and candidates[best] >= threshold and not taken[best]
            if hit:
                taken[best] = True
            right.append(bool(hit))
        return right

    def result(self) -> float:
        """Return the mean average precision, 0 to 1."""
        precisions = [
            self._average_precision(label, number)
            for label, count in self._truth.items()
            if count
            for number in range(len(self.iou))
        ]
        if self._images and not precisions:
            raise DataError(f"the metric {self.name} saw no true boxes in the evaluation data")
        return self._mean(float(sum(precisions)), len(precisions))

    def _average_precision(self, label: int, number: int) -> float:
        found = self._found[label]
        scores = np.concatenate([part for part, _ in found])
        right = np.concatenate([part[number] for _, part in found])
        right = right[np.argsort(-scores, kind="stable")]
        if not len(right):
            return 0.0
        hits = np.cumsum(right)
        recall = hits / self._truth[label]
        precision = hits / np.arange(1, len(hits) + 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        if self.points:
            wanted = np.linspace(0, 1, self.points)
            place = np.searchsorted(recall, wanted, side="left")
            read = np.append(envelope, 0.0)[np.minimum(place, len(envelope))]
            return float(read.mean())
        return float((np.diff(recall, prepend=0.0) * envelope).sum())


class COCOmAP(MeanAP, kw_only=True):
    """MeanAP as COCO has it: IoU 0.5 to 0.95 in steps of 0.05, precision at 101 recalls."""

    iou: tuple[Annotated[float, Meta(gt=0, le=1)], ...] = COCO_THRESHOLDS
    points: Literal[0, 11, 101] = 101
    rematch: bool = True


class VOCmAP(MeanAP, kw_only=True):
    """MeanAP as PASCAL VOC has it since 2010: IoU 0.5, the area under every step."""

    shorthand: ClassVar[str | None] = None


def overlaps(boxes: Floats, others: Floats) -> Floats:
    """Return the intersection over union of every box (D, 4) with every other (G, 4)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0.0), axis=2)
    union = _areas(boxes)[:, None] + _areas(others)[None] - common
    result: Floats = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return result


def _areas(boxes: Floats) -> Floats:
    sides: Floats = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    return sides[:, 0] * sides[:, 1]


def _per_image(labels: object, count: int) -> list[tuple[Floats, NDArray[np.int64]]]:
    if not isinstance(labels, Sequence) or len(labels) != count:
        raise DataError(
            f"mean average precision needs a list of {count} labels, one per image: "
            '{"boxes": (G, 4), "labels": (G,)} or (boxes, labels)'
        )
    return [_boxes_and_classes(label) for label in labels]


def _boxes_and_classes(label: Any) -> tuple[Floats, NDArray[np.int64]]:
    try:
        if isinstance(label, Mapping):
            boxes, classes = label["boxes"], label["labels"]
        else:
            boxes, classes = label
        result = np.asarray(boxes, np.float64).reshape(-1, 4)
        numbers = np.asarray(classes, np.int64).reshape(-1)
    except (KeyError, TypeError, ValueError):
        raise DataError(
            'a label of mean average precision is {"boxes": (G, 4), "labels": (G,)} or '
            f"(boxes, labels), got a {type(label).__name__}"
        ) from None
    if len(result) != len(numbers):
        raise DataError(f"a label has {len(result)} boxes and {len(numbers)} classes")
    return result, numbers
