"""Every real ONNX file at hand, with inputs that look like what each was made for.

The files come out of installed packages that are never imported; a package that is missing is an
error that names it. Inputs are drawn from a seed, except Magika's, which are files of this Python.
"""

from __future__ import annotations

import functools
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from exported_models import (
    lite0_path,
    minilm_path,
    photo_accuracy_kept,
    photo_feeds,
    sentence_feeds,
)
from light_models import light_models, pictures, with_random_weights
from numpy.typing import NDArray
from recognition import decode, draw_words, model_path, read_characters, to_input

Feeds = dict[str, NDArray[np.generic]]
Outputs = Sequence[NDArray[np.generic]]
RATE = 16_000  # samples per second that Silero hears
PITCH_RATE, PITCH_WINDOW = 22_050, 43_844  # what Basic Pitch hears


def stacked(feeds: Sequence[Feeds]) -> Feeds:
    """Return one feed of as many samples along axis 0 of every input."""
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


@dataclass(frozen=True)
class RealModel:
    """A model, where it comes from, what to feed it, and what its output decides.

    Attributes:
        feeds: (count, seed) -> as many feeds of one sample each.
        held_out: How many feeds to measure accuracy on.
        sample: seed -> the feed that is timed, where its size is not that of `feeds`.
        has_batch: Whether axis 0 of every input is the batch.
        trained: Whether its decisions mean something; False for random weights.
        is_transformer: For tools that want to know.
        judge: How far two precisions agree, 0 to 1, over all feeds; None counts decisions.
    """

    name: str
    load: Callable[[], str | onnx.ModelProto]
    feeds: Callable[[int, int], list[Feeds]]
    decide: Callable[[Outputs], NDArray[np.generic]] = field(
        default=lambda outputs: outputs[0].reshape(len(outputs[0]), -1).argmax(axis=1)
    )
    decision: str = "largest output"
    held_out: int = 6
    sample: Callable[[int], Feeds] | None = None
    has_batch: bool = True
    trained: bool = True
    is_transformer: bool = False
    judge: Callable[[Sequence[Outputs], Sequence[Outputs]], float] | None = None

    def timed_feed(self, batch: int = 1) -> Feeds:
        """Return the feed whose latency is measured, `batch` different samples."""
        make = self.sample or (lambda seed: self.feeds(1, seed)[0])
        return stacked([make(3 + index) for index in range(batch)])

    def agreement(self, exact: Sequence[Outputs], answers: Sequence[Outputs]) -> float:
        """Return the share of decisions that two precisions share, or what `judge` says."""
        if self.judge is not None:
            return self.judge(exact, answers)
        same = [
            np.ravel(self.decide(a) == self.decide(b)) for a, b in zip(exact, answers, strict=True)
        ]
        return float(np.mean(np.concatenate(same)))


def package_file(package: str, file: str) -> Callable[[], str]:
    return lambda: str(metadata.distribution(package).locate_file(file))


@functools.cache
def characters() -> list[str]:
    return read_characters(model_path())


def recognizer_feeds(count: int, seed: int) -> list[Feeds]:
    (words,) = draw_words(seed, count)
    return [{"x": to_input(word)} for word in words]


def line_of_text(seed: int) -> Feeds:
    """Return words side by side on 48 x 320, a usual line for PP-OCR's recogniser."""
    (words,) = draw_words(seed, 6)
    return {"x": np.concatenate([to_input(word) for word in words], axis=-1)[..., :320].copy()}


