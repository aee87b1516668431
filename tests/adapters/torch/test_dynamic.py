"""Sizes that may change, sizes that may not, and modules that treat sizes differently."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import lowprec
from lowprec.adapters.torch import example
from lowprec.errors import InputError, ModelError


class Branch(nn.Module):
    """Calls `choose(self, x)`, with a layer at hand that is no part to capture."""

    def __init__(self, choose: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8))
        self.choose = choose

    def layer(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.choose(self, x)


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 8)
        self.positions = nn.Embedding(64, 8)
        self.register_buffer("ids", torch.arange(64)[None])

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self.words(ids) + self.positions(self.ids[:, : ids.shape[1]])
        return x if mask is None else x * mask[:, :, None]


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, 2, 1)
        self.up = nn.ConvTranspose2d(4, 3, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(self.down(x))


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 16, batch_first=True)

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
        y, state = self.lstm(x, (h, c))
        return y, state


def more_than_four(self: Any, x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] > 4:  # the branch
        return -self.layer(x)
    return self.layer(x)


def even(self: Any, x: torch.Tensor) -> torch.Tensor:
    if x.shape[1] % 2 == 0:  # the branch
        return -self.layer(x)
    return self.layer(x)


def seven(self: Any, x: torch.Tensor) -> torch.Tensor:
    if x.shape[1] == 7:  # the branch
        return -self.layer(x)
    return self.layer(x)


def loop(self: Any, x: torch.Tensor) -> torch.Tensor:
    for _ in range(x.shape[1]):  # the branch
        x = self.layer(x)
    return x


def cut(self: Any, x: torch.Tensor) -> torch.Tensor:
    x = self.layer(x)
    return x[:, :16].sum(1)  # the branch


def by_value(self: Any, x: torch.Tensor) -> torch.Tensor:
    x = self.layer(x)
    if x.sum() > 0:  # the branch
        return x
    return -x


def line_of(function: Callable[..., Any]) -> str:
    """Return file:line of the line that is marked as the branch."""
    code = function.__code__
    with open(code.co_filename) as file:
        lines = file.readlines()
    number = code.co_firstlineno
    while "# the branch" not in lines[number - 1]:
        number += 1
    return f"{code.co_filename}:{number}: `{lines[number - 1].strip()}`"


@pytest.mark.parametrize("batch", [2, 6])
def test_a_branch_on_the_batch_is_refused_with_its_line(batch: int) -> None:
    with pytest.raises(ModelError, match="something else for batch = ") as refused:
        lowprec.compile(Branch(more_than_four), example_inputs=torch.randn(batch, 8))
    assert line_of(more_than_four) in str(refused.value)


@pytest.mark.parametrize("choose", [even, seven, loop, cut])
@pytest.mark.parametrize("lengths", [(6, 8), (6, 9), (5, 7)])
def test_a_branch_on_another_size_is_refused_with_its_line(
    choose: Callable[..., Any], lengths: tuple[int, int]
) -> None:
    data = [torch.randn(2, length, 8) for length in lengths]
    with pytest.raises(ModelError) as refused:
        lowprec.quantize(Branch(choose), data)
    assert line_of(choose) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_branch_on_a_value_is_refused_with_its_line_and_nothing_is_printed(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(ModelError) as refused:
        lowprec.compile(Branch(by_value), example_inputs=torch.randn(2, 8))
    assert line_of(by_value) in str(refused.value)
    assert "decides by the value of a tensor" in str(refused.value)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_module_that_does_something_else_for_one_sample_is_refused() -> None:
    def single(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        if x.shape[0] == 1:
            x = x * 2  # the branch
        return x.relu()

    with pytest.raises(ModelError, match="a size of 1 of axis 0") as refused:
        lowprec.compile(Branch(single), example_inputs=torch.randn(4, 8))
    assert line_of(single) in str(refused.value)


def test_a_module_that_is_only_called_with_one_sample_is_captured_for_one() -> None:
    def single(self: Any, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        return x[0] if x.shape[0] == 1 else x

    module = Branch(single)
    compiled = lowprec.compile(module, example_inputs=torch.randn(1, 8))
    x = torch.randn(1, 8)
    torch.testing.assert_close(compiled(x), module(x).detach())
    with pytest.raises(InputError):
        compiled(torch.randn(2, 8))


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(8, 8)
        self.other = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x)
        if x.shape[0] > 4:
            x = -x
        return self.other(x)


@pytest.mark.parametrize("batch", [2, 6])
def test_a_branch_on_the_batch_between_parts_is_split_and_right_on_both_sides(batch: int) -> None:
    module = Parts()
    split = lowprec.compile(module, example_inputs=torch.randn(batch, 8))
    assert "`if x.shape[0] > 4:`" in split.notes[0]
    assert [*split.regions] == ["one", "other"]
    for size in (1, 4, 5, 9):
        x = torch.randn(size, 8)
        torch.testing.assert_close(split(x), module(x).detach())


def test_fixed_sizes_are_captured_whatever_the_branch() -> None:
    module = Branch(more_than_four)
    compiled = lowprec.compile(module, example_inputs=example(torch.randn(6, 8), dynamic_shapes={}))
    x = torch.randn(6, 8)
    torch.testing.assert_close(compiled(x), module(x).detach())
    with pytest.raises(InputError):
        compiled(torch.randn(3, 8))


def test_a_range_that_the_user_gave_is_checked_at_run_time() -> None:
    module = Branch(more_than_four)
    shapes = {"x": {0: Dim("batch", min=5, max=32)}}
    compiled = lowprec.compile(
        module, example_inputs=example(torch.randn(6, 8), dynamic_shapes=shapes)
    )
    x = torch.randn(9, 8)
    torch.testing.assert_close(compiled(x), module(x).detach())
    for batch in (4, 33):
        with pytest.raises(InputError, match=r"'x' has size \d+ on axis 0; .* from 5 to 32"):
            compiled(torch.randn(batch, 8))


def test_the_length_of_a_position_table_is_a_check_at_run_time() -> None:
    module = Embedded().eval()
    data = [torch.randint(0, 50, (2, length)) for length in (5, 9)]
    quantised = lowprec.quantize(module, data, precision="int8-weight-only")
    ids = torch.randint(0, 50, (3, 64))
    assert quantised(ids).shape == (3, 64, 8)
    with pytest.raises(InputError, match=r"'ids' has size 65 on axis 1; .* to 64"):
        quantised(torch.randint(0, 50, (3, 65)))


def test_sizes_that_must_be_equal_are_found() -> None:
    module = Embedded().eval()
    data = [{"ids": torch.randint(0, 50, (2, n)), "mask": torch.ones(2, n)} for n in (5, 9)]
    compiled = lowprec.quantize(module, data, precision="int8-weight-only")
    mask = torch.ones(1, 7)
    assert compiled(torch.randint(0, 50, (1, 7)), mask=mask).shape == (1, 7, 8)
    with pytest.raises(InputError):
        compiled(torch.randint(0, 50, (1, 8)), mask=mask)


def test_a_multiple_is_a_check_at_run_time() -> None:
    module = Halves().eval()
    compiled = lowprec.quantize(
        module, [torch.randn(1, 3, 16, 16), torch.randn(1, 3, 20, 24)], precision="bf16"
    )
    assert compiled(torch.randn(1, 3, 2, 10)).shape == (1, 3, 2, 10)
    with pytest.raises(InputError, match=r"'x' has size 17 on axis 2; .* multiples of 2"):
        compiled(torch.randn(1, 3, 17, 16))


def test_the_batch_of_states_that_do_not_begin_with_it_is_found() -> None:
    module = Tagger().eval()
    for batch in (1, 3):
        state = torch.zeros(1, batch, 16)
        compiled = lowprec.compile(module, example_inputs=(torch.randn(batch, 5, 8), state, state))
        x, other = torch.randn(4, 5, 8), torch.randn(1, 4, 16)
        with torch.no_grad():
            expected = module(x, other, other)
        torch.testing.assert_close(compiled(x, other, other), expected)


class Product(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x @ y.T * scale


def test_inputs_without_a_common_batch_and_scalars_are_taken() -> None:
    module = Product()
    given = (torch.randn(3, 8), torch.randn(7, 8), torch.tensor(2.0))
    compiled = lowprec.compile(module, example_inputs=given)
    torch.testing.assert_close(compiled(*given), module(*given))


def test_an_input_without_a_batch_is_taken() -> None:
    module = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
    compiled = lowprec.compile(module, example_inputs=torch.randn(8))
    x = torch.randn(8)
    torch.testing.assert_close(compiled(x), module(x).detach())
    picture = nn.Conv2d(3, 4, 3)
    x = torch.randn(3, 9, 9)
    compiled = lowprec.compile(picture, example_inputs=x)
    torch.testing.assert_close(compiled(x), picture(x).detach())


def test_a_wrong_dynamic_shapes_is_an_error() -> None:
    x = torch.randn(2, 8)
    for shapes in ({"y": {0: Dim("batch")}}, {"x": {5: Dim("batch")}}, 3):
        with pytest.raises(InputError, match="dynamic_shapes"):
            lowprec.compile(nn.Linear(8, 8), example_inputs=example(x, dynamic_shapes=shapes))
