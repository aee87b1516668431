"""Matrix products."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.ranges import weights_of
from lowprec.adapters.tensorflow.translator import Array, Translator, translates
from lowprec.errors import UnsupportedError


@translates("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def _product(translator: Translator, node: Node) -> ir.Value | Array:
    flags = ("transpose_a", "transpose_b") if node.op == "MatMul" else ("adj_x", "adj_y")
    known = translator.all_known(node)
    if known is not None:
        first, second = (
            np.swapaxes(array, -1, -2) if node.attributes.get(flag) else array
            for array, flag in zip(known, flags, strict=True)
        )
        return np.asarray(np.matmul(first, second), known[0].dtype)
    inputs = [
        _turned(translator, node, index)
        if node.attributes.get(flag)
        else _plain(translator, node, index)
        for index, flag in enumerate(flags)
    ]
    return translator.emit("MatMul", inputs, name=node.name)


@translates("Einsum")
def _einsum(translator: Translator, node: Node) -> ir.Value:
    equation = str(node.attributes["equation"])
    inputs = [
        _plain(translator, node, index) if index == 1 else translator.value(node, index)
        for index in range(len(node.inputs))
    ]
    if "->" not in equation:
        raise UnsupportedError(f"node '{node.name}': write the result of '{equation}' out, with ->")
    return translator.emit("Einsum", inputs, {"equation": equation}, name=node.name)


@translates("Cross")
def _cross(translator: Translator, node: Node) -> ir.Value:
    """a x b = a[1, 2, 0] b[2, 0, 1] - a[2, 0, 1] b[1, 2, 0], along the last axis."""
    turned = []
    for index in range(2):
        value = translator.value(node, index)
        for order in ([1, 2, 0], [2, 0, 1]):
            at = translator.new_constant(np.asarray(order, np.int64), f"{node.name}/order")
            turned.append(
                translator.emit("Gather", [value, at], {"axis": -1}, name=f"{node.name}/turned")
            )
    left = translator.emit("Mul", [turned[0], turned[3]], name=f"{node.name}/left")
    right = translator.emit("Mul", [turned[1], turned[2]], name=f"{node.name}/right")
    return translator.emit("Sub", [left, right], name=node.name)


def _plain(translator: Translator, node: Node, index: int) -> ir.Value:
    known = translator.known(node, index)
    if index == 1 and known is not None and translator.range_of(known) is not None:
        return weights_of(translator, node, known, known.ndim - 1)
    return translator.value(node, index)


def _turned(translator: Translator, node: Node, index: int) -> ir.Value:
    known = translator.known(node, index)
    if known is not None:
        turned = np.swapaxes(known, -1, -2)
        if index == 1 and translator.range_of(known) is not None:
            return weights_of(translator, node, turned, turned.ndim - 2)
        return translator.new_constant(turned, node.inputs[index][0])
    rank = translator.rank(node, index)
    axes = [*range(rank - 2), rank - 1, rank - 2]
    return translator.emit(
        "Transpose",
        [translator.value(node, index)],
        {"perm": axes},
        name=f"{node.name}/turned",
    )
