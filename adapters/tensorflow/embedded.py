"""A graph that lowprec made: its one operation holds the model, which needs no translation."""

from __future__ import annotations

from lowprec.adapters.tensorflow import operator
from lowprec.adapters.tensorflow.binding import KEY, Binding
from lowprec.adapters.tensorflow.content import proto_of
from lowprec.adapters.tensorflow.nodes import Graph, Tensor, tensor_of
from lowprec.adapters.tensorflow.parts import KIND
from lowprec.adapters.tensorflow.source import Source
from lowprec.graph import load
from lowprec.hookspecs import Captured

_PASSING_ON = ("Identity", "IdentityN", "EnsureShape")


def embedded(source: Source, binding: Binding, model: object) -> Captured | None:
    """Return the model that a graph of one LowprecRun holds; None for any other graph.

    Args:
        source: The graph.
        binding: How it is called.
        model: As it was given.

    Raises:
        ModelError: the operation's model is damaged.
    """
    graph = source.graph
    runs = [node for node in graph.nodes.values() if node.op == operator.NAME]
    if len(runs) != 1 or not runs[0].inputs:
        return None
    *fed, (holder, _) = runs[0].inputs
    given = [tensor_of(tensor) for tensor in source.inputs.values()]
    made = [_origin(graph, tensor_of(tensor)) for tensor in source.outputs.values()]
    held = graph.nodes.get(holder)
    if held is None or held.op != "Const" or [_origin(graph, tensor) for tensor in fed] != given:
        return None
    hub = load(proto_of(held.attributes["value"].tobytes()))
    if len(hub.graph.inputs) != len(given) or made != [
        (runs[0].name, number) for number in range(len(hub.graph.outputs))
    ]:
        return None
    for value, name in zip(hub.graph.inputs, source.inputs, strict=True):
        value.name = name
    for value, name in zip(hub.graph.outputs, source.outputs, strict=True):
        value.name = name
    return Captured(graph=hub, source=model, kind=KIND, binding={KEY: binding})


def _origin(graph: Graph, tensor: Tensor) -> Tensor:
    """Return the tensor that is only passed on under another name."""
    for _ in range(len(graph.nodes)):
        node = graph.nodes.get(tensor[0])
        if node is None or node.op not in _PASSING_ON or not node.inputs:
            break
        tensor = node.inputs[tensor[1]] if node.op == "IdentityN" else node.inputs[0]
    return tensor
