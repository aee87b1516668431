"""Work out f16 and bf16 operators in f32, and give Pow operands of one element type.

    x f16 ──► Mul(y f16) ──► z f16     becomes     x ──► Cast ──► Mul(Cast(y)) ──► Cast ──► z

Kernels compute in f32 and wider. A value that the model has in 16 bits is rounded to 16 bits by its
Cast, so that an operator gives its exact result rounded twice, first to f32; sums inside an
operator are better than in 16 bits. Products of bf16 become that again in fuse_bf16_layers.
Operators that only move or compare bits, and casts, take every element type and stay. For the
engine only: a saved model keeps its types.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from lowprec.graph.constants import add_constant
from lowprec.graph.silence import silent_onnx_ir
from lowprec.passes.matching import NameSource, constant_array, graph_of, is_operator

HALVES = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_REALS = (*HALVES, ir.DataType.FLOAT, ir.DataType.DOUBLE)

# What takes every element type as it is, or is about element types.
_ANY_TYPE = frozenset(
    {
        *("BitCast", "Cast", "CastLike", "Compress", "Concat", "DepthToSpace", "DequantizeLinear"),
        *("Dropout", "Expand", "EyeLike", "Flatten", "Gather", "GatherElements", "GatherND"),
        *("Identity", "OneHot", "Pad", "QuantizeLinear", "Reshape", "ReverseSequence", "Shape"),
        *("Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "TensorScatter", "Tile"),
        *("Transpose", "Trilu", "Unsqueeze", "Where"),
    }
)


def widen_operands(model: ir.Model) -> bool:
    """Rewrite the main graph of `model` in place; return whether anything changed."""
    if not any(_may_concern(node) for node in model.graph) and not _holds_halves(model.graph):
        return False
    with silent_onnx_ir():
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
    casts = _Casts(model)
    changed = False
    for node in model.graph:
        if is_operator(node, "Pow"):
            changed |= _widen_power(node, casts)
        elif node.domain == "" and node.op_type not in _ANY_TYPE and not _holds_graph(node):
            changed |= _widen(node, casts)
    return changed


def _may_concern(node: ir.Node) -> bool:
    """Return whether `node` is a Pow, or says by an attribute that it makes 16-bit floats."""
    if is_operator(node, "Pow"):
        return True
    for name in ("to", "dtype", "output_dtype"):
        attribute = node.attributes.get(name)
        if attribute is not None and attribute.type == ir.AttributeType.INT:
            return attribute.as_int() in HALVES
    value = node.attributes.get("value")
    return (
        value is not None
        and value.type == ir.AttributeType.TENSOR
        and value.as_tensor().dtype in HALVES
    )


def _holds_halves(graph: ir.Graph) -> bool:
    values = [*graph.inputs, *graph.initializers.values()]
    return any(value.dtype in HALVES for value in values)


def _holds_graph(node: ir.Node) -> bool:
    graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in graphs for attribute in node.attributes.values())


class _Casts:
    """The casts of a graph: one for each value and element type."""

    def __init__(self, model: ir.Model):
        self._names = NameSource(model)
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def before(self, node: ir.Node, index: int, to: ir.DataType) -> None:
        """Let `node` read its operand `index` as `to`."""
        value = node.inputs[index]
        if value is None or value.dtype == to:
            return
        known = self._made.get((value, to))
        if known is None:
            known = self._cast(node, value, to)
            self._made[value, to] = known
        node.replace_input_with(index, known)

    def _cast(self, node: ir.Node, value: ir.Value, to: ir.DataType) -> ir.Value:
        name = self._names.fresh(f"{value.name}_{to.name.lower()}")
        array = constant_array(value)
        if array is not None and to == ir.DataType.FLOAT and not _is_operand_of_bf16(node, value):
            return add_constant(graph_of(node), name, array.astype(np.float32))
        cast = _cast_node(value, name, to)
        graph_of(node).insert_before(node, cast)
        return cast.outputs[0]

    def after(self, node: ir.Node, output: ir.Value, to: ir.DataType) -> None:
        """Let `node` make `output` in f32, and a cast the value of that name."""
        made, name = output.dtype, output.name
        cast = _cast_node(output, name, made)
        output.replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)
        cast.replace_input_with(0, output)
        output.name = self._names.fresh(f"{name}_{to.name.lower()}")
        cast.outputs[0].name = name
        output.dtype = to
        graph_of(node).insert_after(node, cast)


def _is_operand_of_bf16(node: ir.Node, value: ir.Value) -> bool:
    """Return whether fuse_bf16_layers may want `value` itself."""
    layers = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    return (
        value.dtype == ir.DataType.BFLOAT16
        and is_operator(node, *layers)
        and value in node.inputs[:2]
    )


def _cast_node(value: ir.Value, name: str | None, to: ir.DataType | None) -> ir.Node:
    assert to is not None
    made = ir.Value(name=name, type=ir.TensorType(to), shape=value.shape)
    attributes = [ir.AttrInt64("to", int(to))]
    return ir.Node("", "Cast", [value], attributes, outputs=[made], name=f"{name}_cast")


def _widen(node: ir.Node, casts: _Casts) -> bool:
    """Let a node with 16-bit operands or results have them in f32."""
    operands = [i for i, value in enumerate(node.inputs) if value and value.dtype in HALVES]
    results = [value for value in node.outputs if value.dtype in HALVES]
    if is_operator(node, "ConstantOfShape") and results:
        _widen_fill(node)
    elif not operands or any(value.dtype is None and value.uses() for value in node.outputs):
        return False
    for index in operands:
        casts.before(node, index, ir.DataType.FLOAT)
    for value in results:
        casts.after(node, value, ir.DataType.FLOAT)
    return bool(operands or results)


def _widen_fill(node: ir.Node) -> None:
    fill = node.attributes["value"].as_tensor().numpy().astype(np.float32)
    node.attributes["value"] = ir.AttrTensor("value", ir.Tensor(fill))


def _widen_power(node: ir.Node, casts: _Casts) -> bool:
    """Pow has the base's type, whatever the exponent's; both get the type that it is done in."""
    base, exponent = node.inputs
    (result,) = node.outputs
    if base is None or exponent is None or base.dtype is None or exponent.dtype is None:
        return False
    if base.dtype == exponent.dtype and base.dtype not in HALVES:
        return False
    working = ir.DataType.FLOAT
    if ir.DataType.DOUBLE in (base.dtype, exponent.dtype):
        working = ir.DataType.DOUBLE
    elif base.dtype not in _REALS and exponent.dtype not in _REALS:
        working = base.dtype
    made = base.dtype
    casts.before(node, 0, working)
    casts.before(node, 1, working)
    if made != working:
        result.dtype = made
        casts.after(node, result, working)
    return True
