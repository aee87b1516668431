"""What moving transposes needs of a graph: permutations, constants, shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = list[int | None]


def producer_of(value: ir.Value | None) -> ir.Node | None:
    """Return the node that makes `value`."""
    return None if value is None else value.producer()


def perm_of(node: ir.Node | None) -> list[int] | None:
    """Return the permutation of a Transpose; None for other nodes."""
    if node is None or node.op_type != "Transpose" or "perm" not in node.attributes:
        return None
    return list(node.attributes["perm"].as_ints())


def channels_last(rank: int) -> list[int]:
    """Return the permutation from channels first to channels last."""
    return [0, *range(2, rank), 1]


def channels_first(rank: int) -> list[int]:
    """Return the permutation from channels last to channels first."""
    return [0, rank - 1, *range(1, rank - 1)]


def is_channels_last(perm: Sequence[int] | None) -> bool:
    """Tell whether `perm` leads to channels last."""
    return perm is not None and len(perm) > 2 and list(perm) == channels_last(len(perm))


def inverse(perm: Sequence[int]) -> list[int]:
    """Return the permutation that undoes `perm`."""
    return [perm.index(axis) for axis in range(len(perm))]


def ranked(axes: Sequence[int]) -> list[int]:
    """Return the permutation that orders what is left when the other axes are gone."""
    order = sorted(axes)
    return [order.index(axis) for axis in axes]


def constant_of(value: ir.Value | None) -> Array | None:
    """Return what a constant holds."""
    tensor = None if value is None else value.const_value
    return None if tensor is None else tensor.numpy()


def shape_of(value: ir.Value | None) -> Shape | None:
    """Return what is known of a value's shape, also by the transposes around it."""
    if value is None:
        return None
    if value.shape is not None:
        return [size if isinstance(size, int) else None for size in value.shape]
    above = value.producer()
    perm = perm_of(above)
    if above is not None and perm is not None:
        source = above.inputs[0]
        if source is not None and source.shape is not None and len(source.shape) == len(perm):
            sizes = list(source.shape)
            return [size if isinstance(size := sizes[axis], int) else None for axis in perm]
    for reader, _ in value.uses():
        perm, made = perm_of(reader), reader.outputs[0].shape
        if perm is not None and made is not None and len(made) == len(perm):
            sizes = [made[perm.index(axis)] for axis in range(len(perm))]
            return [size if isinstance(size, int) else None for size in sizes]
    return None


def is_pixel(shape: Shape | None, spatial: Sequence[int]) -> bool:
    """Tell whether all `spatial` axes of a known shape are 1."""
    return shape is not None and all(shape[axis] == 1 for axis in spatial)


def new_constant(graph: ir.Graph, like: ir.Value | None, array: Array) -> ir.Value:
    """Return `array` as an initializer named after `like`."""
    number = len(graph.initializers)
    base = "" if like is None else like.name
    while (name := f"{base}/{number}") in graph.initializers:
        number += 1
    array = np.ascontiguousarray(array) if array.ndim else array
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(array.shape),
        const_value=ir.Tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value


def transpose(value: ir.Value, perm: Sequence[int], name: str) -> ir.Node:
    """Return a new Transpose of `value`, in no graph yet, its output typed and shaped."""
    attributes = {"perm": ir.AttrInt64s("perm", perm)}
    node = ir.node("Transpose", [value], attributes=attributes, name=name)
    made = node.outputs[0]
    made.name, made.type = name, value.type
    shape = shape_of(value)
    if shape is not None and len(shape) == len(perm):
        made.shape = ir.Shape([shape[axis] for axis in perm])
    return node


def aligned(array: Array, rank: int, perm: Sequence[int]) -> Array:
    """Return a constant that broadcasts with a tensor of `rank`, its axes permuted likewise."""
    if array.size == 1:
        return array
    turned: Array = array.reshape((1,) * (rank - array.ndim) + array.shape).transpose(perm)
    return turned


ELEMENTWISE = frozenset(
    {
        *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp"),
        *("Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity"),
        *("LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min", "Mul", "Neg", "Not", "Or"),
        *("Pow", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin"),
        *("Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "Where"),
    }
)
