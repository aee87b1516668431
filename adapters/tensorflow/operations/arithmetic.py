"""Operations on each element that ONNX writes as several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.numbers import cast
from lowprec.adapters.tensorflow.translator import Array, Translator, translates


class Steps:
    """Emits nodes under names that start with that of one node of TensorFlow."""

    def __init__(
        self, translator: Translator, node: Node, dtype: np.dtype[Any] | None = None
    ) -> None:
        """Take what it emits for; `dtype` is that of numbers, the node's T by default."""
        self.translator, self.node = translator, node
        self.dtype: np.dtype[Any] = np.dtype(dtype or node.attributes["T"])

    def input(self, index: int) -> ir.Value:
        """Return an input of the node."""
        return self.translator.value(self.node, index)

    def number(self, value: float) -> ir.Value:
        """Return a scalar of the node's type."""
        return self.translator.new_constant(np.asarray(value, self.dtype))

    def __call__(self, op_type: str, *inputs: ir.Value, last: bool = False) -> ir.Value:
        """Return what an operator makes; `last` gives it the node's own name."""
        name = self.node.name if last else f"{self.node.name}/{op_type.lower()}"
        return self.translator.emit(op_type, inputs, name=name)


_Unary = Callable[[Steps, ir.Value], ir.Value]


def _written(operation: str, function: Callable[[Array], Array], make: _Unary) -> None:
    """Register an operation of one input by NumPy's for constants, and how it is written."""

    def translate(translator: Translator, node: Node) -> ir.Value | Array:
        known = translator.known(node, 0)
        if known is not None:
            with np.errstate(all="ignore"):
                return np.asarray(function(known), known.dtype)
        steps = Steps(translator, node)
        return make(steps, steps.input(0))

    translates(operation)(translate)


_written("Rsqrt", lambda x: 1 / np.sqrt(x), lambda s, x: s("Reciprocal", s("Sqrt", x), last=True))
_written("Square", np.square, lambda s, x: s("Mul", x, x, last=True))
_written("Expm1", np.expm1, lambda s, x: _exp_minus_one(s, x))
_written("Log1p", np.log1p, lambda s, x: s("Log", s("Add", x, s.number(1)), last=True))
_written("Relu6", lambda x: np.clip(x, 0, 6), lambda s, x: s("Clip", x, s.number(0), s.number(6)))


def _exp_minus_one(steps: Steps, value: ir.Value) -> ir.Value:
    """exp(x) - 1 as tanh(x / 2) * (exp(x) + 1), which keeps its digits near 0."""
    half = steps("Tanh", steps("Mul", value, steps.number(0.5)))
    both = steps("Add", steps("Exp", value), steps.number(1))
    product = steps("Mul", half, both)
    large = steps("Sub", steps("Exp", value), steps.number(1))
    far = steps("Greater", steps("Abs", value), steps.number(1))
    return steps("Where", far, large, product, last=True)


@translates("SquaredDifference")
def _squared_difference(translator: Translator, node: Node) -> ir.Value | Array:
    known = translator.all_known(node)
    if known is not None:
        return np.asarray(np.square(known[0] - known[1]))
    steps = Steps(translator, node)
    difference = steps("Sub", steps.input(0), steps.input(1))
    return steps("Mul", difference, difference, last=True)


@translates("Erfc")
def _erfc(translator: Translator, node: Node) -> ir.Value:
    steps = Steps(translator, node)
    return steps("Sub", steps.number(1), steps("Erf", steps.input(0)), last=True)


@translates("LeakyRelu")
def _leaky_relu(translator: Translator, node: Node) -> ir.Value:
    slope = {"alpha": float(node.attributes.get("alpha", 0.2))}
    return translator.emit("LeakyRelu", [translator.value(node, 0)], slope, name=node.name)


@translates("ClipByValue")
def _clip(translator: Translator, node: Node) -> ir.Value:
    steps = Steps(translator, node)
    low, high = translator.known(node, 1), translator.known(node, 2)
    if low is not None and high is not None and low.size == high.size == 1:
        return steps(
            "Clip", steps.input(0), steps.number(low.item()), steps.number(high.item()), last=True
        )
    return steps("Max", steps("Min", steps.input(0), steps.input(2)), steps.input(1), last=True)


