"""Recover Attention (opset 23) from its arithmetic.

    q ──────────────► MatMul ──► Mul(scale) ──► Add(mask) ──► Softmax ──► MatMul ──► y
    k ──► Transpose ────┘                                        v ─────────┘
    becomes    q, k ──► Transpose', v, mask ──► Attention(scale) ──► y

q, k and v have four axes: batch, heads, positions, size. The Transpose in front of k is one that
puts positions last; what is left of it puts them before the size. A Mul by a number may follow it,
where an exporter gives q and k a root of the scale each: both stay in front. Scale (Mul or Div by a
number above 0: Attention takes its root) and mask (added, f32) may be absent.
Values in between must have no other reader, and a mask must not spread the scores: Attention's
results have the axes of q.

A mask may also be a choice, Where(mask, scores, -3e38), as Keras writes it: as good as adding that
number, which no score changes by rounding. Before that, ones of the scores' shape that a mask is
joined with (And) are dropped: the choice itself spreads the mask. A mask may be made for the shape
of the scores, which is then that of q and k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lowprec.graph.constants import add_constant
from lowprec.passes.matching import (
    NameSource,
    constant_array,
    constant_scalar,
    graph_of,
    insert_operator,
    is_operator,
    opset_version,
    other_operand,
    rank_of,
    replace_output,
    sole_consumer,
    split_constant,
    walk_nodes,
)

_LOW = -1e30  # f32: a score that is added to it is gone


def recover_attention(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    if opset_version(model) < 23:
        return False
    names = NameSource(model)
    changed = False
    for node in walk_nodes(model):
        if is_operator(node, "Softmax"):
            changed |= _rewrite(node, names)
        elif is_operator(node, "Where"):
            changed |= _drop_ones(node)
    return changed


def _drop_ones(where: ir.Node) -> bool:
    """Let Where(And(ones of x's shape, mask), x, number) choose by the mask itself."""
    condition, x = where.inputs[0], where.inputs[1]
    join = None if condition is None else condition.producer()
    if join is None or not is_operator(join, "And") or constant_scalar(where.inputs[2]) is None:
        return False
    for ones, mask in (join.inputs, join.inputs[::-1]):
        expand = None if ones is None else ones.producer()
        if expand is None or mask is None or not is_operator(expand, "Expand"):
            continue
        full, shape = constant_array(expand.inputs[0]), expand.inputs[1]
        while shape is not None and is_operator(shape.producer(), "Cast"):
            cast = shape.producer()
            shape = None if cast is None else cast.inputs[0]
        measure = None if shape is None else shape.producer()
        if full is None or full.size != 1 or not full.all() or measure is None:
            continue
        if is_operator(measure, "Shape") and not measure.attributes and measure.inputs[0] is x:
            where.replace_input_with(0, mask)
            return True
    return False


@dataclass(frozen=True)
class Written:
    """Attention as arithmetic; whether shapes allow one operator is another question.

    Attributes:
        product: Of q and `turned`.
        scaling: Multiplies or divides its result by a number, `scale` in all; None: there is none.
        scores: What Softmax reads.
        last: The product with v.
        q, v: [B, H, S, D], [B, H, T, W].
        turned: [B, H, D, T], the Transpose of `k`, times `factor` where there is one.
        order: Of the axes of `k`, so that it is [B, H, T, D].
        factor: A number.
        mask: What is added to scores, or where they are chosen; or None.
    """

    product: ir.Node
    scaling: ir.Node | None
    scale: float
    scores: ir.Value
    last: ir.Node
    q: ir.Value
    turned: ir.Value
    k: ir.Value
    order: list[int]
    factor: ir.Value | None
    v: ir.Value
    mask: ir.Value | None


def find_attention(softmax: ir.Node) -> Written | None:
    """Return what `softmax` is the middle of, or None."""
    last = sole_consumer(softmax.outputs[0])
    scores = softmax.inputs[0]
    if softmax.attributes.get_int("axis", -1) not in (-1, 3) or scores is None:
        return None
    if last is None or not is_operator(last, "MatMul") or last.inputs[0] is not softmax.outputs[0]:
        return None
    v, found = last.inputs[1], _scores(scores)
    if found is None or v is None:
        return None
    scaled, mask = found
    q, turned = scaled.product.inputs
    keys = None if turned is None else _keys(turned)
    if q is None or turned is None or keys is None:
        return None
    return Written(
        scaled.product, scaled.node, scaled.scale, scores, last, q, turned, *keys, v, mask
    )


def _rewrite(softmax: ir.Node, names: NameSource) -> bool:
    found = find_attention(softmax)
    if found is None or not _fit(found.q, found.turned, found.v):
        return False
    product, scores, last, mask = found.product, found.scores, found.last, found.mask
    if mask is not None and not stays_within(mask, found.q, found.turned):
        return False
    _shape_of_scores(product, scores, names)
    (output,) = last.outputs
    inputs: list[ir.Value | None] = [found.q, keys_before_size(found, names), found.v]
    if is_operator(scores.producer(), "Where") and mask is not None:
        mask = _added(scores.producer(), last, mask, names)
    if mask is not None:
        inputs.append(mask)
    made = insert_operator(
        last,
        "Attention",
        inputs,
        like=output,
        name=names.fresh(f"{output.name}_attention"),
        attributes={"scale": found.scale},
    )
    return replace_output(last, made)


def keys_before_size(found: Written, names: NameSource) -> ir.Value:
    """Return k with its axes in Attention's order, made before the last product."""
    k, made = found.k, []
    if found.factor is not None:
        made.append(ir.node("Mul", [k, found.factor]))
        k = made[0].outputs[0]
    made.append(ir.node("Transpose", [k], {"perm": found.order}))
    for node in made:
        (value,) = node.outputs
        node.name = value.name = names.fresh(f"{found.k.name}_keys")
        value.type = found.q.type
    graph_of(found.last).insert_before(found.last, made)
    return made[-1].outputs[0]


@dataclass(frozen=True)
class _Scaled:
    product: ir.Node
    node: ir.Node | None
    scale: float


def _scores(value: ir.Value) -> tuple[_Scaled, ir.Value | None] | None:
    """Return the scaled product of queries and keys, and the mask, of what Softmax gets."""
    node = value.producer()
    if is_operator(node, "Where") and node is not None and _reader(value) is not None:
        chosen, x, other = node.inputs
        found = None if x is None else _scaled(x)
        number = constant_scalar(other)
        if found is None or number is None or number > _LOW or (rank_of(other) or 0) > 4:
            return None
        return found, chosen
    if is_operator(node, "Add") and node is not None and _reader(value) is not None:
        for scaled, added in (node.inputs, node.inputs[::-1]):
            found = None if scaled is None else _scaled(scaled)
            if found is not None and added is not None and added.dtype == ir.DataType.FLOAT:
                return found, added
        return None
    scaled_product = _scaled(value)
    return None if scaled_product is None else (scaled_product, None)


def _added(where: ir.Node | None, anchor: ir.Node, chosen: ir.Value, names: NameSource) -> ir.Value:
    """Return what is added to scores in place of a choice: 0, or the number chosen else."""
    low = None if where is None else constant_scalar(where.inputs[2])
    graph = graph_of(anchor)
    numbers = [
        add_constant(graph, names.fresh(f"{chosen.name}_{name}"), np.asarray(number, np.float32))
        for name, number in (("taken", 0.0), ("left", low))
    ]
    node = ir.node("Where", [chosen, *numbers], name=names.fresh(f"{chosen.name}_added"))
    (made,) = node.outputs
    made.name, made.type = node.name, ir.TensorType(ir.DataType.FLOAT)
    made.shape = chosen.shape
    graph.insert_before(anchor, node)
    return made


def _scaled(value: ir.Value) -> _Scaled | None:
    """Return the product that `value` is a multiple of."""
    node = value.producer()
    if node is None or _reader(value) is None:
        return None
    if is_operator(node, "MatMul"):
        return _Scaled(node, None, 1.0)
    if not is_operator(node, "Mul", "Div"):
        return None
    split = split_constant(node)
    number = None if split is None else constant_scalar(split[1])
    if split is None or number is None or not 0 < number < np.inf:
        return None
    if (rank_of(split[1]) or 0) > 4 or (node.op_type == "Div" and split[2] != 0):
        return None
    product = split[0].producer()
    if product is None or not is_operator(product, "MatMul"):
        return None
    if _reader(split[0]) is not node or other_operand(node, split[0]) is not split[1]:
        return None
    return _Scaled(product, node, number if node.op_type == "Mul" else 1.0 / number)


def _is_shape(node: ir.Node) -> bool:
    return is_operator(node, "Shape") and not node.attributes


def _reader(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads `value`, those that only ask for its shape aside."""
    if value.is_graph_output():
        return None
    readers = {use.node for use in value.uses() if not _is_shape(use.node)}
    return next(iter(readers)) if len(readers) == 1 else None


def _shape_of_scores(product: ir.Node, scores: ir.Value, names: NameSource) -> None:
    """Let those that ask for the shape of scores ask q and k."""
    value: ir.Value | None = scores
    while value is not None and (node := value.producer()) is not None:
        for use in list(value.uses()):
            if not _is_shape(use.node):
                continue
            wish = f"{use.node.outputs[0].name}_part"
            parts: list[ir.Value | None] = []
            for operand, start, end in ((product.inputs[0], 0, 3), (product.inputs[1], 3, 4)):
                part = insert_operator(
                    use.node,
                    "Shape",
                    [operand],
                    like=use.node.outputs[0],
                    name=names.fresh(wish),
                    attributes={"start": start, "end": end},
                )
                part.shape = None
                parts.append(part)
            joined = insert_operator(
                use.node,
                "Concat",
                parts,
                like=use.node.outputs[0],
                name=names.fresh(f"{use.node.outputs[0].name}_joined"),
                attributes={"axis": 0},
            )
            replace_output(use.node, joined)
        if node is product:
            break
        value = next(
            (v for v in node.inputs if v is not None and not v.is_initializer() and v.producer()
             and _leads_to(v, product)),
            None,
        )  # fmt: skip


def _leads_to(value: ir.Value, product: ir.Node) -> bool:
    node = value.producer()
    if node is product or node is None:
        return node is product
    return any(v is product.outputs[0] for v in node.inputs)


def _keys(value: ir.Value) -> tuple[ir.Value, list[int], ir.Value | None] | None:
    """Return k, the order of its axes that has positions before the size, and a factor or None."""
    node, factor = value.producer(), None
    if node is not None and is_operator(node, "Mul") and (split := split_constant(node)):
        if constant_scalar(split[1]) is None or (rank_of(split[1]) or 0) > 4:
            return None
        node, factor = split[0].producer(), split[1]
    if node is None or not is_operator(node, "Transpose") or "perm" not in node.attributes:
        return None
    order = list(node.attributes["perm"].as_ints())
    if len(order) != 4 or node.inputs[0] is None:
        return None
    return node.inputs[0], [order[0], order[1], order[3], order[2]], factor


def stays_within(mask: ir.Value, q: ir.Value, turned: ir.Value) -> bool:
    """Return whether scores keep their shape under `mask`, as far as is known.

    An open size beside an open size counts as the same.
    """
    rank = rank_of(mask)
    if rank is None or mask.shape is None or not 1 < rank <= 4:
        return False
    keys = None if turned.shape is None else turned.shape[3]
    scores = [*(q.shape or [None] * 4)[:3], keys]
    for size, score in zip(mask.shape, scores[4 - rank :], strict=True):
        if size == 1 or size == score:
            continue
        if isinstance(size, int) or score == 1:
            return False
    return True


def _fit(q: ir.Value, turned: ir.Value, v: ir.Value) -> bool:
    """Return whether q and v have four axes, and no operand is spread over another's."""
    if rank_of(q) != 4 or rank_of(v) != 4:
        return False
    if q.dtype != ir.DataType.FLOAT or v.dtype != ir.DataType.FLOAT:
        return False
    operands = (q, turned, v)
    knows_heads = any(isinstance(size, int) for size in _sizes(operands, 1))
    return knows_heads and all(may_be_one_size(operands, axis) for axis in (0, 1))


def _sizes(values: Sequence[ir.Value], axis: int) -> list[int | ir.SymbolicDim | None]:
    return [
        None if value.shape is None or len(value.shape) != 4 else value.shape[axis]
        for value in values
    ]


def may_be_one_size(operands: Sequence[ir.Value], axis: int) -> bool:
    """Return whether no operand is known to be spread there: 1 beside an open size may be."""
    sizes = _sizes(operands, axis)
    known = {size for size in sizes if isinstance(size, int)}
    return len(known) <= 1 and (1 not in known or all(isinstance(size, int) for size in sizes))
