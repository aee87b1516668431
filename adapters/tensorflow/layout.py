"""Channels last to channels first: transposes move down the graph until they meet their inverse.

Translated convolutions stand between two transposes. One that leads to channels last (perm 0, 2 ...
n-1, 1) moves below whatever works on each element, pads, joins or reduces; above the next
convolution it meets its inverse, and both are gone. So batch norm stands directly after its
convolution, where it is folded, and precision is decided on the graph that runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

_ELEMENTWISE = frozenset(
    {
        *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp"),
        *("Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity"),
        *("LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min", "Mul", "Neg", "Not", "Or"),
        *("Pow", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin"),
        *("Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "Where"),
    }
)
_REDUCTIONS = frozenset(
    {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2"}
)


def channels_first(model: ir.Model) -> None:
    """Move transposes to channels last down, in place, and drop those that cancel."""
    graph = model.graph
    changed = True
    while changed:
        changed = False
        for node in list(graph):
            if node.graph is None:
                continue
            if _cancel(node) or _sink(graph, node):
                changed = True
        _drop_unused(graph)


def _cancel(node: ir.Node) -> bool:
    """Replace a transpose of a transpose by what they make together."""
    perm, first = _perm(node), _producer(node.inputs[0] if node.inputs else None)
    inner = _perm(first)
    if perm is None or inner is None or first is None:
        return False
    source = first.inputs[0]
    together = [inner[axis] for axis in perm]
    if together == sorted(together):
        if node.outputs[0].is_graph_output() or source is None:
            return False
        node.outputs[0].replace_all_uses_with(source)
    else:
        node.replace_input_with(0, source)
        node.attributes["perm"] = ir.AttrInt64s("perm", together)
    return True


def _sink(graph: ir.Graph, node: ir.Node) -> bool:
    """Move the transposes above `node` below it."""
    perms = [_perm(_producer(value)) for value in node.inputs]
    perm = next((found for found in perms if found is not None), None)
    if perm is None or not _to_channels_last(perm) or len(node.outputs) != 1:
        return False
    operator = node.op_type
    if operator in _ELEMENTWISE:
        return _sink_elementwise(graph, node, perms, perm)
    if operator == "Concat" and all(found == perm for found in perms):
        axis = node.attributes["axis"].as_int() % len(perm)
        node.attributes["axis"] = ir.AttrInt64("axis", perm[axis])
        _move(graph, node, range(len(perms)), perm)
        return True
    if operator == "Pad" and perms[0] == perm and len(node.inputs) < 4:
        pads = _constant(node.inputs[1])
        if pads is None:
            return False
        ends = pads.reshape(2, -1)[:, _inverse(perm)].reshape(-1)
        node.replace_input_with(1, _new(graph, node.inputs[1], ends))
        _move(graph, node, [0], perm)
        return True
    if operator in _REDUCTIONS and perms[0] == perm and len(node.inputs) > 1:
        return _sink_reduction(graph, node, perm)
    return False


def _sink_elementwise(
    graph: ir.Graph, node: ir.Node, perms: Sequence[list[int] | None], perm: list[int]
) -> bool:
    rank = len(perm)
    turned: dict[int, np.ndarray] = {}
    for index, (value, found) in enumerate(zip(node.inputs, perms, strict=True)):
        if value is None or found == perm:
            continue
        constant = _constant(value)
        if constant is None or constant.ndim > rank:
            return False
        if constant.size > 1:
            full = constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
            turned[index] = full.transpose(_inverse(perm))
    for index, array in turned.items():
        node.replace_input_with(index, _new(graph, node.inputs[index], array))
    _move(graph, node, [i for i, found in enumerate(perms) if found == perm], perm)
    return True


def _sink_reduction(graph: ir.Graph, node: ir.Node, perm: list[int]) -> bool:
    axes = _constant(node.inputs[1])
    if axes is None:
        return False
    reduced = [perm[int(axis) % len(perm)] for axis in axes]
    keep = node.attributes["keepdims"].as_int() if "keepdims" in node.attributes else 1
    left = [axis for axis in range(len(perm)) if axis not in reduced]
    if not keep and [axis for axis in perm if axis in left] != left:
        return False  # what is left would still have to be transposed
    node.replace_input_with(1, _new(graph, node.inputs[1], np.sort(np.asarray(reduced, np.int64))))
    if keep:
        _move(graph, node, [0], perm)
        return True
    source = _producer(node.inputs[0])
    assert source is not None
    node.replace_input_with(0, source.inputs[0])
    return True


def _move(graph: ir.Graph, node: ir.Node, indices: Sequence[int], perm: list[int]) -> None:
    """Feed `node` from above the transposes at `indices`, and transpose its output."""
    for index in indices:
        source = _producer(node.inputs[index])
        assert source is not None
        node.replace_input_with(index, source.inputs[0])
    output = node.outputs[0]
    below = ir.node("Transpose", [output], attributes={"perm": perm}, name=f"{node.name}/moved")
    made = below.outputs[0]
    made.name, made.type, made.shape = f"{output.name}/moved", output.type, output.shape
    output.shape = None
    graph.insert_after(node, below)
    for use in list(output.uses()):
        if use.node is not below:
            use.node.replace_input_with(use.idx, made)
    if output.is_graph_output():
        for index, value in enumerate(graph.outputs):
            if value is output:
                graph.outputs[index] = made
        made.name, output.name = output.name, made.name


def _drop_unused(graph: ir.Graph) -> None:
    for node in reversed(list(graph)):
        if node.op_type == "Transpose" and not any(
            value.uses() or value.is_graph_output() for value in node.outputs
        ):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _producer(value: ir.Value | None) -> ir.Node | None:
    return None if value is None else value.producer()


def _perm(node: ir.Node | None) -> list[int] | None:
    if node is None or node.op_type != "Transpose" or "perm" not in node.attributes:
        return None
    return list(node.attributes["perm"].as_ints())


def _to_channels_last(perm: list[int]) -> bool:
    return len(perm) > 2 and perm == [0, *range(2, len(perm)), 1]


def _inverse(perm: list[int]) -> list[int]:
    return [perm.index(axis) for axis in range(len(perm))]


def _constant(value: ir.Value | None) -> np.ndarray | None:
    tensor = None if value is None else value.const_value
    return None if tensor is None else tensor.numpy()


def _new(graph: ir.Graph, like: ir.Value | None, array: np.ndarray) -> ir.Value:
    number = len(graph.initializers)
    base = "" if like is None else like.name
    name = f"{base}/{number}"
    while name in graph.initializers:
        number += 1
        name = f"{base}/{number}"
    array = np.ascontiguousarray(array)
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(array.shape),
        const_value=ir.Tensor(array, name=name),
    )
    graph.register_initializer(value)
    return value
