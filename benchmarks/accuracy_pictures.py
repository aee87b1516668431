"""Tasks on pictures: EfficientNet-Lite0 on photos, PP-OCR reading and finding drawn words."""

from __future__ import annotations

import functools
import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
from accuracy_tasks import (
    CALIBRATION,
    Answers,
    Criterion,
    Feeds,
    Missing,
    Run,
    Task,
    f1_score,
    signal_to_noise,
)
from exported_models import lite0_path
from numpy.typing import NDArray
from real_models import characters, package_file, recognizer_feeds
from recognition import decode, draw_words, model_path, to_input
from words import FACES, LARGEST_ANGLE, rasterize, vocabulary

DATA_VARIABLE = "LOWPREC_EVAL_DATA"
PHOTOS = "imagenet-sample-500.zip"
DEFAULT_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZE, CROP = 224, 0.875  # pixels that Lite0 sees, of this part of a photo's shorter side
WORDS = 1000  # that the recogniser is measured on
PAGES, PAGE = 24, 640  # that the detector is measured on; pixels on a side
OVERLAPS = (
    0.5,
    0.7,
)  # intersection over union from which on a box is found: float finds all at 0.5
MARGIN = 3  # pixels of paper around the ink in a labelled box: what the detector was trained to


# ---- EfficientNet-Lite0 --------------------------------------------------------------------------
def photo_archive() -> Path:
    """Return the file of photos: LOWPREC_EVAL_DATA is it or its folder; else ../shared/data.

    Raises:
        Missing: it is not there.
    """
    given = os.environ.get(DATA_VARIABLE)
    path = Path(given) if given else DEFAULT_FOLDER
    path = path if path.suffix == ".zip" else path / PHOTOS
    if not path.exists():
        raise Missing(f"no {PHOTOS}: let {DATA_VARIABLE} name it or its folder")
    return path


@functools.cache
def photos() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the photos, (count, 3, 224, 224) RGB in [-1, 1], shuffled, and their classes."""
    try:
        image_module = import_module("PIL.Image")
    except ImportError:
        raise Missing("pip install pillow") from None
    made, labels = [], []
    with zipfile.ZipFile(photo_archive()) as archive:
        for name in sorted(n for n in archive.namelist() if n.endswith(".jpg")):
            with image_module.open(io.BytesIO(archive.read(name))) as photo:
                side = CROP * min(photo.size)
                left, top = ((whole - side) / 2 for whole in photo.size)
                small = photo.convert("RGB").resize(
                    (SIZE, SIZE),
                    image_module.Resampling.BICUBIC,
                    box=(left, top, left + side, top + side),
                )
            made.append((np.asarray(small, np.float32).transpose(2, 0, 1) - 127) / 128)
            labels.append(int(Path(name).stem))
    order = np.random.default_rng(0).permutation(len(made))
    return np.ascontiguousarray(np.stack(made)[order]), np.array(labels)[order]


def photo_feed(index: int) -> Feeds:
    return {"image": photos()[0][index : index + 1]}


def classify(run: Run) -> Answers:
    count = len(photos()[1])
    logits = [np.array(run(photo_feed(index))[0][0]) for index in range(CALIBRATION, count)]
    return {"logits": np.stack(logits)}


def measure_classes(answers: Answers, exact: Answers) -> dict[str, float]:
    labels = photos()[1][CALIBRATION:]
    best, expected = (given["logits"].argmax(axis=1) for given in (answers, exact))
    return {
        "top-1": float(np.mean(best == labels)),
        "agreement": float(np.mean(best == expected)),
        "SQNR": signal_to_noise(exact["logits"], answers["logits"]),
    }


# ---- PP-OCR recogniser ---------------------------------------------------------------------------
def read(run: Run) -> Answers:
    _, words = draw_words(1, CALIBRATION, WORDS)
    texts = [decode(run({"x": to_input(word)})[0], characters()) for word in words]
    return {"text": np.array(texts), "truth": np.array([word.text for word in words])}


def measure_words(answers: Answers, exact: Answers) -> dict[str, float]:
    return {
        "exact words": float(np.mean(answers["text"] == answers["truth"])),
        "agreement": float(np.mean(answers["text"] == exact["text"])),
    }


# ---- PP-OCR detector -----------------------------------------------------------------------------
Box = tuple[float, float, float, float]  # top, left, bottom, right in pixels


def draw_page(rng: np.random.Generator) -> tuple[Feeds, list[Box]]:
    """Return a page of words in uneven light, as the detector wants it, and the ink's boxes."""
    texts = vocabulary()
    paper = rng.uniform(190, 250) + rng.uniform(-10, 10, 3)
    page = np.zeros((PAGE, PAGE, 3)) + paper
    boxes: list[Box] = []
    top = int(rng.integers(8, 24))
    while top < PAGE - 48:
        left, tallest = int(rng.integers(8, 40)), 0
        while True:
            height = int(rng.integers(16, 36))
            text = texts[int(rng.integers(len(texts)))]
            face = FACES[int(rng.integers(len(FACES)))]
            angle = rng.uniform(-LARGEST_ANGLE, LARGEST_ANGLE)
            mask = rasterize(text, face, height, angle) / 255.0
            rows, columns = mask.shape
            if left + columns > PAGE - 8 or top + rows > PAGE - 8:
                break
            ink = rng.uniform(5, 110) + rng.uniform(-5, 25, 3)
            part = page[top : top + rows, left : left + columns]
            part += (ink - part) * mask[..., None]
            boxes.append(
                (top - MARGIN, left - MARGIN, top + rows + MARGIN, left + columns + MARGIN)
            )
            tallest = max(tallest, rows)
            left += columns + int(rng.integers(44, 80))
        top += tallest + int(rng.integers(30, 48))
    light = np.linspace(*rng.uniform(0.8, 1, 2), PAGE)[:, None, None]
    page = page * light + rng.normal(0, rng.uniform(2, 9), page.shape)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    scaled = (np.clip(page, 0, 255) / 255 - mean) / deviation
    pixels = np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32)
    return {"x": pixels}, boxes


