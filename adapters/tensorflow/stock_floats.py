"""Convolutions, products, poolings, normalisations and reductions in float as TensorFlow's."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import tensorflow as tf

from lowprec.adapters.tensorflow.stock_writer import (
    Array,
    Geometry,
    Tensor,
    Writer,
    attribute,
    axis_of,
    unsupported,
    writes,
)


@writes("Softmax", "LogSoftmax")
def _softmax(writer: Writer, node: ir.Node) -> None:
    last = writer.is_last(node.inputs[0])
    tensor = writer.tensor(node.inputs[0], last)
    axis = axis_of(attribute(node, "axis", -1), tensor.shape.rank, last)
    function = tf.nn.softmax if node.op_type == "Softmax" else tf.nn.log_softmax
    writer.set(node, function(tensor, axis), last)


@writes("BatchNormalization")
def _batch_norm(writer: Writer, node: ir.Node) -> None:
    last = writer.is_last(node.inputs[0])
    tensor = writer.tensor(node.inputs[0], last)
    scale, bias, mean, variance = (writer.known(node, index) for index in range(1, 5))
    factor = scale / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    offset = bias - mean * factor
    shape = [-1] if last else [1, -1] + [1] * (tensor.shape.rank - 2)
    factors, offsets = (each.astype(np.float32).reshape(shape) for each in (factor, offset))
    writer.set(node, tensor * tf.constant(factors) + tf.constant(offsets), last)


@writes("LayerNormalization")
def _layer_norm(writer: Writer, node: ir.Node) -> None:
    tensor = writer.tensor(node.inputs[0])
    axis = attribute(node, "axis", -1) % tensor.shape.rank
    axes = list(range(axis, tensor.shape.rank))
    mean, variance = tf.nn.moments(tensor, axes, keepdims=True)
    made = (tensor - mean) * tf.math.rsqrt(variance + attribute(node, "epsilon", 1e-5))
    made = made * writer.tensor(node.inputs[1])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        made = made + writer.tensor(node.inputs[2])
    writer.set(node, made)


@writes("MatMul")
def _matmul(writer: Writer, node: ir.Node) -> None:
    writer.set(node, tf.matmul(writer.tensor(node.inputs[0]), writer.tensor(node.inputs[1])))


@writes("Gemm")
def _gemm(writer: Writer, node: ir.Node) -> None:
    made = tf.matmul(
        writer.tensor(node.inputs[0]),
        writer.tensor(node.inputs[1]),
        transpose_a=bool(attribute(node, "transA", 0)),
        transpose_b=bool(attribute(node, "transB", 0)),
    )
    if attribute(node, "alpha", 1.0) != 1:
        made = made * attribute(node, "alpha")
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = writer.tensor(node.inputs[2])
        made = made + (
            bias if attribute(node, "beta", 1.0) == 1 else bias * attribute(node, "beta")
        )
    writer.set(node, made)


@writes("Einsum")
def _einsum(writer: Writer, node: ir.Node) -> None:
    tensors = [writer.tensor(value) for value in node.inputs]
    writer.set(node, tf.einsum(attribute(node, "equation"), *tensors))


@writes("Conv")
def _conv(writer: Writer, node: ir.Node) -> None:
    weights = writer.known(node, 1)
    tensor = writer.tensor(node.inputs[0], last=True)
    spatial, group = weights.ndim - 2, attribute(node, "group", 1)
    if spatial > 3 or (spatial == 3 and group > 1):
        raise unsupported(node, f"groups and {spatial} axes")
    geometry = Geometry.of(node, weights.shape[2:], tensor.shape.as_list()[1:-1])
    kernel = weights.transpose(*range(2, weights.ndim), 1, 0)
    if spatial == 1:
        tensor, kernel = tf.expand_dims(tensor, 1), kernel[None]
        geometry = _row(geometry)
    made = _convolution(tensor, np.ascontiguousarray(kernel), geometry, group)
    if spatial == 1:
        made = tf.squeeze(made, 1)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        made = tf.nn.bias_add(made, writer.tensor(node.inputs[2]))
    writer.set(node, made, last=True)


def _row(geometry: Geometry) -> Geometry:
    pads = None if geometry.pads is None else [(0, 0), *geometry.pads]
    ahead = [1, *geometry.kernel], [1, *geometry.strides], [1, *geometry.dilations]
    return Geometry(*ahead, pads, geometry.same)


def _convolution(tensor: Tensor, kernel: Array, geometry: Geometry, group: int) -> Tensor:
    spatial = kernel.ndim - 2
    strides = [1, *geometry.strides, 1]
    channels = tensor.shape[-1]
    padding: Any = "SAME" if geometry.same else "VALID"
    if geometry.is_padded and not geometry.same:
        if spatial == 3:
            tensor = tf.pad(tensor, geometry.explicit())
        else:
            padding = [list(pad) for pad in geometry.explicit()]
    if spatial == 3:
        return tf.raw_ops.Conv3D(
            input=tensor,
            filter=tf.constant(kernel),
            strides=strides,
            dilations=[1, *geometry.dilations, 1],
            padding=padding,
        )
    if group > 1 and group == channels:
        height, width, _, out = kernel.shape
        depthwise = kernel.reshape(height, width, channels, out // channels)
        if geometry.strides[0] == geometry.strides[1]:
            return tf.nn.depthwise_conv2d(
                tensor, tf.constant(depthwise), strides, padding, dilations=geometry.dilations
            )
        # TensorFlow steps evenly in depthwise convolutions: every position, of which some are kept.
        made = tf.nn.depthwise_conv2d(
            tf.pad(tensor, geometry.explicit()), tf.constant(depthwise), [1, 1, 1, 1], "VALID"
        )
        return made[:, :: geometry.strides[0], :: geometry.strides[1], :]
    return tf.nn.conv2d(
        tensor, tf.constant(kernel), strides, padding, dilations=[1, *geometry.dilations, 1]
    )


@writes("ConvTranspose")
def _conv_transpose(writer: Writer, node: ir.Node) -> None:
    weights = writer.known(node, 1)  # channels in, channels out / groups, spatial...
    spatial = weights.ndim - 2
    if attribute(node, "group", 1) != 1 or spatial not in (1, 2):
        raise unsupported(node, "groups, or other than one or two axes")
    if attribute(node, "auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        raise unsupported(node, "auto_pad or output_shape")
    tensor = writer.tensor(node.inputs[0], last=True)
    strides = attribute(node, "strides", [1] * spatial)
    dilations = attribute(node, "dilations", [1] * spatial)
    pads = attribute(node, "pads", [0] * 2 * spatial)
    over = attribute(node, "output_padding", [0] * spatial)
    if any(each != 1 for each in dilations):
        raise unsupported(node, "dilations")
    kernel = weights.transpose(*range(2, weights.ndim), 1, 0)
    if spatial == 1:
        tensor, kernel = tf.expand_dims(tensor, 1), kernel[None]
        strides, pads, over = [1, *strides], [0, pads[0], 0, pads[1]], [0, *over]
    # All positions, of which the pads are cut off.
    shape = tf.shape(tensor)
    fulls = [(shape[axis + 1] - 1) * strides[axis] + kernel.shape[axis] for axis in range(2)]
    ends = [fulls[axis] + over[axis] - pads[axis] - pads[axis + 2] for axis in range(2)]
    made = tf.nn.conv2d_transpose(
        tensor,
        tf.constant(np.ascontiguousarray(kernel)),
        tf.stack([shape[0], *fulls, kernel.shape[2]]),
        [1, *strides, 1],
        "VALID",
    )
    made = tf.pad(made, [(0, 0), (0, over[0]), (0, over[1]), (0, 0)])
    made = tf.slice(made, [0, pads[0], pads[1], 0], tf.stack([-1, *ends, -1]))
    made = tf.ensure_shape(made, [None, None, None, kernel.shape[2]])
    if spatial == 1:
        made = tf.squeeze(made, 1)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        made = tf.nn.bias_add(made, writer.tensor(node.inputs[2]))
    writer.set(node, made, last=True)


@writes("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2")
def _reduce(writer: Writer, node: ir.Node) -> None:
    last = writer.is_last(node.inputs[0])
    tensor = writer.tensor(node.inputs[0], last)
    keep = bool(attribute(node, "keepdims", 1))
    rank = tensor.shape.rank
    listed = len(node.inputs) > 1 and node.inputs[1] is not None
    wanted = writer.known(node, 1).tolist() if listed else attribute(node, "axes", [])
    if not wanted and attribute(node, "noop_with_empty_axes", 0):
        writer.alias(node.outputs[0], node.inputs[0])
        return
    logical = sorted(int(axis) % rank for axis in wanted) or list(range(rank))
    left = [axis for axis in range(rank) if axis not in logical]
    if last and not keep and len(left) > 1 and 1 in left[:-1]:
        tensor, last = writer.tensor(node.inputs[0]), False
    axes = [axis_of(axis, rank, last) for axis in logical]
    functions = {
        "ReduceMean": tf.reduce_mean,
        "ReduceSum": tf.reduce_sum,
        "ReduceMax": tf.reduce_max,
        "ReduceMin": tf.reduce_min,
        "ReduceProd": tf.reduce_prod,
        "ReduceL2": lambda x, **more: tf.sqrt(tf.reduce_sum(x * x, **more)),
    }
    made = functions[node.op_type](tensor, axis=axes, keepdims=keep)
    writer.set(node, made, last and keep)


@writes("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(writer: Writer, node: ir.Node) -> None:
    last = writer.is_last(node.inputs[0])
    tensor = writer.tensor(node.inputs[0], last)
    rank = tensor.shape.rank
    axes = [axis_of(axis, rank, last) for axis in range(2, rank)]
    function = tf.reduce_mean if "Average" in node.op_type else tf.reduce_max
    writer.set(node, function(tensor, axis=axes, keepdims=True), last)


@writes("Resize")
def _resize(writer: Writer, node: ir.Node) -> None:
    tensor = writer.tensor(node.inputs[0], last=True)
    mode = attribute(node, "mode", "nearest")
    how = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if tensor.shape.rank != 4 or how not in ("half_pixel", "asymmetric", "align_corners"):
        raise unsupported(node, f"coordinate_transformation_mode {how}")
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        target = writer.constant(node.inputs[3])
        sizes = target[2:] if target is not None else writer.tensor(node.inputs[3])[2:]
        sizes = tf.cast(sizes, tf.int32)
    else:
        scales = writer.known(node, 2)[2:].astype(np.float64)
        known = tensor.shape.as_list()[1:3]
        if None in known:
            raise unsupported(node, "scales of images of open size")
        sizes = tf.constant(np.floor(np.asarray(known) * scales + 1e-6).astype(np.int32))
    corners, half = how == "align_corners", how == "half_pixel"
    if mode == "nearest":
        rounding = attribute(node, "nearest_mode", "round_prefer_floor")
        if rounding != ("floor" if how == "asymmetric" else "round_prefer_ceil"):
            raise unsupported(node, f"nearest_mode {rounding}")
        function = tf.raw_ops.ResizeNearestNeighbor
    elif mode == "linear":
        function = tf.raw_ops.ResizeBilinear
    elif attribute(node, "cubic_coeff_a", -0.75) == -0.5 and attribute(node, "exclude_outside", 0):
        function = tf.raw_ops.ResizeBicubic
    else:
        raise unsupported(node, "another cubic than TensorFlow's")
    made = function(images=tensor, size=sizes, align_corners=corners, half_pixel_centers=half)
    writer.set(node, made, last=True)


@writes("AveragePool")
def _average_pool(writer: Writer, node: ir.Node) -> None:
    tensor = writer.tensor(node.inputs[0], last=True)
    kernel = attribute(node, "kernel_shape")
    geometry = Geometry.of(node, kernel, tensor.shape.as_list()[1:-1])
    if any(each != 1 for each in geometry.dilations) or attribute(node, "ceil_mode", 0):
        raise unsupported(node, "dilations or ceil_mode")

    def pooled(each: Tensor, padding: str) -> Tensor:
        return tf.nn.avg_pool(each, geometry.kernel, geometry.strides, padding)

    same = geometry.same
    counted = attribute(node, "count_include_pad", 0)
    if not geometry.is_padded or (same and not counted):
        made = pooled(tensor, "SAME" if same else "VALID")
    else:
        made = pooled(tf.pad(tensor, geometry.explicit()), "VALID")
        if not counted:
            ones = tf.ones_like(tensor[:1, ..., :1])
            made = made / pooled(tf.pad(ones, geometry.explicit()), "VALID")
    writer.set(node, made, last=True)


@writes("CumSum")
def _cumsum(writer: Writer, node: ir.Node) -> None:
    made = tf.cumsum(
        writer.tensor(node.inputs[0]),
        int(writer.known(node, 1).reshape(())),
        exclusive=bool(attribute(node, "exclusive", 0)),
        reverse=bool(attribute(node, "reverse", 0)),
    )
    writer.set(node, made)


@writes("ArgMax", "ArgMin")
def _arg(writer: Writer, node: ir.Node) -> None:
    if attribute(node, "select_last_index", 0):
        raise unsupported(node, "select_last_index")
    tensor, axis = writer.tensor(node.inputs[0]), attribute(node, "axis", 0)
    function = tf.argmax if node.op_type == "ArgMax" else tf.argmin
    made = function(tensor, axis, tf.int64)
    writer.set(node, tf.expand_dims(made, axis) if attribute(node, "keepdims", 1) else made)
