"""Add a layer's bias before its result is taken apart into heads.

    x ──► MatMul(W) ──► Reshape(.., heads, size) ──► Add(bias of [heads, size]) ──► y
    becomes    x ──► MatMul(W) ──► Add(bias of [heads * size]) ──► Reshape ──► y

A bias directly behind its product is part of the layer, in f32 and in int8.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.graph.constants import add_constant
from lowprec.passes.matching import (
    NameSource,
    constant_array,
    constant_floats,
    graph_of,
    insert_operator,
    is_operator,
    rank_of,
    replace_output,
    sole_consumer,
    split_constant,
    walk_nodes,
)


def move_bias(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    names = NameSource(model)
    changed = False
    for node in walk_nodes(model):
        if is_operator(node, "Add"):
            changed |= _move(node, names)
    return changed


def _move(add: ir.Node, names: NameSource) -> bool:
    split = split_constant(add)
    if split is None or sole_consumer(split[0]) is not add:
        return False
    reshape, bias = split[0].producer(), constant_floats(split[1])
    if reshape is None or bias is None or not is_operator(reshape, "Reshape"):
        return False
    whole = reshape.inputs[0]
    product = None if whole is None else whole.producer()
    if whole is None or product is None or not is_operator(product, "MatMul"):
        return False
    rank = rank_of(split[0])
    if rank is None or bias.ndim > rank:  # it adds an axis
        return False
    weights = constant_floats(product.inputs[1])
    if weights is None or weights.ndim != 2 or sole_consumer(whole) is not reshape:
        return False
    while bias.ndim and bias.shape[0] == 1:
        bias = bias[0]
    parts = list(bias.shape)
    if len(parts) < 2 or bias.size != weights.shape[1] or _tail(reshape, len(parts)) != parts:
        return False
    vector = add_constant(
        graph_of(add), names.fresh(f"{split[1].name}_flat"), np.ravel(bias).astype(np.float32)
    )
    summed = insert_operator(
        reshape, "Add", [whole, vector], like=whole, name=names.fresh(f"{whole.name}_biased")
    )
    apart = insert_operator(
        add,
        "Reshape",
        [summed, reshape.inputs[1]],
        like=add.outputs[0],
        name=names.fresh(f"{split[0].name}_biased"),
        attributes={"allowzero": reshape.attributes.get_int("allowzero", 0)},
    )
    return replace_output(add, apart)


def _tail(reshape: ir.Node, count: int) -> list[int] | None:
    """Return the last sizes that a Reshape makes, where they are known."""
    target = reshape.inputs[1]
    known = constant_array(target)
    if known is not None:
        return [int(size) for size in known.reshape(-1)[-count:]]
    joined = None if target is None else target.producer()
    if joined is None or not is_operator(joined, "Concat"):
        return None
    sizes: list[int] = []
    for part in reversed(joined.inputs):
        numbers = constant_array(part)
        if numbers is None:
            break
        sizes = [*(int(number) for number in numbers.reshape(-1)), *sizes]
    return sizes[-count:] if len(sizes) >= count else None
