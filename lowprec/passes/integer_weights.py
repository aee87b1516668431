"""Constant weights of any integer kind, as the kernels take them: s8, with zero points at most.

A kernel multiplies u8 or s8 activations by s8 weights. Weights of other tools may be u8, and may
have zero points:

    u8 w, zero point z     the s8 code w - 128, zero point z - 128
    w - z fits s8          the s8 code w - z, no zero point: the cheapest form, tried first
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.matching import constant_array, constant_floats, is_operator
from lowprec.passes.own import AttributeValue

_CHANNEL_AXES = {"Conv": 0, "ConvInteger": 0, "ConvTranspose": 1, "MatMul": 1, "MatMulInteger": 1}


@dataclass(frozen=True)
class IntegerWeights:
    """Weights of a layer.

    Attributes:
        codes: As stored, u8 or s8.
        scale: f32, one or one per output channel; None: those of ConvInteger have none.
        zero_point: int32, one or one per output channel.
    """

    value: ir.Value
    codes: NDArray[np.generic]
    scale: NDArray[np.float32] | None
    zero_point: NDArray[np.int32]
    axis: int

    @property
    def channels(self) -> int:
        """Output channels (of one group of a ConvTranspose)."""
        return int(self.codes.shape[self.axis])

    def attributes(self) -> dict[str, AttributeValue]:
        """Return what a fused layer needs to know beside the codes of `stored`."""
        result: dict[str, AttributeValue] = {}
        if self.scale is not None:
            result["w_scale"] = [float(number) for number in self.scale]
        _, zero_point = self._as_s8()
        if zero_point.any():
            result["w_zero_point"] = [int(number) for number in zero_point]
        return result

    def stored(self, graph: ir.Graph) -> ir.Value:
        """Return the s8 weights, an initializer of `graph`; made once for all layers."""
        codes, zero_point = self._as_s8()
        if codes is self.codes:
            return self.value
        suffix = "__s8" if zero_point.any() else "__s8_centred"
        name = f"{self.value.name}{suffix}"
        known = graph.initializers.get(name)
        if known is not None:
            array = constant_array(known)
            if array is not None and np.array_equal(array, codes):
                return known
            while name in graph.initializers:
                name += "_"
        return add_constant(graph, name, codes)

    def _as_s8(self) -> tuple[NDArray[np.generic], NDArray[np.int32]]:
        if self.codes.dtype == np.int8 and not self.zero_point.any():
            return self.codes, self.zero_point
        shape = [1] * self.codes.ndim
        shape[self.axis] = -1
        centred = self.codes.astype(np.int16) - self.zero_point.astype(np.int16).reshape(shape)
        if not centred.size or (centred.min() >= -128 and centred.max() <= 127):
            return centred.astype(np.int8), np.zeros_like(self.zero_point)
        if self.codes.dtype == np.int8:
            return self.codes, self.zero_point
        flipped: NDArray[np.int8] = (self.codes.astype(np.uint8) ^ np.uint8(0x80)).view(np.int8)
        return flipped, self.zero_point - np.int32(128)


def dequantized_weights(node: ir.Node) -> IntegerWeights | None:
    """Return the weights of a Conv, ConvTranspose, Gemm or MatMul that are dequantised constants.

    They have one scale, or one per output channel. A Gemm's or MatMul's are a matrix.
    """
    value = node.inputs[1]
    dequantize = None if value is None else value.producer()
    if not is_operator(dequantize, "DequantizeLinear") or dequantize is None:
        return None
    scale = constant_floats(dequantize.inputs[1])
    if scale is None or dequantize.attributes.get_int("block_size", 0) != 0:
        return None
    zero_point = dequantize.inputs[2] if len(dequantize.inputs) > 2 else None
    weights = _weights(node, dequantize.inputs[0], zero_point)
    if weights is None:
        return None
    if scale.size > 1 or weights.zero_point.size > 1:
        axis = dequantize.attributes.get_int("axis", 1) % max(weights.codes.ndim, 1)
        if axis != weights.axis or scale.shape != (weights.channels,):
            return None
        if weights.zero_point.size not in (1, scale.size):
            return None
    return IntegerWeights(
        weights.value, weights.codes, scale.reshape(-1), weights.zero_point, weights.axis
    )


def integer_operator_weights(node: ir.Node) -> IntegerWeights | None:
    """Return the constant weights of a ConvInteger or MatMulInteger."""
    zero_point = node.inputs[3] if len(node.inputs) > 3 else None
    weights = _weights(node, node.inputs[1], zero_point)
    if weights is None or weights.zero_point.size not in (1, weights.channels):
        return None
    return weights


def _weights(
    node: ir.Node, value: ir.Value | None, zero_point: ir.Value | None
) -> IntegerWeights | None:
    codes = constant_array(value)
    if value is None or codes is None or codes.dtype not in (np.int8, np.uint8):
        return None
    is_matrix = is_operator(node, "MatMul", "Gemm", "MatMulInteger")
    if codes.ndim < 2 or (is_matrix and codes.ndim != 2):
        return None
    zeros = np.zeros(1, np.int32)
    if zero_point is not None:
        array = constant_array(zero_point)
        if array is None or array.dtype != codes.dtype:
            return None
        zeros = array.astype(np.int32).reshape(-1)
    if is_operator(node, "Gemm"):
        axis = 0 if node.attributes.get_int("transB", 0) != 0 else 1
    else:
        axis = _CHANNEL_AXES[node.op_type]
    return IntegerWeights(value, codes, None, zeros, axis)
