"""Constants stored as f16, everything computed in f32: no data needed, half of the bytes.

    w (f16) ──► Cast(f32) ──► Conv.W
    table (f16) ──► Gather(i) ──► Cast(f32) ──► rows        only the rows that are asked for

The result is that of the rounded constants, bit for bit. A constant with a number beyond f16's
range (65,504) stays f32: infinity would not be rounding.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.matching import (
    NameSource,
    constant_floats,
    graph_of,
    insert_operator,
    is_operator,
)
from lowprec.quantization.weight_only import is_table
from lowprec.quantization.weights import decibel

MIN_ELEMENTS = 64
"""Smaller constants stay f32: a Cast needs more bytes than they would save."""


def why_not_f16(node: ir.Node) -> str | None:
    """Return "" where constants of `node` can be f16, why not, None where it has none to speak of.

    Where only some do not fit, the others become f16 all the same.
    """
    found = list(_constants(node))
    if not found:
        return None
    if any(_fits(array) for _, _, array in found):
        return ""
    largest = max(float(np.abs(array[np.isfinite(array)]).max()) for _, _, array in found)
    return f"a constant of {largest:.3g} does not fit f16"


def store_f16(node: ir.Node, names: NameSource, known: dict[object, ir.Value]) -> float | None:
    """Let `node` read its constants through Cast; return their SQNR in dB, None: exact.

    Args:
        node: One of which `why_not_f16` says "".
        names: Of the whole model.
        known: What earlier calls for this graph made of shared constants.
    """
    signal = noise = 0.0
    graph = graph_of(node)
    for index, value, array in list(_constants(node)):
        if not _fits(array):
            continue
        narrow = _narrow(array)
        finite = np.isfinite(array)
        signal += float(np.square(array[finite], dtype=np.float64).sum())
        error = array[finite] - narrow[finite].astype(np.float32)
        noise += float(np.square(error, dtype=np.float64).sum())
        if value not in known:
            known[value] = add_constant(graph, names.fresh(f"{value.name}_f16"), narrow)
        if is_table(node):
            _widen_rows(node, known[value], names)
            break
        if (value, "wide") not in known:
            known[(value, "wide")] = insert_operator(
                graph[0],
                "Cast",
                [known[value]],
                like=value,
                name=names.fresh(f"{value.name}_wide"),
                attributes={"to": int(ir.DataType.FLOAT)},
            )
        node.replace_input_with(index, known[(value, "wide")])
    return decibel(signal, noise)


def _constants(node: ir.Node) -> list[tuple[int, ir.Value, NDArray[np.float32]]]:
    if is_operator(node, "Resize"):
        return []  # its numbers are sizes
    found = [(i, value, constant_floats(value)) for i, value in enumerate(node.inputs)]
    return [
        (i, value, array)
        for i, value, array in found
        if value is not None and array is not None and array.size >= MIN_ELEMENTS
    ]


def _narrow(array: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        return array.astype(np.float16)


def _fits(array: NDArray[np.float32]) -> bool:
    return bool((np.isfinite(_narrow(array)) == np.isfinite(array)).all())


def _widen_rows(node: ir.Node, table: ir.Value, names: NameSource) -> None:
    """Let a lookup read the f16 table, and widen what it returns."""
    rows, label = node.outputs[0], node.outputs[0].name
    node.replace_input_with(0, table)
    wide = ir.Node(
        "",
        "Cast",
        inputs=[rows],
        attributes=[ir.AttrInt64("to", int(ir.DataType.FLOAT))],
        num_outputs=1,
        name=names.fresh(f"{label}_widen"),
    )
    (made,) = wide.outputs
    made.type, made.shape = rows.type, rows.shape
    rows.replace_all_uses_with(made, replace_graph_outputs=True)
    wide.replace_input_with(0, rows)
    graph_of(node).insert_after(node, wide)
    rows.name, made.name = names.fresh(f"{label}_f16"), label
    rows.type = ir.TensorType(ir.DataType.FLOAT16)
