"""Pieces of a function's graph in another: what TensorFlow keeps runs between what we run."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import tensorflow as tf

from lowprec.adapters.tensorflow.nodes import Tensor
from lowprec.adapters.tensorflow.partition import Stage


class Body:
    """The graph of a concrete function without calls, of which pieces can be run elsewhere.

    Attributes:
        graph: As a graph of its own, with the names of `definition`.
        definition: The same as a GraphDef.
        held: What the function captured, by the name of the tensor that stands for it.
    """

    def __init__(self, function: Any) -> None:
        """Take the graph of a concrete function, called functions in place of their calls."""
        self.definition = _inlined(function)
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.graph_util.import_graph_def(self.definition, name="")
        self.held: dict[str, Any] = {inner.name: outer for outer, inner in function.graph.captures}
        self._nodes = {node.name: node for node in self.definition.node}

    def fetch(self, tensors: Sequence[Tensor], given: Mapping[Tensor, tf.Tensor]) -> list[Any]:
        """Return `tensors` in the graph that is being built.

        Args:
            tensors: Of this graph.
            given: Tensors of this graph that are there already; what makes them is left out.
        """
        named = {f"{name}:{number}": tensor for (name, number), tensor in given.items()}
        piece, used = self._piece(tensors, {*self.held, *named})
        graph = tf.compat.v1.get_default_graph()
        found: list[Any] = tf.graph_util.import_graph_def(
            piece,
            input_map={
                name: named[name] if name in named else graph.capture(self.held[name])
                for name in used
            },
            return_elements=[f"{name}:{number}" for name, number in tensors],
            name="kept",
        )
        return found

    def _piece(self, tensors: Sequence[Tensor], given: Container[str]) -> tuple[Any, set[str]]:
        """Return the nodes that `tensors` need, and which of `given` they read."""
        piece = tf.compat.v1.GraphDef()
        piece.library.CopyFrom(self.definition.library)
        piece.versions.CopyFrom(self.definition.versions)
        used: set[str] = set()
        placed: set[str] = set()
        waiting = [name for name, _ in tensors]
        while waiting:
            name = waiting.pop()
            if name in placed:
                continue
            placed.add(name)
            node = piece.node.add()
            node.CopyFrom(self._nodes[name])
            sources = [text for text in node.input if not text.startswith("^")]
            del node.input[:]
            for text in sources:
                full = text if ":" in text else f"{text}:0"
                node.input.append(full)
                if full in given:
                    used.add(full)
                else:
                    waiting.append(full.split(":")[0])
        return piece, used


def run_stages(
    body: Body,
    plan: Sequence[Stage],
    inputs: Mapping[Tensor, tf.Tensor],
    outputs: Sequence[Tensor],
    ours: Callable[[Stage, list[tf.Tensor]], Sequence[tf.Tensor]],
) -> list[tf.Tensor]:
    """Return `outputs`, stage after stage, in the graph that is being built.

    Args:
        body: Whose stages these are.
        plan: From `partition.stages`.
        inputs: The graph's inputs.
        outputs: The graph's outputs.
        ours: Called for each stage that runs on lowprec: (stage, its inputs) -> its outputs.
    """
    values = dict(inputs)
    for stage in plan:
        if stage.ours:
            made = ours(stage, [values[tensor] for tensor in stage.inputs])
        else:
            made = body.fetch(stage.outputs, values)
        values.update(zip(stage.outputs, made, strict=True))
    missing = [tensor for tensor in outputs if tensor not in values]
    values.update(zip(missing, body.fetch(missing, values) if missing else [], strict=True))
    return [values[tensor] for tensor in outputs]


def _inlined(function: Any) -> Any:
    """Return a function's GraphDef with the bodies of called functions in place of the calls."""
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
    from tensorflow.python.grappler import tf_optimizer

    meta_graph = meta_graph_pb2.MetaGraphDef()
    meta_graph.graph_def.CopyFrom(function.graph.as_graph_def())
    for called in meta_graph.graph_def.library.function:
        called.attr.pop("api_implements", None)  # else it may be another device's version
        _keep_loops(called.node_def)
    _keep_loops(meta_graph.graph_def.node)
    kept = meta_graph.collection_def["train_op"].node_list
    kept.value.extend(tensor.name for tensor in [*function.inputs, *function.outputs])
    options = config_pb2.ConfigProto()
    rewriting = options.graph_options.rewrite_options
    rewriting.min_graph_nodes = -1
    rewriting.optimizers.append("function")
    rewriting.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    return tf_optimizer.OptimizeGraph(options, meta_graph)


def _keep_loops(nodes: Any) -> None:
    """Keep While and If as they are, not as the switches of TensorFlow 1."""
    for node in nodes:
        if "_lower_using_switch_merge" in node.attr:
            node.attr["_lower_using_switch_merge"].b = False
