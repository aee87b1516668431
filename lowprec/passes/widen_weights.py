"""Weights in codes, for layers that multiply floats, and constants in halves become f32 ones.

    w (s8) ──► DequantizeLinear(s_w) ──► Conv.W        becomes    w (f32) ──► Conv.W
    w (f16 or bf16) ──► Cast(f32) ──► MatMul.B         becomes    w (f32) ──► MatMul.B

The numbers are those of the operators, bit for bit; what is won is everything that the engine does
with constant weights: packing once, and a bias, an activation and a sum in the same step. In memory
such weights need the place of f32 ones: only their file is small.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.numerics import reference
from lowprec.passes.fuse_integer_recurrent import RECURRENT_TYPES
from lowprec.passes.layers import LAYER_TYPES
from lowprec.passes.matching import (
    NameSource,
    constant_array,
    constant_floats,
    graph_of,
    is_operator,
)
from lowprec.passes.own import remove_if_unused

_CODES = ("int8", "uint8", "int4", "uint4", "int16", "uint16")
_HALVES = ("float16", "bfloat16")


def widen_weights(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    names: NameSource | None = None
    changed = False
    for node in list(model.graph):
        if node.graph is None or not is_operator(node, "DequantizeLinear", "Cast"):
            continue
        made = node.outputs[0]
        is_cast = is_operator(node, "Cast")
        # Constant codes beside a tensor of codes (QAdd) are better left as they are.
        uses = [use for use in made.uses() if is_cast or _is_weight(use.node, use.idx)]
        array = _widened(node) if uses else None
        if array is None:
            continue
        names = names or NameSource(model)
        constant = add_constant(graph_of(node), names.fresh(f"{made.name}_f32"), array)
        for use in uses:
            use.node.replace_input_with(use.idx, constant)
        remove_if_unused(node)
        changed = True
    return changed


def _is_weight(reader: ir.Node, index: int) -> bool:
    """Return whether a layer that computes with floats reads its input `index` as weights."""
    return index > 0 and is_operator(reader, *LAYER_TYPES, *RECURRENT_TYPES)


def _widened(node: ir.Node) -> NDArray[np.float32] | None:
    """Return what `node` makes of constants, None where they are not or where it is an error."""
    array = constant_array(node.inputs[0])
    if array is None:
        return None
    if is_operator(node, "Cast"):
        is_real = node.attributes.get_int("to", 0) == ir.DataType.FLOAT
        return array.astype(np.float32) if is_real and array.dtype.name in _HALVES else None
    scale = constant_floats(node.inputs[1])
    if array.dtype.name not in _CODES or scale is None:
        return None
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    zeros = None if zero_point is None else constant_array(zero_point)
    if zero_point is not None and (zeros is None or zeros.shape != scale.shape):
        return None
    axis, size = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    steps: NDArray[np.float32] = array.astype(np.float32)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if zeros is not None:
            spread = _spread(zeros.astype(np.float32), array.shape, axis, size)
            if spread is None:
                return None
            steps -= spread  # the difference of two 16-bit codes is exact
        spread = _spread(scale, array.shape, axis, size)
        if spread is None:
            return None
        steps *= spread
    return steps


def _spread(
    parameter: NDArray[np.float32], shape: tuple[int, ...], axis: int, size: int
) -> NDArray[np.float32] | None:
    """Return scales or zero points so that they broadcast against codes of `shape`."""
    if parameter.size == 1 and parameter.ndim <= 1 and size == 0:
        return parameter.reshape(())
    if not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    if size == 0:
        if parameter.shape != (shape[axis],):
            return None
        return parameter.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    blocks = -(-shape[axis] // size) if size > 0 else 0
    if parameter.shape != tuple(blocks if i == axis else dim for i, dim in enumerate(shape)):
        return None
    result: NDArray[np.float32] = reference.blocked(parameter, shape, axis, size)
    return result
