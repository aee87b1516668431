"""Products of integers with float results, and weights of a few bits in blocks.

DynamicQuantizeLSTM is translated with its weights dequantised: its activations stay float, where
onnxruntime quantises them at each step. That is nearer to the model before it was quantised, not
the same numbers.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.foreign.emitter import Emitter, Translation, constant_of

_FLOAT = int(ir.DataType.FLOAT)
_MAX_WEIGHTS = 1 << 32  # elements of a matrix of a few bits


def _scaled_product(
    e: Emitter,
    a: ir.Value,
    b: ir.Value,
    zero_points: tuple[ir.Value | None, ir.Value | None],
    scales: tuple[ir.Value, ir.Value],
    bias: ir.Value | None,
) -> bool:
    """y = f32(acc) * (a_scale * b_scale) + bias, as onnxruntime's quantizer writes it itself."""
    a_zero, b_zero = (e.scalar_or_list(zero) for zero in zero_points)
    acc = e.op("MatMulInteger", a, b, a_zero, b_zero)
    a_scale, b_scale = (e.scalar_or_list(scale) for scale in scales)
    y = e.op("Mul", e.op("Cast", acc, to=_FLOAT), e.op("Mul", a_scale, b_scale))
    return e.finish(y if bias is None else e.op("Add", y, bias))


def _matmul_integer_to_float(e: Emitter) -> bool:
    """a, b, a_scale, b_scale, a_zero_point, b_zero_point, bias."""
    a_scale, b_scale = e.need(2, "a_scale"), e.need(3, "b_scale")
    _require_known_scale(e, a_scale)
    operands = e.need(0, "operand"), e.need(1, "operand")
    return _scaled_product(e, *operands, (e.input(4), e.input(5)), (a_scale, b_scale), e.input(6))


def _require_known_scale(e: Emitter, scale: ir.Value) -> None:
    """Refuse one scale a row: a list would meet the columns."""
    array = constant_of(scale)
    if array is not None and array.size > 1:
        raise e.refuse("one scale for each row of the first operand")


def _dynamic_quantize_matmul(e: Emitter) -> bool:
    """a f32, b, b_scale, b_zero_point, bias."""
    made = e.ops("DynamicQuantizeLinear", [e.need(0, "operand")], 3, {})
    codes, scale, zero_point = made
    b, b_scale = e.need(1, "operand"), e.need(2, "b_scale")
    return _scaled_product(e, codes, b, (zero_point, e.input(3)), (scale, b_scale), e.input(4))


def _matmul_n_bits(e: Emitter) -> bool:
    """a, b u8 [N, blocks, bytes], scales, zero_points, g_idx, bias: a @ dequantize(b).T."""
    n, k = e.integer("N", 0), e.integer("K", 0)
    bits, size = e.integer("bits", 4), e.integer("block_size", 0)
    if bits not in (4, 8):
        raise e.refuse(f"weights of {bits} bits")
    if n < 1 or k < 1 or size < 1 or n * k > _MAX_WEIGHTS:
        raise e.refuse(f"N={n}, K={k}, block_size={size}")
    if e.input(4) is not None:
        raise e.refuse("g_idx (columns in another order)")
    blocks = -(-k // size)
    packed, scales = e.constant_input(1), e.constant_input(2)
    if packed is None or scales is None:
        raise e.refuse("weights or scales that are no constants")
    if packed.dtype != np.uint8 or packed.size != n * blocks * (size * bits // 8):
        raise e.refuse(f"weights of shape {list(packed.shape)}")
    if scales.dtype != np.float32 or scales.size != n * blocks:
        raise e.refuse(f"scales {scales.dtype} of shape {list(scales.shape)}")
    codes = _unpacked(packed.view(np.uint8).reshape(n, -1), bits)[:, :k]
    zeros = _block_zero_points(e, n, blocks, bits)
    dtype = np.uint8 if bits == 8 else ml_dtypes.uint4
    w = e.op(
        "DequantizeLinear",
        e.constant(codes.astype(dtype), "weights"),
        e.constant(scales.reshape(n, blocks), "scales"),
        e.constant(zeros.astype(dtype), "zero_points"),
        axis=1,
        block_size=size,
    )
    y = e.op("MatMul", e.need(0, "operand"), e.op("Transpose", w, perm=[1, 0]))
    bias = e.input(5)
    return e.finish(y if bias is None else e.op("Add", y, bias))


def _unpacked(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return one code per element; of four bits, the low half of a byte comes first."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)


def _block_zero_points(e: Emitter, n: int, blocks: int, bits: int) -> NDArray[np.uint8]:
    value = e.input(3)
    if value is None:
        return np.full((n, blocks), 1 << (bits - 1), np.uint8)
    stored = constant_of(value)
    row = -(-blocks * bits // 8)
    if stored is None or stored.dtype != np.uint8 or stored.size != n * row:
        raise e.refuse("zero points that are no packed constants")
    return _unpacked(stored.view(np.uint8).reshape(n, row), bits)[:, :blocks]


def _dynamic_quantize_lstm(e: Emitter) -> bool:
    """x, W [dirs, in, 4h], R, b, sequence_lens, h0, c0, P, W_scale, W_zero, R_scale, R_zero."""
    w, r = (
        e.constant(_real_weights(e, codes, scale, scale + 1), name)
        for codes, scale, name in ((1, 8, "W"), (2, 10, "R"))
    )
    inputs = [e.need(0, "operand"), w, r, *(e.input(index) for index in range(3, 8))]
    attributes = e.attributes(
        "activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size",
        "input_forget",
    )  # fmt: skip
    made = e.ops("LSTM", inputs, len(e.node.outputs), attributes)
    return e.finish(*made)


def _real_weights(e: Emitter, codes: int, scale: int, zero_point: int) -> NDArray[np.float32]:
    """Return the weights of all directions as LSTM wants them: [dirs, 4h, in]."""
    stored, scales, zeros = (e.constant_input(index) for index in (codes, scale, zero_point))
    if stored is None or scales is None or stored.ndim != 3:
        raise e.refuse("weights or scales that are no constants")
    directions, _, columns = stored.shape
    wide = [array for array in (scales, zeros) if array is not None]
    if any(array.size not in (directions, directions * columns) for array in wide):
        raise e.refuse(f"scales of shape {list(scales.shape)}")
    shifted = stored.astype(np.float32)
    if zeros is not None:
        shifted -= zeros.astype(np.float32).reshape(directions, 1, -1)
    real = shifted * scales.astype(np.float32).reshape(directions, 1, -1)
    return np.ascontiguousarray(real.transpose(0, 2, 1), np.float32)


MICROSOFT: dict[str, Translation] = {
    "DynamicQuantizeLSTM": _dynamic_quantize_lstm,
    "DynamicQuantizeMatMul": _dynamic_quantize_matmul,
    "MatMulIntegerToFloat": _matmul_integer_to_float,
    "MatMulNBits": _matmul_n_bits,
}
