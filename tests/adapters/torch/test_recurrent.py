"""Recurrent layers are captured for sequences of any length."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn.modules import rnn as torch_rnn

import lowprec
from lowprec.adapters.torch.recurrent import whole_sequences

KINDS = {
    "lstm": lambda **more: nn.LSTM(6, 5, **more),
    "gru": lambda **more: nn.GRU(6, 5, **more),
    "tanh": lambda **more: nn.RNN(6, 5, nonlinearity="tanh", **more),
    "relu": lambda **more: nn.RNN(6, 5, nonlinearity="relu", **more),
}
FLOAT = {"layers": [{"match": "*", "precision": "f32"}]}
FORMS = (
    {"batch_first": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 2, "bias": False},
    {"bidirectional": True},
)


class Network(nn.Module):
    def __init__(self, kind: str, form: dict[str, object]) -> None:
        super().__init__()
        self.layer = KINDS[kind](**form)
        self.turned = not form.get("batch_first")

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        output, states = self.layer(x.transpose(0, 1) if self.turned else x)
        return {"output": output.transpose(0, 1) if self.turned else output, "states": states}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: "-".join(form))
@pytest.mark.parametrize("kind", KINDS)
def test_any_length_and_batch(kind: str, form: dict[str, object]) -> None:
    torch.manual_seed(3)
    network = Network(kind, form).eval()
    examples = [torch.randn(2, length, 6) for length in (4, 7)]
    quantised = lowprec.quantize(network, examples, config=FLOAT)
    for batch, length in ((1, 1), (3, 12), (2, 4)):
        x = torch.randn(batch, length, 6)
        with torch.no_grad():
            expected = network(x)
        torch.testing.assert_close(quantised(x), expected, rtol=1e-4, atol=1e-5)


def test_a_state_that_is_given_is_used() -> None:
    class WithState(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.LSTM(6, 5)

        def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            output, _ = self.layer(x, (h, c))
            return output

    network = WithState().eval()
    calls = [(torch.randn(n, 2, 6), torch.randn(1, 2, 5), torch.randn(1, 2, 5)) for n in (3, 5)]
    compiled = lowprec.quantize(network, calls, config=FLOAT)
    for call in calls:
        with torch.no_grad():
            torch.testing.assert_close(compiled(*call), network(*call), rtol=1e-4, atol=1e-5)


def test_other_threads_and_what_comes_after_see_torch_itself() -> None:
    layer = nn.LSTM(3, 4)
    x = torch.randn(2, 1, 3)
    before = torch_rnn._VF
    trained: list[bool] = []

    def train() -> None:
        layer(x)[0].sum().backward()  # an operator of ours has no gradient
        trained.append(layer.weight_ih_l0.grad is not None)

    with whole_sequences():
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
        assert torch_rnn._VF is not before
    assert trained == [True]
    assert torch_rnn._VF is before
