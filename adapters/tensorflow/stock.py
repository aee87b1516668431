"""Quantised models as graphs of TensorFlow's own operators, which run without lowprec.

The graph is that of the hub: the same codes of the same layers, run by TensorFlow's int8 operators
of oneDNN. Where those have none for a layer, or none that is faster, it is in float.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import tensorflow as tf

from lowprec.adapters.tensorflow import (  # noqa: F401  (they register their writers)
    stock_elementwise,
    stock_floats,
    stock_shapes,
)
from lowprec.adapters.tensorflow.binding import Binding
from lowprec.adapters.tensorflow.stock_chains import Chain, chains_of
from lowprec.adapters.tensorflow.stock_integers import write_chain
from lowprec.adapters.tensorflow.stock_writer import REMEDY, WRITERS, Held, Writer
from lowprec.errors import UnsupportedError

LARGEST = 2**31 - 1  # bytes of a protobuf message
MOST_OUTPUTS = 1000  # of one node


@dataclass(frozen=True)
class Written:
    """A graph of TensorFlow's own operators.

    Attributes:
        definition: The frozen graph.
        inputs: Names of its tensors by the names of the binding.
        outputs: The same for its results.
    """

    definition: tf.compat.v1.GraphDef
    inputs: dict[str, str]
    outputs: dict[str, str]


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
    return written(model, binding).definition


def written(model: Any, binding: Binding) -> Written:
    """Return what `graph_def` does, with the names of its tensors.

    Raises:
        UnsupportedError: as for `graph_def`, and if it exceeds what a file of TensorFlow can hold.
    """
    hub: ir.Model = model if isinstance(model, ir.Model) else model.hub
    graph = hub.graph
    with tf.Graph().as_default() as made:
        writer = Writer()
        inputs: dict[str, str] = {}
        named = _tensors(binding, "inputs", binding.inputs)
        labels = _tensors(binding, "outputs", binding.outputs)
        for index, (name, value) in enumerate(zip(binding.inputs, graph.inputs, strict=True)):
            if value.dtype is None:
                raise UnsupportedError(f"input '{name}' has no type; {REMEDY}")
            dtype = tf.as_dtype(value.dtype.numpy())
            tensor = tf.compat.v1.placeholder(
                dtype, binding.shapes[index], operation_name(named[index])
            )
            writer.hold(value, Held(False, tensor))
            inputs[name] = tensor.name
        taken = [operation_name(name) for name in (*named, *labels)]
        try:
            with tf.name_scope(_free_scope(taken)):
                _write(writer, graph)
                results = [writer.tensor(value) for value in graph.outputs]
        except (ValueError, TypeError, tf.errors.OpError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UnsupportedError(
                f"TensorFlow cannot build the graph: {reason}; {REMEDY}"
            ) from error
        for index, result in enumerate(results):
            if binding.results[index] is not None:
                result.set_shape(binding.results[index])
        outputs = dict(zip(binding.outputs, _named(labels, results), strict=True))
        definition = made.as_graph_def()
    if definition.ByteSize() > LARGEST:
        raise UnsupportedError(f"the graph exceeds the 2 GiB of TensorFlow's files; {REMEDY}")
    return Written(definition, inputs, outputs)


def _tensors(binding: Binding, key: str, names: Sequence[str]) -> Sequence[str]:
    """Return the tensors' names of the original where it was a graph file."""
    found = binding.details.get(key)
    if binding.form != "graph" or not isinstance(found, list) or len(found) != len(names):
        return names
    if key == "inputs" and not all(str(name).endswith(":0") or ":" not in name for name in found):
        raise UnsupportedError(
            "an input of the graph is a later output of some node, for which TensorFlow has no "
            f"placeholder; {REMEDY}"
        )
    return [str(name) for name in found]


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


def operation_name(tensor: str) -> str:
    """Return the operation that a tensor is named after, with the letters that TensorFlow takes."""
    name, colon, index = tensor.rpartition(":")
    name = name if colon and index.isdecimal() else tensor
    name = re.sub(r"[^A-Za-z0-9_./>-]", "_", name)
    return name if re.match(r"[A-Za-z0-9.]", name) else f"x{name}"


def _free_scope(names: list[str]) -> str:
    scope = "int8"
    while any(name.split("/")[0] == scope for name in names):
        scope += "_"
    return scope


def _named(labels: Sequence[str], results: Sequence[Any]) -> list[str]:
    """Make a node for each that the labels name, with as many outputs; return their tensors."""
    wanted: dict[str, dict[int, Any]] = {}
    places = []
    for label, result in zip(labels, results, strict=True):
        name, (_, colon, index) = operation_name(label), label.rpartition(":")
        number = int(index) if colon and index.isdecimal() else 0
        if number >= MOST_OUTPUTS:
            raise UnsupportedError(f"'{label}' is too late an output of its node; {REMEDY}")
        wanted.setdefault(name, {})[number] = result
        places.append((name, number))
    made: dict[str, Any] = {}
    for name, found in wanted.items():
        if set(found) == {0}:
            made[name] = [tf.identity(found[0], name=name)]
        else:  # numbers that nobody wants get any of them
            any_of = next(iter(found.values()))
            listed = [found.get(number, any_of) for number in range(max(found) + 1)]
            made[name] = tf.raw_ops.IdentityN(input=listed, name=name)
    return [made[name][number].name for name, number in places]
