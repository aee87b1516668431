"""What is captured, whatever it came from: a graph, inputs, outputs, TensorFlow's answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lowprec.adapters.tensorflow.nodes import Graph, Tensor, graph_of, tensor_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Source:
    """A model as a graph.

    Attributes:
        graph: Its nodes, functions included.
        inputs: Symbolic tensors by name, in order.
        outputs: The same.
        constants: Values of variables, by the tensors that are their handles.
        function: The concrete function of TensorFlow that this was read from, where there is one:
            what cannot be translated goes on running in it.
        run: TensorFlow itself: arrays in the order of the inputs to arrays in that of the outputs.
    """

    graph: Graph
    inputs: Mapping[str, tf.Tensor]
    outputs: Mapping[str, tf.Tensor]
    run: Callable[[Sequence[Array]], list[Array]]
    constants: Mapping[Tensor, Array] = field(default_factory=dict)
    function: Any = None


def source_of(function: Any, inputs: Sequence[str], outputs: Sequence[str] | None = None) -> Source:
    """Return a concrete function of TensorFlow 2 as a Source; its variables are not copied twice.

    Args:
        function: A tf.types.experimental.ConcreteFunction.
        inputs: Names for its inputs, in order.
        outputs: Names for its outputs; None for output_0, output_1 ...
    """
    graph = function.graph
    taken = [tensor for tensor in graph.inputs if not _is_captured(graph, tensor)]
    made = list(graph.outputs)

    def run(arrays: Sequence[Array]) -> list[Array]:
        tensors = [
            tf.constant(array, tensor.dtype) for array, tensor in zip(arrays, taken, strict=True)
        ]
        return [np.asarray(result) for result in tf.nest.flatten(function(*tensors))]

    named = outputs or [f"output_{number}" for number in range(len(made))]
    return Source(
        graph_of(graph),
        dict(zip(inputs, taken, strict=True)),
        dict(zip(named, made, strict=True)),
        run,
        _variables(function),
        function,
    )


def _is_captured(graph: Any, tensor: tf.Tensor) -> bool:
    return any(tensor is inner for _, inner in graph.captures)


def _variables(function: Any) -> dict[Tensor, Array]:
    by_handle = {id(variable.handle): variable for variable in function.variables}
    found: dict[Tensor, Array] = {}
    for outer, inner in function.graph.captures:
        variable = by_handle.get(id(outer))
        if variable is not None:
            found[tensor_of(inner)] = variable.numpy()
        elif outer.dtype not in (tf.resource, tf.variant) and hasattr(outer, "numpy"):
            found[tensor_of(inner)] = outer.numpy()
    return found
