"""Sizes, axes and bounds: ONNX has them in int64."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.translator import Translator
from lowprec.errors import ModelError

INT64 = int(ir.DataType.INT64)
FAR = int(np.iinfo(np.int64).max)
_MOST = 2**28  # elements of a constant that is made while translating


def as_int64(translator: Translator, node: Node, index: int) -> ir.Value:
    """Return input `index` as int64."""
    known = translator.known(node, index)
    if known is not None:
        return translator.new_constant(known.astype(np.int64), node.inputs[index][0])
    return translator.emit(
        "Cast", [translator.value(node, index)], {"to": INT64}, name=f"{node.name}/int64"
    )


def sizes(translator: Translator, node: Node, index: int) -> ir.Value:
    """Return input `index`, a vector of sizes or axes, as int64."""
    known = translator.known(node, index)
    if known is not None:
        return translator.new_constant(known.reshape(-1).astype(np.int64), node.inputs[index][0])
    return as_int64(translator, node, index)


def vector(translator: Translator, values: Iterable[int], name: str) -> ir.Value:
    """Return numbers as an int64 vector."""
    return translator.new_constant(np.asarray(list(values), np.int64), name)


def cast(translator: Translator, value: ir.Value, dtype: np.dtype | type, name: str) -> ir.Value:
    """Return `value` as NumPy's `dtype`."""
    to = {"to": int(ir.DataType.from_numpy(np.dtype(dtype)))}
    return translator.emit("Cast", [value], to, name=name)


def affordable(node: Node, shape: Iterable[int]) -> tuple[int, ...]:
    """Return the shape of a constant that is about to be made.

    Raises:
        ModelError: it would be huge, or a size is negative.
    """
    found = tuple(int(size) for size in shape)
    if any(size < 0 for size in found) or math.prod(found) > _MOST:
        raise ModelError(
            f"node '{node.name}' ({node.op}) makes a constant of shape {list(found)}; at most "
            f"{_MOST} elements are possible"
        )
    return found


def axis_of(node: Node, axis: int, rank: int) -> int:
    """Return an axis counted from the front.

    Raises:
        ModelError: there is no such axis.
    """
    if not -rank <= axis < rank:
        raise ModelError(
            f"node '{node.name}' ({node.op}) has axis {axis} of a tensor of rank {rank}"
        )
    return axis % rank


def axis_in(translator: Translator, node: Node, index: int, axis: int, more: int = 0) -> int:
    """Return an axis of input `index`, counted from the front where its rank is known.

    Args:
        translator: Knows the shapes.
        node: Its input is meant.
        index: Of the input.
        axis: As TensorFlow has it.
        more: Axes that the result has beyond the input's.

    Raises:
        ModelError: there is no such axis.
    """
    shape = translator.shape(node.inputs[index])
    return axis if shape is None else axis_of(node, axis, len(shape) + more)
