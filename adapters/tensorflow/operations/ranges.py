"""FakeQuant: ranges that came with the model, from training for int8, as Q/DQ pairs.

TensorFlow moves a range so that 0 has a code (`nudge` of its fake_quant_ops_functor.h) and rounds
to the codes low ... high, low being 1 where the range is narrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.translator import Array, Translator, translates
from lowprec.errors import ModelError, UnsupportedError


@dataclass(frozen=True)
class Range:
    """Codes of a tensor: real = scale * (code - zero_point).

    Attributes:
        scale: f32, one or one for each channel.
        zero_point: Whole numbers, as many.
        low: Smallest code.
        high: Largest code.
    """

    scale: Array
    zero_point: Array
    low: int
    high: int

    @property
    def is_wide(self) -> bool:
        """Whether all codes of their type are used."""
        return self.low == 0 and self.high in (255, 65535)

    def codes(self, array: Array) -> Array:
        """Return the codes of an array whose last axis is that of the channels."""
        steps = np.floor(array / self.scale + self.zero_point + 0.5)
        return np.asarray(np.clip(steps, self.low, self.high))


def _nudged(node: Node, low: Array, high: Array) -> Range:
    bits = int(node.attributes.get("num_bits", 8))
    if not 2 <= bits <= 16:
        raise UnsupportedError(
            f"node '{node.name}' ({node.op}) has {bits} bits; 2 to 16 are possible"
        )
    first, last = int(bool(node.attributes.get("narrow_range"))), 2**bits - 1
    low, high = np.asarray(low, np.float32).reshape(-1), np.asarray(high, np.float32).reshape(-1)
    if low.shape != high.shape or not (low < high).all() or not np.isfinite(high - low).all():
        raise ModelError(f"node '{node.name}' ({node.op}) has a range that is empty or not finite")
    scale = np.asarray((high - low) / np.float32(last - first), np.float32)
    zero = np.clip(np.floor(first - low / scale + np.float32(0.5)), first, last)
    return Range(scale, zero.astype(np.int64), first, last)


@translates("FakeQuantWithMinMaxArgs")
def _fixed(translator: Translator, node: Node) -> ir.Value | Array:
    low = np.asarray(node.attributes.get("min", -6.0))
    return _rounded(
        translator, node, _nudged(node, low, np.asarray(node.attributes.get("max", 6.0)))
    )


@translates("FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel")
def _learned(translator: Translator, node: Node) -> ir.Value | Array:
    low, high = translator.constant(node, 1), translator.constant(node, 2)
    return _rounded(translator, node, _nudged(node, low, high))


def _rounded(translator: Translator, node: Node, found: Range) -> ir.Value | Array:
    known = translator.known(node, 0)
    if known is not None:
        codes = found.codes(known)
        rounded = np.asarray((codes - found.zero_point) * found.scale, np.float32)
        translator.remember_range(rounded, found)
        return rounded
    value = translator.value(node, 0)
    axis = translator.rank(node, 0) - 1
    if not found.is_wide:
        ends = (
            translator.new_constant(np.asarray((end - found.zero_point) * found.scale, np.float32))
            for end in (found.low, found.high)
        )
        for op_type, end in zip(("Max", "Min"), ends, strict=True):
            value = translator.emit(op_type, [value, end], name=f"{node.name}/range")
    dtype = np.dtype(np.uint8 if found.high < 256 else np.uint16)
    return _pair(translator, node.name, value, found.scale, found.zero_point.astype(dtype), axis)


def _pair(
    translator: Translator, name: str, value: ir.Value, scale: Array, zero: Array, axis: int
) -> ir.Value:
    if scale.size == 1:
        scale, zero = scale.reshape(()), zero.reshape(())
    attributes = {"axis": axis} if scale.size > 1 else {}
    steps = [
        translator.new_constant(scale, f"{name}/scale"),
        translator.new_constant(zero, f"{name}/zero_point"),
    ]
    codes = translator.emit("QuantizeLinear", [value, *steps], attributes, name=f"{name}/codes")
    return translator.emit("DequantizeLinear", [codes, *steps], attributes, name=name)


def weights_of(translator: Translator, node: Node, array: Array, axis: int) -> ir.Value:
    """Return weights, with their codes where FakeQuant made them.

    Args:
        translator: Takes the nodes.
        node: Reads them as input 1.
        array: The same weights in ONNX's order.
        axis: Where the last axis of TensorFlow's order is in it.
    """
    name = f"{node.name}/weights"
    found = translator.range_of(translator.known(node, 1))
    if not isinstance(found, Range) or found.high > 255:
        return translator.new_constant(array, name)
    if found.scale.size not in (1, array.shape[axis]):
        return translator.new_constant(array, name)
    shape = [1] * array.ndim
    shape[axis] = -1
    scale, zero = found.scale.reshape(shape), found.zero_point.reshape(shape)
    # TensorFlow's codes start at 0 and ours of weights at -128: symmetric ranges get 0 for 0.
    middle = (found.high + 1) // 2
    codes = np.rint(array / scale + zero) - middle
    each = found.scale.size > 1
    flat: tuple[int, ...] = (-1,) if each else ()
    scale, zero = found.scale.reshape(flat), found.zero_point.reshape(flat)
    attributes = {"axis": axis} if each else {}
    inputs = [
        translator.new_constant(codes.astype(np.int8), f"{name}/codes"),
        translator.new_constant(scale, f"{name}/scale"),
        translator.new_constant((zero - middle).astype(np.int8), f"{name}/zero_point"),
    ]
    return translator.emit("DequantizeLinear", inputs, attributes, name=name)
