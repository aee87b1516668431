"""SpaceToBatchND and BatchToSpaceND: a dilated convolution in older graphs, or by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.operations.convolutions import CONVOLUTIONS, convolve
from lowprec.adapters.tensorflow.operations.images import Images, pads
from lowprec.adapters.tensorflow.operations.numbers import as_int64, vector
from lowprec.adapters.tensorflow.operations.sequences import expanded
from lowprec.adapters.tensorflow.operations.trials import TRIED, with_sizes
from lowprec.adapters.tensorflow.translator import Array, Translator, translates
from lowprec.errors import ModelError


@translates("SpaceToBatchND")
def _space_to_batch(translator: Translator, node: Node) -> ir.Value:
    block = _block(translator, node)
    spatial = len(block)
    rest = translator.rank(node, 0) - spatial - 1
    known = translator.known(node, 2)
    value = translator.value(node, 0)
    if known is None:
        amounts = translator.value(node, 2)
        amounts = translator.emit(
            "Cast", [amounts], {"to": int(ir.DataType.INT64)}, name=f"{node.name}/paddings"
        )
        turned = translator.emit(
            "Transpose", [amounts], {"perm": [1, 0]}, name=f"{node.name}/turned"
        )
        none = translator.new_constant(np.zeros((2, 1), np.int64))
        nothing = translator.new_constant(np.zeros((2, rest), np.int64))
        both = translator.emit(
            "Concat", [none, turned, nothing], {"axis": 1}, name=f"{node.name}/all"
        )
        amounts = translator.emit(
            "Reshape", [both, vector(translator, [-1], "flat")], name=f"{node.name}/pads"
        )
    else:
        pairs = np.concatenate([np.zeros((1, 2)), known.reshape(-1, 2), np.zeros((rest, 2))])
        amounts = translator.new_constant(pairs.T.reshape(-1).astype(np.int64), f"{node.name}/pads")
    value = translator.emit("Pad", [value, amounts], name=f"{node.name}/padded")
    sizes = _sizes(translator, value, spatial + rest + 1, node.name)
    parts: list[ir.Value] = [sizes[0]]
    for size, step in zip(sizes[1:], block, strict=False):
        by = vector(translator, [step], f"{node.name}/step")
        parts += [translator.emit("Div", [size, by], name=f"{node.name}/part"), by]
    cut = _reshaped(translator, value, [*parts, *sizes[1 + spatial :]], f"{node.name}/cut")
    within = range(2, 2 + 2 * spatial, 2)
    perm = [
        *within,
        0,
        *(axis - 1 for axis in within),
        *range(1 + 2 * spatial, 1 + 2 * spatial + rest),
    ]
    moved = translator.emit("Transpose", [cut], {"perm": perm}, name=f"{node.name}/moved")
    joined = [vector(translator, [-1], f"{node.name}/batch"), *parts[1::2], *sizes[1 + spatial :]]
    return _reshaped(translator, moved, joined, node.name)


@translates("BatchToSpaceND")
def _batch_to_space(translator: Translator, node: Node) -> ir.Value:
    found = _dilated(translator, node)
    if found is not None:
        return found
    block = _block(translator, node)
    spatial = len(block)
    rank = translator.rank(node, 0)
    value = translator.value(node, 0)
    sizes = _sizes(translator, value, rank, node.name)
    steps = [vector(translator, [step], f"{node.name}/step") for step in block]
    batch = vector(translator, [-1], f"{node.name}/batch")
    cut = _reshaped(translator, value, [*steps, batch, *sizes[1:]], f"{node.name}/cut")
    perm = [spatial]
    for axis in range(spatial):
        perm += [spatial + 1 + axis, axis]
    perm += range(2 * spatial + 1, spatial + rank)
    moved = translator.emit("Transpose", [cut], {"perm": perm}, name=f"{node.name}/moved")
    joined = [
        translator.emit("Mul", [size, step], name=f"{node.name}/whole")
        for size, step in zip(sizes[1:], steps, strict=False)
    ]
    whole = _reshaped(
        translator, moved, [batch, *joined, *sizes[1 + spatial :]], f"{node.name}/joined"
    )
    crops = as_int64(translator, node, 2)
    first, last = (
        translator.emit(
            "Gather",
            [crops, translator.new_constant(np.asarray(side, np.int64))],
            {"axis": 1},
            name=f"{node.name}/crops",
        )
        for side in (0, 1)
    )
    length = translator.emit("Concat", joined, {"axis": 0}, name=f"{node.name}/lengths")
    end = translator.emit("Sub", [length, last], name=f"{node.name}/ends")
    axes = vector(translator, range(1, spatial + 1), f"{node.name}/axes")
    return translator.emit("Slice", [whole, first, end, axes], name=node.name)


def _dilated(translator: Translator, node: Node) -> ir.Value | None:
    """Return a dilated convolution for one between SpaceToBatchND and this node."""
    nodes = translator.graph.nodes
    before = nodes.get(node.inputs[0][0])
    squeezed = None
    if before is not None and before.op == "Squeeze":
        axes = before.attributes.get("squeeze_dims") or []
        squeezed = axes[0] % 4 if len(axes) == 1 else None
        before = nodes.get(before.inputs[0][0])
    if before is None or before.op not in CONVOLUTIONS or before.attributes["padding"] != "VALID":
        return None
    plain = Images(before, 5 if before.op == "Conv3D" else 4)
    once = {*plain.sizes("strides"), *plain.sizes("dilations")} == {1}
    if not once or not plain.last:
        return None
    left_out = None
    source = before.inputs[0]
    if squeezed is not None:
        expand = nodes.get(source[0])
        if expanded(translator, source, squeezed) is None or expand is None:
            return None
        left_out, source = plain.positions.index(squeezed), expand.inputs[0]
    spread = nodes.get(source[0])
    if spread is None or spread.op != "SpaceToBatchND":
        return None
    block = _block(translator, node)
    if block != _block(translator, spread):
        return None
    images = Images(before, 5 if before.op == "Conv3D" else 4, left_out)
    around = _around(translator, spread, node)
    if around is None or images.spatial != len(block) or (around < 0).any():
        return None
    value = translator.value(spread, 0)
    return convolve(translator, images, value, block, pads(around))


def _around(translator: Translator, spread: Node, joined: Node) -> Array | None:
    """Return what is padded and not cropped again, where it is the same for any size."""
    paddings, crops = translator.known(spread, 2), translator.known(joined, 2)
    if paddings is not None and crops is not None:
        return np.asarray(paddings.reshape(-1, 2) - crops.reshape(-1, 2))
    found: list[Array] = []
    for sizes in TRIED:
        pair = with_sizes(translator, sizes, [spread.inputs[2], joined.inputs[2]])
        if pair is None:
            return None
        found.append(np.asarray(pair[0].reshape(-1, 2) - pair[1].reshape(-1, 2)))
    return found[0] if all(np.array_equal(found[0], other) for other in found) else None


def _block(translator: Translator, node: Node) -> list[int]:
    block = [int(size) for size in translator.constant(node, 1).reshape(-1)]
    if not block or any(size < 1 for size in block):
        raise ModelError(f"node '{node.name}' ({node.op}) has blocks of {block}")
    return block


def _sizes(translator: Translator, value: ir.Value, rank: int, name: str) -> list[ir.Value]:
    return [
        translator.emit("Shape", [value], {"start": axis, "end": axis + 1}, name=f"{name}/size")
        for axis in range(rank)
    ]


def _reshaped(translator: Translator, value: ir.Value, sizes: list[Any], name: str) -> ir.Value:
    shape = translator.emit("Concat", sizes, {"axis": 0}, name=f"{name}/shape")
    return translator.emit("Reshape", [value, shape], name=name)
