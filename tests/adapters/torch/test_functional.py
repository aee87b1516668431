"""Functions and tensor methods of torch: captured right for any batch, on native kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_functions as cases
from torch import nn
from torch_layers import tensors_in

import lowprec
from lowprec.adapters.torch import example
from lowprec.errors import LowprecError

GROUP_SIZE = 24  # functions in one export


class Calls(nn.Module):
    """Several functions, each with arguments of its own."""

    def __init__(self, functions: dict[str, Callable[..., Any]], counts: list[int]) -> None:
        super().__init__()
        self.functions, self.counts = functions, counts

    def forward(self, arguments: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        left = list(arguments)
        results = {}
        for (name, function), count in zip(self.functions.items(), self.counts, strict=True):
            results[name] = tensors_in(function(*left[:count]))
            del left[:count]
        return results


NAMES = [*cases.FUNCTIONS]
GROUPS = [NAMES[i : i + GROUP_SIZE] for i in range(0, len(NAMES), GROUP_SIZE)]


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: f"{names[0]}..{names[-1]}")
def test_functions_compute_what_torch_computes_for_any_batch(names: list[str]) -> None:
    def arguments(batch: int) -> list[list[torch.Tensor]]:
        return [list(cases.FUNCTIONS[name][1](batch)) for name in names]

    counts = [len(given) for given in arguments(2)]
    module = Calls({name: cases.FUNCTIONS[name][0] for name in names}, counts).eval()
    compiled = lowprec.compile(module, example_inputs=example([t for a in arguments(2) for t in a]))
    for batch in (2, 3, 1):
        given = [t for a in arguments(batch) for t in a]
        with torch.no_grad():
            expected = module(given)
        actual = compiled(given)
        for name, tensors in expected.items():
            for one, other in zip(tensors, actual[name], strict=True):
                torch.testing.assert_close(
                    other,
                    one,
                    rtol=1e-4,
                    atol=1e-4,
                    equal_nan=True,
                    msg=lambda m, n=name, b=batch: f"{n} {b}: {m}",
                )
    slow = {step.op for step in compiled.explain().steps if not step.native}
    assert slow <= cases.FALLS_BACK


@pytest.mark.parametrize("name", cases.REFUSED)
def test_what_has_no_form_is_refused(name: str) -> None:
    function, inputs = cases.REFUSED[name]
    given = list(inputs(2))
    with pytest.raises(LowprecError):
        lowprec.compile(Calls({name: function}, [len(given)]).eval(), example_inputs=example(given))
