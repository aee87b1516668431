"""Every layer of torch.nn: right for any batch, on native kernels, and between int8 layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch_layers as cases
from torch import nn

import lowprec
from lowprec.errors import LowprecError

BATCHES = (2, 3, 1)
GROUPS = {
    "rows": cases.ROWS,
    "words": cases.WORDS,
    "sequences": cases.SEQUENCE,
    "images": cases.IMAGE,
    "volumes": cases.VOLUME,
    "two rows": cases.TWO_ROWS,
    "two texts": cases.TWO_TEXTS,
    "indices": cases.INDICES,
}
# dB that a layer leaves between two int8 layers; a few amplify what is small.
SQNR = 20.0
LOWER = {"LayerNorm-2d": 15.0, "Tanhshrink": 5.0, "Hardshrink": 10.0, "Softshrink": 10.0}
LONG = ("RNN", "RNN-relu", "TransformerEncoder")  # exports; their parts are there


def _layers(inputs: cases.Inputs) -> dict[str, nn.Module]:
    return {
        name: cases.seeded(make) for name, (make, given) in cases.LAYERS.items() if given is inputs
    }


def _check(module: nn.Module, inputs: cases.Inputs) -> Any:
    compiled = lowprec.compile(module, example_inputs=inputs(2))
    for batch in BATCHES:
        given = inputs(batch)
        with torch.no_grad():
            expected = module(*given)
        actual = compiled(*given)
        for name, tensors in expected.items():
            for one, other in zip(tensors, actual[name], strict=True):
                assert one.shape == other.shape, (name, batch)
                torch.testing.assert_close(
                    other, one, rtol=1e-4, atol=1e-4, msg=lambda m, n=name, b=batch: f"{n} {b}: {m}"
                )
    return compiled


def test_no_layer_of_torch_is_forgotten() -> None:
    layers = {
        name
        for name, kind in vars(nn).items()
        if isinstance(kind, type) and issubclass(kind, nn.Module)
    }
    seen = {name.partition("-")[0] for name in (*cases.LAYERS, *cases.REFUSED)}
    losses_and_lazy = {n for n in layers if n.startswith("Lazy") or "Loss" in n} - seen
    assert layers - seen - losses_and_lazy == {*cases.LEFT_OUT}


@pytest.mark.parametrize("name", GROUPS)
def test_layers_compute_what_torch_computes_for_any_batch(name: str) -> None:
    inputs = GROUPS[name]
    compiled = _check(cases.Together(_layers(inputs)).eval(), inputs)
    slow = [step for step in compiled.explain().steps if not step.native]
    assert not slow, slow


@pytest.mark.parametrize(
    "name",
    [n for n, (_, inputs) in cases.LAYERS.items() if inputs not in GROUPS.values()],
)
def test_a_layer_with_inputs_of_its_own_computes_what_torch_computes(name: str) -> None:
    make, inputs = cases.LAYERS[name]
    _check(cases.Together({name: cases.seeded(make)}).eval(), inputs)


@pytest.mark.parametrize("name", cases.REFUSED)
def test_a_layer_without_a_right_form_is_refused(name: str) -> None:
    (make, inputs), word = cases.REFUSED[name]
    with pytest.raises(LowprecError, match=word):
        lowprec.compile(cases.seeded(make), example_inputs=inputs(2))


@pytest.mark.parametrize("name", ["rows", "words", "images"])
def test_layers_between_int8_layers_keep_their_accuracy(name: str) -> None:
    inputs = GROUPS[name]
    torch.manual_seed(1)
    first = nn.Conv2d(8, 8, 3, padding=1) if name == "images" else nn.Linear(16, 16)
    layers = {n: layer for n, layer in _layers(inputs).items() if n not in LONG}
    module = cases.Between(first, layers, *inputs(2)).eval()
    samples = [inputs(batch) for batch in (4, 5, 6, 7)]
    quantized = lowprec.quantize(module, samples)
    (x,) = samples[0]
    with torch.no_grad():
        expected = module(x)
    actual = quantized(x)
    assert quantized.report.int8_macs > 0
    low = {}
    for key, value in expected.items():
        noise = (actual[key] - value).norm()
        sqnr = float(20 * torch.log10(value.norm() / noise.clamp_min(1e-9)))
        if sqnr < LOWER.get(key, SQNR):
            low[key] = round(sqnr, 1)
    assert not low


def test_the_page_names_every_layer() -> None:
    page = (Path(__file__).parents[3] / "docs" / "pytorch.md").read_text()
    named = {name.partition("-")[0] for name in (*cases.LAYERS, *cases.REFUSED)}
    assert [name for name in sorted(named) if f"`{name}" not in page] == []
