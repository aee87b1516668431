"""The data sets that a configuration may name: labelled samples from local files.

Each has `open()`, which looks at the files and returns samples by number: (input, label), the
input an array or, where a model takes several, a tuple of arrays. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from lowprec.data.idx import read_idx
from lowprec.data.images import ENDINGS, image_files, read_image
from lowprec.data.npz import array_names, read_array
from lowprec.errors import DataError

Array = NDArray[Any]
Inputs = Array | tuple[Array, ...]
Sample = tuple[Inputs, object]

LABEL_NAMES = ("label", "labels", "target", "targets", "y", "y_test")


class Samples(Protocol):
    """Samples by number."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, number: int, /) -> Sample:
        """Return (input, label)."""


class Dataset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A data set's options."""

    def open(self) -> Samples:
        """Return the samples.

        Raises:
            DataError: files are missing or damaged.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Arrays:
    """Samples along axis 0 of arrays."""

    inputs: tuple[Array, ...]
    labels: Array | None

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.inputs[0])

    def __getitem__(self, number: int) -> Sample:
        """Return (input, label); the label is None where there are none."""
        parts = tuple(array[number] for array in self.inputs)
        label = None if self.labels is None else self.labels[number]
        return parts[0] if len(parts) == 1 else parts, label


@dataclass(frozen=True)
class Computed:
    """Samples that a function makes by number."""

    count: int
    make: Callable[[int], Sample]

    def __len__(self) -> int:
        """Return how many there are."""
        return self.count

    def __getitem__(self, number: int) -> Sample:
        """Return (input, label)."""
        return self.make(number)


class MNIST(Dataset, frozen=True, kw_only=True):
    """Handwritten digits: u8 images (28, 28, 1) and labels 0 to 9.

    idx files (plain or .gz), or mnist.npz, in `root`, `root`/MNIST, `root`/raw or
    `root`/MNIST/raw. `train` chooses train-*, otherwise t10k-*.
    """

    root: str
    train: bool = False

    def open(self) -> Samples:
        """Return the samples."""
        name = type(self).__name__
        root = _folder(self.root, name)
        places = [root, root / name, root / "raw", root / name / "raw"]
        part = "train" if self.train else "t10k"
        images = _find_idx(places, f"{part}-images", 3)
        labels = _find_idx(places, f"{part}-labels", 1)
        if images is not None and labels is not None:
            return _images_and_labels(read_idx(images, 3), read_idx(labels, 1), root)
        for archive in (place / "mnist.npz" for place in places):
            if name == "MNIST" and archive.is_file():
                half = "train" if self.train else "test"
                pixels, classes = read_array(archive, f"x_{half}"), read_array(archive, f"y_{half}")
                return _images_and_labels(pixels, classes, archive)
        missing = "images" if images is None else "labels"
        rank = 3 if images is None else 1
        raise DataError(
            f"{name}: '{root}' holds no {part}-{missing}-idx{rank}-ubyte or .gz (looked in it, in "
            f"{name}/, raw/ and {name}/raw/ too); lowprec downloads nothing: put the four idx "
            "files there"
        )


class FashionMNIST(MNIST, frozen=True, kw_only=True):
    """Pictures of clothes in the form of MNIST, from idx files."""


class CIFAR10(Dataset, frozen=True, kw_only=True):
    """Photos: u8 images (32, 32, 3) and labels 0 to 9, from the binary version's files.

    data_batch_1.bin to data_batch_5.bin and test_batch.bin in `root` or
    `root`/cifar-10-batches-bin. The Python version is pickled and refused.
    """

    root: str
    train: bool = False

    def open(self) -> Samples:
        """Return the samples."""
        names = [f"data_batch_{n}.bin" for n in range(1, 6)] if self.train else ["test_batch.bin"]
        return _read_cifar(self.root, "CIFAR10", "cifar-10-batches", names, 1)


class CIFAR100(Dataset, frozen=True, kw_only=True):
    """As CIFAR10 with the fine labels 0 to 99, from train.bin and test.bin.

    In `root` or `root`/cifar-100-binary.
    """

    root: str
    train: bool = False

    def open(self) -> Samples:
        """Return the samples."""
        name = "train.bin" if self.train else "test.bin"
        return _read_cifar(self.root, "CIFAR100", "cifar-100", [name], 2)


class ImageFolder(Dataset, frozen=True, kw_only=True):
    """Image files, `root`/CLASS/NAME.jpg: RGB bytes (H, W, 3); classes count from 0 by name.

    `labels` names a text file instead, one `NAME LABEL` a line, names relative to `root`.
    """

    root: str
    labels: str | None = None

    def open(self) -> Samples:
        """Return the samples; a file is read when its turn comes."""
        root = _folder(self.root, "ImageFolder")
        if self.labels is not None:
            return _listed_images(root, Path(self.labels))
        classes = sorted(path for path in root.iterdir() if path.is_dir())
        found = [(file, n) for n, folder in enumerate(classes) for file in image_files(folder)]
        if not found:
            raise DataError(
                f"ImageFolder: '{root}' holds no images in folders, one a class; accepted are "
                f"{', '.join(sorted(ENDINGS))} files, or name a file of labels with 'labels'"
            )
        return Computed(len(found), lambda number: (read_image(found[number][0]), found[number][1]))


class ImagenetRaw(Dataset, frozen=True, kw_only=True):
    """Image files with a list: `image_list` has one `NAME LABEL` a line, names in `data_path`.

    Without `image_list`: `data_path`/val_map.txt.
    """

    data_path: str
    image_list: str | None = None

    def open(self) -> Samples:
        """Return the samples; a file is read when its turn comes."""
        root = _folder(self.data_path, "ImagenetRaw")
        return _listed_images(root, Path(self.image_list or root / "val_map.txt"))


class Npz(Dataset, frozen=True, kw_only=True):
    """Arrays of an .npz file, samples along axis 0.

    `inputs` names those that the model takes, in its order; without it: all but the label. `label`
    names the labels; without it: an array called label, labels, target, targets, y or y_test.
    """

    path: str
    inputs: tuple[str, ...] | None = None
    label: str | None = None

    def open(self) -> Samples:
        """Return the samples."""
        path = Path(self.path)
        names = array_names(path)
        label = self.label or next((name for name in LABEL_NAMES if name in names), None)
        inputs = self.inputs or tuple(name for name in names if name != label)
        if not inputs:
            raise DataError(f"data file '{path}' holds no array beside the labels '{label}'")
        arrays = {name: read_array(path, name) for name in (*inputs, *([label] if label else []))}
        counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
        if len(set(counts.values())) != 1 or 0 in counts.values():
            text = ", ".join(f"{name}: {count}" for name, count in counts.items())
            raise DataError(
                f"data file '{path}' holds different numbers of samples ({text}); every array "
                "needs as many, along axis 0"
            )
        return Arrays(tuple(arrays[name] for name in inputs), arrays[label] if label else None)


# ---- what several data sets need ----


def _folder(root: str, name: str) -> Path:
    path = Path(root).expanduser()
    if not path.is_dir():
        raise DataError(
            f"{name}: the folder '{root}' does not exist (looked from the working directory); "
            "lowprec downloads nothing: put the files there, or correct the path"
        )
    return path


def _find_idx(places: list[Path], stem: str, rank: int) -> Path | None:
    names = [
        f"{stem}{separator}idx{rank}-ubyte{ending}"
        for separator in ("-", ".")
        for ending in ("", ".gz")
    ]
    candidates = (place / name for place in places for name in names)
    return next((path for path in candidates if path.is_file()), None)


def _images_and_labels(images: Array, labels: Array, where: Path) -> Samples:
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(images):
        raise DataError(
            f"'{where}' holds images of shape {list(images.shape)} and labels of shape "
            f"{list(labels.shape)}; there must be as many labels as images, and at least one"
        )
    return Arrays((images[..., None],), labels.astype(np.int64))


def _read_cifar(root: str, name: str, stem: str, files: list[str], labels: int) -> Samples:
    folder = _folder(root, name)
    places = [folder, folder / f"{stem}-bin", folder / f"{stem}-binary"]
    place = next((place for place in places if all((place / f).is_file() for f in files)), None)
    if place is None:
        pickled = [folder / f"{stem}-py", folder / f"{stem}-python", folder / "data_batch_1"]
        hint = (
            "the Python version there is pickled, which runs code when it is read, and is refused"
            if any(path.exists() for path in pickled)
            else "lowprec downloads nothing"
        )
        raise DataError(
            f"{name}: '{folder}' holds no {', '.join(files)}; {hint}: put the files of the binary "
            "version there"
        )
    record = labels + 32 * 32 * 3
    parts = []
    for path in (place / file for file in files):
        size = path.stat().st_size
        if size == 0 or size % record or size > 50_000 * record:
            raise DataError(
                f"data file '{path}' has {size} bytes; a file of {name} has 1 to 50,000 records "
                f"of {record}"
            )
        parts.append(np.fromfile(path, np.uint8).reshape(-1, record))
    records = np.concatenate(parts)
    images = records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Arrays((images,), records[:, labels - 1].astype(np.int64))


def _listed_images(root: Path, listing: Path) -> Samples:
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise DataError(f"the list of labels '{listing}' cannot be read: {reason}") from None
    found: list[tuple[Path, int]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.lstrip("-").isdecimal():
            raise DataError(
                f"'{listing}', line {number}: '{line[:80]}' is not a file's name, a blank and the "
                "number of its class"
            )
        found.append((root / name.strip(), int(label)))
    if not found:
        raise DataError(f"the list of labels '{listing}' is empty")
    return Computed(len(found), lambda number: (read_image(found[number][0]), found[number][1]))
