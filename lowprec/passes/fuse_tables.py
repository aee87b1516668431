"""Whatever is a function of one 8-bit code is a table of 256, and happens in the layer before it.

    QConv ──► xq ──┬► QAdd(3) ──► QTable ──┐
                   └───────────────────────┴► QMul ──► yq     becomes     QConv, table ──► yq

Quantizers put a Quantize after every operator, so a hard-swish comes as four steps on codes. Each
table is made by the kernels that it replaces: the codes are the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec._ext import _core
from lowprec.passes.matching import constant_array, graph_of, rank_of, sole_consumer
from lowprec.passes.own import CODE_TYPES, AttributeValue, insert_own, is_own, remove_if_unused

Table = NDArray[np.uint8]  # 256 codes as unsigned bytes, by code as an unsigned byte

_LAYERS = ("QConv", "QMatMul", "QGemm")
_NUMPY = {int(ir.DataType.UINT8): np.dtype(np.uint8), int(ir.DataType.INT8): np.dtype(np.int8)}
_EVERY_CODE: Table = np.arange(256, dtype=np.uint8)


def fuse_tables(model: ir.Model) -> bool:
    """Rewrite the main graph of `model` in place; return whether anything changed."""
    tables: dict[ir.Value, tuple[ir.Value, Table]] = {}  # value: what it is a function of, and how
    composed: list[tuple[ir.Node, ir.Value, Table]] = []
    for node in model.graph:
        found = _function(node, tables)
        if found is None:
            continue
        tables[node.outputs[0]] = found
        if not is_own(node, "QTable") or node.inputs[0] is not found[0]:
            composed.append((node, *found))
    for node, source, table in reversed(composed):
        _rewrite(node, source, table)
    changed = bool(composed)
    for node in list(model.graph):
        if is_own(node, *_LAYERS) and node.graph is not None:
            changed |= _take_table(node)
    return changed


def _function(
    node: ir.Node, tables: dict[ir.Value, tuple[ir.Value, Table]]
) -> tuple[ir.Value, Table] | None:
    """Return (source, table) where the result of `node` is a function of one tensor of codes."""
    if is_own(node, "QTable"):
        value = node.inputs[0]
        if value is None:
            return None
        source, table = tables.get(value, (value, _EVERY_CODE))
        return source, _run(node, [table])
    if not is_own(node, "QAdd", "QMul") or len(node.inputs) != 2:
        return None
    constants = [_one_code(value) for value in node.inputs]
    sources: set[ir.Value] = set()
    operands: list[Table] = []
    for index, value in enumerate(node.inputs):
        if value is None:
            return None
        constant = constants[index]
        if constant is not None:
            other = rank_of(node.inputs[1 - index])
            if value.shape is None or len(value.shape) > (0 if other is None else other):
                return None  # it would add axes
            operands.append(np.full(256, constant, np.uint8))
        else:
            source, table = tables.get(value, (value, _EVERY_CODE))
            sources.add(source)
            operands.append(table)
    if len(sources) != 1:
        return None
    return sources.pop(), _run(node, operands)


def _one_code(value: ir.Value | None) -> int | None:
    """Return the one code of a constant as an unsigned byte, else None."""
    array = constant_array(value)
    if array is None or array.size != 1 or array.dtype.itemsize != 1:
        return None
    return int(array.reshape(-1).view(np.uint8)[0])


def _run(node: ir.Node, operands: list[Table]) -> Table:
    """Return what the kernel of `node` makes of these codes."""
    attributes: dict[str, Any] = {}
    for name, attribute in node.attributes.items():
        value = attribute.value
        attributes[name] = list(value) if isinstance(value, (list, tuple)) else value
    names = ("x",) if len(operands) == 1 else ("a", "b")
    arrays = [
        operand.view(_NUMPY[attributes[f"{name}_dtype"]])
        for name, operand in zip(names, operands, strict=True)
    ]
    program = _core.Program()
    ids = [program.add_value(name, array.dtype) for name, array in zip(names, arrays, strict=True)]
    made = program.add_value("y", np.float32)
    program.add_node(node.op_type, node.name or "", ids, [made], attributes)
    program.set_io(ids, [made])
    plan = program.plan([array.shape for array in arrays], [None] * len(arrays))
    result: NDArray[Any] = plan.run(arrays)[0][0]
    table: Table = result.view(np.uint8).copy()
    return table


def _rewrite(node: ir.Node, source: ir.Value, table: Table) -> None:
    """Let the result of `node` come from `source` by a table."""
    if node.graph is None:
        return  # only functions of it were read
    output = node.outputs[0]
    readers = [value.producer() for value in node.inputs if value is not None]
    if output.uses() or output.is_graph_output():
        dtype = source.dtype
        if dtype not in CODE_TYPES:
            return
        attributes: dict[str, AttributeValue] = {
            "table": [int(code) for code in table],
            "x_dtype": int(dtype),
            "y_dtype": node.attributes.get_int("y_dtype", int(ir.DataType.UINT8)),
        }
        insert_own(node, "QTable", [source], node.outputs, attributes)
    graph_of(node).remove(node, safe=True)
    for reader in readers:
        remove_if_unused(reader)


def _take_table(layer: ir.Node) -> bool:
    """Let a layer apply the table that follows it."""
    made = layer.outputs[0]
    # With a residual, y_dtype is of the codes before the sum.
    dtype = layer.attributes.get_int(
        "sum_dtype" if "sum_codes" in layer.attributes else "y_dtype", 0
    )
    reader = sole_consumer(made)
    if dtype not in _NUMPY or "table" in layer.attributes or not is_own(reader, "QTable"):
        return False
    if reader is None or reader.graph is not layer.graph:
        return False
    if reader.attributes.get_int("y_dtype", 0) != dtype:
        return False
    table = _run(reader, [_EVERY_CODE])
    layer.attributes["table"] = ir.AttrInt64s("table", [int(code) for code in table])
    result = reader.outputs[0]
    name, made.type, made.shape = result.name, result.type, result.shape
    result.replace_all_uses_with(made, replace_graph_outputs=True)
    graph_of(reader).remove(reader, safe=True)
    made.name = name
    return True