@functools.cache
def pages(seed: int, count: int) -> list[tuple[Feeds, list[Box]]]:
    rng = np.random.default_rng(seed)
    return [draw_page(rng) for _ in range(count)]


def boxes_of(probability: NDArray[np.generic]) -> Iterator[Box]:
    """Yield the boxes of text in a map of probabilities: Liao et al. 2020, arXiv:1911.08947, 3.4.

    Axis-aligned; a region of more than 0.3 grows by 1.6 * area / perimeter.
    """
    try:
        ndimage = import_module("scipy.ndimage")
    except ImportError:
        raise Missing("pip install scipy") from None
    regions, _ = ndimage.label(probability > 0.3, np.ones((3, 3)))
    for number, (rows, columns) in enumerate(ndimage.find_objects(regions), 1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if min(height, width) < 3:
            continue
        inside = regions[rows, columns] == number
        if np.asarray(probability[rows, columns][inside], np.float64).mean() < 0.5:
            continue
        grow = 1.6 * height * width / (2 * (height + width))
        yield rows.start - grow, columns.start - grow, rows.stop + grow, columns.stop + grow


def overlap(a: Box, b: Box) -> float:
    """Return intersection over union."""
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - height * width
    return height * width / area


def detect(run: Run) -> Answers:
    """Return hits, wanted and found boxes by page and overlap, and some pixels' probabilities."""
    counts, samples = [], []
    for feed, wanted in pages(2, PAGES):
        probability = np.array(run(feed)[0][0, 0])
        found = list(boxes_of(probability))
        hits = [count_hits(found, wanted, least) for least in OVERLAPS]
        counts.append([(number, len(wanted), len(found)) for number in hits])
        samples.append(probability[::8, ::8].copy())
    return {"counts": np.array(counts), "probability": np.stack(samples)}


def count_hits(found: Sequence[Box], wanted: Sequence[Box], least: float) -> int:
    """Return how many boxes of `wanted` are found, each once, overlapping by at least `least`."""
    left = list(wanted)
    for box in found:
        best = max(left, key=lambda other: overlap(box, other), default=None)
        if best is not None and overlap(box, best) >= least:
            left.remove(best)
    return len(wanted) - len(left)


def measure_boxes(answers: Answers, exact: Answers) -> dict[str, float]:
    totals = answers["counts"].sum(axis=0).astype(float)
    return {
        **{
            f"F1 at IoU {least:g}": f1_score(*counts)
            for least, counts in zip(OVERLAPS, totals, strict=True)
        },
        "SQNR": signal_to_noise(exact["probability"], answers["probability"]),
    }


def picture_tasks() -> list[Task]:
    folder = "rapidocr_onnxruntime/models"
    return [
        Task(
            "lite0",
            "EfficientNet-Lite0",
            lite0_path,
            lambda: [photo_feed(index) for index in range(min(CALIBRATION, len(photos()[1])))],
            classify,
            measure_classes,
            (
                Criterion("top-1", within=0.003),
                Criterion("agreement", at_least=0.985),
                Criterion("SQNR", at_least=20),
            ),
        ),
        Task(
            "rec",
            "PP-OCR rec",
            lambda: str(model_path()),
            lambda: recognizer_feeds(CALIBRATION, 1),
            read,
            measure_words,
            (Criterion("exact words", within=0.005), Criterion("int8 share", at_least=0.9)),
        ),
        Task(
            "det",
            "PP-OCR det",
            package_file("rapidocr-onnxruntime", f"{folder}/ch_PP-OCRv4_det_infer.onnx"),
            lambda: [feed for feed, _ in pages(1, CALIBRATION // 4)],
            detect,
            measure_boxes,
            tuple(Criterion(f"F1 at IoU {least:g}", within=0.005) for least in OVERLAPS),
        ),
    ]
