"""torch.onnx's table of operators is kept from export to export; what is kept stays as it is."""

from __future__ import annotations

import torch
from torch.onnx._internal.exporter._registration import ONNXRegistry

from lowprec.adapters.torch.kept_registry import kept_registry

RELU = torch.ops.aten.relu.default


def test_a_copy_is_given_and_torch_is_as_it_was_afterwards() -> None:
    fill = vars(ONNXRegistry)["from_torchlib"]
    own = ONNXRegistry.from_torchlib(23)
    with kept_registry():
        first = ONNXRegistry.from_torchlib(23)
        second = ONNXRegistry.from_torchlib(23)
        assert ONNXRegistry.from_torchlib(18).opset_version == 18
    assert vars(ONNXRegistry)["from_torchlib"] is fill
    assert first.opset_version == own.opset_version == 23
    assert {name: len(found) for name, found in first.functions.items()} == {
        name: len(found) for name, found in own.functions.items()
    }
    assert first.get_decomps(RELU)[0] is second.get_decomps(RELU)[0]  # filled once
    assert first.get_decomps(RELU)[0] is not own.get_decomps(RELU)[0]


def test_what_one_export_adds_the_next_does_not_see() -> None:
    def custom(x: torch.Tensor) -> torch.Tensor:
        return x

    with kept_registry():
        first = ONNXRegistry.from_torchlib(23)
        before = len(first.get_decomps(RELU))
        first.register_op(RELU, custom)
        assert len(first.get_decomps(RELU)) == before + 1
        assert len(ONNXRegistry.from_torchlib(23).get_decomps(RELU)) == before
