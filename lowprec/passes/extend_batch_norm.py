"""Fold multiplications and additions by constants into the batch normalisation before them.

    x ──► BatchNormalization(g, s, m, v) ──► Mul(k) ──► Add(a) ──► y
    becomes    x ──► BatchNormalization(g * k, s * k + a, m, v) ──► y

The constant is a scalar or varies along the channels only; Mul, Add, Sub (the constant second) and
Div by it count. Sums are taken in f64 and rounded once. The normalisation's output must have no
other reader. Where a layer precedes it, fold_batch_norm has taken it already.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.matching import (
    NameSource,
    constant_floats,
    graph_of,
    is_operator,
    rank_of,
    replace_output,
    sole_consumer,
    split_constant,
    walk_nodes,
)


def extend_batch_norm(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    names = NameSource(model)
    changed = False
    for node in walk_nodes(model):
        if is_operator(node, "Mul", "Add", "Sub", "Div"):
            changed |= _extend(node, names)
    return changed


def _extend(node: ir.Node, names: NameSource) -> bool:
    split = split_constant(node)
    if split is None:
        return False
    variable, constant, index = split
    norm, array = variable.producer(), constant_floats(constant)
    if norm is None or array is None or not is_operator(norm, "BatchNormalization"):
        return False
    if sole_consumer(variable) is not node or norm.graph is not node.graph:
        return False
    if norm.attributes.get_int("training_mode", 0) != 0 or len(norm.inputs) != 5:
        return False
    gamma, beta = constant_floats(norm.inputs[1]), constant_floats(norm.inputs[2])
    rank = rank_of(norm.inputs[0])
    if gamma is None or beta is None or rank is None or rank < 2 or gamma.ndim != 1:
        return False
    number = _per_channel(array, rank, gamma.size)
    if number is None or beta.shape != gamma.shape or (index != 0 and node.op_type in _ORDERED):
        return False
    with np.errstate(all="ignore"):
        scale, shift = _extended(
            node.op_type, gamma.astype(np.float64), beta.astype(np.float64), number
        )
        parameters = [scale.astype(np.float32), shift.astype(np.float32)]
    if not all(np.isfinite(parameter).all() for parameter in parameters):
        return False
    for position, (what, parameter) in enumerate(zip(("scale", "bias"), parameters, strict=True)):
        name = names.fresh(f"{norm.name or variable.name}_{what}")
        norm.replace_input_with(position + 1, add_constant(graph_of(norm), name, parameter))
    return replace_output(node, variable)


_ORDERED = ("Sub", "Div")


def _per_channel(
    array: NDArray[np.float32], rank: int, channels: int
) -> NDArray[np.float64] | None:
    """Return one number a channel, or None where `array` varies along other axes too."""
    if array.ndim > rank:
        return None
    if array.size == 1:
        return np.full(channels, float(array.reshape(())))
    shape = (1,) * (rank - array.ndim) + array.shape
    if shape[1] != channels or array.size != channels:
        return None
    return array.reshape(-1).astype(np.float64)


def _extended(
    op_type: str,
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
    number: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if op_type == "Mul":
        return scale * number, shift * number
    if op_type == "Div":
        return scale / number, shift / number
    return scale, shift + number if op_type == "Add" else shift - number
