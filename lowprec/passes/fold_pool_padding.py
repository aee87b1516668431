"""Let a pool pad with zeros itself.

    x ──► Pad(p, 0) ──► AveragePool ──► y   becomes   x ──► AveragePool(pads=p, counted) ──► y
    x ──► Relu ──► Pad(p, 0) ──► MaxPool ──► y   becomes   x ──► Relu ──► MaxPool(pads=p) ──► y

A MaxPool's own padding never wins. Where nothing is below zero, zeros win only where nothing else
is in the window, which no window is: the padding is narrower than the kernel. An AveragePool must
not have padding of its own that it leaves out of its counts.
"""

from __future__ import annotations

import onnx_ir as ir

from lowprec.passes.fold_padding import spatial_zeros
from lowprec.passes.matching import constant_scalar, is_operator, sole_consumer, walk_nodes
from lowprec.passes.own import int_list

_NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax", "Abs", "Exp")


def fold_pool_padding(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for pool in walk_nodes(model):
        if not is_operator(pool, "MaxPool", "AveragePool") or pool.inputs[0] is None:
            continue
        pad = pool.inputs[0].producer()
        kernel = int_list(pool, "kernel_shape")
        if pad is None or not kernel or sole_consumer(pad.outputs[0]) is not pool:
            continue
        added = spatial_zeros(pad, len(kernel) + 2)
        if added is None or not _can_pad(pool, pad):
            continue
        own = int_list(pool, "pads") or [0] * len(added)
        if own != [0] * len(added) and not pool.attributes.get_int("count_include_pad", 0):
            continue
        pads = [a + b for a, b in zip(own, added, strict=True)]
        if any(pad >= size for pad, size in zip(pads, kernel * 2, strict=True)):
            continue
        pool.attributes["pads"] = ir.AttrInt64s("pads", pads)
        pool.attributes.pop("auto_pad", None)
        if is_operator(pool, "AveragePool"):
            pool.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
        pool.replace_input_with(0, pad.inputs[0])
        changed = True
    return changed


def _can_pad(pool: ir.Node, pad: ir.Node) -> bool:
    if pool.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    if pool.attributes.get_int("ceil_mode", 0) != 0:
        return False
    if any(step != 1 for step in int_list(pool, "dilations") or []):
        return False
    if is_operator(pool, "AveragePool"):
        return True
    if any(mask.uses() or mask.is_graph_output() for mask in pool.outputs[1:]):
        return False
    return _never_negative(pad.inputs[0])


def _never_negative(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    if node is None:
        return False
    if is_operator(node, "Clip"):
        least = constant_scalar(node.inputs[1]) if len(node.inputs) > 1 else None
        return least is not None and least >= 0
    return is_operator(node, *_NEVER_NEGATIVE)
