"""A constant for each output channel as an operand of a product's epilogue (kernels.h).

The node gets the attribute `channel_values`, which the operators UNARY_PRELU_CHANNEL and
UNARY_MUL_CHANNEL of its chain read.
"""

from __future__ import annotations

import onnx_ir as ir

from lowprec.passes.fuse_bf16_layers import is_bf16_layer
from lowprec.passes.matching import constant_array, constant_floats, is_operator
from lowprec.passes.own import float_list, int_list, is_own


def is_image_product(node: ir.Node) -> bool:
    """Return whether the engine's step for `node` is sure to be a convolution that can do this."""
    if is_operator(node, "Conv"):
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if node.outputs[0].dtype != ir.DataType.FLOAT:
            return False
        if bias is not None and constant_array(bias) is None:
            return False
    elif not is_own(node, "QConv") and not (is_bf16_layer(node) and node.op_type == "Conv"):
        return False
    weights = constant_array(node.inputs[1])
    one_group = node.attributes.get_int("group", 1) == 1
    return weights is not None and weights.ndim in (3, 4) and one_group


def is_matrix_product(node: ir.Node) -> bool:
    """Return whether the engine's step for `node` is sure to be a product of codes by a matrix."""
    if not is_own(node, "QMatMul", "QGemm"):
        return False
    weights = constant_array(node.inputs[1])
    return weights is not None and weights.ndim == 2


def per_output_channel(node: ir.Node, operand: ir.Value | None) -> list[float] | None:
    """Return the numbers of `operand` where it is a constant, one for each channel of the result.

    Args:
        node: An image or a matrix product.
        operand: Of an element-wise operator that reads the result of `node`.
    """
    weights, numbers = constant_array(node.inputs[1]), constant_floats(operand)
    if weights is None or numbers is None:
        return None
    expected: tuple[int, ...]
    if is_matrix_product(node):
        flip = node.attributes.get_int("transB", 0) != 0
        shape, expected = numbers.shape, (weights.shape[0 if flip else 1],)
    else:
        if numbers.ndim > weights.ndim:
            return None
        shape = (1,) * (weights.ndim - numbers.ndim) + numbers.shape
        expected = (1, weights.shape[0]) + (1,) * (weights.ndim - 2)
    return numbers.reshape(-1).tolist() if shape == expected else None


def extend_chain(node: ir.Node, operator: int, values: list[float]) -> None:
    """Let the chain of `node`, which has no channel values yet, end with `operator` of `values`."""
    chain = [*int_list(node, "chain_codes"), operator]
    node.attributes["channel_values"] = ir.AttrFloat32s("channel_values", values)
    node.attributes["chain_codes"] = ir.AttrInt64s("chain_codes", chain)
    for name in ("chain_a", "chain_b"):
        node.attributes[name] = ir.AttrFloat32s(name, [*float_list(node, name), 0.0])
