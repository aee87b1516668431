"""A module that cannot be captured as a whole: its parts that can run on lowprec, the rest stays.

    capture_module ─► refused ─► split_module ─► CapturedParts ─► quantised each ─► SplitModule

The parts are found in a copy of the module's structure; the original is not touched. What the rest
does between them is its own Python code, in that copy.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from lowprec.adapters.torch import KIND
from lowprec.adapters.torch.batches import RECORDED
from lowprec.adapters.torch.binding import KEY, Binding
from lowprec.adapters.torch.capture import flattened
from lowprec.adapters.torch.examples import Example
from lowprec.adapters.torch.items import Wanted
from lowprec.adapters.torch.recording import Recorder
from lowprec.adapters.torch.refusals import Refusal
from lowprec.adapters.torch.regions import (
    Calls,
    Kept,
    Region,
    RegionFinder,
    looked_into,
    shared_copy,
)
from lowprec.adapters.torch.silence import quiet
from lowprec.adapters.torch.sources import OpenedData
from lowprec.adapters.torch.split_module import SplitModule, note_of_refusal
from lowprec.adapters.torch.trees import Leaf, flatten
from lowprec.adapters.torch.untouched import untouched
from lowprec.errors import LowprecError
from lowprec.hookspecs import CapturedParts

ROUNDS = 6  # of leaving out parts that others look into
EXAMPLES = 2  # calls of the whole that tell how its parts are called


def split_module(
    module: nn.Module,
    examples: Sequence[Example],
    data: OpenedData | None,
    why: LowprecError,
    most: int,
) -> CapturedParts:
    """Return the parts of `module` that can be captured.

    Args:
        module: As given; stays as it is.
        examples: Calls of it.
        data: Calibration data of the whole; None without.
        why: The whole cannot be captured.
        most: How many items of the data may be asked for.

    Raises:
        LowprecError: `why`, where nothing can be captured that is worth it.
    """
    try:
        with quiet(), untouched(module):
            frame = shared_copy(module)
    except LowprecError:
        raise why from None
    frame.eval()
    with quiet():
        calls = Calls(frame, _varied(frame, examples))
        avoided: set[str] = set()
        for _ in range(ROUNDS):
            finder = RegionFinder(frame, calls, avoided)
            if not finder.regions:
                raise why
            wanted, result = looked_into(frame, finder.regions, examples[0])
            if not wanted and _is_same(frame, examples[0], result):
                break
            avoided |= wanted or {region.name for region in finder.regions}
        else:
            raise why
    signature = inspect.signature(module.forward)
    if data is not None:
        _, arguments = flattened(examples, signature)
        recorder = Recorder(frame, data, Wanted.by_capture(arguments), most)
        for region in finder.regions:
            binding = region.captured.binding[KEY]
            assert isinstance(binding, Binding)
            recorder.add(region.name, frame.get_submodule(region.place), binding)
            feeds = recorder.feeds(region.name)
            region.captured.binding = {**region.captured.binding, RECORDED: feeds}
    return CapturedParts(
        parts={region.name: region.captured for region in finder.regions},
        source=module,
        kind=KIND,
        binding={"frame": frame, "regions": finder.regions, "signature": signature},
        notes=_notes(module, why, finder.regions, finder.kept),
    )


def assemble(models: Mapping[str, Any], captured: CapturedParts) -> SplitModule:
    """Return the module with `models`, by name of the part, in the places of its parts."""
    from lowprec.adapters.torch.module import module_of

    frame, regions = captured.binding["frame"], captured.binding["regions"]
    signature = captured.binding["signature"]
    assert isinstance(frame, nn.Module)
    assert isinstance(regions, list)
    assert isinstance(signature, inspect.Signature)
    made = shared_copy(frame)
    parts = {region.name: module_of(models[region.name], region.captured) for region in regions}
    for region in regions:
        region.replace(made, parts[region.name])
    _own_tensors(made)
    places = {region.name: region.place for region in regions}
    return SplitModule(made, places, list(captured.notes), signature)


def _varied(frame: nn.Module, examples: Sequence[Example]) -> list[Example]:
    """Return calls of different batches, where the module takes them: what then changes may."""
    few = list(examples[:EXAMPLES])
    first = examples[0]
    leaves: list[Leaf] = []
    for value in [*first.args, *first.kwargs.values()]:
        flatten(value, "", leaves)
    sizes = {tensor.shape[0] for _, tensor in leaves if tensor.ndim}
    if len(sizes) != 1:
        return few
    doubled = Example(_doubled(first.args), _doubled(first.kwargs))
    try:
        with untouched(frame):
            frame(*doubled.args, **doubled.kwargs)
    except Exception:  # the module's own: it does not take more
        return few
    return [*few, doubled]


def _doubled(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.cat([value, value]) if value.ndim else value
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_doubled(part) for part in value)
    if isinstance(value, list):
        return [_doubled(part) for part in value]
    if type(value) is dict:
        return {key: _doubled(part) for key, part in value.items()}
    return value


def _is_same(frame: nn.Module, example: Example, result: Any) -> bool:
    """Return whether the module gives `result` when nothing in it was replaced."""
    leaves: list[Leaf] = []
    others: list[Leaf] = []
    with untouched(frame):
        expected = frame(*example.args, **example.kwargs)
    if flatten(expected, "", leaves) != flatten(result, "", others):
        return False
    return all(
        one.shape == other.shape and torch.allclose(one, other, equal_nan=True)
        for (_, one), (_, other) in zip(leaves, others, strict=True)
    )


def _own_tensors(module: nn.Module) -> None:
    """Give what stays in PyTorch its own weights: the original may be trained on."""
    from lowprec.adapters.torch.module import CompiledModule

    copies: dict[int, torch.Tensor] = {}

    def copy_of(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in copies:
            values = tensor.detach().clone()
            is_parameter = isinstance(tensor, nn.Parameter)
            copies[id(tensor)] = nn.Parameter(values, False) if is_parameter else values
        return copies[id(tensor)]

    for part in module.modules():
        if isinstance(part, CompiledModule):
            continue
        holders: list[dict[str, Any]] = [part._parameters, part._buffers, vars(part)]
        for named in holders:
            for name, tensor in list(named.items()):
                if isinstance(tensor, torch.Tensor):
                    named[name] = copy_of(tensor)


def _notes(
    module: nn.Module, why: LowprecError, regions: Sequence[Region], kept: Sequence[Kept]
) -> list[str]:
    names = ", ".join(region.name for region in regions)
    lines = [
        note_of_refusal(type(module).__name__, why),
        f"on lowprec run {len(regions)} parts: {names}; the rest is computed by PyTorch in float",
    ]
    lines += [
        note_of_refusal(part.path, part.why)
        for part in kept
        if isinstance(part.why, Refusal) and part.why.line is not None
    ]
    return list(dict.fromkeys(lines))
