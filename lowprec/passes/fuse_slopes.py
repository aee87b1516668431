"""PRelu with a slope for each channel joins the convolution before it.

    Conv ──► PRelu(slopes) ──► Quantize ──► yq     becomes     Conv ──► Quantize ──► yq

The convolution gets the attribute `slopes` and a chain of one operator (kernels.h,
UNARY_PRELU_CHANNEL), and fuse_epilogues goes on from there. One slope for all channels is a unary
operator (unary_operators.py).
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx_ir as ir

from lowprec.passes.fuse_bf16_layers import is_bf16_layer
from lowprec.passes.fuse_epilogues import take_over
from lowprec.passes.matching import (
    constant_array,
    constant_floats,
    is_operator,
    sole_consumer,
)
from lowprec.passes.own import is_own
from lowprec.passes.unary_operators import PRELU_CHANNEL


def fuse_slopes(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in list(model.graph):
        if node.graph is None or not _is_convolution(node):
            continue
        made = node.outputs[0]
        reader = None if made.name in keep else sole_consumer(made)
        if reader is None or reader.graph is not node.graph or not is_operator(reader, "PRelu"):
            continue
        slopes = _slopes(node, reader)
        if slopes is None:
            continue
        node.attributes["slopes"] = ir.AttrFloat32s("slopes", slopes)
        node.attributes["chain_codes"] = ir.AttrInt64s("chain_codes", [PRELU_CHANNEL])
        for name in ("chain_a", "chain_b"):
            node.attributes[name] = ir.AttrFloat32s(name, [0.0])
        take_over(node, reader)
        changed = True
    return changed


def _is_convolution(node: ir.Node) -> bool:
    """Return whether the engine's step for `node` is sure to be one with a full epilogue."""
    if is_operator(node, "Conv"):
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if node.outputs[0].dtype != ir.DataType.FLOAT:
            return False
        if bias is not None and constant_array(bias) is None:
            return False
    elif not is_own(node, "QConv") and not (is_bf16_layer(node) and node.op_type == "Conv"):
        return False
    if "chain_codes" in node.attributes or "y_dtype" in node.attributes:
        return False
    weights = constant_array(node.inputs[1])
    one_group = node.attributes.get_int("group", 1) == 1
    return weights is not None and weights.ndim in (3, 4) and one_group


def _slopes(convolution: ir.Node, prelu: ir.Node) -> list[float] | None:
    """Return one slope for each output channel of `convolution`, or None."""
    weights, slopes = constant_array(convolution.inputs[1]), constant_floats(prelu.inputs[1])
    if weights is None or slopes is None or prelu.inputs[0] is not convolution.outputs[0]:
        return None
    if slopes.ndim > weights.ndim:
        return None
    shape = (1,) * (weights.ndim - slopes.ndim) + slopes.shape
    expected = (1, weights.shape[0]) + (1,) * (weights.ndim - 2)
    return np.asarray(slopes).reshape(-1).tolist() if shape == expected else None
