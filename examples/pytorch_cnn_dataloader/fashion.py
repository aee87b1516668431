"""A CNN is trained on Fashion-MNIST and quantised with the DataLoader that it was trained with.

    python fashion.py [--images 6000] [--data FOLDER]

FOLDER holds train-images-idx3-ubyte.gz and its three companions (the Debian package
dataset-fashion-mnist puts them into the default one). Without them the example draws ten kinds of
textures instead. Needs lowprec[torch].
"""

from __future__ import annotations

import argparse
import gzip
import timeit
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lowprec

FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def read_idx(folder: Path, part: str, count: int) -> TensorDataset:
    """Return the first pictures and labels of a part, 'train' or 't10k'."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + count * 784), np.uint8, offset=16)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + count), np.uint8, offset=8)
    pictures = torch.tensor(pixels.reshape(-1, 1, 28, 28) / 255.0, dtype=torch.float32)
    return TensorDataset(pictures, torch.tensor(labels, dtype=torch.int64))


def draw_textures(count: int, seed: int) -> TensorDataset:
    """Return stripes of ten directions in noise."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 10
    angle = labels * torch.pi / 10
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    wave = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
    shift = torch.rand(count, 1, 1, generator=random) * 6
    noise = torch.randn(count, 28, 28, generator=random)
    return TensorDataset((torch.sin(wave + shift) + 0.7 * noise)[:, None], labels)


def build_network() -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(
        *block(1, 32), *block(32, 64), nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(),
        nn.Linear(128, 10),
    )  # fmt: skip


def train(network: nn.Module, loader: DataLoader) -> None:
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    network.train()
    for pictures, labels in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(pictures), labels).backward()
        optimizer.step()
    network.eval()


def accuracy(network: nn.Module, loader: DataLoader) -> float:
    right = total = 0
    with torch.no_grad():
        for pictures, labels in loader:
            right += int((network(pictures).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


def milliseconds(network: nn.Module, pictures: torch.Tensor) -> float:
    with torch.no_grad():
        network(pictures)
        return 1e3 * min(timeit.repeat(lambda: network(pictures), number=1, repeat=20))


def megabytes(network: nn.Module) -> float:
    return sum(t.numel() * t.element_size() for t in network.state_dict().values()) / 1e6


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=6000, help="to train with")
    parser.add_argument("--data", type=Path, default=Path(FASHION_MNIST))
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    tested = max(options.images // 4, 100)
    if (options.data / "train-images-idx3-ubyte.gz").exists():
        train_set = read_idx(options.data, "train", options.images)
        test_set = read_idx(options.data, "t10k", tested)
    else:
        print(f"no Fashion-MNIST in {options.data}; textures instead")
        train_set, test_set = draw_textures(options.images, 1), draw_textures(tested, 2)
    loader = DataLoader(train_set, batch_size=64, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=100)

    network = build_network()
    train(network, loader)
    # The labels that the loader yields are dropped; four batches of 64 are plenty.
    quantized = lowprec.quantize(network, loader, config={"calibration": {"samples": 4}})
    print(quantized.report)
    print(f"\n{'':8}{'accuracy':>10}{'1 picture':>12}{'64 pictures':>14}{'size':>10}")
    pictures = next(iter(loader))[0]
    for name, module in (("float", network), ("int8", quantized)):
        print(
            f"{name:8}{accuracy(module, test_loader):10.3f}"
            f"{milliseconds(module, pictures[:1]):9.3f} ms"
            f"{milliseconds(module, pictures):11.3f} ms{megabytes(module):7.2f} MB"
        )


if __name__ == "__main__":
    main()
