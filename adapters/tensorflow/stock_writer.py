"""A hub graph as TensorFlow's own operators: what their writers share.

The hub holds images with the channels first, oneDNN's operators take them last. So every value of
the hub is held by a tensor in one of the two orders, and only those that something needs in the
other order are transposed; the transposes of the hub cancel as they are written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import tensorflow as tf
from numpy.typing import NDArray

from lowprec.errors import UnsupportedError

Array = NDArray[Any]
Tensor = Any  # tf.Tensor: TensorFlow has no types

REMEDY = "save it with lowprec's own operator instead: leave target away"


@dataclass(frozen=True)
class Codes:
    """Codes of 8 bits without sign: real = scale * (code - zero).

    Attributes:
        tensor: quint8.
        scale: Of one step.
        zero: The code of 0, within 0 and 255.
    """

    tensor: Tensor
    scale: float
    zero: int

    def like(self, tensor: Tensor) -> Codes:
        """Return other codes of the same scale and zero."""
        return Codes(tensor, self.scale, self.zero)

    def agrees(self, scale: float, zero: int) -> bool:
        """Return whether the codes are those of this scale and zero."""
        return self.zero == zero and abs(self.scale - scale) <= 1e-6 * scale


@dataclass
class Held:
    """What holds a value of the hub: a tensor, codes, or both once somebody asked.

    Attributes:
        last: Whether the channels are last.
        tensor: In that order; None as long as there are only codes.
        codes: In that order.
        turned: The tensor in the other order, once somebody asked.
    """

    last: bool
    tensor: Tensor | None = None
    codes: Codes | None = None
    turned: Tensor | None = None


@dataclass(frozen=True)
class Weights:
    """Constant weights with codes of 8 bits.

    Attributes:
        codes: int8, symmetric.
        scales: One, or one for each size of `axis`.
        axis: The axis of the scales.
    """

    codes: Array
    scales: Array
    axis: int


class Writer:
    """Writes nodes into TensorFlow's default graph."""

    def __init__(self) -> None:
        """Start with no values."""
        self._held: dict[ir.Value, Held] = {}
        self._scalars: dict[tuple[Any, ...], Tensor] = {}
        self.copies = 0  # of codes that an operator writes into

    # ---- What a node reads ----

    def constant(self, value: ir.Value | None) -> Array | None:
        """Return a constant; weights with codes as real numbers."""
        if value is None:
            return None
        if value.const_value is not None:
            return value.const_value.numpy()
        node = value.producer()
        if node is None:
            return None
        if node.op_type == "Constant":
            return node.attributes["value"].as_tensor().numpy()
        if node.op_type != "DequantizeLinear" or "block_size" in node.attributes:
            return None
        codes, scales = self.constant(node.inputs[0]), self.constant(node.inputs[1])
        if codes is None or scales is None:
            return None
        zeros = self.constant(node.inputs[2]) if len(node.inputs) > 2 else None
        axis = attribute(node, "axis", 1)
        if scales.ndim:
            shape = [1] * codes.ndim
            shape[axis] = -1
            scales = scales.reshape(shape)
            zeros = zeros.reshape(shape) if zeros is not None and zeros.ndim else zeros
        real = codes.astype(np.float32)
        if zeros is not None:
            real -= zeros.astype(np.float32)
        return np.asarray(real * scales.astype(np.float32))

    def known(self, node: ir.Node, index: int) -> Array:
        """Return the constant that `node` reads at `index`.

        Raises:
            UnsupportedError: it is computed when the model runs.
        """
        found = self.constant(node.inputs[index])
        if found is None:
            raise unsupported(node, "one of its parameters is computed as the model runs")
        return found

    def weights(self, value: ir.Value | None) -> Weights | None:
        """Return constant int8 weights, None where `value` is something else."""
        node = None if value is None else value.producer()
        if node is None or node.op_type != "DequantizeLinear" or "block_size" in node.attributes:
            return None
        codes, scales = self.constant(node.inputs[0]), self.constant(node.inputs[1])
        zeros = self.constant(node.inputs[2]) if len(node.inputs) > 2 else None
        if codes is None or scales is None or codes.dtype != np.int8:
            return None
        if zeros is not None and zeros.any():
            return None
        axis = attribute(node, "axis", 1)
        scales = np.asarray(scales, np.float64).reshape(-1)
        return Weights(codes, scales, axis if axis >= 0 else axis + codes.ndim)

    def held(self, value: ir.Value) -> Held:
        """Return what holds a value."""
        found = self._held.get(value)
        if found is None:
            array = self.constant(value)
            if array is None:
                raise UnsupportedError(f"value '{value.name}' of the graph is not known; {REMEDY}")
            found = self._held[value] = Held(False, tf.constant(array))
        return found

    def tensor(self, value: ir.Value | None, last: bool = False) -> Tensor:
        """Return a value with the channels where they are asked for."""
        assert value is not None
        held = self.held(value)
        if held.tensor is None:
            assert held.codes is not None
            held.tensor = dequantized(held.codes)
        if held.last == last or held.tensor.shape.rank in (0, 1, 2):
            return held.tensor
        if held.turned is None:
            held.turned = turned(held.tensor, last)
        return held.turned

    def is_last(self, value: ir.Value | None) -> bool:
        """Return whether a value is held with its channels last."""
        return value is not None and self.constant(value) is None and self.held(value).last

    def codes(self, value: ir.Value | None, last: bool) -> Codes | None:
        """Return the codes of a value, None if it has none."""
        if value is None or self.constant(value) is not None:
            return None
        held = self.held(value)
        if held.codes is None or held.last == last or held.codes.tensor.shape.rank in (0, 1, 2):
            return held.codes
        return held.codes.like(on_bytes(held.codes.tensor, lambda each: turned(each, last)))

    # ---- What it makes ----

    def set(self, node: ir.Node, tensor: Tensor, last: bool = False, output: int = 0) -> None:
        """Say what an output of `node` is."""
        self._held[node.outputs[output]] = Held(last, tensor)

    def set_codes(self, node: ir.Node, codes: Codes, last: bool = False) -> None:
        """Say that the output of `node` is these codes."""
        self._held[node.outputs[0]] = Held(last, None, codes)

    def alias(self, value: ir.Value, other: ir.Value | None) -> None:
        """Say that a value is another one."""
        assert other is not None
        self._held[value] = self.held(other)

    def hold(self, value: ir.Value, held: Held) -> None:
        """Say what holds a value."""
        self._held[value] = held

    def scalar(self, number: float) -> Tensor:
        """Return a float32 constant; one of each."""
        key = (float(np.float32(number)),)
        if key not in self._scalars:
            self._scalars[key] = tf.constant(np.float32(number))
        return self._scalars[key]


