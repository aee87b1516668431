"""From the fused hub to segments: what runs natively in one call, and what does not.

    node node node | If | node node | node        |: a cut
    ──── program ── fall-back ─ program ─ program

A cut is made around a node without a native kernel, and before a node that must know a tensor's
*contents* to know a shape (Reshape, Slice, ...) when those contents are only known at run time.
Contents that follow from input shapes alone (Shape, Gather, Concat ...) need no cut: plans fold
them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from lowprec._ext import _core
from lowprec.engine.nested import is_control_flow, why_not_compiled

OWN_DOMAIN = "ai.lowprec"
NATIVE_DOMAINS = ("", "ai.onnx", OWN_DOMAIN)

# Operands whose contents a plan needs, by operator: they decide a shape or a kernel's constants.
CONTENTS_NEEDED: Mapping[str, tuple[int, ...]] = {
    "Col2Im": (1, 2),
    "Compress": (1,),
    "ConstantOfShape": (0,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (2,),
    "Expand": (1,),
    "MaxUnpool": (2,),
    "NonMaxSuppression": (0, 1, 2, 3, 4),
    "NonZero": (0,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "ReduceL1": (1,),
    "ReduceL2": (1,),
    "ReduceLogSum": (1,),
    "ReduceLogSumExp": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceMin": (1,),
    "ReduceProd": (1,),
    "ReduceSum": (1,),
    "ReduceSumSquare": (1,),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unique": (0,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
}
# Operators whose results' shapes follow from such contents: what comes after them is planned for
# shapes again, not for the contents of whole tensors.
DATA_SHAPED = ("Compress", "NonMaxSuppression", "NonZero", "Unique")
# Outputs that follow from the shape of the operand, whatever it holds.
SHAPE_READERS = ("Shape", "Size")


class OwnOperatorRefused(Exception):
    """A fused operator has no kernel for some shape: the unfused graph runs instead."""


@dataclass
class NativeSegment:
    """Nodes that run in one call.

    Attributes:
        inputs: Names of the values it is fed with, in order.
        keyed: Those inputs whose contents are part of what a plan is made for.
        outputs: Names of the values that others read.
    """

    nodes: list[ir.Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    keyed: set[str] = field(default_factory=set)
    outputs: list[str] = field(default_factory=list)


@dataclass
class FallbackSegment:
    """One node that runs through ONNX's reference implementation; `why` no kernel of ours does."""

    node: ir.Node
    inputs: list[str]
    outputs: list[str]
    why: str


@dataclass
class ControlSegment:
    """An If, Loop or Scan whose bodies run on our kernels (control_flow.py)."""

    node: ir.Node
    inputs: list[str]
    outputs: list[str]


Segment = NativeSegment | FallbackSegment | ControlSegment


