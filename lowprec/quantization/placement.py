"""Where the quantised tensors are: the policy, as a plan that touches nothing.

    x ──► Q ──► DQ ──► Conv ──► HardSwish ──► Q ──► DQ ──► Conv ──► ...

1. Activations are quantised at the *inputs* of int8 layers. The activation function between two
   layers therefore runs on the f32 result of the first one, in its epilogue, and nothing is rounded
   to eight bits twice. A tensor with several int8 readers has one Q/DQ pair.
2. What only moves or orders data (MaxPool, Reshape, Flatten, Squeeze, Unsqueeze, Transpose, Slice;
   Relu and Clip of what is on codes already) runs on codes when all readers of its result are
   quantised: the pair moves above it, and both sides share scale and zero point.
3. Add, Mul, Concat, AveragePool and GlobalAveragePool get their integer form, Q/DQ on all inputs
and
   on the output, when every input comes from an int8 layer and every reader of the output is
   quantised: the residual of a ResNet. Otherwise they stay float, and the record says why. (Of an
   Add, the input that a layer makes for it alone stays float: the layer adds the other one in its
   epilogue.) The
   integer form costs a second rounding, so what one layer's epilogue can compute (x * Sigmoid(x), a
   product with a constant) stays float in any case. Parts that only a Concat reads have its scale:
   they are rounded once.
4. Recurrent layers (LSTM, GRU, RNN) are int8 layers: X is quantised like any input, W and R are s8
   constants, and the state h has a scale of its own (`recurrent`).
5. The body of an If, Loop or Scan is a graph of its own: what it reads from outside is quantised
   inside of it.
6. A layer is left float when the config says so, when its weights are not constant, or when it is
   not worth it (`why_not_worth_it`; a rule of the config that asks for int8 overrides that), when
   its result goes through a logarithm (`logarithms`; overridden likewise), or when eight bits are
   too few for what it reads (`MIN_SQNR`, `MIN_DEPTHWISE_SQNR`; overridden likewise).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import onnx_ir as ir

from lowprec.calibration.ranges import Range
from lowprec.passes.fuse_integer_recurrent import RECURRENT_TYPES
from lowprec.passes.layers import LAYER_TYPES, Layer, find_layer
from lowprec.passes.matching import constant_array, is_operator
from lowprec.quantization.logarithms import why_logarithm
from lowprec.quantization.macs import Shape, count_macs
from lowprec.quantization.recurrent import why_not_recurrent

if TYPE_CHECKING:
    from lowprec.config import Config

ELEMENTWISE_TYPES = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool")
DATA_MOVING_TYPES = (
    "MaxPool",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Slice",
)
CLAMPING_TYPES = ("Relu", "Clip")
# Float functions of one value that an int8 layer computes in its epilogue.
UNARY_TYPES = (
    *CLAMPING_TYPES,
    "Elu",
    "Erf",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "Sigmoid",
    "Softplus",
    "Tanh",
)
# Readers of a tensor's shape: they do not care about its values.
_SHAPE_READERS = ("Shape", "Size")

MIN_DEPTH = 4
"""Multiply-adds per output element below which quantising costs more than it saves."""
MIN_MACS = 100_000
"""A layer with fewer multiply-adds per run stays float..."""
MIN_SHARE = 0.01
"""...unless it is at least this share of its model."""
MIN_SQNR = 10.0
"""Expected dB of an activation's codes below which no layer reads them."""
MIN_DEPTHWISE_SQNR = 30.0
"""The same for depthwise layers. A layer over many channels averages their noise; a depthwise one
has nine or 25 terms of one channel, and a channel that uses a small part of the common range keeps
few codes. Such layers hold few multiply-adds. PP-OCR rec, measured: four of 43 layers, 2 % of the
multiply-adds, make half of the noise in the result and cost 5 % of the time in float."""

NEVER_SEEN = "calibration never saw its input"
"""Start of the reason of a node that no sample reached."""


