"""Transforms of rows and columns equal Pillow's, and the published definitions, exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from lowprec.data import geometry
from lowprec.data.geometry import (
    CenterCrop,
    CropResize,
    CropToBoundingBox,
    PaddedCenterCrop,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    Resize,
)
from lowprec.data.resize import resize
from lowprec.errors import DataError

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (61, 83, 3), dtype=np.uint8)
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("size", [(32, 32), (200, 100), (61, 40), (7, 83), (1, 1), (123, 167)])
def test_bytes_are_resized_as_pillow_does_it_bit_for_bit(interpolation, size):
    height, width = size
    ours = Resize(size=size, interpolation=interpolation).apply(PHOTO, rng())
    theirs = Image.fromarray(PHOTO).resize((width, height), FILTERS[interpolation])
    np.testing.assert_array_equal(ours, np.asarray(theirs))
    grey = Resize(size=size, interpolation=interpolation).apply(PHOTO[:, :, 0], rng())
    theirs = Image.fromarray(PHOTO[:, :, 0]).resize((width, height), FILTERS[interpolation])
    np.testing.assert_array_equal(grey, np.asarray(theirs))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_floats_are_resized_as_pillow_does_it(interpolation):
    image = RNG.normal(size=(40, 50)).astype(np.float32)
    theirs = Image.fromarray(image).resize((23, 71), FILTERS[interpolation])
    ours = resize(image, 71, 23, interpolation=interpolation, antialias=True)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-5, atol=1e-6)


def test_without_antialias_bilinear_reads_two_pixels_of_half_pixel_centres():
    image = RNG.normal(size=(9, 16)).astype(np.float32)
    result = resize(image, 9, 5, antialias=False)
    for column in range(5):
        source = (column + 0.5) * 16 / 5 - 0.5
        left = math.floor(source)
        share = source - left
        expected = (1 - share) * image[:, left] + share * image[:, left + 1]
        np.testing.assert_allclose(result[:, column], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("shape", "expected"), [((61, 83, 3), (32, 43)), ((83, 61, 3), (43, 32))])
def test_one_number_is_the_shorter_side(shape, expected):
    image = np.zeros(shape, np.uint8)
    assert Resize(size=32).apply(image, rng()).shape == (*expected, 3)


@pytest.mark.parametrize("size", [(20, 30), (21, 30), (61, 83), (70, 90), (70, 30), (20, 90)])
def test_center_crop_is_torchvision_s(size):
    height, width = size
    result = CenterCrop(size=size).apply(PHOTO, rng())
    assert result.shape == (height, width, 3)
    # torchvision: pad floor and ceil halves, then int(round((size - wanted) / 2)) on either axis.
    missing = [max(wanted - there, 0) for wanted, there in zip(size, PHOTO.shape, strict=False)]
    padded = np.pad(PHOTO, [*[(lack // 2, (lack + 1) // 2) for lack in missing], (0, 0)])
    top = round((padded.shape[0] - height) / 2.0)
    left = round((padded.shape[1] - width) / 2.0)
    np.testing.assert_array_equal(result, padded[top : top + height, left : left + width])


def test_channels_first_gives_the_same_pixels():
    planes = np.ascontiguousarray(PHOTO.transpose(2, 0, 1))
    for transform in (
        Resize(size=(20, 21)),
        CenterCrop(size=17),
        RandomCrop(size=17),
        RandomResizedCrop(size=19),
        RandomHorizontalFlip(p=1),
        RandomVerticalFlip(p=1),
        CropToBoundingBox(offset_height=3, offset_width=4, target_height=5, target_width=6),
        CropResize(x=1, y=2, width=30, height=20, size=(9, 8)),
        PaddedCenterCrop(size=32, crop_padding=8),
    ):
        last = transform.apply(PHOTO, rng(3))
        first = transform.apply(planes, rng(3))
        np.testing.assert_array_equal(first, last.transpose(2, 0, 1))


def test_flips_and_boxes():
    np.testing.assert_array_equal(RandomHorizontalFlip(p=1).apply(PHOTO, rng()), PHOTO[:, ::-1])
    np.testing.assert_array_equal(RandomVerticalFlip(p=1).apply(PHOTO, rng()), PHOTO[::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(p=0).apply(PHOTO, rng()), PHOTO)
    box = CropToBoundingBox(offset_height=3, offset_width=4, target_height=5, target_width=6)
    np.testing.assert_array_equal(box.apply(PHOTO, rng()), PHOTO[3:8, 4:10])
    with refused(DataError, "row 63", "61 x 83", "resize"):
        CropToBoundingBox(offset_height=58, offset_width=4, target_height=5, target_width=6).apply(
            PHOTO, rng()
        )
    part = CropResize(x=1, y=2, width=30, height=20, size=(9, 8)).apply(PHOTO, rng())
    expected = Image.fromarray(PHOTO[2:22, 1:31]).resize((8, 9), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(part, np.asarray(expected))


def test_half_of_many_flips_happen():
    image = np.arange(2, dtype=np.uint8)[None]
    flips = sum(RandomHorizontalFlip().apply(image, rng(n))[0, 0] for n in range(400))
    assert 150 < flips < 250


def test_padded_center_crop_is_efficientnet_s():
    side = int(32 / (32 + 8) * 61)
    top, left = (61 - side + 1) // 2, (83 - side + 1) // 2
    result = PaddedCenterCrop(size=32, crop_padding=8).apply(PHOTO, rng())
    np.testing.assert_array_equal(result, PHOTO[top : top + side, left : left + side])


def test_random_resized_crops_keep_scale_and_ratio():
    transform = RandomResizedCrop(size=8, scale=(0.2, 0.5), ratio=(0.5, 2.0))
    parts = [transform._part(61, 83, rng(n)) for n in range(200)]
    for top, left, height, width in parts:
        assert 0 <= top <= 61 - height
        assert 0 <= left <= 83 - width
        assert 0.18 < height * width / (61 * 83) < 0.52
        assert 0.46 < width / height < 2.2
    assert len(set(parts)) > 190
    # What no draw can fit: the middle, with the nearest ratio.
    narrow = RandomResizedCrop(size=8, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert narrow._part(10, 100, rng()) == (0, 45, 10, 10)


def test_random_crops_stay_inside():
    corners = {tuple(RandomCrop(size=59).apply(PHOTO, rng(n))[0, 0]) for n in range(60)}
    assert len(corners) > 20
    with refused(DataError, "RandomCrop", "resize first"):
        RandomCrop(size=62).apply(PHOTO, rng())


def test_what_is_no_image_is_refused():
    for shape in ((3,), (2, 3, 4, 5), (0, 3, 3)):
        with refused(DataError, "no image"):
            CenterCrop(size=2).apply(np.zeros(shape, np.uint8), rng())
    with refused(DataError, "pixels"):
        Resize(size=(65536, 65536)).apply(PHOTO, rng())


@pytest.mark.parametrize("kind", [Resize, CenterCrop, RandomCrop, PaddedCenterCrop])
def test_sizes_have_one_or_two_numbers(kind):
    with pytest.raises(ValueError, match="height, width"):
        kind(size=(1, 2, 3))
    assert geometry._pair((5,)) == (5, 5)
