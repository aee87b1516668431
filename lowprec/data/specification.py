"""A data set, its transforms and its batches as a configuration writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from lowprec.config_text import (
    CHECK,
    Mistakes,
    Path,
    Source,
    convert,
    convert_value,
    dotted,
    named,
    word,
)
from lowprec.data import datasets, geometry, imagenet, made_up, transforms
from lowprec.data.datasets import Dataset
from lowprec.data.loader import Loader
from lowprec.data.transform import Transform

DATASETS: dict[str, type[Dataset]] = {
    "MNIST": datasets.MNIST,
    "FashionMNIST": datasets.FashionMNIST,
    "CIFAR10": datasets.CIFAR10,
    "CIFAR100": datasets.CIFAR100,
    "ImageFolder": datasets.ImageFolder,
    "ImagenetRaw": datasets.ImagenetRaw,
    "npz": datasets.Npz,
    "dummy": made_up.Dummy,
    "dummy_v2": made_up.DummyV2,
}
TRANSFORMS: dict[str, type[Transform]] = {
    kind.__name__: kind
    for kind in (
        geometry.Resize,
        geometry.CenterCrop,
        geometry.RandomCrop,
        geometry.RandomResizedCrop,
        geometry.RandomHorizontalFlip,
        geometry.RandomVerticalFlip,
        geometry.CropToBoundingBox,
        geometry.CropResize,
        geometry.PaddedCenterCrop,
        transforms.ToTensor,
        transforms.ToArray,
        transforms.Normalize,
        transforms.Rescale,
        transforms.Cast,
        transforms.Transpose,
        transforms.Reshape,
        transforms.AlignImageChannel,
        transforms.LabelShift,
        imagenet.BilinearImagenet,
        imagenet.ResizeCropImagenet,
        imagenet.ResizeWithAspectRatio,
    )
}


def _check_dataset(value: object, path: Path, mistakes: Mistakes) -> Any:
    found = [item for _, item in named(value, DATASETS, "a data set", path, mistakes)]
    count = len(value) if isinstance(value, (Mapping, list, tuple)) else 1
    if count != 1:
        mistakes.add(path, f"{dotted(path)} names {count} data sets; give one")
    return found[0] if found else None


def _check_transforms(value: object, path: Path, mistakes: Mistakes) -> Any:
    found = named({} if value is None else value, TRANSFORMS, "a transform", path, mistakes)
    return tuple(item for _, item in found)


class DataSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Labelled batches.

    Attributes:
        dataset: One data set: {NAME: options}.
        transform: Transforms in their order: {NAME: options, ...}, or a list of such.
        batch_size: Samples in a batch.
        last_batch: Whether a last batch that is not full is kept (rollover) or discarded.
        shuffle: Take the samples in a random order that repeats.
        seed: Of that order and of random transforms.
        limit: Samples to take, at most; null: all.
    """

    dataset: Annotated[Any, Meta(extra={CHECK: _check_dataset})]
    transform: Annotated[Any, Meta(extra={CHECK: _check_transforms})] = ()
    batch_size: Annotated[int, Meta(ge=1, le=65536)] = 1
    last_batch: Literal["rollover", "discard"] = "rollover"
    shuffle: bool = False
    seed: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1)] | None = None

    def open(self) -> Loader:
        """Return the batches.

        Raises:
            DataError: files are missing or damaged.
        """
        return Loader(
            self.dataset.open(),
            self.transform,
            batch_size=self.batch_size,
            last_batch=self.last_batch,
            shuffle=self.shuffle,
            seed=self.seed,
            limit=self.limit,
        )


def open_data(specification: Mapping[str, Any]) -> Loader:
    """Return the labelled batches that a mapping describes.

    Args:
        specification: {dataset: {NAME: options}, transform: {NAME: options}, batch_size: 1, ...}.

    Raises:
        ConfigError: an unknown name, key or value; all of them at once.
        DataError: files are missing or damaged.
    """
    return convert(specification, DataSpec, Source(None, "data")).open()


def check_data(value: object, path: Path, mistakes: Mistakes) -> object:
    """Note what is wrong with a mapping that describes data; paths and null are always right.

    Returns:
        `value`, which stays plain data.
    """
    if isinstance(value, Mapping):
        convert_value(value, DataSpec, path, mistakes)
    elif value is not None and not isinstance(value, str):
        mistakes.add(
            path,
            f"{dotted(path)} is {word(value)}; accepted are a path, module:function, or a mapping "
            f"with the keys {', '.join(DataSpec.__struct_fields__)}",
        )
    return value
