"""ONNX operators that act on each float by itself, as steps of a UnaryChain.

The codes are `UnaryCode` of `_ext/kernels/kernels.h`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from lowprec.passes.matching import constant_floats, is_operator, is_scalar, rank_of
from lowprec.passes.own import float_list, int_list, is_own

UnaryStep = tuple[int, float, float]

(
    RELU,
    CLIP,
    ADD,
    MUL,
    DIV,
    RSUB,
    RDIV,
    LEAKY_RELU,
    HARD_SIGMOID,
    HARD_SWISH,
    SIGMOID,
    SILU,
    TANH,
) = range(1, 14)
(EXP, LOG, SQRT, RECIPROCAL, NEG, ABS, ERF, GELU, GELU_TANH, SOFTPLUS, ELU) = range(14, 25)
(FLOOR, CEIL, ROUND, SIGN, SQUARE, SELU, SOFTSIGN, MISH) = range(25, 33)
# Only in a product's epilogue: a number for each output channel (channel_values.py).
MUL_CHANNEL, PRELU_CHANNEL = 66, 69

_PLAIN = {
    "Relu": RELU,
    "HardSwish": HARD_SWISH,
    "Sigmoid": SIGMOID,
    "Tanh": TANH,
    "Exp": EXP,
    "Log": LOG,
    "Sqrt": SQRT,
    "Reciprocal": RECIPROCAL,
    "Neg": NEG,
    "Abs": ABS,
    "Erf": ERF,
    "Softplus": SOFTPLUS,
    "Floor": FLOOR,
    "Ceil": CEIL,
    "Round": ROUND,
    "Sign": SIGN,
    "Softsign": SOFTSIGN,
    "Mish": MISH,
}
# Operator: (code, name and default of a, name and default of b)
_WITH_ATTRIBUTES: dict[str, tuple[int, tuple[str, float], tuple[str, float]]] = {
    "LeakyRelu": (LEAKY_RELU, ("alpha", 0.01), ("", 0.0)),
    "Elu": (ELU, ("alpha", 1.0), ("", 0.0)),
    "HardSigmoid": (HARD_SIGMOID, ("alpha", 0.2), ("beta", 0.5)),
    "Selu": (SELU, ("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875)),
}
# Operator: step for `x op constant`, step for `constant op x`
_WITH_CONSTANT: dict[str, tuple[Callable[[float], UnaryStep], Callable[[float], UnaryStep]]] = {
    "Add": (lambda c: (ADD, c, 0.0), lambda c: (ADD, c, 0.0)),
    "Mul": (lambda c: (MUL, c, 0.0), lambda c: (MUL, c, 0.0)),
    "Sub": (lambda c: (ADD, -c, 0.0), lambda c: (RSUB, c, 0.0)),
    "Div": (lambda c: (DIV, c, 0.0), lambda c: (RDIV, c, 0.0)),
}


def unary_steps(node: ir.Node) -> tuple[ir.Value, list[UnaryStep]] | None:
    """Return (operand, steps) where `node` acts on each f32 element by itself, else None."""
    if len(node.outputs) != 1 or node.outputs[0].dtype != ir.DataType.FLOAT:
        return None
    source = node.inputs[0] if node.inputs else None
    if is_own(node, "UnaryChain") and source is not None:
        return source, list(
            zip(
                int_list(node, "codes"),
                float_list(node, "a"),
                float_list(node, "b"),
                strict=True,
            )
        )
    if node.domain not in ("", "ai.onnx"):
        return None
    if source is not None and node.op_type in _PLAIN:
        return source, [(_PLAIN[node.op_type], 0.0, 0.0)]
    if source is not None and node.op_type in _WITH_ATTRIBUTES:
        code, (name_a, a), (name_b, b) = _WITH_ATTRIBUTES[node.op_type]
        first = node.attributes.get_float(name_a, a)
        second = node.attributes.get_float(name_b, b) if name_b else b
        return source, [(code, first, second)]
    if source is not None and is_operator(node, "Gelu"):
        tanh = node.attributes.get_string("approximate", "none") == "tanh"
        return source, [(GELU_TANH if tanh else GELU, 0.0, 0.0)]
    if source is not None and is_operator(node, "Clip"):
        return _clip(node, source)
    if source is not None and is_operator(node, "Pow") and is_scalar(node.inputs[1], 2.0):
        array, rank = constant_floats(node.inputs[1]), rank_of(source)
        # x * x has the bits of Pow, which rounds once.
        if (
            array is not None
            and array.item() == 2.0
            and array.ndim <= (1 if rank is None else rank)
        ):
            return source, [(SQUARE, 0.0, 0.0)]
    if source is not None and is_operator(node, "PRelu"):
        slope, rank = constant_floats(node.inputs[1]), rank_of(source)
        # One slope for all channels.
        if slope is not None and slope.size == 1 and slope.ndim <= (1 if rank is None else rank):
            return source, [(LEAKY_RELU, float(slope.reshape(())), 0.0)]
    if node.op_type in _WITH_CONSTANT:
        return _with_constant(node)
    return None


def _clip(node: ir.Node, source: ir.Value) -> tuple[ir.Value, list[UnaryStep]] | None:
    bounds = [-math.inf, math.inf]
    for index in (1, 2):
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            continue
        array = constant_floats(value)
        if array is None or array.size != 1:
            return None
        bounds[index - 1] = float(array.reshape(()))
    return source, [(CLIP, bounds[0], bounds[1])]


def _with_constant(node: ir.Node) -> tuple[ir.Value, list[UnaryStep]] | None:
    if len(node.inputs) != 2:
        return None
    for index in (0, 1):
        source, array = node.inputs[index], constant_floats(node.inputs[1 - index])
        if source is None or array is None or constant_floats(source) is not None:
            continue
        # The constant must not add dimensions to the result.
        rank = rank_of(source)
        if array.size != 1 or array.ndim > (1 if rank is None else rank):
            continue
        return source, [_WITH_CONSTANT[node.op_type][index](float(np.float32(array.reshape(()))))]
    return None
