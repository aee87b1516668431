"""Operators that compute in f32 read and write bf16 tensors themselves.

    xb ──► Cast(f32) ──► Add ──► UnaryChain ──► Cast(bf16) ──► yb   becomes   xb .. ──► BAdd ──► yb

The arithmetic stays f32 and so do the bits; what is saved is a pass over memory for every Cast.
Taken: UnaryChain; Add, Sub, Mul, Div; Softmax and LayerNormalization over the last axis;
BatchNormalization, AveragePool and GlobalAveragePool of images.
"""

from __future__ import annotations

from collections.abc import Container

import onnx_ir as ir

from lowprec.passes.matching import (
    constant_floats,
    graph_of,
    is_operator,
    rank_of,
    sole_consumer,
)
from lowprec.passes.move_casts import narrows, widened
from lowprec.passes.own import AttributeValue, insert_own, is_own, remove_if_unused

_BINARY = ("Add", "Sub", "Mul", "Div")
_ROWS = ("Softmax", "LayerNormalization")
_IMAGES = ("BatchNormalization", "AveragePool", "GlobalAveragePool")
_TAKE_CHAINS = (*_BINARY, "BatchNormalization")
_OPERANDS = dict.fromkeys(_BINARY, 2)  # of the others: the first


def fuse_bf16_storage(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in list(model.graph):
        if node.graph is not None and _is_candidate(node):
            changed |= _fuse(node, keep)
    return changed


def _is_candidate(node: ir.Node) -> bool:
    if node.outputs[0].dtype != ir.DataType.FLOAT or len(node.outputs) != 1:
        return False
    if is_own(node, "UnaryChain"):
        return True
    x = node.inputs[0] if node.inputs else None
    if is_operator(node, *_BINARY):
        return all(value is not None and value.dtype == ir.DataType.FLOAT for value in node.inputs)
    if is_operator(node, *_ROWS):
        axis, rank = node.attributes.get_int("axis", -1), rank_of(x)
        if rank == 0 or not (axis == -1 or (rank is not None and axis == rank - 1)):
            return False
        return is_operator(node, "Softmax") or _are_vectors(node, 1)
    if is_operator(node, *_IMAGES):
        rank = rank_of(x)
        if rank is None or rank not in (3, 4):
            return False
        if is_operator(node, "BatchNormalization"):
            training = node.attributes.get_int("training_mode", 0) != 0
            return not training and _are_vectors(node, 1)
        return True
    return False


def _are_vectors(node: ir.Node, first: int) -> bool:
    """Return whether the inputs from `first` on are f32 constants of one axis."""
    arrays = [constant_floats(value) for value in node.inputs[first:] if value is not None]
    return bool(arrays) and all(array is not None and array.ndim == 1 for array in arrays)


def _fuse(node: ir.Node, keep: Container[str]) -> bool:
    operands = _OPERANDS.get(node.op_type, 1)
    sources = [widened(value) for value in node.inputs[:operands]]
    chain = _next(node.outputs[0], keep) if node.op_type in _TAKE_CHAINS else None
    if not is_own(chain, "UnaryChain"):
        chain = None
    last = node if chain is None else chain
    cast = _next(last.outputs[0], keep)
    if not narrows(cast):
        cast = None
    if cast is None and (not any(sources) or is_operator(node, "AveragePool")):
        return False
    if is_operator(node, "AveragePool") and sources[0] is None:
        return False
    dtype = ir.DataType.FLOAT if cast is None else ir.DataType.BFLOAT16
    attributes: dict[str, AttributeValue] = {
        name: attribute.value for name, attribute in node.attributes.items()
    }
    attributes["y_dtype"] = int(dtype)
    if chain is not None:
        for name in ("codes", "a", "b"):
            attributes[f"chain_{name}"] = chain.attributes[name].value
    end = cast if cast is not None else last
    wide = [value.producer() for value in node.inputs[:operands] if value is not None]
    inputs = [
        value if source is None else source
        for source, value in zip(sources, node.inputs[:operands], strict=True)
    ]
    op_type = node.op_type if is_operator(node, "AveragePool") else f"B{node.op_type}"
    made = insert_own(
        end, op_type, [*inputs, *node.inputs[operands:]], end.outputs, attributes, name=node.name
    )
    made.outputs[0].type = ir.TensorType(dtype)
    members = [member for member in (cast, chain, node) if member is not None]
    graph_of(end).remove(members, safe=True)
    for producer in wide:
        remove_if_unused(producer)
    return True


def _next(value: ir.Value, keep: Container[str]) -> ir.Node | None:
    """Return the only reader of a value that need not exist afterwards."""
    return None if value.name in keep else sole_consumer(value)