def lower_graph(model: ir.Model, fallbacks: Mapping[str, str] | None = None) -> list[Segment]:
    """Cut the graph of `model` into segments, in execution order.

    Args:
        model: Fused hub, sorted topologically.
        fallbacks: Nodes that turned out not to be native for the shapes at hand -> why.

    Raises:
        OwnOperatorRefused: a fused operator is not native for the shapes at hand.
    """
    native, held = set(_core.native_operators()), _core.held_dtypes()
    forced = fallbacks or {}
    graph = model.graph
    # What follows from shapes alone -> what of earlier segments it is worked out from.
    known: dict[str, frozenset[str]] = {}
    segments: list[Segment] = []
    current = NativeSegment()
    made_here: set[str] = set()

    def cut() -> None:
        nonlocal current, made_here
        if current.nodes:
            segments.append(current)
        current, made_here = NativeSegment(), set()

    def roots(value: ir.Value | None) -> frozenset[str]:
        """Return whose contents the current segment must be planned for, to know `value`'s."""
        if value is None or is_constant(value):
            return frozenset()
        name = value.name or ""
        return known[name] if name in made_here else frozenset([name])

    for node in graph:
        why = why_not_native(node, native, held, forced)
        if is_control_flow(node):
            why = forced.get(node.name or "") or why_not_compiled(node)
            if why is None:
                cut()
                segments.append(ControlSegment(node, _captured(node), _names(node.outputs)))
                continue
        if why is not None:
            if node.domain == OWN_DOMAIN:
                raise OwnOperatorRefused(f"node '{node.name}': {node.op_type} is not native")
            cut()
            segments.append(FallbackSegment(node, _captured(node), _names(node.outputs), why))
            continue
        needed = [
            node.inputs[index]
            for index in CONTENTS_NEEDED.get(node.op_type, ())
            if index < len(node.inputs)
        ]
        if any(v and v.name in made_here and v.name not in known for v in needed):
            cut()
        for value in needed:
            current.keyed.update(roots(value))
        current.nodes.append(node)
        if node.op_type in SHAPE_READERS:
            known.update(dict.fromkeys(_names(node.outputs), frozenset()))
        elif all(
            value is None or is_constant(value) or (value.name or "") in known
            for value in node.inputs
        ):
            read = frozenset(root for value in node.inputs for root in roots(value))
            known.update(dict.fromkeys(_names(node.outputs), read))
        made_here.update(_names(node.outputs))
        if node.op_type in DATA_SHAPED:
            cut()
    cut()
    _connect(graph, segments)
    return segments


def is_constant(value: ir.Value) -> bool:
    """Return whether `value` is an initializer that no input overrides."""
    return value.is_initializer() and not value.is_graph_input()


def why_not_native(
    node: ir.Node, native: Container[str], held: Container[int], forced: Mapping[str, str]
) -> str | None:
    """Return why `node` does not run on our kernels, whatever the shapes; None where it may.

    Args:
        node: Of the fused hub.
        native: Operators that have a kernel.
        held: ONNX's numbers of the element types that the engine holds.
        forced: Names of nodes that turned out not to be native -> why.
    """
    if node.domain not in NATIVE_DOMAINS or node.op_type not in native:
        return "no native kernel"
    if (node.name or "") in forced:
        return forced[node.name or ""]
    if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
        return "it holds a graph"
    for value in (*node.inputs, *node.outputs):
        if value is None or value.type is None:
            continue
        if not isinstance(value.type, ir.TensorType):
            return f"'{value.name}' is no tensor"
        if int(value.type.dtype) not in held:
            return f"element type {value.type.dtype.name} of '{value.name}'"
    return None


def _names(values: Iterable[ir.Value | None]) -> list[str]:
    return [value.name for value in values if value is not None and value.name]


def _captured(node: ir.Node) -> list[str]:
    """Return the names that `node` reads, also inside its subgraphs."""
    names = dict.fromkeys(_names(node.inputs))
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            subgraphs = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            subgraphs = list(attribute.as_graphs())
        else:
            continue
        for subgraph in subgraphs:
            inner: set[str] = set(_names(subgraph.inputs)) | set(subgraph.initializers)
            for child in subgraph:
                names.update(dict.fromkeys(n for n in _captured(child) if n not in inner))
                inner.update(_names(child.outputs))
            names.update(dict.fromkeys(n for n in _names(subgraph.outputs) if n not in inner))
    return list(names)


def _connect(graph: ir.Graph, segments: list[Segment]) -> None:
    """Work out what every native segment is fed with and what others read of it."""
    wanted = set(_names(graph.outputs))
    for segment in reversed(segments):
        if not isinstance(segment, NativeSegment):
            wanted.update(segment.inputs)
            continue
        made = [name for node in segment.nodes for name in _names(node.outputs)]
        made_set = set(made)
        read = {
            value.name: None
            for node in segment.nodes
            for value in node.inputs
            if value is not None and value.name and not is_constant(value)
        }
        segment.inputs = [name for name in read if name is not None and name not in made_set]
        segment.outputs = [name for name in made if name in wanted]
        wanted.update(segment.inputs)
