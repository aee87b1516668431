"""Names for the sizes that may change: what people read in signatures and messages."""

from __future__ import annotations

import re

import onnx_ir as ir

BATCH = "batch"

_WORD = re.compile(r"[A-Za-z_]\w*")


def name_dimensions(graph: ir.Graph) -> None:
    """Call a size that several inputs share on axis 0 `batch`, others INPUT_AXIS, in place.

    torch.export numbers its symbols ("s28"), and not alike in every run.
    """
    names: dict[str, str] = {}
    for value in graph.inputs:
        for axis, size in enumerate(value.shape or ()):
            symbol = size.value if isinstance(size, ir.SymbolicDim) else None
            if symbol is not None and _WORD.fullmatch(symbol):
                name = BATCH if axis == 0 and BATCH not in names.values() else ""
                names.setdefault(symbol, name or f"{value.name}_{axis}")

    def renamed(match: re.Match[str]) -> str:
        return names.get(match[0], match[0])

    values = [*graph.inputs, *graph.outputs]
    values += [value for node in graph.all_nodes() for value in node.outputs]
    seen: set[int] = set()
    for value in values:
        if value.shape is None or id(value) in seen:
            continue
        seen.add(id(value))
        value.shape = ir.Shape(
            [
                ir.SymbolicDim(_WORD.sub(renamed, size.value))
                if isinstance(size, ir.SymbolicDim) and size.value is not None
                else size
                for size in value.shape
            ]
        )
