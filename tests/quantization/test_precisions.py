"""Every precision in one graph: who gets what, what is written, what the engine makes of it."""

from __future__ import annotations

import onnx
import pytest
from mixed_models import apply, decibels, onnxruntime_results, precisions
from small_networks import mobile, transformer

from lowprec.graph import load, to_proto
from lowprec.models import CompiledModel

RULES = [
    {"match": "*_1", "precision": "bf16"},
    {"match": "*_2", "precision": "int8-weight-only"},
    {"match": "*_3", "precision": "f32"},
    {"match": "*_6", "precision": "int8"},
]


@pytest.mark.parametrize("network", [mobile, transformer])
@pytest.mark.parametrize(
    "precision", ["int8", "int8-dynamic", "int8-weight-only", "bf16", "f16-weight-only"]
)
def test_each_layer_has_what_its_rule_says(network, precision):
    proto, feeds = network()
    original, result, _ = apply(proto, feeds, {"precision": precision, "layers": RULES})
    kind = "Conv" if network is mobile else "MatMul"
    found = precisions(result)
    assert found[f"{kind}_1"] == "bf16"
    assert found[f"{kind}_2"] == "int8-weight-only"
    assert found[f"{kind}_3"] == "f32"
    assert found[f"{kind}_6"] == "int8"
    assert found[f"{kind}_7"] == precision
    made = to_proto(result.model)
    onnx.checker.check_model(made, full_check=True)
    model = CompiledModel(load(made))
    for feed in feeds[:2]:
        (expected,), (actual,) = original.run(feed), model.run(feed)
        assert 25 < decibels(expected, actual) < 80
        (other,) = onnxruntime_results(made, feed)
        assert decibels(other, actual) > 35
    kernels = {step.kernel for step in model.session.explain().steps}
    matrix = "conv" if network is mobile else "matrix"
    assert any(kernel.startswith(f"{matrix} u8s8") for kernel in kernels)
    assert any("bf16" in kernel for kernel in kernels)
    assert all(step.native for step in model.session.explain().steps)


def test_only_static_layers_need_ranges():
    proto, feeds = mobile()
    rules = [{"match": "Conv_4", "precision": "int8"}]
    _, _, names = apply(proto, feeds, {"precision": "bf16", "layers": rules})
    assert len(names) == 1
    for precision in ("bf16", "int8-dynamic", "int8-weight-only", "f16-weight-only"):
        assert apply(proto, feeds, {"precision": precision})[2] == []
