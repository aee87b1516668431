"""Fold multiplications and additions by constants into the layer before them.

    x ──► Conv(W, b) ──► Mul(m) ──► Add(a) ──► y    becomes    x ──► Conv(W * m, b * m + a) ──► y
    x ──► MatMul(W) ──► Mul(m) ──► y                becomes    x ──► MatMul(W * m) ──► y
    x ──► Gemm(W, c, alpha, beta) ──► y             becomes    x ──► Gemm(W * alpha, c * beta) ──► y

The constant is a scalar, or varies along the output channels only. Mul, Add, Sub (both ways round)
and Div by the constant count. A MatMul keeps a following Add: it has no input for a bias. The
layer's output must have no other reader. Sums are taken in f64 and rounded once.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.passes.fold_batch_norm import apply_affine
from lowprec.passes.layers import Layer, find_layer, set_bias, set_weights
from lowprec.passes.matching import (
    NameSource,
    constant_floats,
    is_operator,
    sole_consumer,
    split_constant,
    walk_nodes,
)


def fold_affine(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    names = NameSource(model)
    changed = False
    for node in walk_nodes(model):
        if is_operator(node, "Gemm"):
            changed |= _fold_alpha_beta(node, names)
        elif is_operator(node, "Mul", "Add", "Sub", "Div"):
            changed |= _fold_into_producer(node, names)
    return changed


def _fold_into_producer(node: ir.Node, names: NameSource) -> bool:
    split = split_constant(node)
    if split is None:
        return False
    variable, constant, index = split
    producer = variable.producer()
    array = constant_floats(constant)
    if producer is None or array is None or sole_consumer(variable) is not node:
        return False
    layer = find_layer(producer)
    if isinstance(layer, str):
        return False
    number = layer.output_channels_of(array)
    if number is None:
        return False
    affine = _affine_of(node.op_type, number, variable_first=index == 0)
    if affine is None:
        return False
    factor, shift = affine
    if not layer.has_bias_input and shift.any():
        return False
    if layer.node.op_type == "Gemm" and not _has_unit_factors(layer.node):
        return False  # folded first; the next round sees it
    return apply_affine(layer, factor, shift, after=node, names=names)


def _affine_of(
    op_type: str, number: NDArray[np.float64], *, variable_first: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return (factor, shift) of `y op number`, or of `number op y`."""
    one, zero = np.ones_like(number), np.zeros_like(number)
    if op_type == "Mul":
        return number, zero
    if op_type == "Add":
        return one, number
    if op_type == "Sub":
        return (one, -number) if variable_first else (-one, number)
    if variable_first and (number != 0).all():
        return 1.0 / number, zero
    return None


def _has_unit_factors(node: ir.Node) -> bool:
    return (
        node.attributes.get_float("alpha", 1.0) == 1.0
        and node.attributes.get_float("beta", 1.0) == 1.0
    )


def _fold_alpha_beta(node: ir.Node, names: NameSource) -> bool:
    if _has_unit_factors(node):
        return False
    layer = find_layer(node)
    if isinstance(layer, str):
        return False
    weights, bias = _scaled(layer)
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        return False
    set_weights(layer, weights, names)
    if layer.bias is not None:
        set_bias(layer, bias, names)
    node.attributes.pop("alpha", None)
    node.attributes.pop("beta", None)
    return True


def _scaled(layer: Layer) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    alpha = layer.node.attributes.get_float("alpha", 1.0)
    beta = layer.node.attributes.get_float("beta", 1.0)
    weights = layer.scale_channels(np.full(layer.channels, alpha))
    return weights, (layer.bias_array() * np.float64(beta)).astype(np.float32)
