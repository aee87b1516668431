"""Nodes that hold graphs: what those read from outside, and whether our engine can run them."""

from __future__ import annotations

import onnx_ir as ir

from lowprec.passes.matching import is_operator

CONTROL_FLOW = ("If", "Loop", "Scan")

# Operators whose values are sequences, optionals or strings: nothing that the engine holds.
_NOT_TENSORS = frozenset(
    {
        "ConcatFromSequence",
        "LabelEncoder",
        "Optional",
        "OptionalGetElement",
        "OptionalHasElement",
        "RegexFullMatch",
        "SequenceAt",
        "SequenceConstruct",
        "SequenceEmpty",
        "SequenceErase",
        "SequenceInsert",
        "SequenceLength",
        "SequenceMap",
        "SplitToSequence",
        "StringConcat",
        "StringNormalizer",
        "StringSplit",
        "TfIdfVectorizer",
    }
)


def graphs_of(node: ir.Node) -> dict[str, ir.Graph]:
    """Return the bodies of `node` by attribute name."""
    return {
        name: attribute.as_graph()
        for name, attribute in node.attributes.items()
        if attribute.type == ir.AttributeType.GRAPH
    }


def why_not_compiled(node: ir.Node) -> str | None:
    """Return why a control-flow node stays with ONNX's reference implementation, else None."""
    for value in (*node.inputs, *node.outputs):
        if value is not None and not _is_tensor(value):
            return f"'{value.name}' is no tensor of numbers"
    for graph in graphs_of(node).values():
        for value in (*graph.inputs, *graph.outputs):
            if not _is_tensor(value):
                return f"'{value.name}' is no tensor of numbers"
        for child in graph:
            if child.op_type in _NOT_TENSORS:
                return f"its body works on what is no tensor of numbers ({child.op_type})"
            reason = why_not_compiled(child)
            if reason is not None:
                return reason
    return None


def is_control_flow(node: ir.Node) -> bool:
    """Return whether `node` is an If, Loop or Scan."""
    return is_operator(node, *CONTROL_FLOW)


def is_random(graph: ir.Graph) -> bool:
    """Return whether `graph`, or one inside it, makes something else of the same inputs."""
    names = ("Bernoulli", "Dropout", "Multinomial")
    return any(
        node.op_type in names
        or node.op_type.startswith("Random")
        or any(is_random(inner) for inner in graphs_of(node).values())
        for node in graph
    )


def _is_tensor(value: ir.Value) -> bool:
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        return False
    return value.dtype != ir.DataType.STRING


def captured_values(graph: ir.Graph) -> list[ir.Value]:
    """Return what `graph` and the graphs inside it read from outside, in order of first use."""
    found: dict[ir.Value, None] = {}
    _collect_captured(graph, set(), found)
    return list(found)


def _collect_captured(graph: ir.Graph, inside: set[ir.Value], found: dict[ir.Value, None]) -> None:
    inside = inside | set(graph.inputs) | set(graph.initializers.values())
    for node in graph:
        for value in node.inputs:
            if value is not None and value.name and value not in inside:
                found[value] = None
        for child in graphs_of(node).values():
            _collect_captured(child, inside, found)
        inside.update(node.outputs)
    for value in graph.outputs:
        if value.name and value not in inside:
            found[value] = None
