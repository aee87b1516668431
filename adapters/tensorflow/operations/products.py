"""Matrix products."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.translator import Translator, translates


@translates("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def _product(translator: Translator, node: Node) -> ir.Value:
    flags = ("transpose_a", "transpose_b") if node.op == "MatMul" else ("adj_x", "adj_y")
    inputs = [
        _turned(translator, node, index)
        if node.attributes.get(flag)
        else translator.value(node, index)
        for index, flag in enumerate(flags)
    ]
    return translator.emit("MatMul", inputs, name=node.name)


@translates("Einsum")
def _einsum(translator: Translator, node: Node) -> ir.Value:
    inputs = [translator.value(node, index) for index in range(len(node.inputs))]
    equation = {"equation": node.attributes["equation"]}
    return translator.emit("Einsum", inputs, equation, name=node.name)


def _turned(translator: Translator, node: Node, index: int) -> ir.Value:
    known = translator.known(node, index)
    if known is not None:
        return translator.new_constant(np.swapaxes(known, -1, -2), node.inputs[index][0])
    rank = translator.rank(node, index)
    axes = [*range(rank - 2), rank - 1, rank - 2]
    return translator.emit(
        "Transpose",
        [translator.value(node, index)],
        {"perm": axes},
        name=f"{node.name}/turned",
    )
