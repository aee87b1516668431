"""One pass over memory for unary operators in a row.

    x ──► HardSwish ──► Mul(0.17) ──► Add(-0.2) ──► y     becomes     x ──► UnaryChain ──► y

An intermediate value that somebody else reads, or that is observed, ends a chain.
"""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from lowprec.passes.matching import graph_of, sole_consumer
from lowprec.passes.own import insert_own, is_own
from lowprec.passes.unary_operators import UnaryStep, unary_steps


def fuse_unary_chains(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in list(model.graph):
        if node.graph is None:
            continue
        found = unary_steps(node)
        if found is None:
            continue
        source, steps = found
        members, last = [node], node
        while True:
            following = _following(last, keep)
            if following is None:
                break
            last, more = following
            members.append(last)
            steps = [*steps, *more]
        if len(members) == 1 and is_own(node, "UnaryChain"):
            continue  # it is one already
        insert_own(last, "UnaryChain", [source], last.outputs, chain_attributes(steps))
        graph_of(last).remove(list(reversed(members)), safe=True)
        changed = True
    return changed


def chain_attributes(steps: list[UnaryStep]) -> dict[str, list[int] | list[float]]:
    """Return the attributes of the UnaryChain that runs `steps`."""
    return {
        "codes": [step[0] for step in steps],
        "a": [step[1] for step in steps],
        "b": [step[2] for step in steps],
    }


def _following(node: ir.Node, keep: Container[str]) -> tuple[ir.Node, list[UnaryStep]] | None:
    value = node.outputs[0]
    if value.name in keep:
        return None
    reader = sole_consumer(value)
    if reader is None or reader.graph is not node.graph:
        return None
    found = unary_steps(reader)
    if found is None or found[0] is not value:
        return None
    return reader, found[1]