@dataclass
class Placement:
    """The plan.

    Attributes:
        layers: Layers that become int8, in graph order.
        recurrent: Recurrent layers that become int8, in graph order.
        elementwise: Nodes that get their integer form.
        summed: Of those, the Adds that run in the epilogue of a layer -> the input that it makes:
            it stays float, and is rounded once, after the sum.
        moved: Data-moving nodes that run on codes.
        tensors: Values that get a Q/DQ pair, in graph order; readers other than the nodes above
        keep
            the float value.
        groups: Name of a tensor -> name of the tensor whose scale and zero point it shares.
        reasons: Node -> why it is float.
        macs: Node -> multiply-adds, None when not known.
    """

    layers: dict[ir.Node, Layer] = field(default_factory=dict)
    recurrent: list[ir.Node] = field(default_factory=list)
    elementwise: set[ir.Node] = field(default_factory=set)
    summed: dict[ir.Node, int] = field(default_factory=dict)
    moved: set[ir.Node] = field(default_factory=set)
    tensors: list[ir.Value] = field(default_factory=list)
    groups: dict[ir.Value, ir.Value] = field(default_factory=dict)
    reasons: dict[ir.Node, str] = field(default_factory=dict)
    macs: dict[ir.Node, int | None] = field(default_factory=dict)

    @property
    def never_ran(self) -> bool:
        """Whether no sample reached the graph: a branch that calibration never took."""
        seen = self.layers or self.recurrent
        return not seen and any(why.startswith(NEVER_SEEN) for why in self.reasons.values())

    def reads_codes(self, node: ir.Node, index: int) -> bool:
        """Return whether `node` reads its input `index` through a Q/DQ pair."""
        if node in self.layers or node in self.recurrent:
            return index == 0
        if node in self.elementwise:
            return self.summed.get(node) != index
        return index == 0 and node in self.moved


def plan_placement(
    graph: ir.Graph,
    config: Config,
    *,
    shapes: Mapping[str, Shape] | None = None,
    ranges: Mapping[str, Range] | None = None,
) -> Placement:
    """Return what will be quantised in `graph`, which is not changed.

    Args:
        graph: Of a simplified float hub: its main graph, or the body of an If, Loop or Scan.
        config: Its `layers` rules exclude nodes.
        shapes: Concrete shapes by value name (see `concrete_shapes`); without them no layer is left
            float for being small.
        ranges: By value name; None before calibration, when every value counts as good.
    """
    plan = Placement()
    for node in graph:
        plan.macs[node] = None if shapes is None else count_macs(node, shapes)
    total = sum(macs or 0 for macs in plan.macs.values())
    for node in graph:
        if node.op_type not in LAYER_TYPES or not is_operator(node, *LAYER_TYPES):
            continue
        layer = find_layer(node)
        reason = excluded_by(node, config)
        if reason is None and isinstance(layer, str):
            reason = layer
        asked_for = config.layer_precision(node.name or "", node.op_type) == "int8"
        if reason is None and isinstance(layer, Layer) and not asked_for:
            reason = why_not_worth_it(layer, plan.macs[node], total) or why_logarithm(node)
        if reason is None and constant_array(node.inputs[0]) is not None:
            reason = "a constant input"
        if reason is None:
            reason = _why_not_calibrated(node.inputs[:1], ranges)
        if reason is None and isinstance(layer, Layer) and not asked_for:
            reason = _why_too_coarse(layer, ranges)
        if reason is not None:
            plan.reasons[node] = reason
        elif isinstance(layer, Layer):
            plan.layers[node] = layer
    _plan_recurrent(graph, config, plan, ranges, None if shapes is None else total)
    _plan_elementwise(graph, config, plan, ranges)
    _plan_sums(graph, plan, shapes)
    _plan_tensors(graph, plan)
    return plan


