"""LSTM, GRU and RNN as one operator each while torch traces, for sequences of any length.

torch.export walks through torch's own operators step by step, which fixes the sequence length to
the example's. While a module is captured, and in that thread only, torch.nn's recurrent layers
call operators of ours in their place: the same numbers, a shape for any length, and an ONNX node
for each layer.

Order of the gates: torch.nn.LSTM and GRU, ONNX operators LSTM, GRU and RNN.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import onnx_ir as ir
import onnxscript
import torch

op: Any = onnxscript.opset23  # its stubs know numbers, not the values that a trace passes

# Position in torch's order of the gates that ONNX wants first, second ...
_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}
_MODES = tuple(_GATES)

_ARGUMENTS = (
    "Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, "
    "bool bidirectional, bool batch_first"
)
_lock = threading.RLock()

_library = torch.library.Library("lowprec_rnn", "DEF")  # type: ignore[no-untyped-call]


def _define(mode: str) -> None:
    states, results = (
        ("Tensor[] hx", "(Tensor, Tensor, Tensor)")
        if mode == "lstm"
        else ("Tensor hx", "(Tensor, Tensor)")
    )
    _library.define(  # type: ignore[no-untyped-call]
        f"{mode}(Tensor input, {states}, {_ARGUMENTS}) -> {results}"
    )
    compute = getattr(torch, mode)
    _library.impl(mode, lambda *args: compute(*args), "CPU")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"lowprec_rnn::{mode}", _shapes(mode), lib=_library)


def _shapes(mode: str) -> Callable[..., Any]:
    def shapes(
        x: torch.Tensor,
        hx: Any,
        params: Any,
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        states = list(hx) if mode == "lstm" else [hx]
        width = states[0].shape[-1] * (2 if bidirectional else 1)
        output = x.new_empty((x.shape[0], x.shape[1], width))
        return (output, *(torch.empty_like(state) for state in states))

    return shapes


class _Functions:
    """Stands for torch._VF in torch.nn.modules.rnn: its thread's recurrent calls become ours."""

    def __init__(self, functions: Any) -> None:
        self._functions = functions
        self._thread = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._functions, name)
        if name not in _MODES or threading.get_ident() != self._thread:
            return found
        ours = getattr(torch.ops.lowprec_rnn, name)

        def call(*args: Any) -> Any:
            return ours(*args) if _is_plain(name, args) else found(*args)

        return call


def _is_plain(mode: str, args: tuple[Any, ...]) -> bool:
    """Return whether a call is of whole batches, in evaluation, without a projection."""
    if len(args) != 9 or not isinstance(args[2], (list, tuple)) or args[6]:
        return False  # packed sequences have their batch sizes second; args[6] is train
    has_biases, layers, both = args[3], args[4], args[7]
    wanted: int = layers * (2 if both else 1) * (4 if has_biases else 2)
    return len(args[2]) == wanted


@contextmanager
def whole_sequences() -> Iterator[None]:
    """Within, recurrent layers that this thread traces are one operator for any length."""
    from torch.nn.modules import rnn

    module: Any = rnn
    with _lock:
        before = module._VF
        module._VF = _Functions(before)
        try:
            yield
        finally:
            module._VF = before


def recurrent_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the ONNX forms by operator, as torch.onnx.export takes them."""
    return {getattr(torch.ops.lowprec_rnn, mode).default: _translation(mode) for mode in _MODES}


def _translation(mode: str) -> Callable[..., Any]:
    def translate(
        x: ir.Value,
        hx: Any,
        params: Sequence[ir.Value],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> Any:
        states = list(hx) if mode == "lstm" else [hx]
        directions = 2 if bidirectional else 1
        each = 4 if has_biases else 2  # parameters of a layer and direction
        if batch_first:
            x = op.Transpose(x, perm=[1, 0, 2])
        ends: list[list[ir.Value]] = [[] for _ in states]
        for layer in range(num_layers):
            first = layer * directions
            groups = [
                params[(first + way) * each : (first + way + 1) * each] for way in range(directions)
            ]
            starts = [
                state if num_layers == 1 else op.Slice(state, [first], [first + directions], [0])
                for state in states
            ]
            x, *last = _layer(mode, x, groups, starts)
            for found, end in zip(ends, last, strict=True):
                found.append(end)
        if batch_first:
            x = op.Transpose(x, perm=[1, 0, 2])
        joined = [found[0] if len(found) == 1 else op.Concat(*found, axis=0) for found in ends]
        return (x, *joined)

    return translate


def _layer(
    mode: str, x: ir.Value, groups: Sequence[Sequence[ir.Value]], starts: Sequence[ir.Value]
) -> tuple[ir.Value, ...]:
    """Return a layer's output, its directions side by side, and its last states."""
    recurrent_weight = groups[0][1]
    assert recurrent_weight.shape is not None
    hidden = int(recurrent_weight.shape[-1])  # type: ignore[arg-type]
    stacked = [_stacked(mode, hidden, [group[part] for group in groups]) for part in range(2)]
    bias: ir.Value | None = None
    if len(groups[0]) == 4:
        pairs = [_stacked(mode, hidden, [group[part] for group in groups]) for part in (2, 3)]
        bias = op.Concat(*pairs, axis=1)
    attributes: dict[str, Any] = {
        "hidden_size": hidden,
        "direction": "bidirectional" if len(groups) == 2 else "forward",
    }
    if mode == "lstm":
        made = op.LSTM(x, *stacked, bias, None, *starts, **attributes)
    elif mode == "gru":
        made = op.GRU(x, *stacked, bias, None, *starts, linear_before_reset=1, **attributes)
    else:
        activation = "Tanh" if mode == "rnn_tanh" else "Relu"
        activations = [activation] * len(groups)
        made = op.RNN(x, *stacked, bias, None, *starts, activations=activations, **attributes)
    # [length, directions, batch, hidden] as [length, batch, directions x hidden]
    if len(groups) == 1:
        output = op.Squeeze(made[0], [1])
    else:
        output = op.Reshape(op.Transpose(made[0], perm=[0, 2, 1, 3]), [0, 0, -1])
    return (output, *made[1:])


def _stacked(mode: str, hidden: int, weights: Sequence[ir.Value]) -> ir.Value:
    """Return the weights of both directions as one, their gates in ONNX's order."""
    order = _GATES[mode]
    turned: list[ir.Value] = []
    for weight in weights:
        gates = [op.Slice(weight, [gate * hidden], [(gate + 1) * hidden], [0]) for gate in order]
        whole = gates[0] if len(gates) == 1 else op.Concat(*gates, axis=0)
        turned.append(op.Unsqueeze(whole, [0]))
    both: ir.Value = turned[0] if len(turned) == 1 else op.Concat(*turned, axis=0)
    return both


for _mode in _MODES:
    _define(_mode)
