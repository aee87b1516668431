"""Merge a value with its own sigmoid.

x ──┬──► Sigmoid ──┬► Mul ──► y        becomes        x ──► UnaryChain(SiLU) ──► y
    └──────────────┘
"""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from lowprec.passes.matching import graph_of, is_operator, other_operand, sole_consumer
from lowprec.passes.own import insert_own
from lowprec.passes.unary_operators import SILU


def merge_silu(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for sigmoid in list(model.graph):
        if not is_operator(sigmoid, "Sigmoid") or sigmoid.outputs[0].name in keep:
            continue
        source, gate = sigmoid.inputs[0], sigmoid.outputs[0]
        multiply = sole_consumer(gate)
        if multiply is None or not is_operator(multiply, "Mul") or source is None:
            continue
        if source.dtype != ir.DataType.FLOAT or other_operand(multiply, gate) is not source:
            continue
        insert_own(
            multiply,
            "UnaryChain",
            [source],
            multiply.outputs,
            {"codes": [SILU], "a": [0.0], "b": [0.0]},
        )
        graph_of(multiply).remove([multiply, sigmoid], safe=True)
        changed = True
    return changed