def _plan_recurrent(
    graph: ir.Graph,
    config: Config,
    plan: Placement,
    ranges: Mapping[str, Range] | None,
    total: int | None,
) -> None:
    for node in graph:
        if not is_operator(node, *RECURRENT_TYPES):
            continue
        macs = plan.macs[node]
        reason = excluded_by(node, config) or why_not_recurrent(node)
        if reason is None and constant_array(node.inputs[0]) is not None:
            reason = "a constant input"
        if reason is None:
            reason = _why_not_calibrated(node.inputs[:1], ranges)
        if reason is None and config.layer_precision(node.name or "", node.op_type) != "int8":
            if macs is not None and macs < MIN_MACS and macs < MIN_SHARE * (total or 0):
                reason = f"not worth it: {macs:,} multiply-adds"
            else:
                reason = _why_noisy(node.inputs[0], ranges)
        if reason is None:
            plan.recurrent.append(node)
        else:
            plan.reasons[node] = reason


def excluded_by(node: ir.Node, config: Config) -> str | None:
    """Return the reason when a rule of the config keeps `node` in float, else None."""
    precision = wanted_precision(node, config)
    return None if precision == "int8" else f"excluded by the config: {precision}"


def wanted_precision(node: ir.Node, config: Config) -> str:
    """Return what the last matching rule, or else the whole configuration, asks for.

    "auto", before anybody has decided, counts as int8: that form needs the most to be known.
    """
    rule = config.layer_precision(node.name or "", node.op_type)
    precision = rule if rule is not None else config.precision
    return "int8" if precision == "auto" else precision


def why_not_worth_it(layer: Layer, macs: int | None, total: int) -> str | None:
    """Return the reason when int8 would not pay for `layer`, else None.

    Args:
        layer: A layer that could be quantised.
        macs: Its multiply-adds; None when not known (then only its depth counts).
        total: Multiply-adds of the whole graph.
    """
    depth = layer.weight_array.size // layer.channels
    if depth < MIN_DEPTH:
        return f"not worth it: {depth} multiply-adds per output"
    if macs is not None and macs < MIN_MACS and macs < MIN_SHARE * total:
        return f"not worth it: {macs:,} multiply-adds"
    return None


def is_depthwise(layer: Layer) -> bool:
    """Return whether each output channel of `layer` reads one input channel."""
    is_conv = layer.node.op_type == "Conv"
    return is_conv and layer.groups > 1 and layer.weight_array.shape[1] == 1


def _why_too_coarse(layer: Layer, ranges: Mapping[str, Range] | None) -> str | None:
    """Return the reason when eight bits would ruin what `layer` reads, else None."""
    source = layer.node.inputs[0]
    found = None if ranges is None or source is None else ranges.get(source.name or "")
    if found is None or found.sqnr is None:
        return None
    if found.sqnr < MIN_SQNR:
        return _why_noisy(source, ranges)
    if is_depthwise(layer) and found.sqnr < MIN_DEPTHWISE_SQNR:
        return (
            f"eight bits would leave its input {found.sqnr:.1f} dB above the noise, and a "
            "depthwise layer averages nothing"
        )
    return None


def _why_noisy(source: ir.Value | None, ranges: Mapping[str, Range] | None) -> str | None:
    found = None if ranges is None or source is None else ranges.get(source.name or "")
    if found is None or found.sqnr is None or found.sqnr >= MIN_SQNR:
        return None
    return f"eight bits would leave its input {found.sqnr:.1f} dB above the noise"


