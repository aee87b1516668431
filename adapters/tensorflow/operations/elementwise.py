"""Operations on each element: ONNX has most of them under another name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.translator import Array, Found, Translator, translates

_Function = Callable[..., Any]

# TensorFlow's operation: ONNX's, and NumPy's for constants.
_SAME: dict[str, tuple[str, _Function | None]] = {
    "Abs": ("Abs", np.abs),
    "Add": ("Add", np.add),
    "AddV2": ("Add", np.add),
    "Acos": ("Acos", None),
    "Asin": ("Asin", None),
    "Atan": ("Atan", None),
    "Ceil": ("Ceil", np.ceil),
    "Cos": ("Cos", np.cos),
    "Cosh": ("Cosh", None),
    "Elu": ("Elu", None),
    "Equal": ("Equal", np.equal),
    "Erf": ("Erf", None),
    "Exp": ("Exp", np.exp),
    "Floor": ("Floor", np.floor),
    "Greater": ("Greater", np.greater),
    "GreaterEqual": ("GreaterOrEqual", np.greater_equal),
    "IsInf": ("IsInf", np.isinf),
    "IsNan": ("IsNaN", np.isnan),
    "Less": ("Less", np.less),
    "LessEqual": ("LessOrEqual", np.less_equal),
    "Log": ("Log", np.log),
    "LogicalAnd": ("And", np.logical_and),
    "LogicalNot": ("Not", np.logical_not),
    "LogicalOr": ("Or", np.logical_or),
    "Maximum": ("Max", np.maximum),
    "Minimum": ("Min", np.minimum),
    "Mul": ("Mul", np.multiply),
    "Neg": ("Neg", np.negative),
    "Pow": ("Pow", np.power),
    "RealDiv": ("Div", np.divide),
    "Reciprocal": ("Reciprocal", None),
    "Relu": ("Relu", None),
    "Rint": ("Round", np.rint),
    "Round": ("Round", np.rint),
    "Selu": ("Selu", None),
    "Sigmoid": ("Sigmoid", None),
    "Sign": ("Sign", np.sign),
    "Sin": ("Sin", np.sin),
    "Sinh": ("Sinh", None),
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
    *("PlaceholderWithDefault", "CheckNumerics"),
)
def _identity(translator: Translator, node: Node) -> Found:
    return translator.found(node.inputs[0])


@translates("DivNoNan")
def _divide_no_nan(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.all_known(node)
    if known is not None:
        with np.errstate(all="ignore"):
            return np.where(known[1] == 0, known[1], known[0] / known[1]).astype(known[0].dtype)
    dividend, divisor = translator.value(node, 0), translator.value(node, 1)
    zero = translator.new_constant(np.zeros((), node.attributes["T"]), f"{node.name}/zero")
    is_zero = translator.emit("Equal", [divisor, zero], name=f"{node.name}/is_zero")
    quotient = translator.emit("Div", [dividend, divisor], name=f"{node.name}/quotient")
    return translator.emit("Where", [is_zero, zero, quotient], name=node.name)


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
    if known is not None:
        return known.astype(dtype)
    to = int(ir.DataType.from_numpy(dtype))
    return translator.emit("Cast", [translator.value(node, 0)], {"to": to}, name=node.name)


@translates("Rsqrt")
def _rsqrt(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.known(node, 0)
    if known is not None:
        one = known.dtype.type(1)
        return np.asarray(one / np.sqrt(known), known.dtype)
    root = translator.emit("Sqrt", [translator.value(node, 0)], name=f"{node.name}/root")
    return translator.emit("Reciprocal", [root], name=node.name)


@translates("Square")
def _square(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.known(node, 0)
    if known is not None:
        return np.square(known)
    value = translator.value(node, 0)
    return translator.emit("Mul", [value, value], name=node.name)


@translates("SquaredDifference")
def _squared_difference(translator: Translator, node: Node) -> ir.Value:
    inputs = [translator.value(node, 0), translator.value(node, 1)]
    difference = translator.emit("Sub", inputs, name=f"{node.name}/difference")
    return translator.emit("Mul", [difference, difference], name=node.name)


@translates("Erfc")
def _erfc(translator: Translator, node: Node) -> ir.Value:
    erf = translator.emit("Erf", [translator.value(node, 0)], name=f"{node.name}/erf")
    one = translator.new_constant(np.ones((), node.attributes["T"]))
    return translator.emit("Sub", [one, erf], name=node.name)


@translates("Relu6")
def _relu6(translator: Translator, node: Node) -> ir.Value:
    dtype = node.attributes["T"]
    bounds = [translator.new_constant(np.asarray(bound, dtype)) for bound in (0, 6)]
    return translator.emit("Clip", [translator.value(node, 0), *bounds], name=node.name)


@translates("LeakyRelu")
def _leaky_relu(translator: Translator, node: Node) -> ir.Value:
    slope = {"alpha": float(node.attributes["alpha"])}
    return translator.emit("LeakyRelu", [translator.value(node, 0)], slope, name=node.name)


@translates("ClipByValue")
def _clip(translator: Translator, node: Node) -> ir.Value:
    inputs = [translator.value(node, index) for index in range(3)]
    return translator.emit("Clip", inputs, name=node.name)


@translates("Select", "SelectV2")
def _select(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.all_known(node)
    if known is not None:
        return np.asarray(np.where(known[0], known[1], known[2]))
    inputs = [translator.value(node, index) for index in range(3)]
    return translator.emit("Where", inputs, name=node.name)


@translates("NotEqual")
def _not_equal(translator: Translator, node: Node) -> ir.Value:
    inputs = [translator.value(node, 0), translator.value(node, 1)]
    return translator.emit(
        "Not", [translator.emit("Equal", inputs, name=f"{node.name}/equal")], name=node.name
    )


@translates("FloorDiv", "Div")
def _floor_div(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.all_known(node)
    if known is not None:
        return np.asarray(np.floor_divide(known[0], known[1]))
    inputs = [translator.value(node, 0), translator.value(node, 1)]
    if node.op == "Div" and np.dtype(node.attributes["T"]).kind == "f":
        return translator.emit("Div", inputs, name=node.name)
    divided = translator.emit("Div", inputs, name=f"{node.name}/division")
    if np.dtype(node.attributes["T"]).kind == "f":
        return translator.emit("Floor", [divided], name=node.name)
    # Integers: ONNX rounds towards zero, TensorFlow down: take one off where a remainder is left
    # and the signs differ.
    remainder = translator.emit("Mod", inputs, {"fmod": 1}, name=f"{node.name}/remainder")
    zero = translator.new_constant(np.zeros((), node.attributes["T"]))
    left = translator.emit("Equal", [remainder, zero], name=f"{node.name}/exact")
    negative = [
        translator.emit("Less", [value, zero], name=f"{node.name}/negative")
        for value in (remainder, inputs[1])
    ]
    differ = translator.emit("Xor", negative, name=f"{node.name}/differ")
    inexact = translator.emit("Not", [left], name=f"{node.name}/inexact")
    lower = translator.emit("And", [differ, inexact], name=f"{node.name}/lower")
    to = int(ir.DataType.from_numpy(np.dtype(node.attributes["T"])))
    one = translator.emit("Cast", [lower], {"to": to}, name=f"{node.name}/one")
    return translator.emit("Sub", [divided, one], name=node.name)


@translates("FloorMod")
def _floor_mod(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.all_known(node)
    if known is not None:
        return np.asarray(np.mod(known[0], known[1]))
    inputs = [translator.value(node, 0), translator.value(node, 1)]
    if np.dtype(node.attributes["T"]).kind != "f":
        return translator.emit("Mod", inputs, name=node.name)
    quotient = translator.emit("Div", inputs, name=f"{node.name}/quotient")
    floor = translator.emit("Floor", [quotient], name=f"{node.name}/floor")
    whole = translator.emit("Mul", [floor, inputs[1]], name=f"{node.name}/whole")
    return translator.emit("Sub", [inputs[0], whole], name=node.name)


@translates("AddN")
def _add_n(translator: Translator, node: Node) -> ir.Value:
    inputs = [translator.value(node, index) for index in range(len(node.inputs))]
    return translator.emit("Sum", inputs, name=node.name)


@translates("Expm1", "Log1p")
def _near_one(translator: Translator, node: Node) -> ir.Value:
    one = translator.new_constant(np.ones((), node.attributes["T"]))
    value = translator.value(node, 0)
    if node.op == "Expm1":
        power = translator.emit("Exp", [value], name=f"{node.name}/exp")
        return translator.emit("Sub", [power, one], name=node.name)
    total = translator.emit("Add", [value, one], name=f"{node.name}/sum")
    return translator.emit("Log", [total], name=node.name)
