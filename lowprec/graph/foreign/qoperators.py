"""onnxruntime's QOperator format: operators that read and write codes.

Every translation is Dequantize, the float operator, Quantize. QLinearConv and QLinearMatMul are
ONNX's own; with scales that are only known in a run they stay as they are.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.graph.foreign.emitter import Attribute, Emitter, Translation, constant_of

_WINDOW = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")
_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def _quantize_linear(e: Emitter) -> bool:
    x, scale = e.need(0, "operand"), e.need(1, "scale")
    axis = e.integer("axis", 1)
    scales, zero_point = e.scalar_or_list(scale), e.scalar_or_list(e.input(2))
    return e.finish(e.op(e.node.op_type, x, scales, zero_point, axis=axis))


def _conv(e: Emitter) -> bool:
    """x, x_scale, x_zero_point, w, w_scale, w_zero_point, y_scale, y_zero_point, bias s32."""
    is_own = e.node.domain != ""
    if not is_own and not _constant_parameters(e, (1, 2, 3, 4, 5, 6, 7)):
        return False
    x = e.dequantize(e.need(0, "operand"), e.need(1, "x_scale"), e.input(2))
    w = e.dequantize(e.need(3, "weights"), e.need(4, "w_scale"), e.input(5))
    bias = e.input(8)
    if bias is not None:
        x_scale, w_scale = constant_of(e.input(1)), constant_of(e.input(4))
        if x_scale is None or w_scale is None:
            raise e.refuse("a bias, and scales that are no constants")
        scale = x_scale.astype(np.float32).reshape(-1) * w_scale.astype(np.float32).reshape(-1)
        bias = e.dequantize(bias, e.constant(scale, "bias_scale"), None)
    images_last = e.integer("channels_last", 0) != 0
    if images_last:
        x = _to_channels_first(e, x, 3)
    y = e.op("Conv", x, w, bias, **e.attributes(*_CONV))
    if images_last:
        y = _to_channels_last(e, y, 3)
    return e.finish(e.quantize(y, e.need(6, "y_scale"), e.input(7)))


def _to_channels_first(e: Emitter, x: ir.Value, weights: int) -> ir.Value:
    return e.op("Transpose", x, perm=_turned(e, weights, False))


def _to_channels_last(e: Emitter, x: ir.Value, weights: int) -> ir.Value:
    return e.op("Transpose", x, perm=_turned(e, weights, True))


def _turned(e: Emitter, weights: int, last: bool) -> list[int]:
    """Return the permutation for images of as many axes as constant input `weights` has."""
    array = e.constant_input(weights)
    if array is None:
        raise e.refuse("channels_last without constant weights")
    rank = array.ndim
    return [0, *range(2, rank), 1] if last else [0, rank - 1, *range(1, rank - 1)]


def _constant_parameters(e: Emitter, indices: tuple[int, ...]) -> bool:
    return all(e.input(i) is None or e.constant_input(i) is not None for i in indices)


def _matmul(e: Emitter) -> bool:
    """a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point."""
    if not _constant_parameters(e, (1, 2, 4, 5, 6, 7)):
        return False
    if any((_size(e, i) > 1 and i < 3) or (_size(e, i) > 1 and i > 5) for i in (1, 2, 6, 7)):
        return False  # one scale a row
    a = e.dequantize(e.need(0, "operand"), e.need(1, "a_scale"), e.input(2))
    b = e.dequantize(e.need(3, "operand"), e.need(4, "b_scale"), e.input(5), axis=-1)
    return e.finish(e.quantize(e.op("MatMul", a, b), e.need(6, "y_scale"), e.input(7)))


def _size(e: Emitter, index: int) -> int:
    array = e.constant_input(index)
    return 1 if array is None else array.size


def _gemm(e: Emitter) -> bool:
    """a, a_scale, a_zero_point, b, b_scale, b_zero_point, c s32, y_scale, y_zero_point.

    c has the scale alpha * a_scale * b_scale; without y_scale the result is float.
    """
    alpha = np.float32(e.real("alpha", 1.0))
    a_scale, b_scale = e.constant_input(1), e.constant_input(4)
    if a_scale is None or b_scale is None:
        raise e.refuse("scales that are no constants")
    transposed = e.integer("transB", 0) != 0
    scaled = e.constant(alpha * b_scale.astype(np.float32), "b_scale")
    a = e.dequantize(e.need(0, "operand"), e.need(1, "a_scale"), e.input(2))
    b = e.dequantize(e.need(3, "weights"), scaled, e.input(5), axis=0 if transposed else 1)
    c = e.input(6)
    if c is not None:
        scale = a_scale.astype(np.float32).reshape(-1) * (
            alpha * b_scale.astype(np.float32).reshape(-1)
        )
        codes = constant_of(c)
        if scale.size > 1 and (codes is None or codes.size != scale.size):
            raise e.refuse("an addend that is not one row, with one scale per column")
        if codes is not None and codes.size == scale.size:
            c = e.constant(codes.reshape(-1), "bias")
        c = e.dequantize(c, e.constant(scale, "bias_scale"), None)
    y = e.op("Gemm", a, b, c, **e.attributes("transA", "transB"))
    y_scale = e.input(7)
    return e.finish(y if y_scale is None else e.quantize(y, y_scale, e.input(8)))


def _binary(op_type: str) -> Translation:
    """a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point."""

    def translate(e: Emitter) -> bool:
        a = e.dequantize(e.need(0, "operand"), e.need(1, "a_scale"), e.input(2))
        b = e.dequantize(e.need(3, "operand"), e.need(4, "b_scale"), e.input(5))
        return e.finish(e.quantize(e.op(op_type, a, b), e.need(6, "y_scale"), e.input(7)))

    return translate


def _unary(op_type: str, *names: str) -> Translation:
    """x, x_scale, x_zero_point, y_scale, y_zero_point."""

    def translate(e: Emitter) -> bool:
        x = e.dequantize(e.need(0, "operand"), e.need(1, "x_scale"), e.input(2))
        attributes: dict[str, Attribute] = e.attributes(*names)
        images_last = e.integer("channels_last", 0) != 0
        if images_last:
            x = e.op("Transpose", x, perm=[0, 3, 1, 2])
        y = e.op(op_type, x, **attributes)
        if images_last:
            y = e.op("Transpose", y, perm=[0, 2, 3, 1])
        return e.finish(e.quantize(y, e.need(3, "y_scale"), e.input(4)))

    return translate


def _softmax(e: Emitter) -> bool:
    """As _unary; until opset 13 a softmax was one over all axes from `axis` on."""
    x = e.dequantize(e.need(0, "operand"), e.need(1, "x_scale"), e.input(2))
    flattens = e.integer("opset", 13) < 13
    axis = e.integer("axis", 1 if flattens else -1)
    if flattens and axis != -1:
        rows = e.op("Flatten", x, axis=axis)
        y = e.op("Reshape", e.op("Softmax", rows, axis=-1), e.op("Shape", x))
    else:
        y = e.op("Softmax", x, axis=axis)
    return e.finish(e.quantize(y, e.need(3, "y_scale"), e.input(4)))


def _reduce_mean(e: Emitter) -> bool:
    """As _unary, with the axes as an attribute."""
    x = e.dequantize(e.need(0, "operand"), e.need(1, "x_scale"), e.input(2))
    axes = e.attributes("axes").get("axes")
    listed = None if axes is None else e.constant(np.asarray(axes, np.int64), "axes")
    y = e.op("ReduceMean", x, listed, keepdims=e.integer("keepdims", 1))
    return e.finish(e.quantize(y, e.need(3, "y_scale"), e.input(4)))


def _concat(e: Emitter) -> bool:
    """y_scale, y_zero_point, then x, x_scale, x_zero_point of each part."""
    parts = [
        e.dequantize(e.need(i, "part"), e.need(i + 1, "scale of a part"), e.input(i + 2))
        for i in range(2, len(e.node.inputs), 3)
    ]
    y = e.op("Concat", *parts, axis=e.integer("axis", 1))
    return e.finish(e.quantize(y, e.need(0, "y_scale"), e.input(1)))


def _where(e: Emitter) -> bool:
    """condition, x, x_scale, x_zero_point, y, y_scale, y_zero_point, z_scale, z_zero_point."""
    x = e.dequantize(e.need(1, "operand"), e.need(2, "x_scale"), e.input(3))
    y = e.dequantize(e.need(4, "operand"), e.need(5, "y_scale"), e.input(6))
    z = e.op("Where", e.need(0, "condition"), x, y)
    return e.finish(e.quantize(z, e.need(7, "z_scale"), e.input(8)))


STANDARD: dict[str, Translation] = {"QLinearConv": _conv, "QLinearMatMul": _matmul}
MICROSOFT: dict[str, Translation] = {
    "QuantizeLinear": _quantize_linear,
    "DequantizeLinear": _quantize_linear,
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearAveragePool": _unary("AveragePool", *_WINDOW),
    "QLinearConcat": _concat,
    "QLinearConv": _conv,
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearLeakyRelu": _unary("LeakyRelu", "alpha"),
    "QLinearMul": _binary("Mul"),
    "QLinearReduceMean": _reduce_mean,
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearSoftmax": _softmax,
    "QLinearWhere": _where,
}