WRITERS: dict[str, Callable[[Writer, ir.Node], None]] = {}


def writes(*operators: str) -> Callable[[Any], Any]:
    """Mark a function as the writer of these operators of ONNX."""

    def mark(function: Any) -> Any:
        for operator in operators:
            WRITERS[operator] = function
        return function

    return mark


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Return an attribute as a number, a string or a list; `default` where there is none."""
    found = node.attributes.get(name)
    if found is None:
        return default
    value = found.value
    if isinstance(value, bytes):
        return value.decode()
    return list(value) if isinstance(value, (tuple, list)) else value


def unsupported(node: ir.Node, why: str) -> UnsupportedError:
    """Return the error for a node that cannot be written."""
    return UnsupportedError(
        f"node '{node.name}' ({node.op_type}) cannot be written with TensorFlow's own operators: "
        f"{why}; {REMEDY}"
    )


def turned(tensor: Tensor, last: bool) -> Tensor:
    """Return `tensor` with its channels moved to the end, or back."""
    rank = tensor.shape.rank
    if rank is None:
        raise UnsupportedError(f"the rank of '{tensor.name}' is not known; {REMEDY}")
    return tf.transpose(
        tensor, [0, *range(2, rank), 1] if last else [0, rank - 1, *range(1, rank - 1)]
    )


def on_bytes(tensor: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `function` of codes as uint8: some operators do not take quint8. Costs nothing."""
    return tf.bitcast(function(tf.bitcast(tensor, tf.uint8)), tf.quint8)


def axis_of(axis: int, rank: int, last: bool) -> int:
    """Return where an axis of the hub lies in a tensor."""
    axis = axis % rank
    if not last or axis == 0:
        return axis
    return rank - 1 if axis == 1 else axis - 1


