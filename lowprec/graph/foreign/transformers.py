"""Attention, embeddings and normalised skip connections, as onnxruntime's optimizer fuses them.

Half-precision models, key/value caches and the decoders' own operators (GroupQueryAttention,
RotaryEmbedding, ...) are refused by name.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from lowprec.graph.foreign.emitter import Emitter, Translation, constant_of

_FLOAT = int(ir.DataType.FLOAT)
_INT32 = int(ir.DataType.INT32)


def _layer_norm(
    e: Emitter, x: ir.Value, gamma: ir.Value, beta: ir.Value | None, epsilon: float
) -> ir.Value:
    return e.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=epsilon)


def _skip_layer_norm(e: Emitter) -> bool:
    """x, skip, gamma, beta, bias: LayerNormalization(x + skip + bias); the sum is output 3."""
    total = e.op("Add", e.need(0, "operand"), e.need(1, "skip"))
    if e.input(4) is not None:
        total = e.op("Add", total, e.input(4))
    if e.uses_output(1) or e.uses_output(2):
        raise e.refuse("its mean or deviation is an output")
    y = _layer_norm(e, total, e.need(2, "gamma"), e.input(3), e.real("epsilon", 1e-5))
    return e.finish(y, None, None, total)


def _skip_rms_norm(e: Emitter) -> bool:
    """x, skip, gamma, bias: sum / sqrt(mean(sum ^ 2) + epsilon) * gamma; the sum is output 3."""
    total = e.op("Add", e.need(0, "operand"), e.need(1, "skip"))
    if e.input(3) is not None:
        total = e.op("Add", total, e.input(3))
    if e.uses_output(1) or e.uses_output(2):
        raise e.refuse("its mean or deviation is an output")
    square = e.op("ReduceMean", e.op("Mul", total, total), e.shape(-1), keepdims=1)
    epsilon = e.constant(np.float32(e.real("epsilon", 1e-5)))
    scaled = e.op("Div", total, e.op("Sqrt", e.op("Add", square, epsilon)))
    return e.finish(e.op("Mul", scaled, e.need(2, "gamma")), None, None, total)


def _embed_layer_norm(e: Emitter) -> bool:
    """input_ids, segment_ids, word, position, segment, gamma, beta, mask, position_ids."""
    tables = [e.need(2, "word embedding"), e.need(3, "position embedding"), e.input(4)]
    norm = (e.need(5, "gamma"), e.need(6, "beta"))
    return _embed(e, tables, norm, e.input(7), e.input(8))


def _quantized_embed_layer_norm(e: Emitter) -> bool:
    """As above with codes: input 7 is the mask, scales are 8 to 12, zero points 13 to 17."""

    def real(value: ir.Value | None, which: int) -> ir.Value | None:
        if value is None:
            return None
        return e.dequantize(value, e.need(8 + which, "scale"), e.input(13 + which))

    word, position = real(e.need(2, "words"), 0), real(e.need(3, "positions"), 1)
    segment = real(e.input(4), 2)
    gamma, beta = real(e.need(5, "gamma"), 3), real(e.need(6, "beta"), 4)
    if word is None or position is None or gamma is None or beta is None:
        raise e.refuse("a table is missing")
    return _embed(e, [word, position, segment], (gamma, beta), e.input(7), None)


def _embed(
    e: Emitter,
    tables: list[ir.Value | None],
    norm: tuple[ir.Value, ir.Value],
    mask: ir.Value | None,
    positions: ir.Value | None,
) -> bool:
    ids = e.need(0, "input_ids")
    word, position, segment = tables
    total = e.op("Gather", word, ids, axis=0)
    if positions is None:  # 0, 1, 2 ... of each sequence
        length = e.op("Gather", e.op("Shape", ids), e.shape(1))
        row = e.op("Slice", position, e.shape(0), length, e.shape(0))
    else:
        row = e.op("Gather", position, positions, axis=0)
    total = e.op("Add", total, row)
    segments = e.input(1)
    if segment is not None and segments is not None:
        total = e.op("Add", total, e.op("Gather", segment, segments, axis=0))
    index: ir.Value | None = None
    if e.uses_output(1):
        if mask is None or e.integer("mask_index_type", 1) != 1:
            raise e.refuse("a mask index without a mask")
        index = e.op("ReduceSum", e.op("Cast", mask, to=_INT32), e.shape(1), keepdims=0)
        index.shape = ir.Shape([None])
    y = _layer_norm(e, total, *norm, e.real("epsilon", 1e-12))
    return e.finish(y, index, total if e.uses_output(2) else None)


def _attention(e: Emitter) -> bool:
    """x, weights, bias, mask_index, past, attention_bias."""
    if e.input(4) is not None or e.input(6) is not None or e.uses_output(1):
        raise e.refuse("a key/value cache")
    x, weights, bias = e.need(0, "operand"), e.need(1, "weights"), e.input(2)
    return _attend(e, x, weights, bias, e.input(3), e.input(5))


def _quantized_attention(e: Emitter) -> bool:
    """x, weights, bias f32, x_scale, w_scale, mask_index, x_zero_point, w_zero_point, past."""
    if e.input(8) is not None or e.uses_output(1):
        raise e.refuse("a key/value cache")
    x = e.dequantize(e.need(0, "operand"), e.need(3, "x_scale"), e.input(6))
    weights = e.dequantize(e.need(1, "weights"), e.need(4, "w_scale"), e.input(7), axis=1)
    return _attend(e, x, weights, e.input(2), e.input(5), None)


def _attend(
    e: Emitter,
    x: ir.Value,
    weights: ir.Value,
    bias: ir.Value | None,
    mask: ir.Value | None,
    addend: ir.Value | None,
) -> bool:
    """softmax(q k / sqrt(d) + mask) v of num_heads heads; q, k and v in one product."""
    heads = e.integer("num_heads", 0)
    stored = constant_of(e.input(1))
    columns = 0 if stored is None or stored.ndim != 2 else int(stored.shape[1])
    listed = e.attributes("qkv_hidden_sizes").get("qkv_hidden_sizes")
    if isinstance(listed, (list, tuple)):
        sizes = [int(size) for size in listed]
    else:
        sizes = [columns // 3] * 3
    if heads < 1 or len(sizes) != 3 or sum(sizes) != columns or any(s % heads for s in sizes):
        raise e.refuse(f"weights of {columns} columns with {heads} heads")
    if e.integer("do_rotary", 0):
        raise e.refuse("rotary positions")
    joined = e.op("MatMul", x, weights)
    if bias is not None:
        joined = e.op("Add", joined, bias)
    parts = e.ops("Split", [joined, e.shape(*sizes)], 3, {"axis": -1})
    split = [e.op("Reshape", part, e.shape(0, 0, heads, -1)) for part in parts]
    turns = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    q, k, v = (e.op("Transpose", part, perm=perm) for part, perm in zip(split, turns, strict=True))
    scale = e.real("scale", 0.0) or 1.0 / np.sqrt(sizes[0] // heads)
    scores = e.op("Mul", e.op("MatMul", q, k), e.constant(np.float32(scale), "scale"))
    hidden = float(e.real("mask_filter_value", -10000.0))
    if mask is not None:
        scores = e.op("Add", scores, _mask_addend(e, x, mask, hidden))
    if e.integer("unidirectional", 0):
        scores = e.op("Add", scores, _future_addend(e, x, hidden))
    if addend is not None:
        scores = e.op("Add", scores, addend)
    mixed = e.op("MatMul", e.op("Softmax", scores, axis=-1), v)
    y = e.op("Reshape", e.op("Transpose", mixed, perm=[0, 2, 1, 3]), e.shape(0, 0, sizes[2]))
    return e.finish(y)


def _mask_addend(e: Emitter, x: ir.Value, mask: ir.Value, hidden: float) -> ir.Value:
    """Return 0 where the mask lets through and `hidden` elsewhere, [batch, 1, 1 or S, S]."""
    rank = None if mask.shape is None else len(mask.shape)
    axes: tuple[int, ...] = (1, 2)
    if rank == 1:  # the length of each sequence
        length = e.op("Gather", e.op("Shape", x), e.constant(np.int64(1), "axis"))
        zero, one = (e.constant(np.int64(number), "number") for number in (0, 1))
        places = e.op("Cast", e.op("Range", zero, length, one), to=_INT32)
        seen = e.op("Less", places, e.op("Unsqueeze", mask, e.shape(1)))
    elif rank == 2:
        seen = mask
    elif rank == 3:
        seen, axes = mask, (1,)
    else:
        raise e.refuse(f"a mask of {'unknown rank' if rank is None else f'rank {rank}'}")
    real = e.op("Cast", seen, to=_FLOAT)
    missing = e.op("Sub", e.constant(np.float32(1)), real)
    added = e.op("Mul", missing, e.constant(np.float32(hidden)))
    return e.op("Unsqueeze", added, e.shape(*axes))


def _future_addend(e: Emitter, x: ir.Value, hidden: float) -> ir.Value:
    """Return `hidden` above the diagonal, 0 elsewhere, [S, S]."""
    length = e.op("Gather", e.op("Shape", x), e.shape(1))
    square = e.op("Concat", length, length, axis=0)
    filled = e.op("Expand", e.constant(np.array([hidden], np.float32), "hidden"), square)
    return e.op("Trilu", filled, e.constant(np.int64(1), "diagonal"), upper=1)


MICROSOFT: dict[str, Translation] = {
    "Attention": _attention,
    "EmbedLayerNormalization": _embed_layer_norm,
    "QAttention": _quantized_attention,
    "QEmbedLayerNormalization": _quantized_embed_layer_norm,
    "SkipLayerNormalization": _skip_layer_norm,
    "SkipSimplifiedLayerNormalization": _skip_rms_norm,
}
