"""Names, sameness and size of what a module becomes; programs that are not traced a second time."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import lowprec
from lowprec.adapters.torch import example
from lowprec.adapters.torch.ready import ReadyProgram, ready

PRECISIONS = ("bf16", "int8-dynamic", "int8-weight-only", "f16-weight-only", "auto")


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.act(self.norm(self.conv(x)))


class Network(nn.Module):
    """The same block twice, shared weights once more, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.blocks(self.stem(x)))
        return self.head(self.drop(x.mean((2, 3))))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(32, 5)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x, src_key_padding_mask=mask))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 32)
        self.lstm = nn.LSTM(32, 24, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.words(ids))[0])


def _made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    module = kind().eval()
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return module


def _images(batch: int) -> torch.Tensor:
    return torch.randn(batch, 3, 12, 12, generator=torch.Generator().manual_seed(batch))


def _sqnr(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float(20 * torch.log10(expected.norm() / (actual - expected).norm().clamp_min(1e-9)))


def _saved(path: Path) -> bytes:
    quantized = lowprec.quantize(
        _made(Network), [_images(4)], config={"layers": [{"match": "head.*", "precision": "f32"}]}
    )
    quantized.save(path)
    return path.read_bytes()


def test_the_same_module_gives_the_same_names_and_weights(tmp_path: Path) -> None:
    content = _saved(tmp_path / "a.onnx")
    first, second = onnx.load(tmp_path / "a.onnx"), None
    _saved(tmp_path / "b.onnx")
    second = onnx.load(tmp_path / "b.onnx")
    assert first.graph.SerializeToString(True) == second.graph.SerializeToString(True)
    names = [node.name for node in first.graph.node]
    assert len(names) == len(set(names))
    # Nothing of the machine: no paths, no traces of the stack.
    for word in (b"site-packages", b".py", b"stack_trace", str(Path.cwd()).encode()):
        assert word not in content
    assert all(not node.metadata_props and not node.doc_string for node in first.graph.node)
    weights = sum(len(tensor.raw_data) for tensor in first.graph.initializer)
    metadata = sum(len(entry.value) for entry in first.metadata_props)
    assert metadata < 32_000 + 0.01 * weights


def test_a_configuration_names_layers_by_their_place_in_the_module() -> None:
    rules = [{"match": "head.*", "precision": "f32"}, {"match": "blocks.1.*", "precision": "f32"}]
    quantized = lowprec.quantize(_made(Network), [_images(4)], config={"layers": rules})
    layers = {layer.name: layer for layer in quantized.report.layers}
    assert layers["stem"].precision == layers["blocks.0.conv"].precision == "int8"
    assert layers["blocks.1.conv"].precision == layers["head.0"].precision == "f32"
    # A module that is called twice has its first call under its own name.
    assert {"blocks.0.conv/Conv", "blocks.1.conv/Conv", "head.2"} <= {*layers}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_convolutional_module_at_every_precision(precision: str) -> None:
    module = _made(Network)
    samples = [_images(4), _images(5)]
    quantized = lowprec.quantize(
        module,
        samples if precision == "auto" else None,
        precision=precision,
        example_inputs=samples[0],
    )
    with torch.no_grad():
        expected = module(samples[1])
    assert _sqnr(quantized(samples[1]), expected) > 25


@pytest.mark.parametrize("precision", [*PRECISIONS[:-1], "int8"])
def test_text_modules_at_every_precision(precision: str) -> None:
    torch.manual_seed(0)
    ids = [torch.randint(50, (2, length)) for length in (7, 9)]
    module = _made(Tagger)
    quantized = lowprec.quantize(module, ids, precision=precision)
    longer = torch.randint(50, (3, 12))
    with torch.no_grad():
        expected = module(longer)
    assert _sqnr(quantized(longer), expected) > 25


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_encoder_takes_any_length_also_on_torchs_fast_path() -> None:
    module = _made(Encoder)

    def call(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        mask = torch.zeros(batch, length, dtype=torch.bool)
        mask[0, -2:] = True
        return torch.randn(batch, length, 32), mask

    quantized = lowprec.quantize(module, [call(2, 7), call(3, 9)], precision="bf16")
    compiled = lowprec.compile(
        module,
        example_inputs=example(
            *call(2, 7),
            dynamic_shapes={
                "x": {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")},
                "mask": {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")},
            },
        ),
    )
    for batch, length in ((2, 7), (1, 4), (4, 13)):
        x, mask = call(batch, length)
        if batch == 1:  # all rows end in padding: torch's fast path returns fewer positions
            mask[:] = False
        with torch.no_grad():
            expected = module(x, mask)
        kept = ~mask
        torch.testing.assert_close(compiled(x, mask)[kept], expected[kept], rtol=1e-4, atol=1e-4)
        assert _sqnr(quantized(x, mask)[kept], expected[kept]) > 30
    operators = [step.op for step in compiled.explain().steps]
    assert "LayerNormalization" in operators
    assert any("Attention" in op for op in operators)
    assert all(step.native for step in compiled.explain().steps)


def test_norms_and_dropout_are_gone() -> None:
    compiled = lowprec.compile(_made(Network), example_inputs=_images(2))
    compiled(_images(2))
    operators = {step.op for step in compiled.explain().steps}
    assert not operators & {"BatchNormalization", "Dropout", "Identity", "Clip"}


def test_weight_norm_and_a_norm_after_a_linear_are_folded() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(8, 16)), nn.BatchNorm1d(16), nn.ReLU()
    ).eval()
    compiled = lowprec.compile(module, example_inputs=torch.randn(2, 8))
    x = torch.randn(5, 8)
    with torch.no_grad():
        expected = module(x)
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
    assert [step.op for step in compiled.explain().steps] == ["Gemm"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_modules_of_16_bits_run_as_they_are(dtype: torch.dtype) -> None:
    module = _made(Network).to(dtype)
    x = _images(3).to(dtype)
    compiled = lowprec.compile(module, example_inputs=x)
    with torch.no_grad():
        expected = module(x)
    actual = compiled(x)
    assert actual.dtype == dtype
    assert _sqnr(actual.float(), expected.float()) > 30


# ---- Programs that are not traced twice ----


def _exported(function: nn.Module, *inputs: torch.Tensor) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(function, inputs)


def test_a_network_of_common_layers_is_not_traced_twice() -> None:
    program = ready(_exported(_made(Network), _images(2)))
    assert isinstance(program, ReadyProgram)
    assert not any(str(node.target).endswith("_.default") for node in program.graph.nodes)


class Writes(nn.Module):
    """Writes into memory that someone still looks at."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(x)
        if self.kind == "before":
            total = y * 2
            y.relu_()
            return total + y
        if self.kind == "view":
            seen = y.view(-1, 2, 2)
            y.relu_()
            return seen.sum(1)
        if self.kind == "chain":
            return y.relu_().add_(1).mul_(2) + y
        seen = x.reshape(-1, 4)
        z = seen + 0
        z.add_(y)
        return z + y


@pytest.mark.parametrize("kind", ["before", "view", "chain", "sum"])
def test_what_writes_in_place_is_right(kind: str) -> None:
    torch.manual_seed(0)
    module = Writes(kind).eval()
    assert isinstance(ready(_exported(module, torch.randn(3, 4))), ReadyProgram) == (kind != "view")
    compiled = lowprec.compile(module, example_inputs=torch.randn(3, 4))
    x = torch.randn(5, 4)
    with torch.no_grad():
        expected = module(x.clone())
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
