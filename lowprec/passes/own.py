"""Operators of the domain `ai.lowprec`, and what the fusing passes ask about Q/DQ pairs.

Own operators exist in memory only, between `fuse` and the lowering:

    UnaryChain              codes, a, b: unary float operators run in order (kernels.h, UnaryCode)
    ChannelShuffle          groups g, sizes [C, H, W]: channel j * (C / g) + k becomes k * g + j
    QConv QConvTranspose    (x codes, w codes, bias s32, addend f32) -> f32, or codes with y_dtype
    QMatMul QGemm           the same
    Conv ConvTranspose MatMul Gemm with y_dtype: (x bf16, w bf16, bias f32) -> f32 or bf16
    BUnaryChain BAdd BSoftmax ..: f32 arithmetic on bf16 or f32 operands -> y_dtype
    with one more operand   QConv QMatMul QGemm Conv MatMul Gemm add it to the result (product.h)
    Elementwise             a short program over operands of one shape (ops_region.cpp)
    QRNN QGRU QLSTM         (x codes, w codes, r codes, then as in ONNX) -> f32
    QAdd QMul QConcat QAveragePool QGlobalAveragePool QTable: element-wise forms on codes
    Operands 4 and 5 of QConv and QMatMul: zero point and scale of x where only the run knows them.
    Attribute table of QTable and of a layer: what each code becomes at the very end.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lowprec.passes.matching import (
    constant_array,
    graph_of,
    is_operator,
    sole_consumer,
)

OWN_DOMAIN = "ai.lowprec"
CODE_TYPES = (ir.DataType.UINT8, ir.DataType.INT8)

AttributeValue = int | float | str | Sequence[int] | Sequence[float]


def is_own(node: ir.Node | None, *op_types: str) -> bool:
    """Return whether `node` is one of lowprec's own operators `op_types`."""
    return node is not None and node.domain == OWN_DOMAIN and node.op_type in op_types


@dataclass(frozen=True)
class Codes:
    """A quantised tensor as a fusing pass sees it: its codes, and what they stand for."""

    value: ir.Value
    scale: float
    zero_point: int
    dtype: ir.DataType

    def same_numbers(self, other: Codes) -> bool:
        """Return whether equal codes mean equal reals."""
        return (self.scale, self.zero_point, self.dtype) == (
            other.scale,
            other.zero_point,
            other.dtype,
        )


def _per_tensor(node: ir.Node, codes: ir.Value, dtype: ir.DataType | None) -> Codes | None:
    if dtype not in CODE_TYPES or node.attributes.get_int("block_size", 0) != 0:
        return None
    scale = constant_array(node.inputs[1])
    if scale is None or scale.size != 1 or scale.dtype != np.float32:
        return None
    zero_point = 0
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        array = constant_array(node.inputs[2])
        if array is None or array.size != 1:
            return None
        zero_point = int(array.reshape(()))
    return Codes(codes, float(scale.reshape(())), zero_point, dtype)


def dequantized(value: ir.Value | None) -> Codes | None:
    """Return the codes behind `value` where it is a per-tensor DequantizeLinear to f32."""
    node = None if value is None else value.producer()
    if not is_operator(node, "DequantizeLinear") or node is None or node.inputs[0] is None:
        return None
    if value is None or value.dtype not in (None, ir.DataType.FLOAT):
        return None
    return _per_tensor(node, node.inputs[0], node.inputs[0].dtype)


def quantizes(node: ir.Node | None) -> Codes | None:
    """Return the codes that `node` makes where it is a per-tensor QuantizeLinear of f32."""
    if not is_operator(node, "QuantizeLinear") or node is None or node.inputs[0] is None:
        return None
    if node.inputs[0].dtype not in (None, ir.DataType.FLOAT):
        return None
    has_zero_point = len(node.inputs) > 2 and node.inputs[2] is not None
    dtype = node.inputs[2].dtype if has_zero_point else node.outputs[0].dtype  # type: ignore[union-attr]
    return _per_tensor(node, node.outputs[0], dtype)


def next_quantize(value: ir.Value, keep: Container[str]) -> tuple[ir.Node, Codes] | None:
    """Return the QuantizeLinear that is the only reader of `value`, with its codes."""
    if value.name in keep:
        return None
    node = sole_consumer(value)
    codes = quantizes(node)
    return None if node is None or codes is None else (node, codes)


def insert_own(
    anchor: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    outputs: Sequence[ir.Value],
    attributes: Mapping[str, AttributeValue],
    *,
    name: str | None = None,
) -> ir.Node:
    """Put one own node before `anchor`; it takes over `outputs` of nodes that are then removed.

    The replaced nodes' outputs get fresh names; values keep theirs, types and readers.
    """
    made = [ir.Value(name=old.name, type=old.type, shape=old.shape) for old in outputs]
    node = ir.Node(
        OWN_DOMAIN,
        op_type,
        inputs=list(inputs),
        attributes=[_attribute(key, value) for key, value in attributes.items()],
        outputs=made,
        name=name or anchor.name,
    )
    graph = graph_of(anchor)
    graph.insert_before(anchor, node)
    for old, new in zip(outputs, made, strict=True):
        label = old.name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        old.name = f"{label}__replaced"
        new.name = label
    return node


def _attribute(name: str, value: AttributeValue) -> ir.Attr:
    """Return what ir.convenience.convert_attribute does, which takes 4 ms to find out the type."""
    if isinstance(value, (bool, int)):
        return ir.AttrInt64(name, int(value))
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    if isinstance(value, str):
        return ir.AttrString(name, value)
    items = list(value) if isinstance(value, (list, tuple)) else []
    if items and all(type(item) is int for item in items):
        return ir.AttrInt64s(name, [int(item) for item in items])
    if items and all(type(item) is float for item in items):
        return ir.AttrFloat32s(name, [float(item) for item in items])
    return ir.convenience.convert_attribute(name, value)


def remove_if_unused(node: ir.Node | None) -> None:
    """Remove `node` where nobody reads what it makes."""
    if node is None or node.graph is None:
        return
    if any(value.uses() or value.is_graph_output() for value in node.outputs):
        return
    graph_of(node).remove(node, safe=True)


def remove_dead_nodes(model: ir.Model) -> None:
    """Remove nodes of the main graph whose outputs nobody reads."""
    for node in reversed(list(model.graph)):
        remove_if_unused(node)


def makes_floats(node: ir.Node) -> bool:
    """Return whether the product `node` ends in f32 so far: neither in codes, bf16 nor sums."""
    f32 = int(ir.DataType.FLOAT)
    return node.attributes.get_int("y_dtype", f32) == f32


def float_list(node: ir.Node, name: str) -> list[float]:
    """Return a list-of-floats attribute; empty where it is absent."""
    attribute = node.attributes.get(name)
    return [] if attribute is None else [float(x) for x in attribute.as_floats()]


def int_list(node: ir.Node, name: str) -> list[int]:
    """Return a list-of-ints attribute; empty where it is absent."""
    attribute = node.attributes.get(name)
    return [] if attribute is None else list(attribute.as_ints())
