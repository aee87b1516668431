"""Data sets read what people have, in every place it may lie; damage is named, never believed."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from lowprec.data import open_data
from lowprec.data.specification import DATASETS
from lowprec.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 28, 28), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 20, dtype=np.uint8)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    head = struct.pack(">BBBB", 0, 0, kind, array.ndim)
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, *, packed: bool, part: str = "t10k", dot: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((f"{part}-images", IMAGES), (f"{part}-labels", LABELS)):
        file = f"{name}{'.' if dot else '-'}idx{array.ndim}-ubyte"
        content = idx(array)
        if packed:
            (folder / f"{file}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / file).write_bytes(content)


def samples(name: str, **options):
    return open_data({"dataset": {name: options}}).samples


@pytest.mark.parametrize("place", [".", "MNIST", "raw", "MNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_mnist_files_are_found_packed_or_not(tmp_path, place, packed):
    write_idx(tmp_path / place, packed=packed)
    found = samples("MNIST", root=str(tmp_path))
    assert len(found) == 20
    image, label = found[3]
    np.testing.assert_array_equal(image, IMAGES[3, :, :, None])
    assert label == LABELS[3]


def test_training_half_and_the_other_spelling(tmp_path):
    write_idx(tmp_path, packed=False, part="train", dot=True)
    assert len(samples("FashionMNIST", root=str(tmp_path), train=True)) == 20
    with refused(DataError, "FashionMNIST", "t10k-images-idx3-ubyte", "downloads nothing"):
        samples("FashionMNIST", root=str(tmp_path))


def test_mnist_npz(tmp_path):
    np.savez(tmp_path / "mnist.npz", x_test=IMAGES, y_test=LABELS, x_train=IMAGES[:3],
             y_train=LABELS[:3])  # fmt: skip
    assert len(samples("MNIST", root=str(tmp_path))) == 20
    assert len(samples("MNIST", root=str(tmp_path), train=True)) == 3


def test_missing_folder(tmp_path):
    with refused(DataError, "MNIST", "none", "does not exist", "downloads nothing"):
        samples("MNIST", root=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["no idx file"]),
        (b"\x01\x02\x08\x03" + bytes(12), ["no idx file"]),
        (idx(IMAGES.astype(np.float32), 13), ["type 13"]),
        (idx(LABELS), ["in 1 dimensions"]),
        (idx(IMAGES)[:-1], ["fewer than the 15680 bytes"]),
        (idx(IMAGES) + b"x", ["more than the 15680 bytes"]),
        (b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1), ["at most"]),
        (b"\0\0\x08\x03" + struct.pack(">3I", 2**20, 1000, 1), ["fewer than"]),
        (idx(IMAGES[:7]), ["[7, 28, 28]", "as many labels"]),
        (idx(IMAGES[:0]), ["[0, 28, 28]", "as many labels"]),
    ],
)
def test_damaged_idx_files(tmp_path, content, words):
    write_idx(tmp_path, packed=False)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(content)
    with refused(DataError, *words):
        samples("MNIST", root=str(tmp_path))


def test_damaged_gzip(tmp_path):
    write_idx(tmp_path, packed=True)
    file = tmp_path / "t10k-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for content in (whole[:-20], b"no gzip", whole[:100] + b"\xff" * 40 + whole[140:]):
        file.write_bytes(content)
        with refused(DataError, "t10k-images-idx3-ubyte.gz", "fetch or copy it again"):
            samples("MNIST", root=str(tmp_path))


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    write_idx(tmp_path, packed=True)
    head = b"\0\0\x08\x03" + struct.pack(">3I", 1, 28, 28)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + bytes(1 << 24)))
    with refused(DataError, "more than the 784 bytes"):
        samples("MNIST", root=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "file", "labels", "folder"),
    [
        ("CIFAR10", "test_batch.bin", 1, "cifar-10-batches-bin"),
        ("CIFAR100", "test.bin", 2, "cifar-100-binary"),
    ],
)
def test_cifar_binary_version(tmp_path, name, file, labels, folder):
    photos = RNG.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    numbers = np.arange(5 * labels, dtype=np.uint8).reshape(5, labels)
    records = np.concatenate([numbers, photos.reshape(5, -1)], axis=1)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / file).write_bytes(records.tobytes())
    found = samples(name, root=str(tmp_path))
    assert len(found) == 5
    image, label = found[2]
    np.testing.assert_array_equal(image, photos[2].transpose(1, 2, 0))
    assert label == numbers[2, -1]
    (tmp_path / folder / file).write_bytes(records.tobytes()[:-1])
    with refused(DataError, file, "records of"):
        samples(name, root=str(tmp_path))


def test_pickled_cifar_is_refused(tmp_path):
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": 1}))
    with refused(DataError, "CIFAR10", "pickled", "binary version"):
        samples("CIFAR10", root=str(tmp_path))


def make_folder(root: Path) -> None:
    for number, (folder, name) in enumerate(
        [("cat", "b.png"), ("cat", "a.png"), ("ant", "x/deep.bmp"), ("dog", "d.PNG")]
    ):
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6, 5, 3), number, np.uint8)).save(path)
    (root / "cat" / "notes.txt").write_text("not an image")


def test_image_folder_counts_classes_by_name(tmp_path):
    make_folder(tmp_path)
    found = samples("ImageFolder", root=str(tmp_path))
    pairs = [(int(image[0, 0, 0]), label) for image, label in (found[n] for n in range(len(found)))]
    assert pairs == [(2, 0), (1, 1), (0, 1), (3, 2)]
    assert found[0][0].shape == (6, 5, 3)


@pytest.mark.parametrize("kind", ["ImageFolder", "ImagenetRaw"])
def test_lists_of_labels(tmp_path, kind):
    make_folder(tmp_path)
    listing = tmp_path / "val_map.txt"
    listing.write_text("cat/a.png 7\n\ndog/d.PNG 3\n")
    if kind == "ImageFolder":
        found = samples(kind, root=str(tmp_path), labels=str(listing))
    else:
        found = samples(kind, data_path=str(tmp_path))
    assert [found[n][1] for n in range(len(found))] == [7, 3]
    listing.write_text("cat/a.png 7\ncat/b.png seven\n")
    with refused(DataError, "line 2", "seven"):
        samples("ImagenetRaw", data_path=str(tmp_path))
    listing.write_text("gone.png 1\n")
    with refused(DataError, "gone.png", "cannot be read"):
        samples("ImagenetRaw", data_path=str(tmp_path))[0]


def test_bad_image_files(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "ant" / "x" / "deep.bmp").write_bytes(b"BM not a picture")
    with refused(DataError, "deep.bmp", "replace it"):
        samples("ImageFolder", root=str(tmp_path))[0]
    # A header that declares 60,000 x 60,000 pixels.
    (tmp_path / "ant" / "x" / "deep.pgm").write_bytes(b"P5 60000 60000 255\n")
    (tmp_path / "ant" / "x" / "deep.bmp").unlink()
    with refused(DataError, "deep.pgm", "pixels"):
        samples("ImageFolder", root=str(tmp_path))[0]
    (tmp_path / "empty").mkdir()
    with refused(DataError, "holds no images"):
        samples("ImageFolder", root=str(tmp_path / "empty"))


def test_npz_finds_labels_and_inputs(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, a=np.zeros((4, 3), np.float32), b=np.ones((4, 2)), y=np.arange(4))
    inputs, label = samples("npz", path=str(path))[2]
    assert [part.shape for part in inputs] == [(3,), (2,)]
    assert label == 2
    only, label = samples("npz", path=str(path), inputs=["b"], label="a")[1]
    assert only.shape == (2,)
    assert label.shape == (3,)
    with refused(DataError, "no array 'c'", "a, b, y"):
        samples("npz", path=str(path), inputs=["c"])
    np.savez(path, x=np.zeros((4, 3)), y=np.arange(3))
    with refused(DataError, "x: 4, y: 3"):
        samples("npz", path=str(path))
    np.savez(path, x=np.array([{}], object))
    with refused(DataError, "pickled"):
        samples("npz", path=str(path))
    path.write_bytes(b"PK no archive")
    with refused(DataError, "set.npz", "no .npz archive"):
        samples("npz", path=str(path))


def test_npz_headers_are_not_believed(tmp_path):
    import zipfile

    path = tmp_path / "set.npz"
    for shape, words in (((1 << 40,), ["at most"]), ((9,), ["does not hold them"])):
        head = str({"descr": "<f4", "fortran_order": False, "shape": shape}).encode().ljust(117)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + head + b"\n")
        with refused(DataError, "'x'", *words):
            samples("npz", path=str(path))


def test_dummies_repeat_and_have_their_shapes():
    one = samples("dummy", shape=[5, 3, 4], low=2, high=3)
    assert len(one) == 5
    image, label = one[1]
    assert image.shape == (3, 4)
    assert image.dtype == np.float32
    assert label == 0
    assert image.min() >= 2
    assert image.max() < 3
    np.testing.assert_array_equal(image, samples("dummy", shape=[5, 3, 4], low=2, high=3)[1][0])
    assert not np.array_equal(image, one[2][0])
    several = samples("dummy", shape=[[2, 3], [2, 4]], dtype=["int64", "bool"], label=False)
    inputs, label = several[0]
    assert [part.dtype for part in inputs] == [np.int64, bool]
    assert label is None
    two = samples("dummy_v2", input_shape=[3, 3], label_shape=[2], low=0, high=1)
    assert len(two) == 128
    assert two[0][1].shape == (2,)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ({"dummy": {"shape": []}}, ["shape"]),
        ({"dummy": {"shape": [3, [4]]}}, ["list of sizes"]),
        ({"dummy": {"shape": [[3, 1], [4, 1]]}}, ["same number of samples"]),
        ({"dummy": {"shape": [1, 1 << 20, 1 << 20]}}, ["at most"]),
        ({"dummy": {"shape": [3, 3], "low": [1, 2]}}, ["2 entries for 1"]),
        ({"dummy": {"shape": [3, 3], "low": 5, "high": 1}}, ["above high"]),
        ({"dummy": {"shape": [3, 3], "dtype": "str"}}, ["dtype", "float32"]),
        ({"MNIST": {}}, ["no 'root'"]),
        ({"MNIST": {"root": "a"}, "npz": {"path": "b"}}, ["names 2 data sets"]),
        ({"TFRecord": {}}, ["TFRecord", "accepted are MNIST"]),
        (3, ["dataset is 3"]),
    ],
)
def test_wrong_data_sets_are_named(dataset, words):
    with refused(ConfigError, *words):
        open_data({"dataset": dataset})


def test_every_data_set_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "metrics_and_data.md").read_text()
    for name in DATASETS:
        assert f"| `{name}`" in page
