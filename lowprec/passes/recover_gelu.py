"""Recover Gelu (opset 20, the exact erf form) from its arithmetic.

    x ──► Div(sqrt 2) ──► Erf ──► Add(1) ──► t          y = x * t * 0.5, grouped in any way
    becomes    x ──► Gelu(approximate = "none") ──► y

The product may be `(x * t) * 0.5`, `(x * 0.5) * t` or `x * (t * 0.5)`, operands in either order;
Mul by 1/sqrt 2 counts as Div by sqrt 2, and t may be 1 - Erf(-x / sqrt 2), as TensorFlow's erfc is
written. Values in between must have no other reader.

The form with tanh is Gelu(approximate = "tanh"): t = Tanh((x + x * x * x * 0.044715) * sqrt(2/pi))
+ 1, the cube written as Pow or as products.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from lowprec.passes.matching import (
    NameSource,
    adds_axes,
    constant_scalar,
    insert_operator,
    is_operator,
    is_scalar,
    opset_version,
    other_operand,
    replace_output,
    sole_consumer,
    split_constant,
    walk_nodes,
)
from lowprec.passes.recover_hard_sigmoid import added_scalar, divides_by


def recover_gelu(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    if opset_version(model) < 20:
        return False
    names = NameSource(model)
    changed = False
    for node in walk_nodes(model):
        match, form = _match_erf(node), "none"
        if match is None:
            match, form = _match_tanh(node), "tanh"
        if match is None:
            continue
        source, last = match
        (output,) = last.outputs
        if adds_axes(output, source):
            continue
        gelu = insert_operator(
            last, "Gelu", [source], like=output, name=names.fresh(f"{output.name}_gelu")
        )
        maker = gelu.producer()
        if form != "none" and maker is not None:
            maker.attributes["approximate"] = ir.AttrString("approximate", form)
        changed |= replace_output(last, gelu)
    return changed


def _match_erf(erf: ir.Node) -> tuple[ir.Value, ir.Node] | None:
    """Return (x, last node) of the Gelu whose Erf is `erf`."""
    if not is_operator(erf, "Erf") or erf.inputs[0] is None:
        return None
    divide = erf.inputs[0].producer()
    if divide is None or sole_consumer(erf.inputs[0]) is not erf:
        return None
    split = split_constant(divide)
    if split is None or not divides_by(divide, split[0], math.sqrt(2.0)):
        return None
    source = split[0]
    add = sole_consumer(erf.outputs[0])
    negate = source.producer()
    if is_operator(negate, "Neg") and negate is not None and is_operator(add, "Sub"):
        # 1 - Erf(-x / sqrt 2)
        if add is None or not is_scalar(add.inputs[0], 1.0) or negate.inputs[0] is None:
            return None
        return _match_product(negate.inputs[0], add.outputs[0])
    added = added_scalar(add)
    if add is None or added is None or abs(added[1] - 1.0) > 1e-6:
        return None
    return _match_product(source, add.outputs[0])


def _match_tanh(tanh: ir.Node) -> tuple[ir.Value, ir.Node] | None:
    """Return (x, last node) of the Gelu whose Tanh is `tanh`."""
    if not is_operator(tanh, "Tanh") or tanh.inputs[0] is None:
        return None
    inner = _times(tanh.inputs[0], math.sqrt(2.0 / math.pi))
    add = None if inner is None else inner.producer()
    if add is None or not is_operator(add, "Add") or len(add.inputs) != 2:
        return None
    for source, cubed in (add.inputs, add.inputs[::-1]):
        if source is None or cubed is None or _cube_of(cubed, 0.044715) is not source:
            continue
        plus = sole_consumer(tanh.outputs[0])
        added = added_scalar(plus)
        if plus is not None and added is not None and abs(added[1] - 1.0) <= 1e-6:
            return _match_product(source, plus.outputs[0])
    return None


def _times(value: ir.Value, factor: float) -> ir.Value | None:
    """Return v where `value` is v * factor."""
    node = value.producer()
    split = None if node is None or not is_operator(node, "Mul") else split_constant(node)
    return split[0] if split is not None and is_scalar(split[1], factor, tolerance=1e-5) else None


def _cube_of(value: ir.Value, factor: float) -> ir.Value | None:
    """Return x where `value` is x * x * x * factor, the factor anywhere."""
    factors: list[ir.Value] = []
    scale, waiting = 1.0, [value]
    while waiting and len(factors) <= 3:
        one = waiting.pop()
        node = one.producer()
        number = constant_scalar(one)
        if number is not None:
            scale *= number
        elif is_operator(node, "Mul") and node is not None and None not in node.inputs:
            waiting += [operand for operand in node.inputs if operand is not None]
        elif is_operator(node, "Pow") and node is not None and node.inputs[0] is not None:
            exponent = constant_scalar(node.inputs[1])
            if exponent not in (2.0, 3.0):
                return None
            factors += [node.inputs[0]] * int(exponent)
        else:
            factors.append(one)
    if len(factors) != 3 or abs(scale - factor) > 1e-6:
        return None
    return factors[0] if all(one is factors[0] for one in factors) else None


def _match_product(source: ir.Value, gate: ir.Value) -> tuple[ir.Value, ir.Node] | None:
    """Return (x, last node) of `x * gate * 0.5` in any grouping."""
    first = sole_consumer(gate)
    if first is None or not is_operator(first, "Mul"):
        return None
    if _halves(first, gate):  # x * (gate * 0.5)
        last = sole_consumer(first.outputs[0])
        if last is None or not is_operator(last, "Mul"):
            return None
        return (source, last) if other_operand(last, first.outputs[0]) is source else None
    other = other_operand(first, gate)
    if other is source:  # (x * gate) * 0.5
        last = sole_consumer(first.outputs[0])
        return (source, last) if last is not None and _halves(last, first.outputs[0]) else None
    half = None if other is None else other.producer()
    if other is None or half is None or sole_consumer(other) is not first:
        return None
    return (source, first) if _halves(half, source) else None  # (x * 0.5) * gate


def _halves(node: ir.Node, value: ir.Value) -> bool:
    """Return whether `node` computes `value * 0.5` or `value / 2`."""
    if is_operator(node, "Mul"):
        split = split_constant(node)
        return split is not None and split[0] is value and is_scalar(split[1], 0.5)
    return divides_by(node, value, 2.0)
