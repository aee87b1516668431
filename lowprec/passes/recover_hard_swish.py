"""Recover HardSwish (opset 14) from the arithmetic that exporters write for it.

    x ──┬──► Add(3) ──► Clip(0, 6) ──┬► Mul ──► Div(6) ──► y
        └────────────────────────────┘                           becomes    x ──► HardSwish ──► y
    x ──┬──► HardSigmoid(1/6, 1/2) ──┬► Mul ──► y
        └────────────────────────────┘

The second form is also what `recover_hard_sigmoid` makes of `x * (Clip(x + 3, 0, 6) / 6)`. Operands
may come in either order, and Mul by 1/6 counts as Div by 6. Values in between must have no other
reader.
"""

from __future__ import annotations

import onnx_ir as ir

from lowprec.passes.matching import (
    NameSource,
    insert_operator,
    is_operator,
    opset_version,
    other_operand,
    replace_output,
    sole_consumer,
    walk_nodes,
)
from lowprec.passes.recover_hard_sigmoid import added_scalar, clip_from_zero, divides_by


def recover_hard_swish(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    if opset_version(model) < 14:
        return False
    names = NameSource(model)
    changed = False
    for node in walk_nodes(model):
        match = _match_clip_form(node) or _match_gate_form(node)
        if match is None:
            continue
        source, last = match
        (output,) = last.outputs
        swish = insert_operator(
            last, "HardSwish", [source], like=output, name=names.fresh(f"{output.name}_hard_swish")
        )
        changed |= replace_output(last, swish)
    return changed


def _match_clip_form(node: ir.Node) -> tuple[ir.Value, ir.Node] | None:
    """Return (x, last node) of `x * Clip(x + 3, 0, 6) / 6` whose Clip is `node`."""
    if clip_from_zero(node) != 6.0 or node.inputs[0] is None:
        return None
    added = added_scalar(node.inputs[0].producer())
    if added is None or abs(added[1] - 3.0) > 1e-6 or sole_consumer(node.inputs[0]) is not node:
        return None
    multiply = sole_consumer(node.outputs[0])
    if multiply is None or not is_operator(multiply, "Mul"):
        return None
    if other_operand(multiply, node.outputs[0]) is not added[0]:
        return None
    divide = sole_consumer(multiply.outputs[0])
    if divide is None or not divides_by(divide, multiply.outputs[0], 6.0):
        return None
    return added[0], divide


def _match_gate_form(node: ir.Node) -> tuple[ir.Value, ir.Node] | None:
    """Return (x, last node) of `x * HardSigmoid(x)` whose HardSigmoid is `node`."""
    if not is_operator(node, "HardSigmoid"):
        return None
    alpha = node.attributes.get_float("alpha", 0.2)
    beta = node.attributes.get_float("beta", 0.5)
    if abs(alpha - 1 / 6) > 1e-7 or abs(beta - 0.5) > 1e-7:
        return None
    multiply = sole_consumer(node.outputs[0])
    if multiply is None or not is_operator(multiply, "Mul"):
        return None
    source = node.inputs[0]
    if source is None or other_operand(multiply, node.outputs[0]) is not source:
        return None
    return source, multiply
