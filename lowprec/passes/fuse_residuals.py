"""A tensor added to a product's result is added while the result is still in registers.

    QConv ──► [Quantize ──► Dequantize ──►] ─┐
                                             ├► Add ──► UnaryChain ──► Quantize ──► yq
    rq ──► Dequantize ───────────────────────┘

becomes one QConv with one more operand, `rq` (or an f32 or bf16 tensor); `_ext/engine/product.h`
says what its attributes mean. The codes between product and Add (fuse_epilogues has given them to
the product) are rounded to and read back in registers. Where both operands are products, the later
one adds. A shape that is not known here, or wrong, is looked at again when a plan is made.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import onnx_ir as ir

from lowprec.passes.fuse_epilogues import take_over
from lowprec.passes.matching import (
    constant_array,
    graph_of,
    is_operator,
    may_have_one_shape,
    sole_consumer,
)
from lowprec.passes.move_casts import narrows, widened
from lowprec.passes.own import (
    OWN_DOMAIN,
    Codes,
    dequantized,
    float_list,
    int_list,
    is_own,
    makes_floats,
    next_quantize,
    remove_if_unused,
)

_INTEGER = ("QConv", "QMatMul", "QGemm")
_FLOAT = ("Conv", "MatMul", "Gemm")
RESIDUAL = 6  # the operand's place, after those of RunTimeScale (product.h)


@dataclass(frozen=True)
class _Summand:
    """An operand of an Add that is a product nobody else reads."""

    product: ir.Node
    dequantize: ir.Node | None  # between product and Add
    place: int  # in the order of the graph


def fuse_residuals(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    place = {node: i for i, node in enumerate(model.graph)}
    changed = False
    for node in list(model.graph):
        if not is_operator(node, "Add") or len(node.inputs) != 2:
            continue
        first, second = node.inputs
        if (
            first is None
            or second is None
            or first is second
            or not may_have_one_shape(first, second)
        ):
            continue
        found = [
            (summand, other)
            for value, other in ((first, second), (second, first))
            if constant_array(other) is None
            and (summand := _summand(value, node, keep, place)) is not None
        ]
        if found:
            summand, other = max(found, key=lambda pair: pair[0].place)
            made = _fuse(node, summand, other)
            place[made] = place[node]
            _take_rest(made, keep)
            changed = True
    return changed


def _summand(
    value: ir.Value, add: ir.Node, keep: Container[str], place: dict[ir.Node, int]
) -> _Summand | None:
    product, dequantize = value.producer(), None
    if value.name in keep or sole_consumer(value) is not add:
        return None
    if is_operator(product, "DequantizeLinear"):
        dequantize, codes = product, dequantized(value)
        if codes is None or codes.value.name in keep:
            return None
        product = codes.value.producer()
        if sole_consumer(codes.value) is not dequantize or not _makes(product, codes):
            return None
    elif product is None or not makes_floats(product):
        return None
    if product is None or product.graph is not add.graph or not _is_product(product):
        return None
    return _Summand(product, dequantize, place[product])


def _makes(product: ir.Node | None, codes: Codes) -> bool:
    """Return whether `product` writes codes that mean what `codes` says."""
    if product is None or "y_dtype" not in product.attributes:
        return False
    return (
        product.attributes["y_dtype"].as_int() == int(codes.dtype)
        and product.attributes["y_scale"].as_float() == codes.scale
        and product.attributes["y_zero_point"].as_int() == codes.zero_point
    )


def _is_product(node: ir.Node) -> bool:
    if "sum_codes" in node.attributes or len(node.outputs) != 1:
        return False
    is_float = is_operator(node, *_FLOAT) or is_own(node, *_FLOAT)
    if not is_float and not is_own(node, *_INTEGER):
        return False
    if constant_array(node.inputs[1]) is None:
        return False  # both operands vary: no epilogue for this
    return not is_float or node.outputs[0].dtype == ir.DataType.FLOAT


def _fuse(add: ir.Node, summand: _Summand, other: ir.Value) -> ir.Node:
    product = summand.product
    codes, narrow = dequantized(other), widened(other)
    inputs: list[ir.Value | None] = list(product.inputs)
    inputs += [None] * (RESIDUAL - len(inputs))
    inputs.append(codes.value if codes is not None else narrow if narrow is not None else other)
    attributes = list(product.attributes.values())
    attributes += [
        ir.AttrInt64s("sum_codes", []),
        ir.AttrFloat32s("sum_a", []),
        ir.AttrFloat32s("sum_b", []),
    ]
    if codes is not None:
        attributes.append(ir.AttrFloat32("residual_scale", codes.scale))
        attributes.append(ir.AttrInt64("residual_zero_point", codes.zero_point))
    made = ir.Node(
        OWN_DOMAIN, product.op_type, inputs, attributes, num_outputs=1, name=product.name
    )
    graph = graph_of(add)
    graph.insert_before(add, made)
    take_over(made, add)
    for node in (summand.dequantize, product):
        if node is not None:
            graph.remove(node, safe=True)
    if codes is not None or narrow is not None:
        remove_if_unused(other.producer())
    return made


def _take_rest(node: ir.Node, keep: Container[str]) -> None:
    """Let `node` do the unary operators and the Quantize that follow its sum."""
    value = node.outputs[0]
    reader = None if value.name in keep else sole_consumer(value)
    if reader is not None and reader.graph is node.graph and is_own(reader, "UnaryChain"):
        node.attributes["sum_codes"] = ir.AttrInt64s("sum_codes", int_list(reader, "codes"))
        node.attributes["sum_a"] = ir.AttrFloat32s("sum_a", float_list(reader, "a"))
        node.attributes["sum_b"] = ir.AttrFloat32s("sum_b", float_list(reader, "b"))
        take_over(node, reader)
    value = node.outputs[0]
    reader = None if value.name in keep else sole_consumer(value)
    if reader is not None and reader.graph is node.graph and narrows(reader):
        node.attributes["sum_dtype"] = ir.AttrInt64("sum_dtype", int(ir.DataType.BFLOAT16))
        take_over(node, reader)
        return
    found = next_quantize(value, keep)
    if found is not None:
        quantize, codes = found
        node.attributes["sum_dtype"] = ir.AttrInt64("sum_dtype", int(codes.dtype))
        node.attributes["sum_scale"] = ir.AttrFloat32("sum_scale", codes.scale)
        node.attributes["sum_zero_point"] = ir.AttrInt64("sum_zero_point", codes.zero_point)
        take_over(node, quantize)
