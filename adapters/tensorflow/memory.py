"""Models that remember: what they keep from call to call has no place in a graph."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lowprec.adapters.tensorflow.nodes import Graph, Tensor
from lowprec.errors import UnsupportedError

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_DEPTH = 50  # calls inside calls; a function that calls itself is refused elsewhere


def refuse_memory(
    graph: Graph, outputs: Sequence[Tensor], given: Collection[Tensor], depth: int = 0
) -> None:
    """Raise where `outputs` depend on a variable that the graph itself changes.

    Args:
        graph: What is translated.
        outputs: What is asked of it.
        given: Tensors whose values are known or fed.
        depth: How many calls of functions lie around the graph.

    Raises:
        UnsupportedError: as said; variables that are only written, or only read, are no matter.
    """
    written = _written(graph, depth)
    if not written:
        return
    for node in graph.ordered(outputs, set(given) - set(written)):
        if node.op in _CALLS and depth < _DEPTH:
            function = graph.function(node.attributes["f"])
            refuse_memory(function.graph, function.outputs, function.inputs, depth + 1)
        for tensor in node.inputs:
            if written.get(tensor, node.name) != node.name:
                raise UnsupportedError(
                    f"the model changes the variable behind '{tensor[0]}' at every call (node "
                    f"'{written[tensor]}'), as recurrent layers with stateful=True do; a quantised "
                    "model remembers nothing: build it with stateful=False, its states as inputs "
                    "and outputs (initial_state=, return_state=True)"
                )


def _written(graph: Graph, depth: int) -> dict[Tensor, str]:
    """Return the handles of variables that a graph writes, and which node does."""
    found: dict[Tensor, str] = {}
    for node in graph.nodes.values():
        if node.op.startswith("Assign") and node.op.endswith("VariableOp"):
            found.setdefault(node.inputs[0], node.name)
        elif node.op in _CALLS and depth < _DEPTH:
            function = graph.function(node.attributes["f"])
            inside = _written(function.graph, depth + 1)
            for tensor, argument in zip(node.inputs, function.inputs, strict=False):
                if argument in inside:
                    found.setdefault(tensor, node.name)
    return found
