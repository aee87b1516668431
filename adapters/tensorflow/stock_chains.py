"""Which nodes of a hub graph one int8 operator of TensorFlow does together."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from lowprec.adapters.tensorflow.stock_writer import Array, Writer


@dataclass
class Chain:
    """A layer with all that TensorFlow does in the same operator.

    Attributes:
        node: Conv, MatMul or Gemm.
        members: What is written with it, in order; the last one's output is the chain's.
        bias: Added to each output channel, None for nothing.
        summand: What is added besides.
        low: The least that passes through Relu or Clip.
        high: The largest.
        end: The QuantizeLinear at its end, None where floats go on.
        shorter: The same without all that stands behind the bias.
    """

    node: ir.Node
    members: list[ir.Node] = field(default_factory=list)
    bias: Array | None = None
    summand: ir.Value | None = None
    low: float = -np.inf
    high: float = np.inf
    end: ir.Node | None = None
    shorter: Chain | None = None


def chains_of(writer: Writer, graph: ir.Graph) -> dict[ir.Node, Chain]:
    """Return the chains in a graph by the node where each is written: its last one."""
    found: dict[ir.Node, Chain] = {}
    taken: set[ir.Node] = set()
    for node in graph:
        if node.op_type in ("Conv", "MatMul", "Gemm") and writer.weights(
            node.inputs[1] if len(node.inputs) > 1 else None
        ):
            chain = _chain_from(writer, node, taken)
            found[chain.members[-1]] = chain
            taken.update(chain.members)
    return found


def _chain_from(writer: Writer, node: ir.Node, taken: set[ir.Node]) -> Chain:
    chain = Chain(node, [node])
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        chain.bias = writer.constant(node.inputs[2])
    floats = _Walk(chain, node)
    after = floats.next()
    if after is not None and after.op_type == "Add" and node.op_type == "MatMul":
        other = _other(after, floats.value)
        bias = writer.constant(other)
        if bias is not None and chain.bias is None and bias.ndim <= 1:
            chain.bias = bias
            floats.take(after)
            after = floats.next()
    trial = Chain(node, list(chain.members), chain.bias, shorter=chain)
    walk = _Walk(trial, chain.members[-1])
    if after is not None and after.op_type == "Add":
        other = _other(after, walk.value)
        producer = None if other is None else other.producer()
        if (
            producer is None
            or producer.op_type != "DequantizeLinear"
            or writer.constant(other) is not None
            or node.op_type != "Conv"
        ):
            return chain
        trial.summand = other
        walk.take(after)
        after = walk.next()
    if after is not None and after.op_type in ("Relu", "Clip"):
        bounds = [writer.constant(value) for value in after.inputs[1:]]
        low = bounds[0] if bounds else None
        high = bounds[1] if len(bounds) > 1 else None
        if after.op_type == "Relu":
            trial.low = 0.0
        elif any(
            v is not None and b is None for v, b in zip(after.inputs[1:], bounds, strict=True)
        ):
            return chain
        else:
            trial.low = -np.inf if low is None else float(low)
            trial.high = np.inf if high is None else float(high)
        walk.take(after)
        after = walk.next()
    if after is None or after.op_type != "QuantizeLinear" or not _is_per_tensor(writer, after):
        return chain
    walk.take(after)
    trial.end = after
    return chain if taken.intersection(trial.members) else trial


class _Walk:
    """Goes from a node to the one that reads it, as long as nothing else does."""

    def __init__(self, chain: Chain, node: ir.Node) -> None:
        self.chain = chain
        self.value = node.outputs[0]

    def next(self) -> ir.Node | None:
        uses = list(self.value.uses())
        if len(uses) != 1 or self.value.is_graph_output():
            return None
        return uses[0].node

    def take(self, node: ir.Node) -> None:
        self.chain.members.append(node)
        self.value = node.outputs[0]


def _other(node: ir.Node, value: ir.Value) -> ir.Value | None:
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]


def _is_per_tensor(writer: Writer, node: ir.Node) -> bool:
    scale, zero = _parameters(writer, node)
    return scale is not None and scale.size == 1 and zero.dtype in (np.uint8, np.int8)


def _parameters(writer: Writer, node: ir.Node) -> tuple[Array | None, Array]:
    zero = writer.constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.uint8)
    return writer.constant(node.inputs[1]), np.zeros(()) if zero is None else zero


def unsigned(writer: Writer, node: ir.Node) -> tuple[float, int] | None:
    """Return scale and zero for codes of u8; those of s8 are moved by 128."""
    scale, zero = _parameters(writer, node)
    if scale is None or scale.size != 1 or zero.dtype not in (np.uint8, np.int8):
        return None
    return float(scale.reshape(())), int(zero.reshape(())) + (128 if zero.dtype == np.int8 else 0)
