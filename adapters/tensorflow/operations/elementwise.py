"""Operations on each element: ONNX has most of them under another name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.numbers import affordable, cast
from lowprec.adapters.tensorflow.translator import Array, Found, Translator, translates
from lowprec.errors import UnsupportedError

_Function = Callable[..., Any]

# TensorFlow's operation: ONNX's, and NumPy's for constants.
_SAME: dict[str, tuple[str, _Function | None]] = {
    "Abs": ("Abs", np.abs),
    "Acos": ("Acos", np.arccos),
    "Acosh": ("Acosh", np.arccosh),
    "Add": ("Add", np.add),
    "AddV2": ("Add", np.add),
    "Asin": ("Asin", np.arcsin),
    "Asinh": ("Asinh", np.arcsinh),
    "Atan": ("Atan", np.arctan),
    "Atanh": ("Atanh", np.arctanh),
    "BitwiseAnd": ("BitwiseAnd", np.bitwise_and),
    "BitwiseOr": ("BitwiseOr", np.bitwise_or),
    "BitwiseXor": ("BitwiseXor", np.bitwise_xor),
    "Ceil": ("Ceil", np.ceil),
    "Cos": ("Cos", np.cos),
    "Cosh": ("Cosh", np.cosh),
    "Elu": ("Elu", None),
    "Equal": ("Equal", np.equal),
    "Erf": ("Erf", None),
    "Exp": ("Exp", np.exp),
    "Floor": ("Floor", np.floor),
    "Greater": ("Greater", np.greater),
    "GreaterEqual": ("GreaterOrEqual", np.greater_equal),
    "Invert": ("BitwiseNot", np.invert),
    "IsInf": ("IsInf", np.isinf),
    "IsNan": ("IsNaN", np.isnan),
    "Less": ("Less", np.less),
    "LessEqual": ("LessOrEqual", np.less_equal),
    "Log": ("Log", np.log),
    "LogicalAnd": ("And", np.logical_and),
    "LogicalNot": ("Not", np.logical_not),
    "LogicalOr": ("Or", np.logical_or),
    "LogicalXor": ("Xor", np.logical_xor),
    "Maximum": ("Max", np.maximum),
    "Minimum": ("Min", np.minimum),
    "Mul": ("Mul", np.multiply),
    "Neg": ("Neg", np.negative),
    "Pow": ("Pow", np.power),
    "RealDiv": ("Div", np.divide),
    "Reciprocal": ("Reciprocal", np.reciprocal),
    "Inv": ("Reciprocal", np.reciprocal),
    "Relu": ("Relu", None),
    "Rint": ("Round", np.rint),
    "Round": ("Round", np.rint),
    "Selu": ("Selu", None),
    "Sigmoid": ("Sigmoid", None),
    "Sign": ("Sign", np.sign),
    "Sin": ("Sin", np.sin),
    "Sinh": ("Sinh", np.sinh),
    "Softplus": ("Softplus", None),
    "Softsign": ("Softsign", None),
    "Sqrt": ("Sqrt", np.sqrt),
    "Sub": ("Sub", np.subtract),
    "Tan": ("Tan", np.tan),
    "Tanh": ("Tanh", np.tanh),
}


def _same(onnx_name: str, function: _Function | None) -> Callable[[Translator, Node], Any]:
    def translate(translator: Translator, node: Node) -> ir.Value | Array:
        known = translator.all_known(node)
        if function is not None and known is not None:
            affordable(node, np.broadcast_shapes(*(array.shape for array in known)))
            with np.errstate(all="ignore"):
                result = function(*known)
            wanted = node.attributes.get("T")
            keeps = result.dtype != np.bool_ and wanted is not None
            return np.asarray(result, wanted if keeps else None)
        inputs = [translator.value(node, index) for index in range(len(node.inputs))]
        return translator.emit(onnx_name, inputs, name=node.name)

    return translate


for _name, (_onnx_name, _numpy) in _SAME.items():
    translates(_name)(_same(_onnx_name, _numpy))


@translates(
    *("Identity", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape", "ReadVariableOp"),
    *("CheckNumerics", "PlaceholderWithDefault", "OptimizationBarrier", "Copy", "DeepCopy"),
)
def _identity(translator: Translator, node: Node) -> Found:
    return translator.found(node.inputs[0])


@translates("IdentityN")
def _identities(translator: Translator, node: Node) -> list[Found]:
    return [translator.found(tensor) for tensor in node.inputs]


@translates("Const")
def _constant(translator: Translator, node: Node) -> Array:
    array: Array = node.attributes["value"]
    return array


@translates("Cast")
def _cast(translator: Translator, node: Node) -> ir.Value | Array:
    known, dtype = translator.known(node, 0), node.attributes["DstT"]
    if dtype is None or np.dtype(dtype).kind == "c":
        raise UnsupportedError(f"node '{node.name}' casts to a type that lowprec does not have")
    if known is not None:
        with np.errstate(all="ignore"):
            converted: Array = known.astype(dtype)
            return converted
    return cast(translator, translator.value(node, 0), np.dtype(dtype), node.name)


@translates("Bitcast")
def _bitcast(translator: Translator, node: Node) -> ir.Value | Array:
    known, dtype = translator.known(node, 0), np.dtype(node.attributes["type"])
    if known is not None:
        bits: Array = known.view(dtype)
        return bits
    if dtype == np.dtype(node.attributes["T"]):
        return translator.value(node, 0)
    if _asks_for_the_sign(translator, node, dtype):
        # Keras' signbit, and its argmax, which tells -0 from 0; 1 / -0 is below 0.
        value = translator.value(node, 0)
        zero = translator.new_constant(np.zeros((), node.attributes["T"]))
        inverse = translator.emit("Reciprocal", [value], name=f"{node.name}/inverse")
        below = [
            translator.emit("Less", [number, zero], name=f"{node.name}/below")
            for number in (value, inverse)
        ]
        negative = translator.emit("Or", below, name=f"{node.name}/negative")
        signs = (
            translator.new_constant(np.asarray(bits, dtype)) for bits in (np.iinfo(dtype).min, 0)
        )
        return translator.emit("Where", [negative, *signs], name=node.name)
    raise UnsupportedError(f"node '{node.name}' (Bitcast) reads bits as another type")


def _asks_for_the_sign(translator: Translator, node: Node, dtype: np.dtype[Any]) -> bool:
    """Whether all that reads a Bitcast of reals to integers takes the sign bit of it."""
    given = np.dtype(node.attributes["T"])
    if given.kind != "f" or dtype.kind != "i" or given.itemsize != dtype.itemsize:
        return False
    nodes = translator.graph.nodes
    readers = [reader for reader in nodes.values() if (node.name, 0) in reader.inputs]
    for reader in readers:
        masks = [nodes[name].attributes.get("value") for name, _ in reader.inputs]
        if reader.op != "BitwiseAnd" or not any(
            mask is not None and mask.size == 1 and mask.item() == np.iinfo(dtype).min
            for mask in masks
        ):
            return False
    return bool(readers)


@translates("Select", "SelectV2")
def _select(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.all_known(node)
    shape = translator.shape(node.inputs[0])
    if (
        node.op == "Select"
        and shape is not None
        and len(shape) == 1
        and translator.rank(node, 1) > 1
    ):
        return _select_rows(translator, node)
    if known is not None:
        affordable(node, np.broadcast_shapes(*(array.shape for array in known)))
        return np.asarray(np.where(known[0], known[1], known[2]))
    inputs = [translator.value(node, index) for index in range(3)]
    return translator.emit("Where", inputs, name=node.name)


def _select_rows(translator: Translator, node: Node) -> ir.Value:
    """The older Select takes whole rows by a vector."""
    axes = np.arange(1, translator.rank(node, 1), dtype=np.int64)
    at = translator.new_constant(axes, f"{node.name}/axes")
    condition = translator.emit(
        "Unsqueeze", [translator.value(node, 0), at], name=f"{node.name}/rows"
    )
    inputs = [condition, translator.value(node, 1), translator.value(node, 2)]
    return translator.emit("Where", inputs, name=node.name)


@translates("NotEqual")
def _not_equal(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.all_known(node)
    if known is not None:
        return np.asarray(np.not_equal(known[0], known[1]))
    inputs = [translator.value(node, 0), translator.value(node, 1)]
    return translator.emit(
        "Not", [translator.emit("Equal", inputs, name=f"{node.name}/equal")], name=node.name
    )


@translates("ApproximateEqual")
def _about_equal(translator: Translator, node: Node) -> ir.Value:
    inputs = [translator.value(node, 0), translator.value(node, 1)]
    difference = translator.emit("Sub", inputs, name=f"{node.name}/difference")
    size = translator.emit("Abs", [difference], name=f"{node.name}/size")
    most = np.asarray(node.attributes.get("tolerance", 1e-5), node.attributes["T"])
    return translator.emit("Less", [size, translator.new_constant(most)], name=node.name)


@translates("IsFinite")
def _is_finite(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.known(node, 0)
    if known is not None:
        return np.isfinite(known)
    value = translator.value(node, 0)
    beyond = translator.emit("IsInf", [value], name=f"{node.name}/infinite")
    nothing = translator.emit("IsNaN", [value], name=f"{node.name}/nan")
    either = translator.emit("Or", [beyond, nothing], name=f"{node.name}/either")
    return translator.emit("Not", [either], name=node.name)


@translates("LeftShift", "RightShift")
def _shift(translator: Translator, node: Node) -> ir.Value | Array:
    known, dtype = translator.all_known(node), np.dtype(node.attributes["T"])
    if known is not None:
        shift = np.left_shift if node.op == "LeftShift" else np.right_shift
        return np.asarray(shift(known[0], known[1]))
    inputs = [translator.value(node, 0), translator.value(node, 1)]
    if dtype.kind == "u":
        direction = {"direction": "LEFT" if node.op == "LeftShift" else "RIGHT"}
        return translator.emit("BitShift", inputs, direction, name=node.name)
    if node.op == "RightShift":
        raise UnsupportedError(f"node '{node.name}' shifts signed integers right: cast to unsigned")
    two = translator.new_constant(np.asarray(2, dtype))
    factor = translator.emit("Pow", [two, inputs[1]], name=f"{node.name}/factor")
    return translator.emit("Mul", [inputs[0], factor], name=node.name)