def readers_of(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """Return who reads the numbers in `value`: (node, input index), shape readers left out."""
    return [
        (use.node, use.idx) for use in value.uses() if not is_operator(use.node, *_SHAPE_READERS)
    ]


# --- the integer form of element-wise operators
# -----------------------------------------------------


def _plan_elementwise(
    graph: ir.Graph, config: Config, plan: Placement, ranges: Mapping[str, Range] | None
) -> None:
    """Accept all candidates, then drop those in float surroundings, until it holds."""
    candidates: list[ir.Node] = []
    for node in graph:
        if not is_operator(node, *ELEMENTWISE_TYPES):
            continue
        reason = excluded_by(node, config) or _why_no_integer_form(node)
        if reason is None:
            plan.elementwise.add(node)
            candidates.append(node)
        else:
            plan.reasons[node] = reason
    changed = True
    while changed:
        changed = False
        for node in candidates:
            if node not in plan.elementwise:
                continue
            reason = _why_surrounded_by_float(node, plan) or _why_not_calibrated(
                variable_inputs(node), ranges
            )
            if reason is not None:
                plan.elementwise.discard(node)
                plan.reasons[node] = reason
                changed = True


def _plan_sums(graph: ir.Graph, plan: Placement, shapes: Mapping[str, Shape] | None) -> None:
    """Find the additions that the layer before them does in its epilogue, on its f32 result."""
    order = {node: i for i, node in enumerate(graph)}
    for node in plan.elementwise:
        if not is_operator(node, "Add") or node.inputs[0] is node.inputs[1]:
            continue
        a, b = (value.name or "" for value in variable_inputs(node))
        if shapes is not None and (a not in shapes or shapes[a] != shapes.get(b)):
            continue  # broadcast, or not known not to be
        makers = [
            (order[maker], index)
            for index, value in enumerate(variable_inputs(node))
            if (maker := _maker_for(value, node, plan)) is not None and maker in order
        ]
        if makers:
            # The later layer: what the other one makes is there by then.
            plan.summed[node] = max(makers)[1]


def _maker_for(value: ir.Value, reader: ir.Node, plan: Placement) -> ir.Node | None:
    """Return the layer that makes `value` for `reader` alone, itself or through activations."""
    while True:
        producer = value.producer()
        if producer is None or value.is_graph_output():
            return None
        if any(node is not reader for node, _ in readers_of(value)):
            return None
        if producer in plan.layers:
            return None if is_operator(producer, "ConvTranspose") else producer
        if not is_operator(producer, *UNARY_TYPES) or producer.inputs[0] is None:
            return None
        value, reader = producer.inputs[0], producer


def _why_not_calibrated(
    values: Iterable[ir.Value | None], ranges: Mapping[str, Range] | None
) -> str | None:
    for value in values:
        if ranges is not None and value is not None and value.name not in ranges:
            return f"{NEVER_SEEN} {value.name}"
    return None


def _why_no_integer_form(node: ir.Node) -> str | None:
    operands = variable_inputs(node)
    if any(value.dtype not in (None, ir.DataType.FLOAT) for value in operands):
        return "not float32"
    if is_operator(node, "Add", "Mul"):
        if len(operands) < 2:
            return "a constant operand: runs in f32 with the operators around it"
        if len({_epilogue_root(value) for value in operands}) == 1:
            return "a function of one value: runs in f32 in the epilogue of the layer before it"
    if is_operator(node, "Concat") and len(operands) < len(node.inputs):
        return "a constant operand"
    return None


def variable_inputs(node: ir.Node) -> list[ir.Value]:
    """Return the data inputs of `node` that are not constant."""
    return [v for v in node.inputs if v is not None and constant_array(v) is None]


def _epilogue_root(value: ir.Value) -> ir.Value:
    """Return the value from which `value` is computed one element at a time, alone."""
    producer = value.producer()
    if producer is None or not is_operator(producer, *UNARY_TYPES, "Mul", "Add", "Sub", "Div"):
        return value
    roots = {_epilogue_root(operand) for operand in variable_inputs(producer)}
    return roots.pop() if len(roots) == 1 else value


def _why_surrounded_by_float(node: ir.Node, plan: Placement) -> str | None:
    for value in variable_inputs(node):
        if not comes_from_codes(value, plan):
            return f"its input {value.name} does not come from a quantised layer"
    reader = _float_reader(node.outputs[0], plan)
    if reader is not None:
        return f"its output is read in float by {reader}"
    return None


def comes_from_codes(value: ir.Value, plan: Placement, seen: set[ir.Value] | None = None) -> bool:
    """Return whether `value` comes from int8 layers, through data movement and activations."""
    seen = set() if seen is None else seen
    if value in seen:
        return True
    seen.add(value)
    if any(node in plan.layers and index == 0 for node, index in readers_of(value)):
        return True  # quantised anyway
    producer = value.producer()
    if producer is None:
        return False
    if producer in plan.layers or producer in plan.elementwise:
        return True
    if is_operator(producer, *DATA_MOVING_TYPES, *UNARY_TYPES):
        return producer.inputs[0] is not None and comes_from_codes(producer.inputs[0], plan, seen)
    if _is_epilogue_step(producer):
        return comes_from_codes(_epilogue_root(variable_inputs(producer)[0]), plan, seen)
    return False


def _float_reader(value: ir.Value, plan: Placement) -> str | None:
    """Return who reads `value`, or what is computed from it one element at a time, in float."""
    if value.is_graph_output():
        return "the caller (it is an output)"
    readers = readers_of(value)
    if not readers:
        return "nobody"
    for node, index in readers:
        if plan.reads_codes(node, index):
            continue
        passes = index == 0 and is_operator(node, *DATA_MOVING_TYPES, *UNARY_TYPES)
        if not passes and not _is_epilogue_step(node):
            return f"{node.op_type} {node.name}"
        reader = _float_reader(node.outputs[0], plan)
        if reader is not None:
            return reader
    return None


def _is_epilogue_step(node: ir.Node) -> bool:
    """Return whether `node` computes a function of one value: `a * x`, or `x * Sigmoid(x)`."""
    if not is_operator(node, "Mul", "Add", "Sub", "Div"):
        return False
    return len({_epilogue_root(value) for value in variable_inputs(node)}) == 1


# --- Q/DQ pairs
# -------------------------------------------------------------------------------------


def _plan_tensors(graph: ir.Graph, plan: Placement) -> None:
    """Place a pair on what int8 nodes read, then move pairs above what can run on codes."""
    wanted: set[ir.Value] = set()
    for node in (*plan.layers, *plan.recurrent):
        if node.inputs[0] is not None:
            wanted.add(node.inputs[0])
    for node in plan.elementwise:
        kept = plan.summed.get(node)
        wanted.update(
            value
            for i, value in enumerate(node.inputs)
            if value is not None and i != kept and constant_array(value) is None
        )

    parents: dict[ir.Value, ir.Value] = {}
    pending = sorted(wanted, key=lambda value: value.name or "", reverse=True)
    while pending:
        value = pending.pop()
        mover = value.producer()
        if mover is None or mover.graph is not graph or not _can_move_codes(mover, value, plan):
            continue
        source = mover.inputs[0]
        assert source is not None
        plan.moved.add(mover)
        parents[value] = source
        if source not in wanted:
            wanted.add(source)
            pending.append(source)
    _share_scales_of_concats(plan, wanted, parents)
    for value in wanted:
        root = value
        while root in parents:
            root = parents[root]
        plan.groups[value] = root
    order = {value: index for index, value in enumerate(_values_in_order(graph))}
    # What a body reads from outside is quantised in the body, before everything else.
    plan.tensors = sorted(wanted, key=lambda value: (order.get(value, -1), value.name or ""))


def _share_scales_of_concats(
    plan: Placement, wanted: set[ir.Value], parents: dict[ir.Value, ir.Value]
) -> None:
    """Let parts that only a Concat reads have its scale: they are rounded once, then copied."""
    moved = set(parents.values())
    for node in plan.elementwise:
        joined = node.outputs[0]
        if not is_operator(node, "Concat") or joined not in wanted:
            continue
        for part in variable_inputs(node):
            if part in parents or part in moved or part not in wanted:
                continue
            if all(reader is node for reader, _ in readers_of(part)):
                parents[part] = joined


def _can_move_codes(mover: ir.Node, value: ir.Value, plan: Placement) -> bool:
    """Return whether `mover` may run on codes: all readers of its result `value` are quantised."""
    source = mover.inputs[0]
    if source is None or constant_array(source) is not None or value.is_graph_output():
        return False
    if not all(plan.reads_codes(node, index) for node, index in readers_of(value)):
        return False
    if len(mover.outputs) > 1 and any(output.uses() for output in mover.outputs[1:]):
        return False  # MaxPool's indices
    if is_operator(mover, *DATA_MOVING_TYPES):
        return True
    if not is_operator(mover, *CLAMPING_TYPES):
        return False
    # A clamp right after a layer stays in that layer's epilogue; one that follows moved codes is
    # free.
    producer = source.producer()
    return producer is not None and is_operator(producer, *DATA_MOVING_TYPES)


def _values_in_order(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
