"""Remove nodes that hand their input on unchanged.

    x ──► Identity ──► y                                becomes    x == y
    x ──► Dropout (inference) ──► y                     becomes    x == y
    x ──► Cast(to = x's own type) ──► y                 becomes    x == y
    x ──► Mul(1) or Div(1) ──► y                        becomes    x == y

A Dropout counts as inference when `training_mode` is absent or a constant false and its mask is not
read. A Cast counts only when the element type of its input is known. The 1 is a scalar without
axes, which leaves the shape alone (TensorFlow's silu is x * sigmoid(1 * x)). A graph output that is
a graph input, an initializer or another graph output under a second name keeps its node: outputs
keep their names, and a subgraph must produce what it returns.
"""

from __future__ import annotations

import onnx_ir as ir

from lowprec.passes.matching import constant_array, is_operator, replace_output, walk_nodes


def remove_identity(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in walk_nodes(model):
        if not node.inputs or node.inputs[0] is None:
            continue
        source: ir.Value | None = node.inputs[0]
        if not (_is_identity(node) or _is_idle_dropout(node) or _is_idle_cast(node)):
            source = _times_one(node)
        if source is None:
            continue
        if len(node.outputs) > 1:
            node.resize_outputs(1)
        changed |= replace_output(node, source)
    return changed


def _is_identity(node: ir.Node) -> bool:
    return is_operator(node, "Identity")


def _is_idle_dropout(node: ir.Node) -> bool:
    if not is_operator(node, "Dropout"):
        return False
    if any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:]):
        return False
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    training = constant_array(node.inputs[2])
    return training is not None and not bool(training.any())


def _is_idle_cast(node: ir.Node) -> bool:
    if not is_operator(node, "Cast"):
        return False
    source = node.inputs[0]
    assert source is not None
    return source.dtype is not None and int(source.dtype) == node.attributes.get_int("to", 0)


def _times_one(node: ir.Node) -> ir.Value | None:
    """Return what a Mul or Div by one scalar 1 leaves as it is."""
    if not is_operator(node, "Mul", "Div"):
        return None
    for index in (1, 0) if node.op_type == "Mul" else (1,):
        array = constant_array(node.inputs[index])
        if array is not None and array.ndim == 0 and array == 1:
            return node.inputs[1 - index]
    return None
