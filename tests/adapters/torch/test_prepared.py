"""Modules that others calibrated keep their ranges and run on int8 kernels."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.ao.quantization as tq
from torch import nn

import lowprec
from lowprec.errors import ModelError

BACKENDS = ("x86", "qnnpack")  # u8 of 7 bits and weights per channel; u8 and per tensor


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = tq.QuantStub(), tq.DeQuantStub()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.add = torch.ao.nn.quantized.FloatFunctional()
        self.fc = nn.Linear(16 * 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.bn1(self.conv1(self.quant(x))))
        x = self.relu2(self.add.add(self.bn2(self.conv2(x)), x))
        return self.dequant(self.fc(x.flatten(1)))


FUSED = [["conv1", "bn1", "relu1"], ["conv2", "bn2"]]


@pytest.fixture(autouse=True)
def _deprecated() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao.quantization is going away
        engine = torch.backends.quantized.engine
        yield
        torch.backends.quantized.engine = engine


def _network() -> Network:
    torch.manual_seed(0)
    network = Network()
    with torch.no_grad():
        for norm in (network.bn1, network.bn2):
            norm.running_mean.uniform_(-0.3, 0.3)
            norm.running_var.uniform_(0.5, 1.5)
            norm.weight.uniform_(0.5, 1.5)
    return network


def _images(count: int = 4, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def _calibrated(prepared: nn.Module) -> nn.Module:
    with torch.no_grad():
        for seed in range(3):
            prepared(_images(8, seed))
    return prepared


def _eager(backend: str) -> nn.Module:
    network = tq.fuse_modules(_network().eval(), FUSED)
    network.qconfig = tq.get_default_qconfig(backend)
    return tq.prepare(network)


def _graph(backend: str) -> nn.Module:
    from torch.ao.quantization.quantize_fx import prepare_fx

    mapping = tq.get_default_qconfig_mapping(backend)
    return prepare_fx(_network().eval(), mapping, (_images(),))


def _aware(backend: str) -> nn.Module:
    network = tq.fuse_modules_qat(_network().train(), FUSED)
    network.qconfig = tq.get_default_qat_qconfig(backend)
    return tq.prepare_qat(network)


def _trained(module: nn.Module) -> nn.Module:
    optimizer = torch.optim.SGD(module.parameters(), 0.01)
    for step in range(4):
        optimizer.zero_grad()
        module(_images(8, step)).square().mean().backward()
        optimizer.step()
    return module.eval()


def _sqnr(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float(20 * torch.log10(expected.norm() / (actual - expected).norm().clamp_min(1e-9)))


def _pairs(model: onnx.ModelProto) -> set[tuple[float, int]]:
    """Return scale and zero point of every activation that is quantised."""
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    return {
        (float(constants[node.input[1]]), int(constants[node.input[2]]))
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }


def _chosen(module: nn.Module) -> set[tuple[float, int]]:
    found = set()
    for name, part in module.named_modules():
        if hasattr(part, "calculate_qparams") and "weight" not in name:
            scale, zero_point = part.calculate_qparams()
            if scale.numel() == 1:
                found.add((float(scale), int(zero_point)))
    return found


def _products_on_codes(module: nn.Module) -> list[str]:
    steps = module.explain().steps  # type: ignore[operator]
    return [step.op for step in steps if step.op in ("QConv", "QGemm") and step.macs]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("prepare", [_eager, _graph])
def test_observers_give_the_ranges(prepare: object, backend: str, tmp_path: Path) -> None:
    torch.backends.quantized.engine = backend
    prepared = _calibrated(prepare(backend))  # type: ignore[operator]
    state = {name: value.clone() for name, value in prepared.state_dict().items()}
    chosen = _chosen(prepared)
    quantized = lowprec.quantize(prepared, example_inputs=_images())
    x = _images(5, seed=9)
    if prepare is _eager:
        expected = tq.convert(copy.deepcopy(prepared))(x)
    else:
        from torch.ao.quantization.quantize_fx import convert_fx

        expected = convert_fx(copy.deepcopy(prepared))(x)  # type: ignore[arg-type]
    assert _sqnr(quantized(x), expected) > 25
    assert _products_on_codes(quantized) == ["QConv", "QConv", "QGemm"]
    assert any("ranges came with the module" in note for note in quantized.report.notes)
    quantized.save(tmp_path / "model.onnx")
    assert _pairs(onnx.load(tmp_path / "model.onnx")) == chosen
    for name, value in prepared.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_module_trained_with_fake_quantisation_keeps_what_it_learnt(backend: str) -> None:
    trained = _trained(_aware(backend))
    chosen = _chosen(trained)
    quantized = lowprec.quantize(trained, example_inputs=_images())
    x = _images(16, seed=9)
    torch.backends.quantized.engine = backend
    own = tq.convert(copy.deepcopy(trained))(x)
    with torch.no_grad():
        expected = trained.apply(tq.disable_observer)(x)
    actual = quantized(x)
    # Folding the norm rounds some sums the other way; torch's own convert() does no better.
    assert _sqnr(actual, expected) > _sqnr(own, expected) - 3
    assert _sqnr(actual, expected) > 20
    step = float(trained.fc.activation_post_process.scale)
    assert ((actual - expected).abs() < 2.5 * step).all()
    assert _products_on_codes(quantized) == ["QConv", "QConv", "QGemm"]
    assert _pairs(quantized.to_onnx()) == chosen


def test_a_layer_that_was_left_in_float_stays_there() -> None:
    network = tq.fuse_modules(_network().eval(), FUSED)
    network.qconfig = tq.get_default_qconfig("qnnpack")
    network.fc.qconfig = None
    quantized = lowprec.quantize(_calibrated(tq.prepare(network)), example_inputs=_images())
    quantized(_images())
    assert _products_on_codes(quantized) == ["QConv", "QConv"]


class OwnRounding(nn.Module):
    """Someone's own fake quantisation."""

    def __init__(self, scale: float, zero_point: int, low: int, high: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero_point", torch.tensor(zero_point))
        self.quant_min, self.quant_max = low, high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        codes = torch.round(x / self.scale) + self.zero_point
        return (codes.clamp(self.quant_min, self.quant_max) - self.zero_point) * self.scale


@pytest.mark.parametrize("limits", [(0, 255), (-128, 127), (-127, 127), (0, 15)])
def test_any_module_with_a_scale_and_a_zero_point_counts(limits: tuple[int, int]) -> None:
    low, high = limits
    torch.manual_seed(0)
    linear = nn.Linear(16, 8)
    step = 4.0 / (high - low)
    module = nn.Sequential(OwnRounding(step, (low + high) // 2, low, high), linear).eval()
    quantized = lowprec.quantize(module, example_inputs=torch.randn(4, 16))
    x = 2 * torch.randn(5, 16)
    with torch.no_grad():
        expected = module(x)
    assert _sqnr(quantized(x), expected) > 50
    assert _pairs(quantized.to_onnx()) == {(float(np.float32(step)), (low + high) // 2)}


def _pt2e() -> tuple[nn.Module, nn.Module]:
    quantize_pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e")
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3),
        nn.Flatten(),
        nn.Linear(8 * 36, 10),
    ).eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(network, (_images(),), dynamic_shapes=({0: batch},))
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = _calibrated(quantize_pt2e.prepare_pt2e(program.module(), quantizer))
    return prepared, quantize_pt2e.convert_pt2e(copy.deepcopy(prepared))


def test_torchao_modules_keep_their_ranges_converted_or_not() -> None:
    torch.manual_seed(0)
    prepared, converted = _pt2e()
    chosen = _chosen(prepared)
    x = _images(5, seed=9)
    with torch.no_grad():
        expected = converted(x)
    for module in (prepared, converted):
        quantized = lowprec.quantize(module, example_inputs=_images())
        assert _sqnr(quantized(x), expected) > 30
        assert _products_on_codes(quantized) == ["QConv", "QConv", "QGemm"]
        assert _pairs(quantized.to_onnx()) == chosen


def test_observers_that_saw_nothing_are_named() -> None:
    with pytest.raises(ModelError, match=r"'quant.activation_post_process' has seen no data"):
        lowprec.quantize(_eager("x86"), example_inputs=_images())


def test_modules_on_torchs_own_kernels_are_refused_with_what_to_give() -> None:
    converted = tq.convert(_calibrated(_eager("x86")))
    with pytest.raises(ModelError, match=r"prepared module from before convert\(\)"):
        lowprec.compile(converted, example_inputs=_images())
    dynamic = tq.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)).eval())
    with pytest.raises(ModelError, match="packed"):
        lowprec.compile(dynamic, example_inputs=torch.randn(2, 4))
