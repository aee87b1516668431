"""Recover LayerNormalization (opset 17) over the last axis from its arithmetic.

    x ──┬──► ReduceMean ──► Sub ◄── x ──► d
    d ──┬──► Pow(2) ──► ReduceMean ──► Add(epsilon) ──► Sqrt ──► Div ◄── d ──► n
    n ──► Mul(gamma) ──► Add(beta) ──► y
    becomes    x, gamma, beta ──► LayerNormalization(axis = -1, epsilon) ──► y

Exporters vary it, and these variants count: `x - mean` computed twice; Mul(d, d) for Pow;
Reciprocal of the root and a Mul for Div; operands of Add and Mul in either order; and, as Keras
writes it, x * g + (beta - mean * g) with g = gamma / root. gamma and beta are constant vectors. The
mean must run over the last axis: written as -1, or as the rank minus 1 where the rank is known.
Values in between must have no other reader.
"""

from __future__ import annotations

import onnx_ir as ir

from lowprec.graph.constants import add_constant
from lowprec.passes.matching import (
    NameSource,
    adds_axes,
    constant_array,
    constant_floats,
    constant_scalar,
    graph_of,
    insert_operator,
    is_operator,
    is_scalar,
    opset_version,
    other_operand,
    rank_of,
    replace_output,
    sole_consumer,
    split_constant,
    walk_nodes,
)


