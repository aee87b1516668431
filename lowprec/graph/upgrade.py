"""Bring old models to the hub's opset with onnx's own version converter.

The converter works on a serialised model, so large weights stay out of it: they take part as graph
inputs of the same name, type and shape, and are put back afterwards. Constants that decide a
conversion (axes, shapes, scales) are small and stay.
"""

from __future__ import annotations

import re

import onnx
import onnx_ir as ir
from onnx import version_converter

from lowprec.errors import ModelError
from lowprec.graph.constants import is_small

HUB_OPSET = 21
_RANK_ROUNDS = 10
_REFUSALS = (RuntimeError, onnx.shape_inference.InferenceError)


def upgrade_opset(model: ir.Model) -> ir.Model:
    """Return `model` with the default domain at opset 21 or newer; a new model if it was older.

    Raises:
        ModelError: the converter cannot convert one of the operators.
    """
    opset = model.graph.opset_imports.get("")
    if opset is None or opset >= HUB_OPSET:
        model.graph.opset_imports.setdefault("", HUB_OPSET)
        return model
    weights = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and not is_small(value.const_value)
    }
    inputs = len(model.graph.inputs)
    model.ir_version = max(model.ir_version, 8)  # initializers need not be inputs from 4 on
    for name, tensor in weights.items():
        placeholder = model.graph.initializers.pop(name)
        placeholder.const_value = None
        placeholder.shape = ir.Shape(tensor.shape.numpy())
        placeholder.dtype = tensor.dtype
        model.graph.inputs.append(placeholder)
    proto = ir.to_proto(model)
    if opset < 7:
        proto = _spread_slopes(proto)
    if opset < 13:
        proto = _count_softmax_axes_from_the_end(proto)
    try:
        converted = version_converter.convert_version(proto, HUB_OPSET)
    except _REFUSALS as error:
        raise ModelError(_explain(error, proto, opset)) from None
    upgraded = ir.from_proto(converted)
    placeholders = list(upgraded.graph.inputs)[inputs:]
    kept = list(upgraded.graph.inputs)[:inputs]
    upgraded.graph.inputs.clear()
    upgraded.graph.inputs.extend(kept)
    for value in placeholders:
        value.const_value = weights[str(value.name)]
        upgraded.graph.register_initializer(value)
    upgraded.metadata_props.update(model.metadata_props)
    _restore_names(upgraded, model)
    return upgraded


def _spread_slopes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give a PRelu's slopes of one axis the axes that say: one for each channel.

    Until opset 7 that was what one axis meant; since then it is broadcast along the last one, and
    the converter does not see the difference.
    """
    ranks = _ranks(model)
    spread = []
    for at, node in enumerate(model.graph.node):
        if node.op_type == "PRelu" and ranks.get(node.input[1]) == 1:
            axes = list(range(1, ranks.get(node.input[0], 2) - 1))
            if axes:
                name = f"{node.input[1]}__of_{node.output[0]}"
                unsqueeze = onnx.helper.make_node("Unsqueeze", [node.input[1]], [name], axes=axes)
                node.input[1] = name
                spread.append((at, unsqueeze))
    for at, unsqueeze in reversed(spread):
        model.graph.node.insert(at, unsqueeze)
    return model


def _count_softmax_axes_from_the_end(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write the last axis of a softmax as -1, so that its upgrade is a plain softmax.

    Until opset 13 a softmax flattened its input at `axis`. On the last axis that changes nothing,
    but the converter can tell only from a shape that it knows or from the -1; else it wraps the
    softmax in Flatten and Reshape.
    """
    ranks = _ranks(model)
    for node in model.graph.node:
        if node.op_type not in ("Softmax", "LogSoftmax", "Hardmax"):
            continue
        axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
        if axis == ranks.get(node.input[0], 0) - 1:
            del node.attribute[:]
            node.attribute.append(onnx.helper.make_attribute("axis", -1))
    return model


def _ranks(model: onnx.ModelProto) -> dict[str, int]:
    """Return the number of dimensions of each value of the main graph for which it is known.

    ONNX's inference leaves the result of a Reshape to a computed shape open; the length of that
    shape is its rank.
    """
    typed = onnx.ModelProto()
    typed.CopyFrom(model)
    shapes: dict[str, list[int]] = {}
    for _ in range(_RANK_ROUNDS):
        try:
            inferred = onnx.shape_inference.infer_shapes(typed, data_prop=True)
        except _REFUSALS:
            break
        shapes = _known_shapes(inferred.graph)
        reshapes = [
            node
            for node in model.graph.node
            if node.op_type == "Reshape"
            and node.output[0] not in shapes
            and min(shapes.get(node.input[1], [-1]), default=-1) >= 0
        ]
        if not reshapes:
            break
        types = {info.name: info.type.tensor_type.elem_type for info in inferred.graph.value_info}
        for node in reshapes:
            open_sizes = [None] * shapes[node.input[1]][0]
            dtype = types.get(node.output[0], onnx.TensorProto.FLOAT)
            typed.graph.value_info.append(
                onnx.helper.make_tensor_value_info(node.output[0], dtype, open_sizes)
            )
    return {name: len(shape) for name, shape in shapes.items()}


def _known_shapes(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """Return the sizes of each value of known rank; -1 where a size is open."""
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for info in (*graph.value_info, *graph.input):
        tensor_type = info.type.tensor_type
        if tensor_type.HasField("shape"):
            shapes[info.name] = [
                dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor_type.shape.dim
            ]
    return shapes


def _restore_names(upgraded: ir.Model, original: ir.Model) -> None:
    """Give a node that the converter replaced the name of the node it stands for."""
    names = {
        output.name: node.name
        for graph in original.graphs()
        for node in graph
        for output in node.outputs
        if output.name
    }
    for graph in upgraded.graphs():
        for node in graph:
            if not node.name and node.outputs and node.outputs[0].name in names:
                node.name = names[node.outputs[0].name]


def _explain(error: BaseException, model: onnx.ModelProto, opset: int) -> str:
    node = _first_refused(model)
    subject = f"operator '{node.op_type}' of node '{node.name}'" if node else "the model"
    text = " ".join(str(error).split())
    reason = re.sub(r"^\S*\.(?:h|cc|cpp):\d+: \S+: ", "", text)[:200].rstrip(".")
    return (
        f"{subject} cannot be upgraded from opset {opset} to {HUB_OPSET}: {reason}; "
        f"export the model with opset {HUB_OPSET} or newer"
    )


def _first_refused(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """Return the node at which the converter stops: the end of the shortest prefix that it "
    "refuses."""
    nodes = list(model.graph.node)
    prefix = onnx.ModelProto()
    prefix.CopyFrom(model)
    low, high = 0, len(nodes)  # the first `low` nodes convert, the first `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        del prefix.graph.node[:]
        prefix.graph.node.extend(nodes[:middle])
        del prefix.graph.output[:]
        prefix.graph.output.add(name=next(name for name in nodes[middle - 1].output if name))
        try:
            version_converter.convert_version(prefix, HUB_OPSET)
            low = middle
        except _REFUSALS:
            high = middle
    return nodes[low] if high else None
