"""Write a Sum of two values as the Add that it is.

    Sum(x, y) ──► z        becomes    Add(x, y) ──► z
    Sum(x) ──► z           becomes    Identity(x) ──► z

Old exporters write residual connections as Sum, and everything after this pass looks for Add. A Sum
of three or more values stays: Add would fix an order of additions that Sum leaves open.
"""

from __future__ import annotations

import onnx_ir as ir

from lowprec.passes.matching import is_operator, walk_nodes


def replace_sum(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for node in walk_nodes(model):
        if is_operator(node, "Sum") and len(node.inputs) <= 2 and None not in node.inputs:
            node.op_type = "Add" if len(node.inputs) == 2 else "Identity"
            changed = True
    return changed
