"""Filters whose power is taken in decibel stay float; networks before a log-softmax do not."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from small_models import build

from lowprec.config import Config
from lowprec.quantization.logarithms import logarithm_after
from lowprec.quantization.placement import plan_placement
from lowprec.quantization.precisions import apply_precisions

rng = np.random.default_rng(3)
W = rng.standard_normal((64, 64)).astype(np.float32)
V = rng.standard_normal((64, 64)).astype(np.float32)
B = rng.standard_normal(64).astype(np.float32)
TINY, ONE, TWO = (np.array(value, np.float32) for value in (1e-6, 1.0, 2.0))


def chain(*steps: str) -> ir.Model:
    """Return x -> steps, each `$` in a step being what the step before made."""
    lines, last = [], "x"
    for number, step in enumerate(steps):
        lines.append(f"t{number} = {step.replace('$', last)}")
        last = f"t{number}"
    body = "\n".join([*lines, f"y = Identity({last})"])
    names = {"w": W, "v": V, "b": B, "tiny": TINY, "one": ONE, "two": TWO}
    used = {key: names[key] for key in names if f" {key})" in body or f" {key}," in body}
    return build(f"g (float[8,64] x) => (float[8,64] y) {{ {body} }}", used)


FILTER = "MatMul($, w)"


@pytest.mark.parametrize(
    "steps",
    [
        (FILTER, "Log($)"),
        (FILTER, "Pow($, two)", "Add($, tiny)", "Log($)"),
        (FILTER, "Mul($, $)", "Sqrt($)", "Clip($)", "Log($)"),
        (FILTER, "Mul($, $)", "MatMul($, v)", "Relu($)", "Log($)"),
    ],
    ids=lambda steps: " ".join(step.split("(")[0] for step in steps),
)
def test_a_filter_before_a_logarithm_stays_float(steps):
    model = chain(*steps)
    first = next(node for node in model.graph if node.op_type == "MatMul")
    found = logarithm_after(first)
    assert found is not None
    assert found.op_type == "Log"
    plan = plan_placement(model.graph, Config())
    assert first not in plan.layers
    assert plan.reasons[first].startswith("a logarithm follows")
    for precision in ("int8-dynamic", "int8-weight-only"):
        result = apply_precisions(model, {}, Config.of({"precision": precision}))
        assert {r.precision for r in result.layers if r.name == first.name} == {"f32"}


@pytest.mark.parametrize(
    "steps",
    [
        (FILTER, "Softmax($)", "Log($)"),
        (FILTER, "Exp($)", "Add($, one)", "Log($)"),
        (FILTER, "Sigmoid($)", "Log($)"),
        (FILTER, "Relu($)", "MatMul($, v)", "Log($)"),
        (FILTER, "MatMul($, v)", "Add($, one)", "Log($)"),
        (FILTER, "Gemm($, v, b)", "Log($)"),
        (FILTER, "Relu($)"),
    ],
    ids=lambda steps: " ".join(step.split("(")[0] for step in steps),
)
def test_a_network_is_no_filter(steps):
    model = chain(*steps)
    first = next(node for node in model.graph if node.op_type == "MatMul")
    assert logarithm_after(first) is None
    assert first in plan_placement(model.graph, Config()).layers


def test_a_rule_for_int8_is_obeyed():
    model = chain(FILTER, "Log($)")
    (layer,) = (node for node in model.graph if node.op_type == "MatMul")
    config = Config.of({"layers": [{"op_type": "MatMul", "precision": "int8"}]})
    assert layer in plan_placement(model.graph, config).layers


def test_a_branch_is_enough():
    model = build(
        """g (float[8,64] x) => (float[8,64] y, float[8,64] z) {
            a = MatMul(x, w)
            y = Relu(a)
            s = Mul(a, a)
            z = Log(s)
        }""",
        {"w": W},
    )
    (layer,) = (node for node in model.graph if node.op_type == "MatMul")
    assert logarithm_after(layer) is not None
