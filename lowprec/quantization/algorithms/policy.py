"""The precision of the first and of the last layers, as rules that name them.

The layer that reads the pictures and the layer that makes the scores hold few of a network's
multiply-adds, and what they lose nothing behind or before them makes up for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec
import onnx_ir as ir

from lowprec.passes.fuse_integer_recurrent import RECURRENT_TYPES
from lowprec.passes.layers import LAYER_TYPES, find_layer
from lowprec.passes.matching import is_operator

if TYPE_CHECKING:
    from lowprec.config import Config


def with_ends(model: ir.Model, config: Config) -> Config:
    """Return `config` with `algorithms.first_layer` and `last_layer` turned into layer rules.

    The user's own rules come after them, so they win.

    Args:
        model: Simplified hub; layers of its main graph are meant.
        config: Returned as it is where neither key is set.
    """
    from lowprec.config import LayerRule

    rules = []
    for precision, nodes in (
        (config.algorithms.first_layer, first_layers),
        (config.algorithms.last_layer, last_layers),
    ):
        if precision is not None:
            names = [node.name for node in nodes(model.graph) if node.name]
            rules += [LayerRule(match=_literally(name), precision=precision) for name in names]
    if not rules:
        return config
    return msgspec.structs.replace(config, layers=(*rules, *config.layers))


def first_layers(graph: ir.Graph) -> list[ir.Node]:
    """Return the layers that read an input of the graph with no other layer in between."""

    def readers(value: ir.Value) -> list[ir.Node]:
        # What only asks for the shape leads nowhere.
        return [use.node for use in value.uses() if not is_operator(use.node, "Shape", "Size")]

    return _nearest(graph.inputs, readers, lambda node: node.outputs)


def last_layers(graph: ir.Graph) -> list[ir.Node]:
    """Return the layers that make an output of the graph with no other layer in between."""

    def makers(value: ir.Value) -> list[ir.Node]:
        producer = value.producer()
        return [] if producer is None else [producer]

    return _nearest(graph.outputs, makers, lambda node: node.inputs)


def _nearest(
    values: Iterable[ir.Value],
    nodes_at: Callable[[ir.Value], list[ir.Node]],
    values_behind: Callable[[ir.Node], Sequence[ir.Value | None]],
) -> list[ir.Node]:
    pending = list(values)
    seen: set[ir.Node] = set()
    found = []
    while pending:
        for node in nodes_at(pending.pop(0)):
            if node in seen:
                continue
            seen.add(node)
            if is_operator(node, *RECURRENT_TYPES) or _is_layer(node):
                found.append(node)
            else:
                pending += [value for value in values_behind(node) if value is not None]
    return found


def _is_layer(node: ir.Node) -> bool:
    return is_operator(node, *LAYER_TYPES) and not isinstance(find_layer(node), str)


def _literally(name: str) -> str:
    """Return a pattern in the shell's manner that matches `name` and nothing else."""
    return re.sub(r"([*?\[])", r"[\1]", name)
