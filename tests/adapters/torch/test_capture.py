"""A module goes in, a module comes out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import lowprec
from lowprec.errors import InputError, ModelError


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        return {"logits": self.head(self.body(x).mean((2, 3))), "more": (x.sum((1, 2, 3)), None)}


def _network() -> Network:
    torch.manual_seed(0)
    return Network()


def test_a_compiled_module_computes_what_the_module_does_for_any_batch() -> None:
    network = _network().eval()
    compiled = lowprec.compile(network, example_inputs=torch.randn(1, 3, 16, 16))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 16, 16)
        with torch.no_grad():
            expected = network(x)
        actual = compiled(x)
        torch.testing.assert_close(actual["logits"], expected["logits"])
        torch.testing.assert_close(actual["more"][0], expected["more"][0], rtol=1e-4, atol=1e-3)
        assert actual["more"][1] is None


def test_a_quantised_module_names_its_layers_as_the_module_does() -> None:
    network = _network()
    samples = [(torch.randn(2, 3, 16, 16), torch.tensor([1, 2])) for _ in range(4)]
    quantised = lowprec.quantize(network, samples)
    assert network.training
    assert {layer.name for layer in quantised.report.layers} >= {"body.0", "body.3", "head"}
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        expected = network.eval()(x)["logits"]
    error = quantised(x)["logits"] - expected
    assert error.norm() < 0.05 * expected.norm()


def test_sizes_that_may_change_have_names_that_people_can_read() -> None:
    class Pair(nn.Module):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return torch.cat([left, right], 1)

    calls = [(torch.randn(2, n, 4), torch.randn(2, n + 3, 4)) for n in (2, 5)]
    quantised = lowprec.quantize(Pair(), calls)
    assert [info.shape for info in quantised.inputs] == [
        ("batch", "left_1", 4),
        ("batch", "right_1", 4),
    ]
    batch, length, width = quantised.outputs[0].shape
    assert (batch, sorted(length.split(" + ")), width) == ("batch", ["left_1", "right_1"], 4)
    assert quantised.report.model == "Pair"


def test_an_exported_program_is_taken_with_its_own_sizes() -> None:
    module = nn.Linear(8, 8).eval()
    shapes = ({0: torch.export.Dim("batch", max=32)},)
    program = torch.export.export(module, (torch.randn(2, 8),), dynamic_shapes=shapes)
    compiled = lowprec.compile(program)
    x = torch.randn(5, 8)
    torch.testing.assert_close(compiled(x), module(x).detach())
    with pytest.raises(InputError, match="to 32"):
        compiled(torch.randn(33, 8))


@pytest.mark.filterwarnings("ignore")
def test_what_is_wrapped_around_a_module_is_taken_off() -> None:
    module = nn.Linear(8, 8).eval()
    x = torch.randn(3, 8)
    for wrapped in (torch.compile(module), nn.DataParallel(module)):
        compiled = lowprec.compile(wrapped, example_inputs=x)
        torch.testing.assert_close(compiled(x), module(x).detach())


@pytest.mark.filterwarnings("ignore")
def test_modules_that_cannot_be_traced_are_refused_with_a_remedy() -> None:
    x = torch.randn(3, 8)
    with pytest.raises(ModelError, match="the Python module that it was made of"):
        lowprec.compile(torch.jit.script(nn.Linear(8, 8)), example_inputs=x)
    with pytest.raises(ModelError, match="has no sizes yet; call the module once"):
        lowprec.compile(nn.LazyLinear(4), example_inputs=x)
    with pytest.raises(ModelError, match="is on 'meta'"):
        lowprec.compile(nn.Linear(8, 8, device="meta"), example_inputs=x)
    with pytest.raises(ModelError, match=r"a torch\.nn\.Module"):
        lowprec.compile(torch.relu, example_inputs=x)


def test_a_translation_that_computes_something_else_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from lowprec.adapters.torch import capture

    def wrong(*args: Any) -> Any:
        model = translate(*args)
        next(node for node in model.graph if node.op_type == "Relu").op_type = "Sigmoid"
        return model

    translate = capture.translate
    monkeypatch.setattr(capture, "translate", wrong)
    with pytest.raises(ModelError, match="computes something else"):
        lowprec.compile(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), example_inputs=torch.randn(2, 8))
