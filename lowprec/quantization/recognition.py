"""Is a model quantised already?"""

from __future__ import annotations

import onnx_ir as ir

from lowprec.passes.matching import ONNX_DOMAINS

_STANDARD = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
    }
)
_MICROSOFT = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulBnb4",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QLinearAdd",
        "QLinearAveragePool",
        "QLinearConcat",
        "QLinearConv",
        "QLinearGlobalAveragePool",
        "QLinearLeakyRelu",
        "QLinearMul",
        "QLinearReduceMean",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QLinearWhere",
        "QMoE",
    }
)


def find_quantized_operator(model: ir.Model) -> ir.Node | None:
    """Return the first operator that works on codes, in whatever body; None in a float model."""
    for node in model.graph.all_nodes():
        if node.domain in ONNX_DOMAINS and node.op_type in _STANDARD:
            return node
        if node.domain == "com.microsoft" and node.op_type in _MICROSOFT:
            return node
    return None
