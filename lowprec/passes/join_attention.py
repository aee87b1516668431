"""Attention written out becomes one step of the engine, in models of any opset.

    q ──────────────► MatMul ──► Mul(scale) ──► Add(mask) ──► Softmax ──► MatMul ──► y
    k ──► Transpose ────┘                                        v ─────────┘
    becomes    q, k ──► Transpose', v, mask ──► Attention (joined, chain_*, int8) ──► y

ONNX has an Attention from opset 23 on (recover_attention); a file of an older one keeps its
arithmetic, for the other runtimes that read it. In f32 the step has the bits of that arithmetic.
Where quantize() has said so in the metadata of the Softmax (fuse_attention.PRODUCTS), both products
are of codes. Shapes that turn out to need broadcasting are refused by the engine: from then on the
session runs the model operator by operator, as behind any fused node that is refused.
"""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from lowprec.passes.fuse_attention import PRODUCTS
from lowprec.passes.matching import (
    NameSource,
    graph_of,
    is_operator,
    rank_of,
    sole_consumer,
)
from lowprec.passes.own import AttributeValue, insert_own
from lowprec.passes.recover_attention import (
    Written,
    find_attention,
    keys_before_size,
    may_be_one_size,
    stays_within,
)
from lowprec.passes.unary_operators import UnaryStep, unary_steps


def join_attention(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    names = NameSource(model)
    changed = False
    for softmax in list(model.graph):
        if not is_operator(softmax, "Softmax"):
            continue
        found = find_attention(softmax)
        if found is not None and is_joined(found, keep):
            _join(softmax, found, names)
            changed = True
    return changed


def is_joined(found: Written, keep: Container[str] = ()) -> bool:
    """Return whether this pass makes one step of it, as far as shapes are known.

    Args:
        found: Types of its values must be known.
        keep: Names of values that must still exist afterwards.
    """
    softmax = found.last.inputs[0]
    inner = [found.product.outputs[0], found.scores, softmax]
    if found.scaling is not None:
        inner.append(found.scaling.outputs[0])
    if _chain(found) is None:
        return False
    for value in inner:
        if value is None or value.name in keep or sole_consumer(value) is None:
            return False
        maker = value.producer()
        if maker is None or maker.graph is not found.last.graph:
            return False
    # Nobody may read the turned keys any more.
    turned = found.turned.producer()
    gone = [found.turned, *(() if turned is None else turned.inputs)]
    if any(value is not None and value.name in keep for value in gone):
        return False
    operands = [found.q, found.turned, found.v]
    if any(value in inner for value in (*operands, found.k, found.mask)):
        return False
    if is_operator(found.scores.producer(), "Where"):
        return False
    if any(rank_of(value) != 4 or value.dtype != ir.DataType.FLOAT for value in operands):
        return False
    if found.mask is not None and not stays_within(found.mask, found.q, found.turned):
        return False
    # Operands that are codes or bf16 have products of their own.
    sources = (found.q, found.k, found.v)
    if any(is_operator(value.producer(), "DequantizeLinear", "Cast") for value in sources):
        return False
    return all(may_be_one_size(operands, axis) for axis in (0, 1))


def _chain(found: Written) -> list[UnaryStep] | None:
    """Return what happens to scores before the mask; None: not what the engine's chain can do."""
    if found.scaling is None:
        return []
    steps = unary_steps(found.scaling)
    return steps[1] if steps is not None and steps[0] is found.product.outputs[0] else None


def _join(softmax: ir.Node, found: Written, names: NameSource) -> None:
    attributes: dict[str, AttributeValue] = {"joined": 1, "scale": found.scale}
    if chain := _chain(found):
        attributes["chain_codes"] = [step[0] for step in chain]
        attributes["chain_a"] = [step[1] for step in chain]
        attributes["chain_b"] = [step[2] for step in chain]
    if softmax.metadata_props.get(PRODUCTS) == "int8":
        attributes["int8"] = 1
    inputs: list[ir.Value | None] = [found.q, keys_before_size(found, names), found.v]
    if found.mask is not None:
        inputs.append(found.mask)
    insert_own(found.last, "Attention", inputs, found.last.outputs, attributes)
    parts = (found.last, softmax, found.scores.producer(), found.scaling, found.product)
    graph_of(found.last).remove({part for part in parts if part is not None}, safe=True)