def axes_first(items: Sequence[Any], last: bool) -> list[Any]:
    """Return what goes with the axes of the hub in the order of a tensor's axes."""
    items = list(items)
    return [items[0], *items[2:], items[1]] if last and len(items) > 2 else items


def constant_codes(array: Array, dtype: Any, name: str) -> Tensor:
    """Return a constant of qint8, quint8 or qint32; oneDNN wants its filters to be such."""
    proto = tf.make_tensor_proto(array)
    proto.dtype = dtype.as_datatype_enum
    attributes = {
        "value": tf.compat.v1.AttrValue(tensor=proto),
        "dtype": tf.compat.v1.AttrValue(type=dtype.as_datatype_enum),
    }
    graph = tf.compat.v1.get_default_graph()
    return graph.create_op("Const", [], [dtype], attrs=attributes, name=name).outputs[0]


def quantized(writer: Writer, tensor: Tensor, scale: float, zero: int) -> Codes:
    """Return the codes of a float tensor, rounded to the nearest."""
    made = tf.raw_ops.QuantizeV2(
        input=tensor,
        min_range=writer.scalar(-zero * scale),
        max_range=writer.scalar((255 - zero) * scale),
        T=tf.quint8,
        mode="MIN_FIRST" if zero else "SCALED",
        round_mode="HALF_AWAY_FROM_ZERO" if zero else "HALF_TO_EVEN",
        ensure_minimum_range=0.0,
    )
    return Codes(made.output, scale, zero)


def dequantized(codes: Codes) -> Tensor:
    """Return codes as float32."""
    low, high = (np.float32((end - codes.zero) * codes.scale) for end in (0, 255))
    return tf.raw_ops.Dequantize(
        input=codes.tensor,
        min_range=tf.constant(low),
        max_range=tf.constant(high),
        mode="MIN_FIRST" if codes.zero else "SCALED",
        dtype=tf.float32,
    )


@dataclass
class Geometry:
    """How a window of two axes goes over images.

    Attributes:
        kernel: Its sizes, likewise strides and dilations.
        pads: (before, after) of each axis; None: as many as SAME takes, the larger half after.
        same: Whether they are those that TensorFlow calls SAME.
    """

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[tuple[int, int]] | None = None
    same: bool = False

    @classmethod
    def of(cls, node: ir.Node, kernel: Sequence[int], sizes: Sequence[int | None]) -> Geometry:
        """Return the geometry of a convolution or pooling.

        Args:
            node: Of the hub.
            kernel: The sizes of the window.
            sizes: Of the image, None where open.
        """
        spatial = len(kernel)
        strides = attribute(node, "strides", [1] * spatial)
        dilations = attribute(node, "dilations", [1] * spatial)
        padding = attribute(node, "auto_pad", "NOTSET")
        made = cls(list(kernel), strides, dilations)
        known = [size for size in sizes if size is not None]
        upper = made._same(known, False) if len(known) == spatial else None
        if padding == "NOTSET":
            pads = attribute(node, "pads", [0] * 2 * spatial)
            made.pads = list(zip(pads[:spatial], pads[spatial:], strict=True))
        elif padding == "VALID":
            made.pads = [(0, 0)] * spatial
        elif padding == "SAME_UPPER":
            made.pads = upper
        elif upper is None:
            raise unsupported(node, "padding SAME_LOWER with open sizes")
        else:
            made.pads = made._same(known, True)
        made.same = made.pads == upper
        return made

    def _same(self, sizes: Sequence[int], lower: bool) -> list[tuple[int, int]]:
        pads = []
        for size, kernel, stride, dilation in zip(
            sizes, self.kernel, self.strides, self.dilations, strict=True
        ):
            reach = (kernel - 1) * dilation + 1
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            pads.append(
                (total - total // 2, total // 2) if lower else (total // 2, total - total // 2)
            )
        return pads

    @property
    def is_padded(self) -> bool:
        """Return whether anything is padded."""
        return self.pads is None or any(map(any, self.pads))

    def explicit(self, before: Any = (0, 0), after: Any = (0, 0)) -> list[Any]:
        """Return the pads of all four axes with the channels last."""
        assert self.pads is not None
        return [before, *self.pads, after]
