"""Networks on pictures for bench_torch.py: ResNet-50, MobileNetV2, a U-Net, a Fashion-MNIST CNN.

Written by hand after the papers, with seeded weights; what a batch norm remembers comes from
pictures that the network has really seen, so that every layer's values have a realistic spread.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_MEAN, FASHION_DEVIATION = 0.2860, 0.3530


def conv_norm(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    padding = kernel // 2
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut (He et al. 2016, arXiv:1512.03385; stride in the 3x3)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.branch = nn.Sequential(
            *conv_norm(inputs, width, 1),
            nn.ReLU(inplace=True),
            *conv_norm(width, width, 3, stride=stride),
            nn.ReLU(inplace=True),
            *conv_norm(width, outputs, 1),
        )
        is_same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity()
            if is_same
            else nn.Sequential(*conv_norm(inputs, outputs, 1, stride=stride))
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.branch(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """(N, 3, H, W) -> (N, classes); `counts` are the blocks of each of its four stages."""

    def __init__(self, counts: Sequence[int] = (3, 4, 6, 3), classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *conv_norm(3, 64, 7, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        )
        blocks, inputs = [], 64
        for stage, count in enumerate(counts):
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(Bottleneck(inputs, 64 << stage, stride))
                inputs = 4 * (64 << stage)
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.blocks(self.stem(x)))
        return self.classifier(torch.flatten(x, 1))


class InvertedResidual(nn.Module):
    """Expand, depthwise 3x3, project (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [*conv_norm(inputs, width, 1), nn.ReLU6(inplace=True)]
        layers += [*conv_norm(width, width, 3, stride=stride, groups=width), nn.ReLU6(inplace=True)]
        self.branch = nn.Sequential(*layers, *conv_norm(width, outputs, 1))
        self.is_added = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x) if self.is_added else self.branch(x)


class MobileNetV2(nn.Module):
    """(N, 3, H, W) -> (N, classes); no stage has more than `most` blocks."""

    SETTINGS = (  # expansion, channels, blocks, stride of the first
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self, most: int = 4, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [*conv_norm(3, 32, 3, stride=2), nn.ReLU6(inplace=True)]
        inputs = 32
        for expansion, channels, count, stride in self.SETTINGS:
            for index in range(min(count, most)):
                first = stride if index == 0 else 1
                layers.append(InvertedResidual(inputs, channels, first, expansion))
                inputs = channels
        layers += [*conv_norm(inputs, 1280, 1), nn.ReLU6(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


class UNet(nn.Module):
    """(N, 3, H, W) -> (N, classes, H, W), H and W multiples of 16 (Ronneberger et al. 2015)."""

    def __init__(self, classes: int = 2, base: int = 32, levels: int = 4) -> None:
        super().__init__()
        widths = [base << level for level in range(levels + 1)]
        self.down = nn.ModuleList(
            self.two_convs(inputs, outputs)
            for inputs, outputs in zip([3, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(2 * width, width, 2, 2) for width in reversed(widths[:-1])
        )
        self.merge = nn.ModuleList(
            self.two_convs(2 * width, width) for width in reversed(widths[:-1])
        )
        self.classifier = nn.Conv2d(base, classes, 1)

    @staticmethod
    def two_convs(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(
            *conv_norm(inputs, outputs, 3),
            nn.ReLU(inplace=True),
            *conv_norm(outputs, outputs, 3),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([up(x), skips.pop()], 1))
        return self.classifier(x)


class FashionNet(nn.Module):
    """(N, 1, 28, 28) -> (N, 10): two convolutions and two linear layers, 421 k parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *conv_norm(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
            *conv_norm(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * 7 * 7, 128), nn.BatchNorm1d(128), nn.ReLU(),
            nn.Linear(128, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x))


# ---- weights -------------------------------------------------------------------------------------
def with_seeded_weights(
    network: nn.Module, batches: Sequence[torch.Tensor], seed: int = 0
) -> nn.Module:
    """Return `network` in eval mode: He et al.'s weights, batch norms that have seen `batches`.

    Args:
        network: Its weights are replaced.
        batches: (N, C, H, W) each; N * H * W large enough for a variance.
        seed: Of every draw.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.05, generator=generator)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.6, 1.4, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
            module.momentum = None  # the mean of all batches
    for block in network.modules():
        if isinstance(block, (Bottleneck, InvertedResidual)):
            with torch.no_grad():  # or sums of sixteen branches grow and grow
                block.branch[-1].weight *= 0.4
    network.train()
    with torch.no_grad():
        for batch in batches:
            network(batch)
    return network.eval()


def pictures(
    count: int, seed: int, channels: int = 3, height: int = 224, width: int = 224
) -> torch.Tensor:
    """Return (count, channels, height, width) of mean 0 and deviation 1: smooth blots and grain."""
    generator = torch.Generator().manual_seed(seed)
    blots = torch.randn(count, channels, 8, 8, generator=generator)
    made = nn.functional.interpolate(blots, (height, width), mode="bilinear", align_corners=True)
    made = made + 0.2 * torch.randn(made.shape, generator=generator)
    return (made - made.mean((1, 2, 3), keepdim=True)) / made.std((1, 2, 3), keepdim=True)


# ---- Fashion-MNIST -------------------------------------------------------------------------------
def has_fashion() -> bool:
    return FASHION.exists()


def fashion(part: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first `count` pictures (N, 1, 28, 28) and classes of "train" or "t10k".

    Raises:
        FileNotFoundError: Debian's dataset-fashion-mnist is not installed.
    """

    def read(name: str, header: int) -> NDArray[np.uint8]:
        with gzip.open(FASHION / f"{part}-{name}-ubyte.gz") as file:
            file.read(header)
            return np.frombuffer(file.read(), np.uint8)

    raw = read("images-idx3", 16).reshape(-1, 1, 28, 28)[:count]
    labels = read("labels-idx1", 8)[:count]
    scaled = (raw.astype(np.float32) / 255 - FASHION_MEAN) / FASHION_DEVIATION
    return torch.from_numpy(scaled), torch.from_numpy(labels.astype(np.int64))


def trained_fashion_net(count: int = 60_000, seed: int = 0) -> nn.Module:
    """Return a FashionNet in eval mode after one epoch over the first `count` pictures.

    Raises:
        FileNotFoundError: as `fashion` does.
    """
    images, labels = fashion("train", count)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = FashionNet().train()
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for chosen in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(images[chosen]), labels[chosen])
            loss.backward()
            optimizer.step()
    return network.requires_grad_(False).eval()
