"""Layers in 8 bits as TensorFlow's operators of oneDNN, which run codes u8 by s8.

Those operators know no zero points: a code stands for scale * code. A zero point is a sum that the
bias takes over: of the input, -zero * scale_input * scale_weight * (sum of the weights) for each
output channel; of the output, +zero * scale_output, after which codes below 0 saturate as they
should. Only padding has to be written out then, with codes of 0. Relu does nothing to what
saturates at 0, so that the operators with Relu serve all layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import tensorflow as tf

from lowprec.adapters.tensorflow.stock_chains import Chain, unsigned
from lowprec.adapters.tensorflow.stock_writer import (
    Array,
    Codes,
    Geometry,
    Held,
    Tensor,
    Writer,
    attribute,
    constant_codes,
    on_bytes,
    quantized,
    writes,
)

# Products per output below which a convolution whose result is not quantised is faster in float:
# its sums have to be converted, which costs as much as some 60 products in oneDNN's float.
FEW_PRODUCTS = 64
LARGEST_BIAS = 2**30  # of the sums in 32 bits


@writes("QuantizeLinear")
def _quantize(writer: Writer, node: ir.Node) -> None:
    found = unsigned(writer, node)
    source = node.inputs[0]
    assert source is not None
    held = writer.held(source)
    if found is None:
        # Codes that nothing of oneDNN takes: floats go on, rounded by nothing.
        writer.hold(node.outputs[0], Held(held.last, writer.tensor(source, held.last)))
        return
    if held.codes is not None and held.codes.agrees(*found):
        writer.hold(node.outputs[0], held)
        return
    codes = quantized(writer, writer.tensor(source, held.last), *found)
    writer.set_codes(node, codes, held.last)


@writes("DequantizeLinear")
def _dequantize(writer: Writer, node: ir.Node) -> None:
    if writer.constant(node.outputs[0]) is None:
        writer.alias(node.outputs[0], node.inputs[0])


def write_chain(writer: Writer, chain: Chain) -> bool:
    """Write a chain; return whether that was possible: else its nodes are written one by one."""
    node = chain.node
    codes = writer.codes(node.inputs[0], last=True)
    weights = writer.weights(node.inputs[1])
    if codes is None or weights is None:
        return False
    if node.op_type == "Conv":
        return _convolution(writer, chain, codes)
    return _product(writer, chain)


def _convolution(writer: Writer, chain: Chain, codes: Codes) -> bool:
    node, weights = chain.node, writer.weights(chain.node.inputs[1])
    assert weights is not None
    group, rank = attribute(node, "group", 1), weights.codes.ndim
    size = weights.codes.shape
    is_depthwise = group > 1 and group == size[0] and size[1] == 1
    if (
        rank not in (3, 4)
        or (group > 1 and not is_depthwise)
        or (weights.scales.size > 1 and weights.axis)
    ):
        return False
    end = None if chain.end is None else unsigned(writer, chain.end)
    if end is None and (is_depthwise or np.prod(size[1:]) < FEW_PRODUCTS):
        return False
    shape = codes.tensor.shape
    if shape.rank != rank:
        return False
    geometry = Geometry.of(node, size[2:], shape.as_list()[1:-1])
    if rank == 3:  # a line is an image of one row
        codes = codes.like(tf.expand_dims(codes.tensor, 1))
        geometry = Geometry(
            [1, *geometry.kernel],
            [1, *geometry.strides],
            [1, *geometry.dilations],
            None if geometry.pads is None else [(0, 0), *geometry.pads],
            geometry.same,
        )
    summand = None
    if chain.summand is not None:
        summand = writer.codes(chain.summand, last=True)
        if summand is None or rank == 3 or is_depthwise:
            return False
    if geometry.is_padded and (codes.zero or not geometry.same):
        if geometry.pads is None:
            return False
        value = tf.bitcast(tf.constant(np.uint8(codes.zero)), tf.quint8)
        padded = tf.raw_ops.PadV2(
            input=codes.tensor, paddings=geometry.explicit(), constant_values=value
        )
        codes = codes.like(padded)
        geometry.pads, geometry.same = [(0, 0), (0, 0)], False
    kernel = weights.codes.reshape(size[0], size[1], *geometry.kernel)
    kernel = kernel.transpose(2, 3, 0, 1) if is_depthwise else kernel.transpose(2, 3, 1, 0)
    layer = _Layer(writer, chain, codes, kernel, weights.scales, geometry, is_depthwise)
    last = chain.members[-1]
    if end is None:
        made = layer.floats()
        writer.set(last, tf.squeeze(made, 1) if rank == 3 else made, last=True)
        return True
    result = layer.codes(*end, summand)
    if result is None:
        return False
    if rank == 3:
        result = result.like(tf.squeeze(result.tensor, 1))
    writer.set_codes(last, result, last=True)
    return True


def _product(writer: Writer, chain: Chain) -> bool:
    """Write a product with a constant matrix: a convolution of one position."""
    node, weights = chain.node, writer.weights(chain.node.inputs[1])
    codes = writer.codes(node.inputs[0], last=False)
    assert codes is not None
    assert weights is not None
    if weights.codes.ndim != 2 or attribute(node, "transA", 0) or chain.summand is not None:
        return False
    if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
        return False
    if node.op_type == "Gemm" and len(node.inputs) > 2 and chain.bias is None:
        return False
    matrix = weights.codes.T if attribute(node, "transB", 0) else weights.codes
    by_output = weights.axis == (0 if attribute(node, "transB", 0) else 1)
    rank = codes.tensor.shape.rank
    if rank is None or rank < 2 or (weights.scales.size > 1 and not by_output):
        return False
    rows = codes.like(tf.reshape(codes.tensor, [-1, 1, 1, matrix.shape[0]]))
    end = None if chain.end is None else unsigned(writer, chain.end)
    last = chain.members[-1]
    layer = _Layer(
        writer,
        chain,
        rows,
        matrix[None, None],
        weights.scales,
        Geometry([1, 1], [1, 1], [1, 1], [(0, 0), (0, 0)]),
        False,
    )
    if end is None:
        writer.set(last, _rows(layer.product(), codes.tensor, matrix.shape[1]))
        return True
    result = layer.codes(*end, None)
    if result is None:
        return False
    writer.set_codes(last, result.like(_rows(result.tensor, codes.tensor, matrix.shape[1])))
    return True


def _rows(tensor: Tensor, like: Tensor, columns: int) -> Tensor:
    """Return rows in the shape of what they were made from."""
    sizes = like.shape.as_list()[:-1]
    if sizes.count(None) > 1:
        return tf.reshape(tensor, tf.concat([tf.shape(like)[:-1], [columns]], 0))
    return tf.reshape(tensor, [*(-1 if size is None else size for size in sizes), columns])


@dataclass
class _Layer:
    """One layer with its operands in TensorFlow's form."""

    writer: Writer
    chain: Chain
    input: Codes
    kernel: Array  # height, width, channels in, channels out; depthwise: ..., channels, 1
    scales: Array
    geometry: Geometry
    is_depthwise: bool

    def __post_init__(self) -> None:
        self.channels = self.kernel.shape[2 if self.is_depthwise else 3]
        self.scales = np.broadcast_to(self.scales, (self.channels,)).copy()
        axes = (0, 1, 3) if self.is_depthwise else (0, 1, 2)
        self.sums = self.kernel.sum(axes, dtype=np.int64)

    def bias(self, offset: float) -> Array:
        """Return the bias in real numbers, with the input's zero point and `offset` in it."""
        made = -self.input.zero * self.input.scale * self.scales * self.sums + offset
        if self.chain.bias is not None:
            made = made + np.asarray(self.chain.bias, np.float64).reshape(-1)
        return np.broadcast_to(made, (self.channels,))

    def codes(self, scale: float, zero: int, summand: Codes | None) -> Codes | None:
        """Return the layer's codes; None where TensorFlow cannot make them."""
        low, high = self.chain.low, self.chain.high
        if low == 0 and zero:
            zero = 0  # Relu: what lies below is never needed
        lowest = max(0.0, np.rint(zero + low / scale))
        highest = min(255.0, np.rint(zero + high / scale))
        offset = zero * scale - (0.0 if summand is None else summand.zero * summand.scale)
        bias = self.bias(offset)
        # A channel of next to no weight: its steps would be too many for the sums.
        steps = np.abs(bias) / (self.scales * self.input.scale)
        wider = np.maximum(steps / LARGEST_BIAS, 1.0)
        kernel, scales = self.kernel, self.scales * wider
        if wider.max() > 1:
            shape = (1, 1, -1, 1) if self.is_depthwise else (1, 1, 1, -1)
            kernel = np.rint(kernel / wider.reshape(shape)).astype(np.int8)
        name = self.chain.node.name or self.chain.node.op_type
        name = "".join(letter if letter.isalnum() else "_" for letter in name)
        arguments = {
            "input": self.input.tensor,
            "filter": constant_codes(np.ascontiguousarray(kernel), tf.qint8, f"{name}_weights"),
            "bias": constant_codes(
                np.rint(bias / (scales * self.input.scale)).astype(np.int32),
                tf.qint32,
                f"{name}_bias",
            ),
            "min_freezed_output": self.writer.scalar(0),
            "max_freezed_output": self.writer.scalar(255 * scale),
            "out_type": tf.quint8,
            **self._ranges(scales),
            **self._window(),
        }
        if self.is_depthwise:
            made = tf.raw_ops.QuantizedDepthwiseConv2DWithBiasAndReluAndRequantize(**arguments)
        elif summand is None:
            made = tf.raw_ops.QuantizedConv2DWithBiasAndReluAndRequantize(**arguments)
        else:
            made = tf.raw_ops.QuantizedConv2DWithBiasSumAndReluAndRequantize(
                **arguments,
                summand=self._summand(summand),
                min_summand=self.writer.scalar(0),
                max_summand=self.writer.scalar(255 * summand.scale),
            )
        result = made.output
        if lowest > 0 or highest < 255:
            result = on_bytes(
                result,
                lambda each: tf.minimum(tf.maximum(each, np.uint8(lowest)), np.uint8(highest)),
            )
        return Codes(result, scale, zero)

    def floats(self) -> Tensor:
        """Return what the layer gives as float32.

        The operator scales the sums of each channel by its range over the largest, so they are kept
        by equal ranges.
        """
        name = "".join(letter if letter.isalnum() else "_" for letter in self.chain.node.name or "")
        made = tf.raw_ops.QuantizedConv2DWithBias(
            input=self.input.tensor,
            filter=constant_codes(np.ascontiguousarray(self.kernel), tf.qint8, f"{name}_weights"),
            bias=tf.constant((self.bias(0) / self.scales).astype(np.float32)),
            **self._ranges(np.ones(self.channels)),
            **self._window(),
            out_type=tf.qint32,
        )
        sums = tf.cast(tf.bitcast(made.output, tf.int32), tf.float32)
        return sums * tf.constant((self.scales * self.input.scale).astype(np.float32))

    def product(self) -> Tensor:
        """Return a product with a matrix as float32: its operator converts the sums itself."""
        one_scale = bool((self.scales == self.scales[0]).all())
        factor = self.scales[0] if one_scale else 1.0
        name = "".join(letter if letter.isalnum() else "_" for letter in self.chain.node.name or "")
        made = tf.raw_ops.QuantizedMatMulWithBiasAndDequantize(
            a=tf.reshape(self.input.tensor, [-1, self.kernel.shape[2]]),
            b=constant_codes(np.ascontiguousarray(self.kernel[0, 0]), tf.qint8, f"{name}_weights"),
            bias=tf.constant((self.bias(0) * factor / self.scales).astype(np.float32)),
            min_a=self.writer.scalar(0),
            max_a=self.writer.scalar(255 * self.input.scale),
            min_b=self.writer.scalar(-127 * factor),
            max_b=self.writer.scalar(127 * factor),
            min_freezed_output=self.writer.scalar(0),
            max_freezed_output=self.writer.scalar(1),
            Toutput=tf.float32,
            input_quant_mode="SCALED",
        )
        return made if one_scale else made * tf.constant(self.scales.astype(np.float32))

    def _summand(self, codes: Codes) -> Tensor:
        """Return codes in memory that only the operator which adds them has left to read.

        It writes into what it adds, and crashes where it must not: where another operator that has
        not run yet reads it too, or it was fed. Then a pooling of one position copies it.
        """
        value = self.chain.summand
        assert value is not None
        fresh = codes.tensor.op.type.startswith("Quantized") and "Conv" in codes.tensor.op.type
        if fresh and _is_read_before(value, self.chain.node):
            return codes.tensor
        self.writer.copies += 1
        return tf.raw_ops.QuantizedMaxPool(
            input=codes.tensor,
            min_input=self.writer.scalar(0),
            # No two copies are alike, else TensorFlow would make one of them.
            max_input=self.writer.scalar(self.writer.copies),
            ksize=[1, 1, 1, 1],
            strides=[1, 1, 1, 1],
            padding="VALID",
        ).output

    def _ranges(self, scales: Array) -> dict[str, Tensor]:
        return {
            "min_input": self.writer.scalar(0),
            "max_input": self.writer.scalar(255 * self.input.scale),
            "min_filter": tf.constant((-127 * scales).astype(np.float32)),
            "max_filter": tf.constant((127 * scales).astype(np.float32)),
        }

    def _window(self) -> dict[str, object]:
        return {
            "strides": [1, *self.geometry.strides, 1],
            "dilations": [1, *self.geometry.dilations, 1],
            "padding": "SAME" if self.geometry.same else "VALID",
        }


def _is_read_before(value: ir.Value, node: ir.Node) -> bool:
    """Return whether what reads `value`, but for what adds it, are convolutions before `node`."""
    source = value.producer()
    if source is None or source.inputs[0] is None or len(list(source.inputs[0].uses())) != 1:
        return False
    if source.inputs[0].is_graph_output() or value.is_graph_output():
        return False
    wanted = {use.node for use in value.uses() if use.node.op_type != "Add"}
    if len(wanted) != len(list(value.uses())) - 1:
        return False
    if any(use.op_type != "Conv" for use in wanted):
        return False
    seen: set[ir.Node] = set()
    pending = [node]
    while pending and wanted:
        each = pending.pop()
        wanted.discard(each)
        for read in each.inputs:
            producer = None if read is None else read.producer()
            if producer is not None and producer is not source and producer not in seen:
                seen.add(producer)
                pending.append(producer)
    return not wanted
