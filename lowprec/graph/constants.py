"""Hold every constant in one form: an initializer of the graph that reads it, as a NumPy array."""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

SMALL = 4096  # bytes


def drop_initialized_inputs(model: ir.Model) -> None:
    """Remove from each graph's inputs those that have an initializer (the habit of IR version 3).

    Such an input is a constant that a caller might override; quantising it as a constant is what
    users want, and it is not something a caller has to feed.
    """
    for graph in model.graphs():
        inputs = [value for value in graph.inputs if value.const_value is None]
        if len(inputs) != len(graph.inputs):
            graph.inputs.clear()
            graph.inputs.extend(inputs)


def lift_constants(model: ir.Model) -> None:
    """Turn `Constant` nodes into initializers of the same graph, in subgraphs too.

    A Constant that is itself the output of its graph stays a node, as does one whose attribute
    refers to a function's parameter.
    """
    for graph in model.graphs():
        for node in graph:
            if node.op_type != "Constant" or node.domain != "":
                continue
            output = node.outputs[0]
            tensor = constant_tensor(node)
            if tensor is None or output.is_graph_output():
                continue
            name = output.name or f"{node.name or 'Constant'}_value"
            while name in graph.initializers:
                name += "_"
            value = ir.Value(
                name=name,
                type=ir.TensorType(tensor.dtype),
                shape=ir.Shape(tensor.shape.numpy()),
                const_value=tensor,
            )
            output.replace_all_uses_with(value)
            graph.remove(node, safe=True)
            graph.register_initializer(value)


def constant_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """Return the tensor that a `Constant` node yields, whichever attribute holds it; None if "
    "unknown."""
    if len(node.attributes) != 1:
        return None
    (attribute,) = node.attributes.values()
    if attribute.is_ref():
        return None
    match attribute.name:
        case "value":
            return attribute.as_tensor()
        case "value_float":
            return ir.Tensor(np.asarray(attribute.as_float(), np.float32))
        case "value_floats":
            return ir.Tensor(np.asarray(list(attribute.as_floats()), np.float32))
        case "value_int":
            return ir.Tensor(np.asarray(attribute.as_int(), np.int64))
        case "value_ints":
            return ir.Tensor(np.asarray(list(attribute.as_ints()), np.int64))
        case "value_string":
            return _strings([attribute.value], ())
        case "value_strings":
            return _strings(list(attribute.value), (len(attribute.value),))
    return None


def _strings(items: list[str | bytes], shape: tuple[int, ...]) -> ir.StringTensor:
    encoded = [item if isinstance(item, bytes) else item.encode() for item in items]
    return ir.StringTensor(encoded, shape=ir.Shape(shape))


def own_tensors(model: ir.Model) -> None:
    """Replace tensors that point into a protobuf by NumPy-backed ones; large weights stay mapped.

    Afterwards the model shares nothing that can be changed with the ModelProto it was read from,
    and reading a tensor costs nothing. External data stays where it is only as the main graph's
    large initializers: what decides shapes, and what is nested, is brought in.
    """
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None:
                is_nested = graph is not model.graph
                value.const_value = own_tensor(tensor, copy_external=is_nested or is_small(tensor))
        for node in graph:
            for name, attribute in tuple(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    tensor = own_tensor(attribute.as_tensor(), copy_external=True)
                    node.attributes[name] = ir.AttrTensor(name, tensor)


def is_small(tensor: ir.TensorProtocol) -> bool:
    """Return whether `tensor` is rather axes, a shape or a scale than weights."""
    return tensor.dtype == ir.DataType.STRING or tensor.nbytes <= SMALL


def own_tensor(tensor: ir.TensorProtocol, *, copy_external: bool = False) -> ir.TensorProtocol:
    """Return `tensor` backed by NumPy; an external one as it is, unless `copy_external`."""
    if isinstance(tensor, ir.ExternalTensor) and not copy_external:
        return tensor
    if tensor.dtype == ir.DataType.STRING:
        strings = [bytes(item) for item in cast(ir.StringTensor, tensor).string_data()]
        return ir.StringTensor(strings, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name)
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def add_constant(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Register `array` as an initializer called `name` (must be free), return its value."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
