"""The order in which the simplifying passes run.

What stays is a plain ONNX model: no operator of our own, the same inputs and outputs, and output
values equal up to the rounding of folded constants.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    RemoveUnusedNodesPass,
    ShapeInferencePass,
    TopologicalSortPass,
)

from lowprec.graph.silence import silent_onnx_ir
from lowprec.passes.expand_einsum import expand_einsum
from lowprec.passes.extend_batch_norm import extend_batch_norm
from lowprec.passes.fold_affine import fold_affine
from lowprec.passes.fold_batch_norm import fold_batch_norm
from lowprec.passes.fold_constants import fold_constants
from lowprec.passes.fold_padding import fold_padding
from lowprec.passes.fold_pool_padding import fold_pool_padding
from lowprec.passes.inline_branches import fold_branches
from lowprec.passes.move_bias import move_bias
from lowprec.passes.recover_attention import recover_attention
from lowprec.passes.recover_gelu import recover_gelu
from lowprec.passes.recover_global_pool import recover_global_pool
from lowprec.passes.recover_hard_sigmoid import recover_hard_sigmoid
from lowprec.passes.recover_hard_swish import recover_hard_swish
from lowprec.passes.recover_layer_norm import recover_layer_norm
from lowprec.passes.remove_identity import remove_identity
from lowprec.passes.replace_sum import replace_sum

MAX_ROUNDS = 10
_SMALL_CONSTANT = 1024  # elements; larger ones are weights: comparing them is not worth the time


def eliminate_dead_nodes(model: ir.Model) -> bool:
    """Remove nodes and initializers that no output depends on; return whether anything changed."""
    changed = bool(RemoveUnusedNodesPass()(model).modified)
    for graph in model.graph.subgraphs():  # onnx_ir leaves the constants of bodies
        for name, value in list(graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del graph.initializers[name]
                changed = True
    return changed


def deduplicate_initializers(model: ir.Model) -> bool:
    """Let equal small constants be one; return whether anything changed."""
    return bool(DeduplicateInitializersPass(size_limit=_SMALL_CONSTANT)(model).modified)


def eliminate_common_subexpressions(model: ir.Model) -> bool:
    """Let equal operators on equal inputs be one; return whether anything changed."""
    return bool(CommonSubexpressionEliminationPass()(model).modified)


# Constants first, so that the patterns see them; equal subexpressions are merged before patterns
# that ask for a sole reader (an exporter that writes x - mean twice). Recovering comes before
# folding affine chains: `x * 6` after a layer must not swallow the constants that make a pattern
# recognisable.
PASSES: tuple[Callable[[ir.Model], bool], ...] = (
    replace_sum,
    expand_einsum,
    remove_identity,
    fold_constants,
    fold_branches,
    deduplicate_initializers,
    eliminate_common_subexpressions,
    eliminate_dead_nodes,
    move_bias,
    recover_attention,
    recover_layer_norm,
    recover_gelu,
    recover_hard_sigmoid,
    recover_hard_swish,
    recover_global_pool,
    fold_padding,
    fold_pool_padding,
    fold_batch_norm,
    fold_affine,
    extend_batch_norm,
    eliminate_dead_nodes,
)


def simplify(model: ir.Model) -> None:
    """Rewrite `model` in place until no pass of `PASSES` changes it, at most `MAX_ROUNDS` rounds.

    Deterministic: the same model gives the same model. Model metadata, input and output names are
    kept.
    """
    with silent_onnx_ir():
        _run_passes(model)
    _forget_types(model)
    TopologicalSortPass()(model)


def _run_passes(model: ir.Model) -> None:
    infer = ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)
    for _ in range(MAX_ROUNDS):
        infer(model)
        changed = False
        for rewrite in PASSES:
            changed |= rewrite(model)
        if not changed:
            break


def _forget_types(model: ir.Model) -> None:
    """Clear what was inferred of intermediate values.

    Shapes follow from declared ones, which may be wrong; the passes ask only for ranks, which the
    engine checks at the door, and for element types. And onnx_ir takes an inferred sequence of
    tensors for a tensor.
    """
    for node in model.graph.all_nodes():
        for output in node.outputs:
            if not output.is_graph_output():
                output.type = None
                output.shape = None
