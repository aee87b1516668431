"""A TensorFlow graph as plain nodes: names resolved, attributes as Python values."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from lowprec.errors import ModelError

Array = NDArray[Any]
Tensor = tuple[str, int]  # node, number of its output
Shape = tuple["int | None", ...]


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: Unique in its graph.
        op: TensorFlow's operation type.
        inputs: What it reads; control inputs are left out.
        attributes: By name; see `_plain`.
    """

    name: str
    op: str
    inputs: tuple[Tensor, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Nodes by name, what is known of shapes, and the functions that While, If and calls name.

    Attributes:
        nodes: By name.
        shapes: Of the tensors; None where not even the rank is known.
        function: From a function's name to the function.
    """

    nodes: Mapping[str, Node]
    shapes: Mapping[Tensor, Shape | None]
    function: Callable[[str], Function]

    def ordered(self, outputs: Sequence[Tensor], given: Container[Tensor] = ()) -> Iterator[Node]:
        """Yield the nodes that `outputs` need, each after what it reads.

        Args:
            outputs: Tensors.
            given: Tensors that are there already: what makes them is not looked at.

        Raises:
            ModelError: a node is missing, or the graph has a cycle (loops of TensorFlow 1).
        """
        state: dict[str, int] = {}  # 1: its inputs are being visited, 2: done
        stack = [tensor[0] for tensor in reversed(outputs) if tensor not in given]
        while stack:
            name = stack[-1]
            if state.get(name) == 2:
                stack.pop()
                continue
            node = self.nodes.get(name)
            if node is None:
                raise ModelError(f"the graph has no node '{name}'")
            waiting = [
                tensor[0]
                for tensor in node.inputs
                if state.get(tensor[0]) != 2 and tensor not in given
            ]
            if not waiting:
                state[name] = 2
                stack.pop()
                yield node
                continue
            if state.get(name) == 1 and any(state.get(source) == 1 for source in waiting):
                raise ModelError(
                    f"node '{name}' is part of a loop of TensorFlow 1 (Enter, NextIteration); "
                    "export the model again with TensorFlow 2 control flow"
                )
            state[name] = 1
            stack += waiting


@dataclass(frozen=True)
class Function:
    """A function of the library.

    Attributes:
        name: As calls name it.
        inputs: Its arguments, in order; Placeholders of its graph.
        outputs: What it returns.
        graph: Its nodes.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    graph: Graph


def graph_of(graph: tf.Graph, around: Sequence[tf.Graph] = ()) -> Graph:
    """Return the nodes of a graph or of a function's graph.

    Args:
        graph: What is read.
        around: Graphs around a function's that may hold the functions it calls, innermost first.
    """
    nodes: dict[str, Node] = {}
    shapes: dict[Tensor, Shape | None] = {}
    for operation in graph.get_operations():
        nodes[operation.name] = Node(
            operation.name,
            operation.type,
            tuple(tensor_of(tensor) for tensor in operation.inputs),
            _attributes(operation.node_def),
        )
        for tensor in operation.outputs:
            rank = tensor.shape.rank
            shapes[tensor_of(tensor)] = None if rank is None else tuple(tensor.shape.as_list())
    known: dict[str, Function] = {}

    def function(name: str) -> Function:
        if name not in known:
            known[name] = _function((graph, *around), name)
        return known[name]

    return Graph(nodes, shapes, function)


def tensor_of(tensor: tf.Tensor) -> Tensor:
    """Return what names a symbolic tensor."""
    return tensor.op.name, tensor.value_index


def _function(graphs: Sequence[tf.Graph], name: str) -> Function:
    found = next((held for held in (graph._get_function(name) for graph in graphs) if held), None)
    if found is None:
        raise ModelError(f"the graph calls the function '{name}', which it does not hold")
    body = getattr(found, "graph", None)
    if body is None:  # read from a file: a definition that was never traced
        with graphs[-1].as_default():
            body = function_def_to_graph(found.definition)
    return Function(
        name,
        tuple(tensor_of(tensor) for tensor in body.inputs),
        tuple(tensor_of(tensor) for tensor in body.outputs),
        graph_of(body, graphs),
    )


def _attributes(node: Any) -> dict[str, Any]:
    return {name: _plain(value) for name, value in node.attr.items()}


def _plain(value: Any) -> Any:
    """Return an AttrValue as int, float, bool, str, dtype, shape, array, or a list of these."""
    kind = value.WhichOneof("value")
    if kind == "list":
        lists = value.list
        for field_name in ("i", "f", "b", "s", "type", "shape", "tensor", "func"):
            found = list(getattr(lists, field_name))
            if found:
                return [_single(field_name, item) for item in found]
        return []
    return None if kind is None else _single(kind, getattr(value, kind))


def _single(kind: str, item: Any) -> Any:
    if kind == "s":
        return item.decode("utf-8", "replace")
    if kind == "type":
        return numpy_dtype(item)
    if kind == "shape":
        if item.unknown_rank:
            return None
        return tuple(None if size.size < 0 else size.size for size in item.dim)
    if kind == "tensor":
        return np.asarray(tf.make_ndarray(item))
    if kind == "func":
        return item.name
    return item


def numpy_dtype(dtype: Any) -> np.dtype[Any] | None:
    """Return NumPy's dtype for TensorFlow's, or its number; None for handles and variants."""
    try:
        found: np.dtype[Any] = np.dtype(tf.as_dtype(dtype).as_numpy_dtype)
    except (KeyError, TypeError):
        return None
    return found
