"""Nodes that hold graphs: what those read from outside, and whether our engine can run them."""

from __future__ import annotations

import onnx_ir as ir

from lowprec.passes.inline_branches import graphs_of
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
