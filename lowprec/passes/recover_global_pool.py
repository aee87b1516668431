"""Write the mean over the spatial axes of images as the GlobalAveragePool that it is.

    x ──► ReduceMean(2, 3) ──► y              becomes   x ──► GlobalAveragePool ──► y
    x ──► ReduceMean(2, 3; no axes) ──► y     becomes   x ──► GlobalAveragePool ──► Flatten ──► y

Exporters of PyTorch and Keras write global pooling so; pools have forms on codes and on bf16. Only
of images and volumes, (N, C, H, W) and (N, C, D, H, W): a mean over the last of three axes is a
normalisation's, mostly. So is, of any rank, a mean that is subtracted from something: it stays.
"""

from __future__ import annotations

import onnx_ir as ir

from lowprec.passes.matching import (
    NameSource,
    constant_array,
    insert_operator,
    is_operator,
    rank_of,
    walk_nodes,
)

_RANKS = (4, 5)


def recover_global_pool(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    names = NameSource(model)
    changed = False
    for node in walk_nodes(model):
        if not _is_spatial_mean(node):
            continue
        keeps_axes = node.attributes.get_int("keepdims", 1) == 1
        node.resize_inputs(1)
        node.attributes.clear()
        changed = True
        if keeps_axes:
            node.op_type = "GlobalAveragePool"
            continue
        (flat,) = node.outputs
        name = names.fresh(f"{flat.name}_pooled")
        pooled = insert_operator(node, "GlobalAveragePool", [node.inputs[0]], like=flat, name=name)
        pooled.shape = None
        pool = pooled.producer()
        assert pool is not None
        node.name, pool.name = name, node.name  # rules mean the pool
        node.op_type = "Flatten"
        node.attributes["axis"] = ir.AttrInt64("axis", 1)
        node.replace_input_with(0, pooled)
    return changed


def _is_spatial_mean(node: ir.Node) -> bool:
    if not is_operator(node, "ReduceMean"):
        return False
    source, (output,) = node.inputs[0], node.outputs
    rank = rank_of(source)
    if (
        source is None
        or rank not in _RANKS
        or ir.DataType.FLOAT not in (source.dtype, output.dtype)
    ):
        return False
    if _axes_of(node, rank) != [*range(2, rank)]:
        return False
    return not any(is_operator(use.node, "Sub") for use in output.uses())


def _axes_of(node: ir.Node, rank: int) -> list[int]:
    """Return the axes in order, counted from the front; none where they are not constant."""
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        array = constant_array(node.inputs[1])
        given = [] if array is None else [int(axis) for axis in array.reshape(-1)]
    else:
        given = list(node.attributes.get_ints("axes", ()))
    return sorted(axis % rank for axis in given)
