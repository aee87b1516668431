"""Quantised models as graphs of TensorFlow's own operators, which run without lowprec.

The graph is that of the hub: the same codes of the same layers, run by TensorFlow's int8 operators
of oneDNN. Where those have none for a layer, or none that is faster, it is in float.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import tensorflow as tf

from lowprec.adapters.tensorflow import (  # noqa: F401  (they register their writers)
    stock_floats,
    stock_shapes,
)
from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.stock_integers import Chain, chains_of, write_chain
from lowprec.adapters.tensorflow.stock_writer import REMEDY, WRITERS, Held, Writer
from lowprec.errors import UnsupportedError

LARGEST = 2**31 - 1  # bytes of a protobuf message


def graph_def(model: Any, binding: Binding) -> tf.compat.v1.GraphDef:
    """Return a quantised model as a frozen graph of TensorFlow's own operators.

    It takes and returns what the original did, images with the channels last, batches of any size,
    under the names of `binding`. It runs on CPUs where TensorFlow's oneDNN operators are on, as
    they are by default: not with TF_ENABLE_ONEDNN_OPTS=0.

    Args:
        model: The hub graph with QuantizeLinear and DequantizeLinear, or what has one as `hub`.
        binding: Names and shapes of the original.

    Raises:
        UnsupportedError: an operator cannot be written; it names it and the remedy.
    """
    hub: ir.Model = model if isinstance(model, ir.Model) else model.hub
    graph = hub.graph
    with tf.Graph().as_default() as made, tf.device(None):
        writer = Writer()
        for name, shape, value in zip(binding.inputs, binding.shapes, graph.inputs, strict=True):
            if value.dtype is None:
                raise UnsupportedError(f"input '{name}' has no type; {REMEDY}")
            tensor = tf.compat.v1.placeholder(
                tf.as_dtype(value.dtype.numpy()), shape, _operation(name)
            )
            writer.hold(value, Held(False, tensor))
        outputs = [_operation(name) for name in binding.outputs]
        with tf.name_scope(_free_scope([*map(_operation, binding.inputs), *outputs])):
            _write(writer, graph)
            results = [writer.tensor(value) for value in graph.outputs]
        for name, shape, result in zip(binding.outputs, binding.results, results, strict=True):
            if shape is not None:
                result.set_shape(shape)
            _output(name, result)
        return made.as_graph_def()


def _write(writer: Writer, graph: ir.Graph) -> None:
    chains = chains_of(writer, graph)
    waiting = {member: chain for chain in chains.values() for member in chain.members}
    for node in graph:
        chain = waiting.get(node)
        if chain is None:
            _write_node(writer, node)
        elif node is chain.members[-1]:
            _write_chain(writer, chain)


def _write_chain(writer: Writer, chain: Chain) -> None:
    written = chain if write_chain(writer, chain) else None
    if written is None and chain.shorter is not None and write_chain(writer, chain.shorter):
        written = chain.shorter
    for member in chain.members:
        if written is None or member not in written.members:
            _write_node(writer, member)


def _write_node(writer: Writer, node: ir.Node) -> None:
    if node.outputs and all(writer.constant(value) is not None for value in node.outputs):
        return
    found = WRITERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if found is None:
        raise UnsupportedError(
            f"operator {node.op_type} of node '{node.name}' is not among those that lowprec writes "
            f"with TensorFlow's own; {REMEDY}"
        )
    found(writer, node)


def _operation(name: str) -> str:
    return name.rpartition(":")[0] if name.rpartition(":")[2].isdecimal() and ":" in name else name


def _free_scope(names: list[str]) -> str:
    scope = "int8"
    while any(name.split("/")[0] == scope for name in names):
        scope += "_"
    return scope


def _output(name: str, tensor: Any) -> None:
    index = int(name.rpartition(":")[2]) if _operation(name) != name else 0
    if index:
        tf.raw_ops.IdentityN(input=[tensor] * (index + 1), name=_operation(name))
    else:
        tf.identity(tensor, name=_operation(name))