def recover_layer_norm(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    if opset_version(model) < 17:
        return False
    names = NameSource(model)
    changed = False
    for node in walk_nodes(model):
        if not is_operator(node, "Sqrt"):
            continue
        match = _match_variance(node)
        if match is None:
            continue
        source, deviation, epsilon = match
        scaled = _match_scale_and_shift(node, deviation) or _match_factor(node, source)
        if scaled is None:
            continue
        *vectors, last = scaled
        (output,) = last.outputs
        if adds_axes(output, source):
            continue
        normalised = insert_operator(
            last,
            "LayerNormalization",
            [source, *(_as_vector(value, last, names) for value in vectors)],
            like=output,
            name=names.fresh(f"{output.name}_layer_norm"),
            attributes={"axis": -1, "epsilon": epsilon},
        )
        changed |= replace_output(last, normalised)
    return changed


def _match_variance(root: ir.Node) -> tuple[ir.Value, frozenset[ir.Value], float] | None:
    """Return (x, the values that equal x - mean, epsilon) for `root = Sqrt(variance + epsilon)`."""
    if root.inputs[0] is None:
        return None
    add = root.inputs[0].producer()
    if add is None or not is_operator(add, "Add") or sole_consumer(root.inputs[0]) is not root:
        return None
    split = split_constant(add)
    if split is None:
        return None
    variance, constant, _ = split
    epsilon = constant_scalar(constant)
    mean = variance.producer()
    if epsilon is None or mean is None or sole_consumer(variance) is not add:
        return None
    squares = _mean_over_last_axis(mean)
    if squares is None or sole_consumer(squares) is not mean:
        return None
    deviation = _square_root_of(squares.producer())
    if deviation is None:
        return None
    source = _deviation_source(deviation)
    if source is None:
        return None
    twins = frozenset(
        use.node.outputs[0]
        for use in source.uses()
        if is_operator(use.node, "Sub") and _deviation_source(use.node.outputs[0]) is source
    )
    return source, twins, epsilon


def _mean_over_last_axis(node: ir.Node) -> ir.Value | None:
    if not is_operator(node, "ReduceMean") or not node.attributes.get_int("keepdims", 1):
        return None
    axes: list[int] | None = None
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        array = constant_array(node.inputs[1])
        axes = None if array is None else [int(axis) for axis in array.reshape(-1)]
    elif "axes" in node.attributes:
        axes = list(node.attributes.get_ints("axes"))
    if axes is None or len(axes) != 1:
        return None
    rank = rank_of(node.inputs[0])
    if axes[0] == -1 or (rank is not None and axes[0] == rank - 1):
        return node.inputs[0]
    return None


def _square_root_of(node: ir.Node | None) -> ir.Value | None:
    """Return d when `node` computes d * d."""
    if node is None:
        return None
    if is_operator(node, "Pow") and is_scalar(node.inputs[1], 2.0):
        return node.inputs[0]
    if is_operator(node, "Mul") and node.inputs[0] is node.inputs[1]:
        return node.inputs[0]
    return None


def _deviation_source(value: ir.Value) -> ir.Value | None:
    """Return x when `value` is `x - ReduceMean(x)`."""
    subtract = value.producer()
    if subtract is None or not is_operator(subtract, "Sub") or subtract.inputs[1] is None:
        return None
    mean = subtract.inputs[1].producer()
    if mean is None:
        return None
    source = _mean_over_last_axis(mean)
    return source if source is not None and source is subtract.inputs[0] else None


def _match_scale_and_shift(
    root: ir.Node, deviations: frozenset[ir.Value]
) -> tuple[ir.Value, ir.Value, ir.Node] | None:
    """Return (gamma, beta, last node) of `deviation / root * gamma + beta`."""
    normalise = sole_consumer(root.outputs[0])
    divisor = root.outputs[0]
    if normalise is not None and is_operator(normalise, "Reciprocal"):
        divisor = normalise.outputs[0]
        normalise = sole_consumer(divisor)
        if normalise is None or not is_operator(normalise, "Mul"):
            return None
        operands = list(normalise.inputs)
        if divisor not in operands:
            return None
        numerator = operands[1 - operands.index(divisor)]
    elif normalise is not None and is_operator(normalise, "Div"):
        if normalise.inputs[1] is not divisor:
            return None
        numerator = normalise.inputs[0]
    else:
        return None
    if numerator not in deviations:
        return None
    gamma = _constant_vector_applied(normalise.outputs[0], "Mul")
    if gamma is None:
        return None
    beta = _constant_vector_applied(gamma[1].outputs[0], "Add")
    if beta is None or _length(gamma[0]) != _length(beta[0]):
        return None
    return gamma[0], beta[0], beta[1]


def _match_factor(root: ir.Node, source: ir.Value) -> tuple[ir.Value, ir.Value, ir.Node] | None:
    """Return (gamma, beta, last node) of `x * g + (beta - mean * g)`, g = gamma / root."""
    inverse = sole_consumer(root.outputs[0])
    if inverse is None or not is_operator(inverse, "Reciprocal"):
        return None
    gamma = _constant_vector_applied(inverse.outputs[0], "Mul")
    if gamma is None:
        return None
    factor = gamma[1].outputs[0]
    if factor.is_graph_output() or len(factor.uses()) != 2:
        return None
    products = {use.node for use in factor.uses()}
    scaled = next((node for node in products if other_operand(node, factor) is source), None)
    rest = next((node for node in products if node is not scaled), None)
    if scaled is None or rest is None or not is_operator(scaled, "Mul"):
        return None
    last = sole_consumer(scaled.outputs[0])
    beta = _match_offset(rest, factor, source)
    if last is None or beta is None or not is_operator(last, "Add"):
        return None
    if other_operand(last, scaled.outputs[0]) is not beta[1].outputs[0]:
        return None
    return (gamma[0], beta[0], last) if _length(gamma[0]) == _length(beta[0]) else None


def _match_offset(
    product: ir.Node, factor: ir.Value, source: ir.Value
) -> tuple[ir.Value, ir.Node] | None:
    """Return (beta, last node) of `beta - mean * factor`, where `product` is mean * factor."""
    mean = other_operand(product, factor)
    if mean is None or not is_operator(product, "Mul"):
        return None
    negate = mean.producer()
    is_negative = is_operator(negate, "Neg")
    if is_negative and negate is not None:
        mean = negate.inputs[0]
    reduce = None if mean is None else mean.producer()
    if reduce is None or _mean_over_last_axis(reduce) is not source:
        return None
    found = _constant_vector_applied(product.outputs[0], "Add" if is_negative else "Sub")
    if found is None or sole_consumer(found[1].outputs[0]) is None:
        return None
    is_first = found[1].inputs[0] is product.outputs[0]
    return None if is_first and not is_negative else found


def _constant_vector_applied(value: ir.Value, op_type: str) -> tuple[ir.Value, ir.Node] | None:
    node = sole_consumer(value)
    if node is None or not is_operator(node, op_type):
        return None
    split = split_constant(node)
    if split is None or split[0] is not value:
        return None
    array = constant_floats(split[1])
    if array is None or array.size < 2 or array.shape[-1] != array.size:
        return None
    if array.ndim > 1:
        rank = rank_of(value)
        if rank is None or rank < array.ndim:
            return None
    return split[1], node


def _as_vector(value: ir.Value, anchor: ir.Node, names: NameSource) -> ir.Value:
    """Return a constant vector without the axes of one entry in front."""
    array = constant_floats(value)
    if array is None or array.ndim == 1:
        return value
    return add_constant(graph_of(anchor), names.fresh(f"{value.name}_vector"), array.reshape(-1))


def _length(value: ir.Value) -> int:
    array = constant_floats(value)
    return 0 if array is None else int(array.size)
