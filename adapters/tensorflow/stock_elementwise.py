"""Operators on each element as TensorFlow's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import tensorflow as tf

from lowprec.adapters.tensorflow.stock_writer import (
    Tensor,
    Writer,
    attribute,
    unsupported,
    writes,
)

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": tf.abs,
    "Acos": tf.acos,
    "Asin": tf.asin,
    "Atan": tf.atan,
    "Ceil": tf.math.ceil,
    "Cos": tf.cos,
    "Cosh": tf.cosh,
    "Erf": tf.math.erf,
    "Exp": tf.exp,
    "Floor": tf.floor,
    "HardSwish": lambda x: x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0),
    "Identity": tf.identity,
    "IsInf": tf.math.is_inf,
    "IsNaN": tf.math.is_nan,
    "Log": tf.math.log,
    "Mish": lambda x: x * tf.tanh(tf.nn.softplus(x)),
    "Neg": tf.negative,
    "Not": tf.logical_not,
    "Reciprocal": tf.math.reciprocal,
    "Relu": tf.nn.relu,
    "Round": tf.math.rint,
    "Sigmoid": tf.sigmoid,
    "Sign": tf.sign,
    "Sin": tf.sin,
    "Sinh": tf.sinh,
    "Softplus": tf.nn.softplus,
    "Softsign": tf.nn.softsign,
    "Sqrt": tf.sqrt,
    "Tan": tf.tan,
    "Tanh": tf.tanh,
}

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": tf.add,
    "And": tf.logical_and,
    "Equal": tf.equal,
    "Greater": tf.greater,
    "GreaterOrEqual": tf.greater_equal,
    "Less": tf.less,
    "LessOrEqual": tf.less_equal,
    "Max": tf.maximum,
    "Min": tf.minimum,
    "Mul": tf.multiply,
    "Or": tf.logical_or,
    "Pow": lambda x, y: tf.pow(x, tf.cast(y, x.dtype)),
    "PRelu": lambda x, slope: tf.maximum(x, 0) + slope * tf.minimum(x, 0),
    "Sub": tf.subtract,
    "Sum": tf.add,
    "Xor": tf.math.logical_xor,
}


def operands(writer: Writer, node: ir.Node) -> tuple[list[Tensor], bool]:
    """Return the inputs of an operator on each element, all in one order of axes."""
    values = [value for value in node.inputs if value is not None]
    held = [value for value in values if writer.constant(value) is None]
    ranks = [writer.tensor(value, writer.held(value).last).shape.rank for value in held]
    rank = max((rank or 0 for rank in ranks), default=0)
    last = any(writer.held(value).last for value in held) and rank > 2
    if any(each != rank and (each is None or each > 1) for each in ranks):
        last = False
    made = []
    for value in values:
        array = writer.constant(value)
        if array is None:
            tensor = writer.tensor(value, last)
            if last and tensor.shape.rank == 1:
                tensor = tf.reshape(tensor, [1] * (rank - 2) + [-1, 1])
            made.append(tensor)
        elif last and array.ndim <= rank and array.size > 1:
            full = array.reshape((1,) * (rank - array.ndim) + array.shape)
            made.append(tf.constant(np.moveaxis(full, 1, -1)))
        else:
            # One element: it goes with any order, and adds no axes.
            made.append(tf.constant(array.reshape(()) if array.size == 1 and held else array))
    return made, last


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[[Writer, ir.Node], None]:
    def write(writer: Writer, node: ir.Node) -> None:
        last = writer.is_last(node.inputs[0])
        writer.set(node, function(writer.tensor(node.inputs[0], last)), last)

    return write


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Writer, ir.Node], None]:
    def write(writer: Writer, node: ir.Node) -> None:
        tensors, last = operands(writer, node)
        made = tensors[0]
        for tensor in tensors[1:]:
            made = function(made, tensor)
        writer.set(node, made, last)

    return write


for _name, _function in _UNARY.items():
    writes(_name)(_unary(_function))
for _name, _two in _BINARY.items():
    writes(_name)(_binary(_two))


@writes("Div")
def _div(writer: Writer, node: ir.Node) -> None:
    (first, second), last = operands(writer, node)
    # Integers are divided towards zero.
    function = tf.truediv if first.dtype.is_floating else tf.truncatediv
    writer.set(node, function(first, second), last)


@writes("Mod")
def _mod(writer: Writer, node: ir.Node) -> None:
    (first, second), last = operands(writer, node)
    function = tf.truncatemod if attribute(node, "fmod", 0) else tf.math.floormod
    writer.set(node, function(first, second), last)


@writes("Where")
def _where(writer: Writer, node: ir.Node) -> None:
    tensors, last = operands(writer, node)
    writer.set(node, tf.where(*tensors), last)


@writes("Clip")
def _clip(writer: Writer, node: ir.Node) -> None:
    last = writer.is_last(node.inputs[0])
    tensor = writer.tensor(node.inputs[0], last)
    bounds = [
        None
        if index >= len(node.inputs) or node.inputs[index] is None
        else writer.known(node, index)
        for index in (1, 2)
    ]
    if bounds[0] is not None and bounds[1] is not None and not bounds[0] and bounds[1] == 6:
        writer.set(node, tf.nn.relu6(tensor), last)
        return
    if bounds[0] is not None:
        tensor = tf.maximum(tensor, tf.constant(bounds[0].reshape(())))
    if bounds[1] is not None:
        tensor = tf.minimum(tensor, tf.constant(bounds[1].reshape(())))
    writer.set(node, tensor, last)


@writes("LeakyRelu", "Elu", "Selu", "HardSigmoid", "Gelu", "ThresholdedRelu", "Celu")
def _activation(writer: Writer, node: ir.Node) -> None:
    last = writer.is_last(node.inputs[0])
    x = writer.tensor(node.inputs[0], last)
    alpha = attribute(node, "alpha")
    operator = node.op_type
    if operator == "LeakyRelu":
        made = tf.nn.leaky_relu(x, 0.01 if alpha is None else alpha)
    elif operator == "Elu":
        alpha = 1.0 if alpha is None else alpha
        made = tf.nn.elu(x) if alpha == 1 else tf.where(x < 0, alpha * tf.math.expm1(x), x)
    elif operator == "Selu":
        alpha = 1.67326319217681884765625 if alpha is None else alpha
        gamma = attribute(node, "gamma", 1.05070102214813232421875)
        made = gamma * tf.where(x < 0, alpha * tf.math.expm1(x), x)
    elif operator == "HardSigmoid":
        alpha, beta = 0.2 if alpha is None else alpha, attribute(node, "beta", 0.5)
        made = tf.minimum(tf.maximum(alpha * x + beta, 0.0), 1.0)
    elif operator == "Gelu":
        made = tf.nn.gelu(x, attribute(node, "approximate", "none") == "tanh")
    elif operator == "Celu":
        alpha = 1.0 if alpha is None else alpha
        made = tf.maximum(x, 0.0) + tf.minimum(alpha * tf.math.expm1(x / alpha), 0.0)
    else:
        made = tf.where(x > (1.0 if alpha is None else alpha), x, tf.zeros((), x.dtype))
    writer.set(node, made, last)


@writes("Cast")
def _cast(writer: Writer, node: ir.Node) -> None:
    last = writer.is_last(node.inputs[0])
    dtype = ir.DataType(attribute(node, "to"))
    tensor = writer.tensor(node.inputs[0], last)
    try:
        writer.set(node, tf.cast(tensor, tf.as_dtype(dtype.numpy())), last)
    except TypeError:
        raise unsupported(node, f"{dtype.name} is no type of TensorFlow") from None