def page_feeds(count: int, seed: int, size: int = 320) -> list[Feeds]:
    """Return pages of `size` x `size` pixels with words, as PP-OCR's detector wants them."""
    rng = np.random.default_rng(seed)
    a_page = 12 * (size // 320) ** 2
    (words,) = draw_words(seed, a_page * count)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    feeds = []
    for page in range(count):
        paper = np.clip(rng.normal(rng.uniform(200, 250), 4, (size, size, 3)), 0, 255)
        top, left = 8, 8
        for word in words[a_page * page : a_page * (page + 1)]:
            pixels = word.pixels[::2, ::2]
            rows, columns = pixels.shape[:2]
            if left + columns > size - 8:
                top, left = top + 40, 8
            paper[top : top + rows, left : left + columns] = pixels
            left += columns + 24
        scaled = (paper / 255 - mean) / deviation
        feeds.append({"x": np.ascontiguousarray(scaled.transpose(2, 0, 1)[None], np.float32)})
    return feeds


def line_feeds(count: int, seed: int) -> list[Feeds]:
    """Return words on 48 x 192, every other one upside down, as PP-OCR's direction model wants."""
    feeds = []
    for index, word in enumerate(draw_words(seed, count)[0]):
        pixels = to_input(word)[..., :192]
        if index % 2:
            pixels = pixels[..., ::-1, ::-1]
        padding = ((0, 0), (0, 0), (0, 0), (0, 192 - pixels.shape[-1]))
        feeds.append({"x": np.ascontiguousarray(np.pad(pixels, padding))})
    return feeds


def tones(samples: int, rate: int, rng: np.random.Generator, voices: int) -> NDArray[np.float32]:
    """Return harmonic tones that come and go over faint noise, in [-1, 1]."""
    at = np.arange(samples) / rate
    sound = 0.004 * rng.standard_normal(samples)
    for _ in range(voices):
        pitch = rng.uniform(90, 500) * (1 + 0.02 * np.sin(2 * np.pi * rng.uniform(3, 6) * at))
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        harmonics = sum(np.sin(k * phase) / k ** rng.uniform(0.8, 1.6) for k in range(1, 12))
        start, length = rng.uniform(0, 0.7), rng.uniform(0.15, 0.5)
        position = (at / at[-1] - start) / length
        envelope = np.where((position > 0) & (position < 1), np.sin(np.pi * position), 0)
        sound += rng.uniform(0.05, 0.25) * harmonics * envelope
    return np.clip(sound, -1, 1).astype(np.float32)


def speech_feeds(count: int, seed: int) -> list[Feeds]:
    """Return 2-second sounds as Silero wants them: frames of 64 old and 512 new samples."""
    rng = np.random.default_rng(seed)
    state = np.zeros((1, 1, 128), np.float32)
    feeds: list[Feeds] = []
    for _ in range(count):
        sound = np.pad(tones(2 * RATE, RATE, rng, voices=3), (64, 0))
        frames = np.lib.stride_tricks.sliding_window_view(sound, 576)[::512]
        feeds.append({"input": np.ascontiguousarray(frames), "h": state, "c": state})
    return feeds


def chord_feeds(count: int, seed: int) -> list[Feeds]:
    rng = np.random.default_rng(seed)
    return [
        {
            "serving_default_input_2:0": tones(PITCH_WINDOW, PITCH_RATE, rng, voices=5).reshape(
                1, -1, 1
            )
        }
        for _ in range(count)
    ]


def installed_files() -> Iterator[Path]:
    """Yield files of many types that every Python installation has, in a fixed order."""
    folders = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")]
    endings = (".py", ".so", ".pyc", ".txt", ".json", ".png", ".svg", ".ttf", ".h", ".pyi", ".css")
    by_ending = [
        [path for folder in folders for path in sorted(Path(folder).rglob(f"*{ending}"))[:400]]
        for ending in endings
    ]
    for rank in range(400):
        for paths in by_ending:
            if rank < len(paths) and paths[rank].stat().st_size > 64:
                yield paths[rank]


def file_feeds(count: int, seed: int) -> list[Feeds]:
    """Return files as Magika wants them: 1,024 bytes of the start and of the end, 256 = no byte."""
    feeds: list[Feeds] = []
    paths = list(installed_files())
    for index in np.random.default_rng(seed).permutation(len(paths))[:count]:
        content = paths[index].read_bytes()
        start, end = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
        values = np.full((1, 2048), 256, np.int32)
        values[0, : len(start)] = np.frombuffer(start, np.uint8)
        values[0, 2048 - len(end) :] = np.frombuffer(end, np.uint8)
        feeds.append({"bytes": values})
    return feeds


def light_model(path: Path) -> RealModel:
    graph = onnx.load(str(path)).graph
    weights = {tensor.name for tensor in graph.initializer}
    (picture_name,) = (value.name for value in graph.input if value.name not in weights)
    return RealModel(
        path.stem,
        lambda: with_random_weights(path),
        lambda count, seed: [{picture_name: picture} for picture in pictures(count, seed)],
        trained=False,
    )


def similarity_agreement(exact: Sequence[Outputs], answers: Sequence[Outputs]) -> float:
    """Return the correlation of all pairs' cosine similarity, which text embeddings are for."""
    similarities = []
    for results in (exact, answers):
        vectors = np.stack([outputs[0].mean(axis=(0, 1), dtype=np.float64) for outputs in results])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        similarities.append((vectors @ vectors.T)[np.triu_indices(len(vectors), 1)])
    return float(np.corrcoef(similarities)[0, 1])


def sentence_model(length: int) -> RealModel:
    return RealModel(
        f"MiniLM {length}",
        minilm_path,
        functools.partial(sentence_feeds, length),
        decision="similarity of two texts",
        held_out=24,
        is_transformer=True,
        judge=similarity_agreement,
    )


def real_models() -> list[RealModel]:
    """Return all of them; nothing is read before `load` and `feeds` are called."""
    ocr, ocr_folder = "rapidocr-onnxruntime", "rapidocr_onnxruntime/models"
    return [
        RealModel(
            "PP-OCR rec",
            lambda: str(model_path()),
            recognizer_feeds,
            lambda outputs: np.array([decode(outputs[0], characters())]),
            "word",
            held_out=60,
            sample=line_of_text,
        ),
        RealModel(
            "PP-OCR det",
            package_file(ocr, f"{ocr_folder}/ch_PP-OCRv4_det_infer.onnx"),
            page_feeds,
            lambda outputs: (outputs[0] > 0.3).ravel(),
            "pixel is text",
            sample=lambda seed: page_feeds(1, seed, 640)[0],
        ),
        RealModel(
            "PP-OCR cls",
            package_file(ocr, f"{ocr_folder}/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
            line_feeds,
        ),
        RealModel(
            "Silero sequence",
            package_file("silero-vad", "silero_vad/data/silero_vad_16k_sequence.onnx"),
            speech_feeds,
            lambda outputs: (outputs[0] > 0.5).ravel(),
            "frame is speech",
            has_batch=False,
        ),
        RealModel(
            "Magika",
            package_file("magika", "magika/models/standard_v3_3/model.onnx"),
            file_feeds,
            held_out=60,
        ),
        RealModel(
            "EfficientNet-Lite0",
            lite0_path,
            photo_feeds,
            decision="accuracy kept",
            held_out=60,
            judge=photo_accuracy_kept,
        ),
        sentence_model(16),
        sentence_model(128),
        RealModel(
            "Basic Pitch",
            package_file("basic-pitch", "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
            chord_feeds,
            lambda outputs: np.concatenate([(output > 0.3).ravel() for output in outputs]),
            "note is on",
        ),
        *[light_model(path) for path in light_models()],
    ]
