"""Which parts of a graph are ours: what TensorFlow goes on running, and what lies between.

A stage is all that is on one side and can run at once; stages alternate between TensorFlow and us.
A node's stage is one more than that of any node of the other side that it depends on, so that no
stage needs anything of a later one. Constants and variables belong to whoever reads them.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from lowprec.adapters.tensorflow.nodes import Graph, Node, Tensor

# What is worth a part of its own.
_HEAVY = frozenset(
    {
        *("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Conv2D", "Conv2DBackpropInput"),
        *("Conv3D", "Conv3DBackpropInputV2", "DepthwiseConv2dNative", "Einsum", "MatMul"),
    }
)


@dataclass(frozen=True)
class Stage:
    """What runs at once on one side.

    Attributes:
        ours: Whether it runs on lowprec.
        nodes: Names; constants that it reads are left out.
        inputs: Tensors of earlier stages, or of the graph's inputs.
        outputs: What later stages read, and the graph's outputs.
    """

    ours: bool
    nodes: frozenset[str]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def stages(
    graph: Graph,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    held: Container[Tensor],
    theirs: Container[str],
) -> list[Stage]:
    """Return the stages of a graph, in an order in which they can run.

    Args:
        graph: Without calls of functions that hold nodes of both sides.
        inputs: Of the graph.
        outputs: Of the graph.
        held: Tensors that stand for variables, their handles or tables.
        theirs: Names of the nodes that TensorFlow keeps.
    """
    given = set(inputs)
    ordered = list(graph.ordered(outputs, given))
    neutral = _constants(ordered, given, held, theirs)
    level = _levels(ordered, neutral, given, theirs)
    ours = {number for number in level.values() if number % 2}
    for node in ordered:
        if level.get(node.name, 0) % 2 and node.op in _HEAVY:
            ours.discard(level[node.name])
    light = ours  # nothing in them is worth leaving TensorFlow for
    readers: dict[Tensor, set[int]] = {}
    for node in ordered:
        if node.name in level:
            for tensor in node.inputs:
                readers.setdefault(tensor, set()).add(level[node.name])
    found = []
    for number in sorted(set(level.values())):
        members = [node for node in ordered if level.get(node.name) == number]
        names = frozenset(node.name for node in members)
        reads = dict.fromkeys(
            tensor
            for node in members
            for tensor in node.inputs
            if tensor[0] not in names and tensor[0] not in neutral and tensor not in held
        )
        made = dict.fromkeys(
            tensor for tensor, by in readers.items() if tensor[0] in names and by - {number}
        )
        made.update(dict.fromkeys(tensor for tensor in outputs if tensor[0] in names))
        found.append(
            Stage(bool(number % 2) and number not in light, names, tuple(reads), tuple(made))
        )
    return found


def _constants(
    ordered: Sequence[Node],
    given: Container[Tensor],
    held: Container[Tensor],
    theirs: Container[str],
) -> set[str]:
    """Return the nodes that depend on no input."""
    found: set[str] = set()
    for node in ordered:
        if node.name in theirs and (node.name, 0) not in held:
            continue
        if all(
            tensor not in given and (tensor[0] in found or tensor in held) for tensor in node.inputs
        ):
            found.add(node.name)
    return found


def _levels(
    ordered: Sequence[Node],
    neutral: Container[str],
    given: Container[Tensor],
    theirs: Container[str],
) -> dict[str, int]:
    """Return the stage of each node: even numbers are TensorFlow's, odd ones ours."""
    level: dict[str, int] = {}
    for node in ordered:
        if node.name in neutral:
            continue
        side = 0 if node.name in theirs else 1
        number = side
        for tensor in node.inputs:
            if tensor in given or tensor[0] not in level:
                continue
            before = level[tensor[0]]
            number = max(number, before + (before % 2 != side))
        level[node.name] = number
    return level
