"""Questions that every pass asks about a graph, and the few edits that every pass makes.

A value counts as constant only when nobody can override it: an initializer that is not also a graph
input. A value that a control-flow body captures has that body among its uses, because onnx_ir
shares the value object between scopes; so "one use" below is safe in the presence of subgraphs. The
one reader may be inside of such a body: whoever removes it with its source asks for its graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

ONNX_DOMAINS = ("", "ai.onnx")


def is_operator(node: ir.Node | None, *op_types: str) -> bool:
    """Return whether `node` is one of the standard ONNX operators `op_types`."""
    return node is not None and node.domain in ONNX_DOMAINS and node.op_type in op_types


def opset_version(model: ir.Model) -> int:
    """Return the version of the standard ONNX operators that `model` imports (0: none)."""
    imports = model.graph.opset_imports
    return imports.get("", imports.get("ai.onnx", 0))


def walk_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Yield the nodes of every graph and subgraph; a yielded node may be removed or replaced."""
    for graph in list(model.graphs()):
        yield from graph


def constant_array(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Return the array behind `value`, or None when it is not a constant."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    if value.const_value is None or value.const_value.dtype == ir.DataType.STRING:
        return None
    return value.const_value.numpy()


def constant_floats(value: ir.Value | None) -> NDArray[np.float32] | None:
    """Return the f32 array behind `value`, or None when it is not a constant of that type."""
    array = constant_array(value)
    if array is None or array.dtype != np.float32:
        return None
    return array.view(np.float32)


def constant_scalar(value: ir.Value | None) -> float | None:
    """Return the one number behind `value` (any shape of one element), or None."""
    array = constant_array(value)
    if array is None or array.size != 1 or array.dtype.kind not in "fiu":
        return None
    return float(array.reshape(()))


def is_scalar(value: ir.Value | None, expected: float, *, tolerance: float = 1e-6) -> bool:
    """Return whether `value` is a constant scalar equal to `expected`, rounding aside."""
    number = constant_scalar(value)
    return number is not None and abs(number - expected) <= tolerance * max(1.0, abs(expected))


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads `value`; None if there are more, or it is a graph output.

    A node that reads the value twice (`x * x`) is still the one node.
    """
    if value.is_graph_output():
        return None
    consumers = {use.node for use in value.uses()}
    return next(iter(consumers)) if len(consumers) == 1 else None


def other_operand(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """Return the operand of the binary `node` that is not `value`; None for `value op value`."""
    if len(node.inputs) != 2:
        return None
    first, second = node.inputs
    if first is value:
        return None if second is value else second
    return first if second is value else None


def split_constant(node: ir.Node) -> tuple[ir.Value, ir.Value, int] | None:
    """Return (variable operand, constant operand, index of the variable one) of a binary node.

    None when both or neither operand is constant.
    """
    if len(node.inputs) != 2:
        return None
    first, second = node.inputs
    if first is None or second is None:
        return None
    is_first, is_second = constant_array(first) is not None, constant_array(second) is not None
    if is_first == is_second:
        return None
    return (second, first, 1) if is_first else (first, second, 0)


def rank_of(value: ir.Value | None) -> int | None:
    """Return the number of dimensions of `value`, or None when it is not known."""
    if value is None or value.shape is None:
        return None
    return len(value.shape)


def adds_axes(output: ir.Value, source: ir.Value) -> bool:
    """Return whether `output` is known to have more axes than `source`.

    A number with axes of its own, such as [1, 1, 1, 1], gives them to what it meets.
    """
    ranks = rank_of(output), rank_of(source)
    return ranks[0] is not None and ranks[1] is not None and ranks[0] > ranks[1]


def may_have_one_shape(first: ir.Value, second: ir.Value) -> bool:
    """Return whether nothing that is known of two operands' shapes says that one is broadcast.

    A dimension of 1 beside one that is not known counts as broadcast.
    """
    if first.shape is None or second.shape is None:
        return True
    if len(first.shape) != len(second.shape):
        return False
    return all(
        a == b or not (1 in (a, b) or (isinstance(a, int) and isinstance(b, int)))
        for a, b in zip(first.shape, second.shape, strict=True)
    )


class NameSource:
    """Hands out names that no value of a model has, deterministically.

    Args:
        model: The names of all its graphs and subgraphs are taken: an inner name may not hide
            an outer one.
    """

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        for graph in model.graphs():
            self._taken.update(name for name in graph.initializers)
            self._taken.update(value.name or "" for value in graph.inputs)
            for node in graph:
                self._taken.update(value.name or "" for value in node.outputs)
        self._taken.add("")

    def fresh(self, wish: str) -> str:
        """Return `wish`, or `wish_2`, `wish_3`, ... when it is taken, and take it."""
        name, count = wish, 1
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name


def graph_of(node: ir.Node) -> ir.Graph:
    """Return the graph that holds `node`."""
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise TypeError(f"node {node.name!r} is not in a graph")
    return graph


def replace_output(node: ir.Node, replacement: ir.Value) -> bool:
    """Let `replacement` take the place of `node`'s only output, and remove `node`.

    Graph outputs keep their names: when the output is one, `replacement` must be the output of a
    node of the same graph that is not itself a graph output, and takes over the name.

    Returns:
        False, with nothing changed, when that is not possible.
    """
    (output,) = node.outputs
    graph = graph_of(node)
    if output.is_graph_output():
        producer = replacement.producer()
        if producer is None or producer.graph is not graph or replacement.is_graph_output():
            return False
        name = output.name
        output.replace_all_uses_with(replacement, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        replacement.name = name
    else:
        output.replace_all_uses_with(replacement)
        graph.remove(node, safe=True)
    if replacement.type is None:
        replacement.type = output.type
    if replacement.shape is None:
        replacement.shape = output.shape
    return True


def insert_operator(
    anchor: ir.Node,
    op_type: str,
    inputs: list[ir.Value | None],
    *,
    like: ir.Value,
    name: str,
    attributes: Mapping[str, float | int | Sequence[int]] | None = None,
) -> ir.Value:
    """Insert a standard operator before `anchor` and return its output, shaped and typed as `like`.

    The node is called like its output, `name`, which must be free.
    """
    node = ir.node(op_type, inputs, attributes=attributes, name=name)
    (output,) = node.outputs
    output.name = name
    output.type = like.type
    output.shape = like.shape
    graph_of(anchor).insert_before(anchor, node)
    return output
