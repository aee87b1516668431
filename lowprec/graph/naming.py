"""Give every value and node of a model one unique name, the same in every run.

Graph inputs and outputs always keep their names: they are the model's interface. The rest keep
theirs where they can; an omitted optional output keeps its empty name, which is how ONNX says
"omitted".
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir


def fix_names(model: ir.Model) -> None:
    """Rename values and nodes of `model` in place until each name is unique in the whole model.

    Uniqueness spans subgraphs too: rules in a configuration and lines in a report name nodes and
    values by their name alone.
    """
    values = _NamePool()
    for value in _interface(model.graph):
        _name_value(value, values, "value")
    nodes = _NamePool()
    for graph in model.graphs():
        for node in graph:
            nodes.reserve(node.name)
        for value in _values(graph):
            values.reserve(value.name)
    for graph in model.graphs():
        for node in graph:
            node.name = nodes.take(node.name, node.op_type)
        for value in _values(graph):
            _name_value(value, values, "value")


class _NamePool:
    """Names in use. Existing names are reserved first, so that a generated one never displaces "
    "them."""

    def __init__(self) -> None:
        self.reserved: set[str] = set()
        self.taken: set[str] = set()
        self.values: set[ir.Value] = set()
        self._next: dict[str, int] = {}

    def reserve(self, name: str | None) -> None:
        if name:
            self.reserved.add(name)

    def take(self, wanted: str | None, stem: str) -> str:
        """Return `wanted` if nobody has it yet, else the first free `stem_N` or `wanted_N`."""
        if wanted and wanted not in self.taken:
            self.taken.add(wanted)
            return wanted
        stem = wanted or stem
        number = self._next.get(stem, 0)
        while f"{stem}_{number}" in self.taken or f"{stem}_{number}" in self.reserved:
            number += 1
        self._next[stem] = number + 1
        self.taken.add(f"{stem}_{number}")
        return f"{stem}_{number}"


def _name_value(value: ir.Value, pool: _NamePool, stem: str) -> None:
    if value in pool.values:
        return
    pool.values.add(value)
    if not value.name and value.producer() is not None and not _is_read(value):
        return  # an omitted optional output
    producer = value.producer()
    if producer is not None:
        stem = f"{producer.name}_output"
    name = pool.take(value.name, stem)
    if name != value.name:
        value.name = name


def _is_read(value: ir.Value) -> bool:
    return bool(value.uses()) or value.is_graph_output()


def _interface(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.outputs


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from _interface(graph)
    yield from tuple(graph.initializers.values())
    for node in graph:
        yield from node.outputs
