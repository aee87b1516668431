"""Folders that hold a module: what is written comes back, what is hostile is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import nn

import lowprec
from lowprec.adapters.torch import from_pretrained, save_pretrained
from lowprec.errors import LowprecError, ModelError, OutputError, UnsupportedError


class Network(nn.Module):
    names = ("cat", "dog")

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
        self.config = {"labels": {0: "cat", 1: "dog"}, "dtype": torch.float32, "sizes": [(1, 2)]}

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> dict[str, torch.Tensor]:
        return {"logits": self.head(x)}


X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def quantised() -> Any:
    torch.manual_seed(0)
    return lowprec.quantize(Network(), X)


@pytest.fixture
def folder(quantised, tmp_path) -> Path:
    save_pretrained(quantised, tmp_path / "deep" / "folder")
    return tmp_path / "deep" / "folder"


def test_a_folder_gives_the_module_again(quantised, folder):
    assert sorted(path.name for path in folder.iterdir()) == ["lowprec.json", "model.onnx"]
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]
    again = from_pretrained(folder)
    assert torch.equal(again(x=X)["logits"], quantised(X)["logits"])
    assert again.config == quantised.config
    assert again.names == ("cat", "dog")
    assert again.report.layers == quantised.report.layers
    onnx.checker.check_model(str(folder / "model.onnx"))
    assert lowprec.load(folder / "model.onnx").run({"x": X.numpy()})[0].shape == (8, 4)


def test_a_fresh_process_needs_the_adapter_only(quantised, folder):
    code = (
        "import lowprec.adapters.torch as lt, torch, sys\n"
        f"q = lt.from_pretrained({str(folder)!r})\n"
        "x = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))\n"
        "print(q(x)['logits'].sum().item(), 'transformers' in sys.modules)\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == [str(quantised(X)["logits"].sum().item()), "False"]


def test_saving_again_replaces_and_leaves_other_files(quantised, folder):
    (folder / "README.md").write_text("mine")
    torch.manual_seed(1)
    other = lowprec.compile(Network(), example_inputs=X)
    other.save_pretrained(folder)
    assert torch.equal(from_pretrained(folder)(X)["logits"], other(X)["logits"])
    assert (folder / "README.md").read_text() == "mine"


def test_a_failure_leaves_no_folder(quantised, tmp_path):
    class Broken:
        def save_pretrained(self, folder: str) -> None:
            Path(folder, "vocab.txt").write_text("half")
            raise RuntimeError("no tokenizer")

    with pytest.raises(RuntimeError):
        save_pretrained(quantised, tmp_path / "folder", Broken())
    assert [*tmp_path.iterdir()] == []


def test_what_cannot_be_saved_is_said(quantised, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is not a folder"):
        save_pretrained(quantised, tmp_path / "file")
    with pytest.raises(UnsupportedError, match="not a Network"):
        save_pretrained(Network(), tmp_path / "folder")
    with pytest.raises(UnsupportedError, match="captured at its first call"):
        save_pretrained(lowprec.compile(Network()), tmp_path / "folder")


def _rewrite(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = json.loads((folder / "lowprec.json").read_text())
        change(data)
        (folder / "lowprec.json").write_text(json.dumps(data))

    return apply


def _attributes(value: Any) -> Callable[[Path], None]:
    return _rewrite(lambda data: data.update(attributes={"dict": [["a", value]]}))


def _outside(folder: Path) -> None:
    """Let a weight of the model lie in a file outside of the folder, hash and all."""
    import hashlib

    (folder.parent / "secret").write_bytes(bytes(4096))
    model = onnx.load(folder / "model.onnx")
    tensor = max(model.graph.initializer, key=lambda t: t.ByteSize())
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "../secret"), ("length", "1024"), ("offset", "0")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    digest = hashlib.blake2b(content, digest_size=32).hexdigest()
    _rewrite(lambda data: data.update(digest=digest))(folder)


def _nested(folder: Path) -> None:
    (folder / "lowprec.json").write_text("[" * 200_000)


HOSTILE = {
    "no folder": lambda folder: folder.rename(folder.with_name("elsewhere")),
    "no json": lambda folder: (folder / "lowprec.json").unlink(),
    "no model": lambda folder: (folder / "model.onnx").unlink(),
    "not json": lambda folder: (folder / "lowprec.json").write_text("{"),
    "a list": lambda folder: (folder / "lowprec.json").write_text("[]"),
    "nested": _nested,
    "huge": lambda folder: (folder / "lowprec.json").write_bytes(b" " * ((1 << 24) + 2)),
    "format": _rewrite(lambda data: data.update(format=99)),
    "other model": lambda folder: (folder / "model.onnx").write_bytes(b"other"),
    "digest": _rewrite(lambda data: data.update(digest="0" * 64)),
    "no attributes": _rewrite(lambda data: data.pop("attributes")),
    "unknown kind": _attributes({"pickle": "gASVBQAAAA=="}),
    "unknown dtype": _attributes({"dtype": "load"}),
    "device": _attributes({"device": "cuda:0"}),
    "pairs": _attributes({"dict": [[1]]}),
    "key": _attributes({"dict": [[{"list": []}, 1]]}),
    "set of lists": _attributes({"set": [{"list": []}]}),
    "number of labels": _attributes({"config": {"model_type": "bert", "num_labels": 10**12}}),
    "weights outside": _outside,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_refused(name, folder):
    HOSTILE[name](folder)
    with pytest.raises(ModelError) as error:
        from_pretrained(folder)
    assert len(str(error.value)) < 600
    assert isinstance(error.value, LowprecError)


def test_a_model_of_transformers_keeps_its_configuration(tmp_path):
    hf = pytest.importorskip("transformers")
    from hugging_face_models import MODELS, built

    model = next(model for model in MODELS if model.name.startswith("Bert"))
    network = built(model)
    network.config.id2label = {0: "bad", 1: "good", 2: "neither"}
    data = [model.inputs(2, length) for length in (6, 9)]
    quantised = lowprec.quantize(network, data)

    class Tokenizer:
        def save_pretrained(self, folder: str) -> None:
            Path(folder, "vocab.txt").write_text("[PAD]")

    save_pretrained(quantised, tmp_path / "bert", Tokenizer())
    assert sorted(path.name for path in (tmp_path / "bert").iterdir()) == [
        "config.json",
        "lowprec.json",
        "model.onnx",
        "vocab.txt",
    ]
    config = hf.AutoConfig.from_pretrained(tmp_path / "bert")
    assert config.id2label[1] == "good"
    again = from_pretrained(tmp_path / "bert")
    output = again(**data[0])
    assert type(output).__name__ == "SequenceClassifierOutput"
    assert torch.equal(output.logits, quantised(**data[0]).logits)
    assert type(again.config) is type(network.config)
    assert again.config.to_dict() == network.config.to_dict()
    assert again.__class__.__name__ == "BertForSequenceClassification"
    assert not again.can_generate()
    assert again.device == torch.device("cpu")
