"""An If whose condition is known is the branch that it takes.

    cond (true) ──► If { then: a ──► Conv ──► y; else: ... } ──► z     becomes     a ──► Conv ──► z

`simplify` does it where the condition is a constant; the engine, once it has seen which way a
condition goes that follows from shapes (engine/decisions.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from lowprec.passes.matching import (
    NameSource,
    constant_array,
    graph_of,
    is_operator,
    walk_nodes,
)


def graphs_of(node: ir.Node) -> dict[str, ir.Graph]:
    """Return the bodies of `node` by attribute name."""
    return {
        name: attribute.as_graph()
        for name, attribute in node.attributes.items()
        if attribute.type == ir.AttributeType.GRAPH
    }


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


def fold_branches(model: ir.Model) -> bool:
    """Replace every If with a constant condition, in place; return whether anything changed."""
    changed = False
    for node in walk_nodes(model):
        if not is_operator(node, "If"):
            continue
        condition = constant_array(node.inputs[0])
        if condition is None or condition.size != 1:
            continue
        taken = bool(np.asarray(condition).reshape(()))
        if not _is_whole(node):
            continue  # damaged: a run says so
        inline_branch(model, node, taken)
        changed = True
    return changed


def _is_whole(node: ir.Node) -> bool:
    graphs = graphs_of(node)
    return {"then_branch", "else_branch"} <= set(graphs) and all(
        not graph.inputs and len(graph.outputs) >= len(node.outputs) for graph in graphs.values()
    )


def inline_branches(
    model: ir.Model, taken: Mapping[str, bool], *, keep_borders: bool = False
) -> None:
    """Replace the Ifs of the main graph that `taken` names, in place, by the branch that it says.

    Args:
        model: A hub.
        taken: Name of an If -> whether its condition holds.
        keep_borders: As `inline_branch`.
    """
    for node in list(model.graph):
        name = node.name or ""
        if is_operator(node, "If") and name in taken:
            inline_branch(model, node, taken[name], keep_borders=keep_borders)


def branch_of(node: ir.Node, condition: bool) -> ir.Graph:
    """Return the branch that the If `node` takes."""
    return node.attributes["then_branch" if condition else "else_branch"].as_graph()


def inline_branch(
    model: ir.Model, node: ir.Node, condition: bool, *, keep_borders: bool = False
) -> None:
    """Put the nodes of one branch in the place of the If `node`; the outputs keep their names.

    Args:
        model: A hub.
        node: An If in one of its graphs.
        condition: Which branch.
        keep_borders: What the branch reads from outside comes through an Identity, as what it
            returns always does: a pass that fuses nodes does not see past it.
    """
    branch = branch_of(node, condition)
    graph = graph_of(node)
    names = NameSource(model)
    if keep_borders:
        _add_borders(branch, node, names)
    results = list(branch.outputs)
    branch.outputs.clear()
    for constant in list(branch.initializers.values()):
        branch.initializers.pop(constant.name or "")
        if constant.name in graph.initializers:
            constant.name = names.fresh(constant.name or "constant")
        graph.register_initializer(constant)
    nodes = list(branch)
    branch.remove(nodes)
    graph.insert_before(node, nodes)
    for output, result in zip(node.outputs, results, strict=False):
        name, is_named = output.name, bool(output.name)
        copy = ir.node("Identity", [result], name=names.fresh(f"{name or node.name}_of_branch"))
        (made,) = copy.outputs
        made.type, made.shape = output.type, output.shape
        graph.insert_before(node, copy)
        output.replace_all_uses_with(made, replace_graph_outputs=True)
        output.name = None
        made.name = name if is_named else names.fresh(f"{copy.name}_output")
    graph.remove(node, safe=True)


def _add_borders(branch: ir.Graph, node: ir.Node, names: NameSource) -> None:
    inside = set(branch.all_nodes())
    for value in captured_values(branch):
        if value.is_initializer() and not value.is_graph_input():
            continue
        uses = [use for use in value.uses() if use.node in inside]
        border = ir.node("Identity", [value], name=names.fresh(f"{value.name}_in_branch"))
        (seen,) = border.outputs
        seen.name, seen.type, seen.shape = border.name, value.type, value.shape
        graph_of(node).insert_before(node, border)
        for use in uses:
            use.node.replace_input_with(use.idx, seen)
