"""Float operators with something fused into them: an activation, a bias, a transposition."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.graph.foreign.emitter import Emitter, Translation, constant_of

_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_PLAIN = ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign")
# Names and defaults of the parameters, in the order of a FusedConv's activation_params.
_PARAMETERS = {
    "LeakyRelu": (("alpha", 0.01),),
    "Elu": (("alpha", 1.0),),
    "HardSigmoid": (("alpha", 0.2), ("beta", 0.5)),
}


def _activated(e: Emitter, y: ir.Value, name: str, given: list[float]) -> ir.Value:
    if not name:
        return y
    if name in _PLAIN:
        return e.op(name, y)
    if name == "Clip":
        low, high = (*given, -np.inf, np.inf)[:2] if len(given) != 1 else (given[0], np.inf)
        return e.op("Clip", y, e.constant(np.float32(low)), e.constant(np.float32(high)))
    if name not in _PARAMETERS:
        raise e.refuse(f"activation '{name}'")
    names = _PARAMETERS[name]
    values = dict(names)
    values.update({key: float(value) for (key, _), value in zip(names, given, strict=False)})
    return e.op(name, y, **values)


def _fused_conv(e: Emitter) -> bool:
    """x, w, bias, summand; activation(conv + summand)."""
    y = e.op("Conv", e.need(0, "operand"), e.need(1, "weights"), e.input(2), **e.attributes(*_CONV))
    summand = e.input(3)
    if summand is not None:
        y = e.op("Add", y, summand)
    parameters = e.node.attributes.get("activation_params")
    given = [] if parameters is None else [float(number) for number in parameters.as_floats()]
    return e.finish(_activated(e, y, e.node.attributes.get_string("activation", ""), given))


def _fused_gemm(e: Emitter) -> bool:
    attributes = e.attributes("alpha", "beta", "transA", "transB")
    y = e.op("Gemm", e.need(0, "operand"), e.need(1, "operand"), e.input(2), **attributes)
    name = e.node.attributes.get_string("activation", "")
    given = []
    for key, default in _PARAMETERS.get(name, ()):
        given.append(e.real(f"activation_{key}", default))
    if name == "Clip":
        given = [e.real("activation_min", -np.inf), e.real("activation_max", np.inf)]
    return e.finish(_activated(e, y, name, given))


def _fused_matmul(e: Emitter) -> bool:
    """alpha * transpose(a) @ transpose(b); only the last two axes turn."""
    if e.integer("transBatchA", 0) or e.integer("transBatchB", 0):
        raise e.refuse("transBatchA or transBatchB")
    operands = []
    for index, name in ((0, "transA"), (1, "transB")):
        value = e.need(index, "operand")
        operands.append(_turned(e, value) if e.integer(name, 0) else value)
    y = e.op("MatMul", *operands)
    alpha = e.real("alpha", 1.0)
    return e.finish(y if alpha == 1.0 else e.op("Mul", y, e.constant(np.float32(alpha))))


def _turned(e: Emitter, value: ir.Value) -> ir.Value:
    """Return `value` with its last two axes exchanged, of whatever rank it may be."""
    array = constant_of(value)
    if array is not None and array.ndim >= 2:
        return e.constant(np.ascontiguousarray(np.swapaxes(array, -1, -2)), "transposed")
    rank = None if value.shape is None else len(value.shape)
    if rank is None:
        # [.., m, n] -> [all others, m, n] -> [all others, n, m] -> [.., n, m]
        shape = e.op("Shape", value)
        last = e.op("Slice", shape, e.shape(-2), e.shape(1 << 31))
        others = e.op("Slice", shape, e.shape(0), e.shape(-2))
        m, n = (e.op("Gather", last, e.shape(index)) for index in (0, 1))
        flat = e.op("Reshape", value, e.op("Concat", e.shape(-1), last, axis=0))
        turned = e.op("Transpose", flat, perm=[0, 2, 1])
        return e.op("Reshape", turned, e.op("Concat", others, n, m, axis=0))
    return e.op("Transpose", value, perm=[*range(rank - 2), rank - 1, rank - 2])


def _gelu(e: Emitter) -> bool:
    return e.finish(e.op("Gelu", e.need(0, "operand")))


def _biased_gelu(approximate: str) -> Translation:
    """x and a row that is added first."""

    def translate(e: Emitter) -> bool:
        x, bias = e.need(0, "operand"), e.input(1)
        if bias is not None:
            x = e.op("Add", x, bias)
        return e.finish(e.op("Gelu", x, approximate=approximate))

    return translate


def _quick_gelu(e: Emitter) -> bool:
    """x * sigmoid(alpha * x)."""
    x = e.need(0, "operand")
    alpha = e.constant(np.float32(e.real("alpha", 1.702)))
    return e.finish(e.op("Mul", x, e.op("Sigmoid", e.op("Mul", x, alpha))))


MICROSOFT: dict[str, Translation] = {
    "BiasGelu": _biased_gelu("none"),
    "FastGelu": _biased_gelu("tanh"),
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "Gelu": _gelu,
    "QuickGelu": _quick_gelu,
}