@translates("Div", "FloorDiv", "TruncateDiv")
def _divide(translator: Translator, node: Node) -> ir.Value | Array:
    steps, known = Steps(translator, node), translator.all_known(node)
    exact = steps.dtype.kind in "fV" and node.op == "Div"
    floors = node.op == "FloorDiv"
    if known is not None:
        with np.errstate(all="ignore"):
            if exact or floors:
                divide = np.divide if exact else np.floor_divide
                return np.asarray(divide(known[0], known[1]), steps.dtype)
            return np.asarray(np.trunc(known[0] / known[1]), steps.dtype)
    first, second = steps.input(0), steps.input(1)
    if steps.dtype.kind in "fV":
        if not floors:
            return steps("Div", first, second, last=True)
        return steps("Floor", steps("Div", first, second), last=True)
    divided = steps("Div", first, second)
    if not floors or steps.dtype.kind == "u":
        return divided
    # ONNX rounds integers towards zero, TensorFlow down: one less where a remainder is left and
    # the signs differ.
    remainder = steps("Sub", first, steps("Mul", divided, second))
    zero = steps.number(0)
    differ = steps("Xor", steps("Less", remainder, zero), steps("Less", second, zero))
    lower = steps("And", differ, steps("Not", steps("Equal", remainder, zero)))
    one = cast(translator, lower, steps.dtype, f"{node.name}/one")
    return steps("Sub", divided, one, last=True)


@translates("FloorMod", "Mod", "TruncateMod")
def _remainder(translator: Translator, node: Node) -> ir.Value | Array:
    steps, known = Steps(translator, node), translator.all_known(node)
    floors = node.op == "FloorMod"
    if known is not None:
        with np.errstate(all="ignore"):
            return np.asarray((np.mod if floors else np.fmod)(known[0], known[1]), steps.dtype)
    first, second = steps.input(0), steps.input(1)
    if not floors:
        return translator.emit("Mod", [first, second], {"fmod": 1}, name=node.name)
    if steps.dtype.kind not in "fV":
        return steps("Mod", first, second, last=True)
    # fmod is exact, which x - floor(x / y) y is not; y more where the signs differ.
    rest = translator.emit("Mod", [first, second], {"fmod": 1}, name=f"{node.name}/rest")
    zero = steps.number(0)
    differ = steps("Xor", steps("Less", rest, zero), steps("Less", second, zero))
    lower = steps("And", differ, steps("Not", steps("Equal", rest, zero)))
    return steps("Where", lower, steps("Add", rest, second), rest, last=True)


@translates("AddN")
def _add_n(translator: Translator, node: Node) -> ir.Value:
    inputs = [translator.value(node, index) for index in range(len(node.inputs))]
    return translator.emit("Sum", inputs, name=node.name)


@translates("DivNoNan", "MulNoNan", "Xdivy", "Xlogy", "Xlog1py")
def _with_zero(translator: Translator, node: Node) -> ir.Value:
    """0 where the divisor (DivNoNan), the factor (MulNoNan) or x is 0, whatever the other is."""
    steps = Steps(translator, node)
    first, second, zero = steps.input(0), steps.input(1), steps.number(0)
    deciding = second if node.op in ("DivNoNan", "MulNoNan") else first
    if node.op in ("DivNoNan", "Xdivy"):
        made = steps("Div", first, second)
    elif node.op == "MulNoNan":
        made = steps("Mul", first, second)
    else:
        inner = second if node.op == "Xlogy" else steps("Add", second, steps.number(1))
        made = steps("Mul", first, steps("Log", inner))
    return steps("Where", steps("Equal", deciding, zero), zero, made, last=True)


@translates("Atan2")
def _atan2(translator: Translator, node: Node) -> ir.Value:
    y, x = translator.value(node, 0), translator.value(node, 1)
    return angle_of(translator, node, y, x, np.dtype(node.attributes["T"]))


def angle_of(
    translator: Translator, node: Node, y: ir.Value, x: ir.Value, dtype: np.dtype[Any]
) -> ir.Value:
    """Return the angle of (x, y): atan(y / x), moved by pi to the left of the origin."""
    steps = Steps(translator, node, dtype)
    zero = steps.number(0)
    above = steps("GreaterOrEqual", y, zero)
    turn = steps("Where", above, steps.number(np.pi), steps.number(-np.pi))
    right = steps("Atan", steps("Div", y, x))
    left = steps("Add", right, turn)
    made = steps("Where", steps("Less", x, zero), left, right)
    sign = steps("Mul", steps("Sign", y), steps.number(np.pi / 2))
    return steps("Where", steps("Equal", x, zero), sign, made, last=True)


@translates("AdjustContrastv2")
def _contrast(translator: Translator, node: Node) -> ir.Value:
    """Move pixels from the mean of their channel by a factor."""
    steps = Steps(translator, node)
    axes = translator.new_constant(np.asarray([-3, -2], np.int64), f"{node.name}/axes")
    mean = translator.emit("ReduceMean", [steps.input(0), axes], name=f"{node.name}/mean")
    away = steps("Mul", steps("Sub", steps.input(0), mean), steps.input(1))
    return steps("Add", away, mean, last=True)


@translates("BesselI0", "BesselI0e")
def _bessel(translator: Translator, node: Node) -> Array:
    known = translator.constant(node, 0)
    scale = np.exp(-np.abs(known)) if node.op == "BesselI0e" else 1.0
    return np.asarray(np.i0(known) * scale, known.dtype)


@translates("NextAfter")
def _next(translator: Translator, node: Node) -> Array:
    return np.nextafter(translator.constant(node, 0), translator.constant(node, 1))
