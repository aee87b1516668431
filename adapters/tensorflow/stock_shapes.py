"""Operators that only move what is there: codes stay codes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import tensorflow as tf

from lowprec.adapters.tensorflow.stock_writer import (
    Geometry,
    Held,
    Tensor,
    Writer,
    attribute,
    axes_first,
    axis_of,
    on_bytes,
    unsupported,
    writes,
)


def _moved(
    writer: Writer, node: ir.Node, function: Callable[[Tensor], Tensor], last: bool, kept: bool
) -> None:
    """Write `function` of the first input, of its codes where it has some.

    Args:
        writer: Of the graph.
        node: Whose first input it is.
        function: Takes float32 as well as uint8.
        last: The order that it takes.
        kept: Whether the result is in that order too; else as the hub has it.
    """
    codes = writer.codes(node.inputs[0], last)
    if codes is None:
        writer.set(node, function(writer.tensor(node.inputs[0], last)), last and kept)
    else:
        writer.set_codes(node, codes.like(on_bytes(codes.tensor, function)), last and kept)


@writes("Transpose")
def _transpose(writer: Writer, node: ir.Node) -> None:
    source = node.inputs[0]
    assert source is not None
    held = writer.held(source)
    tensor = held.codes.tensor if held.tensor is None and held.codes else held.tensor
    assert tensor is not None
    rank = tensor.shape.rank
    perm = attribute(node, "perm", list(range(rank or 0))[::-1])
    if len(perm) > 2:
        to_first, to_last = (
            [0, len(perm) - 1, *range(1, len(perm) - 1)],
            [0, *range(2, len(perm)), 1],
        )
        # What is held stays as it is, and is called by the other order.
        if perm == to_first and not held.last:
            writer.hold(node.outputs[0], Held(True, held.tensor, held.codes))
            return
        if perm == to_last and held.last:
            writer.hold(node.outputs[0], Held(False, held.tensor, held.codes))
            return
    _moved(writer, node, lambda each: tf.transpose(each, perm), False, False)


@writes("Reshape")
def _reshape(writer: Writer, node: ir.Node) -> None:
    target = writer.constant(node.inputs[1])
    tensor = writer.tensor(node.inputs[0]) if target is None else None
    if target is None:
        writer.set(node, tf.reshape(tensor, writer.tensor(node.inputs[1])))
        return
    sizes = [int(size) for size in target]

    def reshaped(each: Tensor) -> Tensor:
        return tf.reshape(each, _filled(each, sizes, bool(attribute(node, "allowzero", 0))))

    _moved(writer, node, reshaped, False, False)


def _filled(tensor: Tensor, sizes: list[int], zero: bool) -> Tensor:
    """Return a shape in which 0 stands for the size that was there."""
    if zero or 0 not in sizes:
        return sizes
    made: list[Tensor] = [
        tensor.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)
    ]
    if made.count(None) + made.count(-1) <= 1:
        return [-1 if size is None else size for size in made]
    shape = tf.shape(tensor)
    return tf.stack([shape[axis] if size is None else size for axis, size in enumerate(made)])


@writes("Flatten")
def _flatten(writer: Writer, node: ir.Node) -> None:
    axis = attribute(node, "axis", 1)

    def flat(each: Tensor) -> Tensor:
        sizes = each.shape.as_list()
        rows, columns = sizes[:axis], sizes[axis:]
        if None not in columns:
            return tf.reshape(each, [-1, int(np.prod(columns))])
        shape = tf.shape(each)
        return tf.reshape(each, tf.stack([tf.reduce_prod(shape[: len(rows)]), -1]))

    _moved(writer, node, flat, False, False)


@writes("Squeeze")
def _squeeze(writer: Writer, node: ir.Node) -> None:
    axes = writer.known(node, 1).tolist() if len(node.inputs) > 1 else None
    _moved(writer, node, lambda each: tf.squeeze(each, axes), False, False)


@writes("Unsqueeze")
def _unsqueeze(writer: Writer, node: ir.Node) -> None:
    axes = [int(axis) for axis in writer.known(node, 1)]

    def unsqueezed(each: Tensor) -> Tensor:
        rank = each.shape.rank + len(axes)
        for axis in sorted(axis % rank for axis in axes):
            each = tf.expand_dims(each, axis)
        return each

    _moved(writer, node, unsqueezed, False, False)


@writes("Concat")
def _concat(writer: Writer, node: ir.Node) -> None:
    values = list(node.inputs)
    last = any(writer.is_last(value) for value in values)
    codes = [writer.codes(value, last) for value in values]
    first = codes[0]
    if first is not None and all(
        each is not None and each.agrees(first.scale, first.zero) for each in codes
    ):
        tensors = [each.tensor for each in codes if each is not None]
        axis = axis_of(attribute(node, "axis"), tensors[0].shape.rank, last)
        writer.set_codes(node, first.like(tf.concat(tensors, axis)), last)
        return
    tensors = [writer.tensor(value, last) for value in values]
    axis = axis_of(attribute(node, "axis"), tensors[0].shape.rank, last)
    writer.set(node, tf.concat(tensors, axis), last)


@writes("Split")
def _split(writer: Writer, node: ir.Node) -> None:
    last = writer.is_last(node.inputs[0])
    tensor = writer.tensor(node.inputs[0], last)
    axis = axis_of(attribute(node, "axis", 0), tensor.shape.rank, last)
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = writer.known(node, 1).tolist()
    else:
        count, size = len(node.outputs), tensor.shape[axis]
        if size is None:
            raise unsupported(node, "parts of an open size")
        each = -(-size // count)
        sizes = [each] * (count - 1) + [size - each * (count - 1)]
    for index, part in enumerate(tf.split(tensor, sizes, axis)):
        writer.set(node, part, last, index)


@writes("Slice")
def _slice(writer: Writer, node: ir.Node) -> None:
    starts, ends = (writer.known(node, index).tolist() for index in (1, 2))
    axes = writer.known(node, 3).tolist() if len(node.inputs) > 3 else list(range(len(starts)))
    steps = writer.known(node, 4).tolist() if len(node.inputs) > 4 else [1] * len(starts)
    last = writer.is_last(node.inputs[0])

    def sliced(each: Tensor) -> Tensor:
        slices = [slice(None)] * each.shape.rank
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
            huge = abs(end) > 2**31 - 2  # as ONNX writes an end that is not known
            below = huge and end < 0
            stop = None if huge and (not below or step < 0) else end
            slices[axis_of(axis, each.shape.rank, last)] = slice(start, stop, step)
        return each[tuple(slices)]

    _moved(writer, node, sliced, last, True)


@writes("Gather")
def _gather(writer: Writer, node: ir.Node) -> None:
    tensor, indices = writer.tensor(node.inputs[0]), writer.tensor(node.inputs[1])
    axis = attribute(node, "axis", 0) % tensor.shape.rank
    known = writer.constant(node.inputs[1])
    if known is None or (known < 0).any():
        size = tf.cast(tf.shape(tensor)[axis], indices.dtype)
        indices = tf.where(indices < 0, indices + size, indices)
    writer.set(node, tf.gather(tensor, indices, axis=axis))


@writes("GatherND")
def _gather_nd(writer: Writer, node: ir.Node) -> None:
    tensors = [writer.tensor(value) for value in node.inputs]
    writer.set(node, tf.gather_nd(*tensors, batch_dims=attribute(node, "batch_dims", 0)))


@writes("Expand")
def _expand(writer: Writer, node: ir.Node) -> None:
    tensor, shape = writer.tensor(node.inputs[0]), writer.tensor(node.inputs[1])
    common = tf.broadcast_dynamic_shape(tf.shape(tensor, tf.int64), tf.cast(shape, tf.int64))
    writer.set(node, tf.broadcast_to(tensor, common))


@writes("Tile")
def _tile(writer: Writer, node: ir.Node) -> None:
    writer.set(node, tf.tile(writer.tensor(node.inputs[0]), writer.tensor(node.inputs[1])))


@writes("Shape")
def _shape(writer: Writer, node: ir.Node) -> None:
    value = node.inputs[0]
    assert value is not None
    last = writer.is_last(value)
    codes = writer.codes(value, last)
    shape = tf.shape(writer.tensor(value, last) if codes is None else codes.tensor, tf.int64)
    if last:
        rank = shape.shape[0]
        shape = tf.gather(shape, [0, rank - 1, *range(1, rank - 1)])
    start, end = attribute(node, "start", 0), attribute(node, "end")
    writer.set(node, shape[start:end])


@writes("ConstantOfShape")
def _constant_of_shape(writer: Writer, node: ir.Node) -> None:
    value = node.attributes["value"].as_tensor().numpy() if "value" in node.attributes else None
    filling = np.float32(0) if value is None else value.reshape(())
    writer.set(node, tf.fill(writer.tensor(node.inputs[0]), filling))


@writes("Range")
def _range(writer: Writer, node: ir.Node) -> None:
    writer.set(node, tf.range(*(writer.tensor(value) for value in node.inputs)))


@writes("DepthToSpace", "SpaceToDepth")
def _blocks(writer: Writer, node: ir.Node) -> None:
    block = attribute(node, "blocksize")
    if node.op_type == "DepthToSpace" and attribute(node, "mode", "DCR") != "DCR":
        raise unsupported(node, "mode CRD")
    function = tf.nn.depth_to_space if node.op_type == "DepthToSpace" else tf.nn.space_to_depth
    _moved(writer, node, lambda each: function(each, block), True, True)


@writes("Pad")
def _pad(writer: Writer, node: ir.Node) -> None:
    last = writer.is_last(node.inputs[0])
    mode = attribute(node, "mode", "constant")
    pads = writer.known(node, 1).tolist()
    value: float = 0.0
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        value = writer.known(node, 2).reshape(()).item()
    if mode not in ("constant", "reflect") or (len(node.inputs) > 3 and node.inputs[3] is not None):
        raise unsupported(node, f"mode {mode}, or pads of some axes")
    pairs = axes_first(list(zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True)), last)
    begin = [max(-before, 0) for before, _ in pairs]
    grown = [(max(before, 0), max(after, 0)) for before, after in pairs]
    cut = [max(-after, 0) for _, after in pairs]

    def padded(each: Tensor, filling: float) -> Tensor:
        if any(begin) or any(cut):
            each = each[tuple(slice(b, -c if c else None) for b, c in zip(begin, cut, strict=True))]
        if mode == "reflect":
            return tf.pad(each, grown, "REFLECT")
        return tf.pad(each, grown, constant_values=tf.cast(filling, each.dtype))

    codes = writer.codes(node.inputs[0], last)
    filling = 0.0 if codes is None else value / codes.scale + codes.zero
    if codes is not None and 0 <= filling <= 255 and abs(filling - round(filling)) < 1e-3:
        moved = on_bytes(codes.tensor, lambda each: padded(each, round(filling)))
        writer.set_codes(node, codes.like(moved), last)
        return
    writer.set(node, padded(writer.tensor(node.inputs[0], last), value), last)


@writes("MaxPool")
def _max_pool(writer: Writer, node: ir.Node) -> None:
    if len(node.outputs) > 1 or attribute(node, "ceil_mode", 0):
        raise unsupported(node, "ceil_mode, or the places of the largest")
    kernel = attribute(node, "kernel_shape")
    source = node.inputs[0]
    codes = writer.codes(source, last=True)
    sizes = codes.tensor.shape if codes is not None else writer.tensor(source, last=True).shape
    geometry = Geometry.of(node, kernel, sizes.as_list()[1:-1])
    if any(each != 1 for each in geometry.dilations):
        raise unsupported(node, "dilations")
    padding = "SAME" if geometry.same else "VALID"
    explicit = geometry.is_padded and not geometry.same
    if codes is not None and len(kernel) == 2:
        tensor = codes.tensor
        if explicit:  # 0 is the least of all codes
            tensor = tf.raw_ops.PadV2(
                input=tensor,
                paddings=geometry.explicit(),
                constant_values=tf.bitcast(tf.constant(np.uint8(0)), tf.quint8),
            )
        made = tf.raw_ops.QuantizedMaxPool(
            input=tensor,
            min_input=writer.scalar(0),
            max_input=writer.scalar(255 * codes.scale),
            ksize=[1, *kernel, 1],
            strides=[1, *geometry.strides, 1],
            padding=padding,
        )
        writer.set_codes(node, codes.like(made.output), last=True)
        return
    tensor = writer.tensor(source, last=True)
    if explicit:
        lowest = tensor.dtype.min
        tensor = tf.pad(tensor, geometry.explicit(), constant_values=lowest)
    writer.set(node, tf.nn.max_pool(tensor, kernel, geometry.strides, padding), last=True)
