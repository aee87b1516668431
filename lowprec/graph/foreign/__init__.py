"""Operators of onnxruntime's own domain become standard ones, once, when a model is loaded.

onnxruntime's quantizer and optimizer write operators of the domain `com.microsoft`, and its
QOperator format counts with QLinearConv and its kin. Each is, by definition, a few standard
operators:

    QLinearConv(x, w, b)  ==  QuantizeLinear(Conv(DequantizeLinear(x), DequantizeLinear(w), ..(b)))

so the hub has only those, and every pass that knows Q/DQ pairs knows these models, too. The
engine makes of the right side the integers of the left, `saturate(rint(f32(acc) * (s_x * s_w /
s_y)) + z_y)`, which is also how onnxruntime rounds QLinearConv and QLinearMatMul. Its QLinearAdd,
QLinearMul and tables are rounded in other places: a code may differ by one from ours, which are
the float operators between Dequantize and Quantize.

    qoperators.py    QLinear*, QGemm
    integers.py      products of integers with float results; weights of 4 and 8 bits in blocks
    fused.py         float operators with an activation or a transposition in them
    transformers.py  attention, embeddings, skip connections with normalisation

What is not here is refused by name when the model is loaded (`check.py`).
"""

from __future__ import annotations

import onnx_ir as ir

from lowprec.graph.foreign import fused, integers, qoperators, transformers
from lowprec.graph.foreign.emitter import Emitter, Translation

DOMAIN = "com.microsoft"
STANDARD: dict[str, Translation] = qoperators.STANDARD
MICROSOFT: dict[str, Translation] = {
    **qoperators.MICROSOFT,
    **integers.MICROSOFT,
    **fused.MICROSOFT,
    **transformers.MICROSOFT,
}


def can_translate(node: ir.Node) -> bool:
    """Return whether `node` is an operator of onnxruntime's domain that has a translation."""
    return node.domain == DOMAIN and node.op_type in MICROSOFT


def translate_foreign(model: ir.Model) -> bool:
    """Replace what has a translation, in subgraphs too; return whether anything changed.

    Args:
        model: At opset 21 or newer, in topological order.

    Raises:
        UnsupportedError: an operator is used in a way that has no translation.
    """
    changed = False
    for graph in list(model.graphs()):
        for node in graph:
            if node.domain == DOMAIN:
                translation = MICROSOFT.get(node.op_type)
            else:
                translation = STANDARD.get(node.op_type) if node.domain == "" else None
            if translation is not None:
                changed |= translation(Emitter(node))
    model.graph.opset_imports.pop(DOMAIN, None)
    return changed
