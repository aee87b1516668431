"""Recover the channel shuffle of ShuffleNet (Zhang et al. 2018, arXiv:1707.01083, section 3.1).

x [N, C, H, W] ──► Reshape [N, g, C/g, H, W] ──► Transpose 0 2 1 3 4 ──► Reshape [N, C, H, W] ──► y

becomes x ──► ChannelShuffle(groups=g) ──► y, which needs no change of layout.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.passes.matching import constant_array, graph_of, is_operator, sole_consumer
from lowprec.passes.own import insert_own, int_list


def recover_channel_shuffle(model: ir.Model, keep: Container[str]) -> bool:
    """Rewrite `model` in place; return whether anything changed."""
    changed = False
    for split in list(model.graph):
        if not is_operator(split, "Reshape") or split.outputs[0].name in keep:
            continue
        turn = sole_consumer(split.outputs[0])
        if turn is None or not is_operator(turn, "Transpose") or turn.outputs[0].name in keep:
            continue
        join = sole_consumer(turn.outputs[0])
        source = split.inputs[0]
        if join is None or not is_operator(join, "Reshape") or source is None:
            continue
        sizes = _image_sizes(source)
        parts, whole = constant_array(split.inputs[1]), constant_array(join.inputs[1])
        if sizes is None or parts is None or whole is None:
            continue
        channels, *spatial = sizes
        groups = int(parts[1]) if parts.size == len(sizes) + 2 else 0
        axes = [0, 2, 1, *range(3, 3 + len(spatial))]
        if (
            groups < 1
            or list(parts[1:]) != [groups, channels // groups, *spatial]
            or groups * (channels // groups) != channels
            or list(whole[1:]) != sizes
            or _images(parts) != _images(whole)
            or int_list(turn, "perm") != axes
            or any(node.attributes.get_int("allowzero", 0) for node in (split, join))
        ):
            continue
        insert_own(
            join,
            "ChannelShuffle",
            [source],
            join.outputs,
            {"groups": groups, "sizes": sizes},
            name=split.name,
        )
        graph_of(join).remove([join, turn, split], safe=True)
        changed = True
    return changed


def _image_sizes(value: ir.Value) -> list[int] | None:
    """Return [C, spatial...] where the graph says them as numbers."""
    if value.shape is None or len(value.shape) not in (3, 4):
        return None
    sizes = [size for size in value.shape[1:] if isinstance(size, int)]
    return sizes if len(sizes) == len(value.shape) - 1 else None


def _images(shape: NDArray[np.generic]) -> int:
    """Return how many images a Reshape asks for; 0, or -1 beside known sizes: as many as before."""
    return max(int(shape[0]), 0)
