"""Evaluate nodes whose inputs are all constant, once, now.

    shape ──► ConstantOfShape ──► Conv.weight           becomes    initializer ──► Conv.weight
    w ──► Transpose ──► MatMul.b                        becomes    initializer ──► MatMul.b

The operators are evaluated by ONNX's own reference implementation. What is never folded:

1. nodes with a subgraph, random operators, operators of other domains, string results;
2. Quantize and Dequantize: a weight that was stored as int8 stays int8;
3. Cast of bf16 constants that a layer reads as its weights: what was stored as bf16 stays bf16;
4. results of more than 64 MB, or of unknown size, unless the node is a ConstantOfShape that feeds a
   layer's weights (the light models of the onnx package keep theirs so): a shape of 200 bytes must
   not become an array of gigabytes.
"""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.graph.constants import add_constant
from lowprec.passes.matching import (
    ONNX_DOMAINS,
    constant_array,
    graph_of,
    is_operator,
    opset_version,
    walk_nodes,
)

MAX_FOLDED_BYTES = 64 * 2**20

_NEVER = frozenset(
    {
        "Constant",  # graph.load lifts these
        "QuantizeLinear",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
        "Dropout",
    }
)
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")

_log = logging.getLogger(__name__)


def fold_constants(model: ir.Model) -> bool:
    """Rewrite `model` in place; return whether anything changed.

    Graph outputs keep their node: a graph output that is an initializer is legal, but not every
    tool believes it. An operator that the reference implementation refuses stays.
    """
    changed = False
    version = opset_version(model)
    for node in walk_nodes(model):
        if not _is_candidate(node):
            continue
        arrays = _constant_inputs(node)
        if arrays is None or not _is_small(node, arrays, version):
            continue
        results = _evaluate(node, arrays, version)
        if results is None:
            continue
        _replace(node, results)
        changed = True
    return changed


def _is_candidate(node: ir.Node) -> bool:
    if node.domain not in ONNX_DOMAINS or node.op_type in _NEVER or not node.inputs:
        return False
    if any(output.is_graph_output() for output in node.outputs) or _widens_weights(node):
        return False
    graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return not any(
        attribute.is_ref() or attribute.type in graphs for attribute in node.attributes.values()
    )


def _constant_inputs(node: ir.Node) -> dict[str, NDArray[np.generic]] | None:
    """Return the arrays of all inputs by name; None as soon as one is not constant."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for value in node.inputs:
        if value is None:
            continue
        array = constant_array(value)
        if array is None or value.name is None:
            return None
        arrays[value.name] = array
    return arrays or None


def _single_node_model(
    node: ir.Node, arrays: dict[str, NDArray[np.generic]], version: int
) -> onnx.ModelProto:
    proto = ir.serde.serialize_node(node)
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    initializers = [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in arrays.items()]
    graph = onnx.helper.make_graph([proto], "fold", [], outputs, initializers)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])


def _is_small(node: ir.Node, arrays: dict[str, NDArray[np.generic]], version: int) -> bool:
    if is_operator(node, "ConstantOfShape"):
        (shape,) = arrays.values()
        return 8 * int(np.prod(shape.astype(object))) <= MAX_FOLDED_BYTES or _feeds_weights(node)
    if sum(array.nbytes for array in arrays.values()) > 2 * MAX_FOLDED_BYTES:
        return False
    try:
        inferred = onnx.shape_inference.infer_shapes(
            _single_node_model(node, arrays, version), data_prop=True
        )
    except onnx.shape_inference.InferenceError as error:
        _log.debug("not folding %s: %s", node.name, error)
        return False
    outputs = [value.type.tensor_type for value in inferred.graph.output]
    return all(_is_small_type(output) for output in outputs)


def _is_small_type(tensor: onnx.TypeProto.Tensor) -> bool:
    if not tensor.HasField("shape") or tensor.elem_type == onnx.TensorProto.STRING:
        return False
    if not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        return False
    elements = int(np.prod(np.array([dim.dim_value for dim in tensor.shape.dim], object)))
    return 8 * elements <= MAX_FOLDED_BYTES


def _feeds_weights(node: ir.Node) -> bool:
    uses = node.outputs[0].uses()
    return bool(uses) and all(is_operator(use.node, *_LAYERS) and use.idx >= 1 for use in uses)


def _widens_weights(node: ir.Node) -> bool:
    if not is_operator(node, "Cast") or node.inputs[0] is None:
        return False
    array = constant_array(node.inputs[0])
    if array is None or array.dtype.name != "bfloat16":
        return False
    uses = node.outputs[0].uses()
    return any(is_operator(use.node, *_LAYERS) and use.idx == 1 for use in uses)


def _evaluate(
    node: ir.Node, arrays: dict[str, NDArray[np.generic]], version: int
) -> list[NDArray[np.generic]] | None:
    if is_operator(node, "ConstantOfShape"):
        (shape,) = arrays.values()
        tensor = node.attributes.get_tensor("value", None)
        fill = np.zeros(1, np.float32) if tensor is None else tensor.numpy()
        return [np.full(tuple(int(dim) for dim in shape), fill.reshape(())[()], fill.dtype)]
    from onnx.reference import ReferenceEvaluator

    try:
        results = ReferenceEvaluator(_single_node_model(node, arrays, version)).run(None, {})
    except Exception as error:  # the reference implementation raises whatever NumPy raises
        _log.debug("not folding %s: %s", node.name, error)
        return None
    arrays_out = [np.asarray(result) for result in results]
    named = [output for output in node.outputs if output.name]
    if len(arrays_out) != len(named) or any(a.dtype.kind not in "fiub" for a in arrays_out):
        return None
    for value, array in zip(named, arrays_out, strict=True):
        if value.dtype is not None and value.dtype != ir.DataType.from_numpy(array.dtype):
            return None
    return arrays_out


def _replace(node: ir.Node, arrays: list[NDArray[np.generic]]) -> None:
    graph = graph_of(node)
    named = [output for output in node.outputs if output.name]
    for output, array in zip(named, arrays, strict=True):
        name = output.name
        assert name is not None
        # The value's own name stays with the constant: reports and configs may mention it.
        output.name = None
        output.replace_all_uses_with(add_constant(graph, name, array))
    graph.remove(node, safe=True)
