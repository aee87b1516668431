"""What cannot be captured as a whole runs in parts: the rest stays in PyTorch."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lowprec
from lowprec.errors import ModelError, UnsupportedError

library = torch.library.Library("lowprec_test_split", "DEF")
library.define("roll(Tensor x) -> Tensor")
library.impl("roll", lambda x: x.roll(1, -1), "CPU")
torch.library.register_fake("lowprec_test_split::roll", lambda x: torch.empty_like(x), lib=library)


class Roll(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.lowprec_test_split.roll(x)


def block(inside: int, outside: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)
    )


class Gated(nn.Module):
    """Goes on for some pictures only: a branch on a value between two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(block(3, 16), block(16, 16))
        self.late = nn.ModuleList([block(16, 32), block(32, 32)])
        self.scale = nn.Parameter(torch.full((1,), 2.0))
        self.head = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor, temperature: float = 1.0) -> dict[str, torch.Tensor]:
        x = self.early(x)
        if x.mean() > 100:
            return {"logits": x.mean((2, 3))}
        for part in self.late:
            x = part(x)
        return {"logits": self.head(x.mean((2, 3)) * self.scale) / temperature}


def gated() -> Gated:
    torch.manual_seed(0)
    return Gated().eval()


def pictures(count: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(1)
    return [(torch.randn(2, 3, 32, 32), torch.zeros(2)) for _ in range(count)]


def error_of(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


def test_the_largest_parts_run_on_lowprec_and_the_report_names_them() -> None:
    module = gated()
    split = lowprec.quantize(module, pictures())
    assert sorted(split.regions) == ["early", "head", "late.0", "late.1"]
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert error_of(split(x)["logits"], module(x)["logits"]) < 0.05
    report = split.report
    assert {layer.name for layer in report.layers} >= {"early.0.0", "late.1.0", "head"}
    assert {layer.precision for layer in report.layers} >= {"int8"}
    assert "test_split.py" in report.notes[0]
    assert "`if x.mean() > 100:`" in report.notes[0]
    assert "head" in report.notes[1]
    assert "early.0.0" in str(report)


def test_parts_are_calibrated_with_what_reaches_them() -> None:
    module = gated()
    split = lowprec.quantize(module, pictures())
    with torch.no_grad():
        reached = [module.early(x) for x, _ in pictures()]
    layer = next(layer for layer in split.report.layers if layer.name == "late.0.0")
    assert layer.rmax == pytest.approx(max(float(x.max()) for x in reached), rel=0.05)


def test_data_is_read_no_further_than_asked_for() -> None:
    taken = []

    def samples() -> Any:
        for number in range(100):
            taken.append(number)
            yield torch.randn(1, 3, 32, 32)

    lowprec.quantize(gated(), samples(), config={"calibration": {"samples": 10}})
    assert len(taken) <= 11


@pytest.mark.parametrize("precision", ["bf16", "int8-dynamic", "int8-weight-only"])
def test_other_precisions_are_split_too(precision: str) -> None:
    module = gated()
    x = torch.randn(2, 3, 32, 32)
    split = lowprec.quantize(module, precision=precision, example_inputs=x)
    with torch.no_grad():
        assert error_of(split(x)["logits"], module(x)["logits"]) < 0.05


def test_a_compiled_split_module_computes_what_the_module_does_in_both_branches() -> None:
    module = gated()
    x = torch.randn(2, 3, 32, 32)
    split = lowprec.compile(module, example_inputs=x)
    with torch.no_grad():
        for y in (x, x[:1], x * 1e6):
            torch.testing.assert_close(split(y), module(y), rtol=1e-3, atol=1e-4)
    assert split(x * 1e6)["logits"].shape == (2, 16)
    with pytest.raises(UnsupportedError, match="notes"):
        print(split.report)


def test_precision_auto_works_and_a_search_with_evaluate_is_a_clear_error() -> None:
    module = gated()
    split = lowprec.quantize(module, pictures(2), precision="auto")
    assert split.regions
    with pytest.raises(UnsupportedError, match="in parts"):
        lowprec.quantize(module, pictures(2), evaluate=lambda model: 1.0)


def test_a_split_module_is_copied_pickled_and_its_state_goes_round(tmp_path: Path) -> None:
    split = lowprec.compile(gated(), example_inputs=torch.randn(2, 3, 32, 32))
    x = torch.randn(2, 3, 32, 32)
    expected = split(x)["logits"]
    assert torch.equal(copy.deepcopy(split)(x)["logits"], expected)
    assert torch.equal(pickle.loads(pickle.dumps(split))(x)["logits"], expected)
    file = io.BytesIO()
    torch.save(split.state_dict(), file)
    file.seek(0)
    split.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(split(x)["logits"], expected)
    with pytest.raises(UnsupportedError, match=r"torch\.save"):
        split.save(tmp_path / "model.onnx")
    with pytest.raises(UnsupportedError, match=r"part\('"):
        split.to_onnx()
    with pytest.raises(UnsupportedError, match="inference"):
        split.train()


def test_the_weights_of_the_parts_are_kept_once_and_the_rest_is_its_own() -> None:
    module = gated()
    split = lowprec.compile(module, example_inputs=torch.randn(2, 3, 32, 32))
    floats = {
        name: tensor for name, tensor in split.state_dict().items() if tensor.dtype != torch.uint8
    }
    assert [*floats] == ["module.scale"]
    x = torch.randn(2, 3, 32, 32)
    before = split(x)["logits"]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    assert torch.equal(split(x)["logits"], before)


def test_a_part_of_a_part_is_taken_where_its_whole_cannot_be() -> None:
    torch.manual_seed(0)
    outer = nn.Sequential(block(3, 8), nn.Sequential(block(8, 8), Roll(), block(8, 8)), block(8, 4))
    outer.eval()
    split = lowprec.compile(outer, example_inputs=torch.randn(2, 3, 64, 64))
    assert sorted(split.regions) == ["0", "1.0", "1.2", "2"]
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(split(x), outer(x), rtol=1e-3, atol=1e-4)
    assert "roll" in split.notes[0]


def test_neighbours_in_a_sequence_are_one_part() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        block(3, 8),
        block(8, 8),
        block(8, 8),
        Roll(),
        nn.Flatten(),
        nn.Linear(8 * 16, 16),
        nn.ReLU(),
    ).eval()
    split = lowprec.quantize(
        module, pictures(), config={"layers": [{"match": "5", "precision": "f32"}]}
    )
    assert sorted(split.regions) == ["0-2", "4-6"]
    layers = {layer.name: layer.precision for layer in split.report.layers}
    assert layers["0.0"] == "int8"
    assert layers["5"] != "int8"
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert error_of(split(x), module(x)) < 0.1


class Peeking(nn.Module):
    """Uses a part's weight without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.first(x)) @ self.first.weight
        return x if x.sum() > 0 else -x


def test_a_part_that_others_look_into_stays() -> None:
    module = Peeking().eval()
    split = lowprec.compile(module, example_inputs=torch.randn(2, 8))
    assert [*split.regions] == ["second"]
    x = torch.randn(3, 8)
    torch.testing.assert_close(split(x), module(x).detach())


class Sharing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(8, 8)
        self.other = self.one

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.other(self.one(x))
        return x if x.sum() > 0 else -x


def test_a_part_that_is_used_twice_is_replaced_twice() -> None:
    module = Sharing().eval()
    split = lowprec.compile(module, example_inputs=torch.randn(2, 8))
    assert split.module.one is split.module.other
    x = torch.randn(3, 8)
    torch.testing.assert_close(split(x), module(x).detach())


class Alone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x @ self.weight
        return x if x.sum() > 0 else -x


def test_a_module_without_parts_that_are_worth_it_is_refused() -> None:
    with pytest.raises(ModelError, match=r"decides by the value .*x.sum\(\) > 0.*torch.where"):
        lowprec.compile(Alone(), example_inputs=torch.randn(2, 8))


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.body(x) + self.calls


def test_state_stays_in_the_rest() -> None:
    split = lowprec.compile(Counting().eval(), example_inputs=torch.randn(2, 8))
    x = torch.randn(2, 8)
    first, second = split(x), split(x)
    torch.testing.assert_close(second - first, torch.ones(2, 8))
