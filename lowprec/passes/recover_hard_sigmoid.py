"""Recover HardSigmoid from the arithmetic that exporters write for it.

    x ──► [Mul(m)] ──► [Add(a)] ──► Clip(0, c) ──► Div(c) ──► y
    becomes    x ──► HardSigmoid(m / c, a / c) ──► y

    x ──► [Mul(m)] ──► [Add(a)] ──► Clip(0, 1) ──► y
    becomes    x ──► HardSigmoid(m, a) ──► y

Mul by 1/c counts as Div by c; at least one of Mul(m) and Add(a) must be there. All constants are
scalars. Values in between must have no other reader.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from lowprec.passes.matching import (
    NameSource,
    constant_floats,
    constant_scalar,
    insert_operator,
    is_operator,
    is_scalar,
    replace_output,
    sole_consumer,
    split_constant,
    walk_nodes,
)


def recover_hard_sigmoid(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    names = NameSource(model)
    changed = False
    for node in walk_nodes(model):
        upper = clip_from_zero(node)
        if upper is None or upper <= 0:
            continue
        ramp = _match_ramp(node)
        if ramp is None:
            continue
        last = node
        if upper != 1.0:
            divide = sole_consumer(node.outputs[0])
            if divide is None or not divides_by(divide, node.outputs[0], upper):
                continue
            last = divide
        (output,) = last.outputs
        gate = insert_operator(
            last,
            "HardSigmoid",
            [ramp.source],
            like=output,
            name=names.fresh(f"{output.name}_hard_sigmoid"),
            attributes={"alpha": ramp.slope / upper, "beta": ramp.offset / upper},
        )
        changed |= replace_output(last, gate)
    return changed


@dataclass(frozen=True)
class _Ramp:
    """`slope * source + offset`."""

    source: ir.Value
    slope: float
    offset: float


def clip_from_zero(node: ir.Node) -> float | None:
    """Return the upper bound of a Clip whose lower bound is 0, or None."""
    if not is_operator(node, "Clip") or len(node.inputs) != 3 or not is_scalar(node.inputs[1], 0.0):
        return None
    return constant_scalar(node.inputs[2])


def divides_by(node: ir.Node, value: ir.Value, divisor: float) -> bool:
    """Return whether `node` computes `value / divisor`: as a Div, or as a Mul by the reciprocal."""
    split = split_constant(node)
    if split is None or split[0] is not value or constant_floats(split[1]) is None:
        return False
    if not _keeps_shape(split[1]):
        return False
    if is_operator(node, "Div"):
        return split[2] == 0 and is_scalar(split[1], divisor)
    return is_operator(node, "Mul") and is_scalar(split[1], 1.0 / divisor, tolerance=1e-7)


def added_scalar(node: ir.Node | None) -> tuple[ir.Value, float] | None:
    """Return (x, a) of a node that computes `x + a` with a constant f32 scalar, or None."""
    if node is None or not is_operator(node, "Add", "Sub"):
        return None
    split = split_constant(node)
    if split is None or not _keeps_shape(split[1]):
        return None
    number = constant_scalar(split[1])
    if number is None or constant_floats(split[1]) is None:
        return None
    if node.op_type == "Sub":
        return (split[0], -number) if split[2] == 0 else None
    return split[0], number


def _keeps_shape(constant: ir.Value) -> bool:
    """Return whether a one-element constant cannot raise the rank of what it meets."""
    return constant.shape is not None and len(constant.shape) <= 1


def _match_ramp(clip: ir.Node) -> _Ramp | None:
    source = clip.inputs[0]
    if source is None:
        return None
    offset, slope, found = 0.0, 1.0, False
    added = added_scalar(source.producer())
    if added is not None and sole_consumer(source) is clip:
        reader = source.producer()
        source, offset = added
        found = True
    else:
        reader = clip
    multiply = source.producer()
    if multiply is not None and is_operator(multiply, "Mul") and sole_consumer(source) is reader:
        split = split_constant(multiply)
        if split is not None and _keeps_shape(split[1]) and constant_floats(split[1]) is not None:
            number = constant_scalar(split[1])
            if number is not None:
                source, slope, found = split[0], number, True
    return _Ramp(source, slope, offset) if found else None
