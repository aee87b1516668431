"""Transforms of values, axes and labels do what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

from lowprec.data import open_data
from lowprec.data.imagenet import BilinearImagenet, ResizeCropImagenet, ResizeWithAspectRatio
from lowprec.data.resize import resize
from lowprec.data.specification import TRANSFORMS
from lowprec.data.transforms import (
    AlignImageChannel,
    Cast,
    LabelShift,
    Normalize,
    Rescale,
    Reshape,
    ToArray,
    ToTensor,
    Transpose,
)
from lowprec.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (11, 13, 3), dtype=np.uint8)
ANY = np.random.default_rng(1)


def test_to_tensor_is_torchvision_s():
    result = ToTensor().apply(PHOTO, ANY)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, PHOTO.transpose(2, 0, 1).astype(np.float32) / 255)
    assert ToTensor().apply(PHOTO[:, :, 0], ANY).shape == (1, 11, 13)
    floats = PHOTO.astype(np.float32)
    np.testing.assert_array_equal(ToTensor().apply(floats, ANY), floats.transpose(2, 0, 1))
    with refused(DataError, "2 or 3 dimensions"):
        ToTensor().apply(np.zeros(3), ANY)


def test_normalize_finds_the_channels_on_either_side():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    normalize = Normalize(mean=mean, std=std)
    values = PHOTO.astype(np.float32)
    expected = (values - np.float32(mean)) / np.float32(std)
    np.testing.assert_array_equal(normalize.apply(PHOTO, ANY), expected)
    planes = normalize.apply(PHOTO.transpose(2, 0, 1), ANY)
    np.testing.assert_array_equal(planes, expected.transpose(2, 0, 1))
    assert planes.dtype == np.float32
    one = Normalize(mean=(4.0,), std=(2.0,), rescale=(5.0, 1.0)).apply(values, ANY)
    np.testing.assert_allclose(one, (values - 4) / 2 / 5 - 1, rtol=1e-5, atol=1e-6)
    with refused(DataError, "3 numbers", "[11, 13]"):
        normalize.apply(PHOTO[:, :, 0], ANY)


def test_values_and_axes():
    np.testing.assert_array_equal(Rescale().apply(PHOTO, ANY), PHOTO.astype(np.float32) / 255)
    assert ToArray().apply(PHOTO, ANY) is PHOTO
    assert Cast(dtype="float16").apply(PHOTO, ANY).dtype == np.float16
    np.testing.assert_array_equal(
        Cast(dtype="uint8").apply(np.array([-3.0, 1.9, 300.0]), ANY), [0, 1, 255]
    )
    turned = Transpose(perm=(2, 0, 1)).apply(PHOTO, ANY)
    np.testing.assert_array_equal(turned, PHOTO.transpose(2, 0, 1))
    assert Reshape(shape=(-1, 13)).apply(PHOTO, ANY).shape == (33, 13)
    with refused(DataError, "does not fit", "[7, 7]"):
        Reshape(shape=(7, 7)).apply(PHOTO, ANY)
    with refused(DataError, "3 axes", "the sample has 2"):
        Transpose(perm=(2, 0, 1)).apply(PHOTO[0], ANY)


def test_channels_are_aligned():
    assert AlignImageChannel(dim=3).apply(PHOTO[..., 0], ANY).shape == (11, 13, 3)
    rgba = np.concatenate([PHOTO, PHOTO[..., :1]], axis=-1)
    np.testing.assert_array_equal(AlignImageChannel(dim=3).apply(rgba, ANY), PHOTO)
    grey = AlignImageChannel(dim=1).apply(PHOTO, ANY)
    exact = 0.299 * PHOTO[..., 0] + 0.587 * PHOTO[..., 1] + 0.114 * PHOTO[..., 2]
    assert np.abs(grey[..., 0] - exact).max() <= 0.5
    with refused(DataError, "cannot make 2"):
        AlignImageChannel(dim=2).apply(PHOTO, ANY)


def test_labels_shift_and_the_image_stays():
    assert LabelShift(label_shift=1).apply_to_label(3) == 2
    assert LabelShift(label_shift=1).apply(PHOTO, ANY) is PHOTO


def test_bilinear_imagenet_is_inception_s():
    image = RNG.integers(0, 256, (40, 48, 3), dtype=np.uint8)
    result = BilinearImagenet(height=8, width=9, mean_value=(0.1, 0.2, 0.3), scale=2.0).apply(
        image, ANY
    )
    top, left = int((40 - 40 * 0.875) / 2), int((48 - 48 * 0.875) / 2)
    middle = (image / np.float32(255)).astype(np.float32)[top : 40 - top, left : 48 - left]
    expected = (resize(middle, 8, 9, antialias=False) - 0.5) * 2
    np.testing.assert_allclose(result, (expected - [0.1, 0.2, 0.3]) * 2, rtol=1e-5, atol=1e-6)
    assert result.dtype == np.float32


def test_resize_crop_imagenet_has_two_ways_to_normalise():
    image = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    resized = resize(image.astype(np.float32), 32, 48, antialias=False)[2:30, 10:38]
    options = {"height": 28, "width": 28, "resize_side": 32}
    result = ResizeCropImagenet(**options, mean_value=(1.0, 2.0, 3.0), scale=0.5).apply(image, ANY)
    np.testing.assert_allclose(result, (resized - [1, 2, 3]) * 0.5, rtol=1e-5, atol=1e-4)
    result = ResizeCropImagenet(
        **options,
        mean_value=(0.1, 0.2, 0.3),
        std_value=(0.5, 0.6, 0.7),
        data_format="channels_first",
        subpixels="BGR",
    ).apply(image, ANY)
    expected = (resized[..., ::-1] / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    np.testing.assert_allclose(result, expected.transpose(2, 0, 1), rtol=1e-4, atol=1e-5)
    with refused(DataError, "raise resize_side"):
        ResizeCropImagenet(height=64, width=28, resize_side=32).apply(image, ANY)


def test_resize_with_aspect_ratio_takes_the_mean_of_areas():
    image = RNG.integers(0, 256, (60, 40, 3), dtype=np.uint8)
    result = ResizeWithAspectRatio(height=7, width=7, scale=70.0).apply(image, ANY)
    assert result.shape == (15, 10, 3)  # 40 columns become 100 * 7 / 70, 60 rows in proportion
    blocks = image.reshape(15, 4, 10, 4, 3).astype(np.float64).mean(axis=(1, 3))
    assert np.abs(result - blocks).max() <= 1
    values = RNG.normal(size=(5, 5)).astype(np.float32)
    shrunk = resize(values, 5, 2, interpolation="area", antialias=False)
    np.testing.assert_allclose(
        shrunk[:, 0], (values[:, 0] + values[:, 1] + values[:, 2] / 2) / 2.5, rtol=1e-5
    )
    wide = ResizeWithAspectRatio(height=8, width=8, scale=80.0).apply(image[:20], ANY)
    assert wide.shape == (10, 20, 3)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ({"Normalize": {"std": [0.0]}}, ["transform.Normalize.std", "above 0"]),
        ({"Normalize": {"mean": [1, 2], "std": [1, 2, 3]}}, ["another length"]),
        ({"Normalize": {"mean": []}}, ["empty"]),
        ({"Transpose": {"perm": [0, 0]}}, ["every axis once"]),
        ({"Transpose": {}}, ["no 'perm'"]),
        ({"Resize": {"size": 0}}, ["Resize.size is 0"]),
        ({"Resize": {"size": 5, "interpolation": "linear"}}, ["bilinear, nearest, bicubic"]),
        ({"RandomResizedCrop": {"size": 5, "scale": [1, 2]}}, ["scale"]),
        ({"RandomResizedCrop": {"size": 5, "ratio": [2, 1]}}, ["ratio"]),
        ({"Cast": {"dtype": "complex"}}, ["float32"]),
        ({"ResizeCropImagenet": {"height": 1, "width": 1, "std_value": [0]}}, ["std_value"]),
        ({"Centercrops": {"size": 3}}, ["'Centercrops'", "did you mean 'CenterCrop'"]),
        ([{"Resize": {"size": 5}}, 3], ["transform[1] is 3"]),
    ],
)
def test_wrong_options_are_named(transform, words):
    with refused(ConfigError, *words):
        open_data({"dataset": {"dummy": {"shape": [2, 4, 4]}}, "transform": transform})


def test_every_transform_is_documented():
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "metrics_and_data.md").read_text()
    for name, kind in TRANSFORMS.items():
        assert f"| `{name}`" in page
        assert kind.__doc__
