"""Write an operator that no kernel does as the smaller operators that ONNX defines it by.

    x ──► Swish(alpha) ──► y        becomes    x ──► Mul(alpha) ──► Sigmoid ──► Mul(x) ──► y

ONNX gives many operators a body of other operators ("functions"; some depend on the types of the
inputs): losses, Attention, windows, activations. A node is expanded where, in the end, nothing of
its body is left that has no kernel; else it stays, because one call of the reference
implementation is faster than many. For the engine only: a saved model keeps its operators.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Sequence
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveUnusedNodesPass, ShapeInferencePass

from lowprec.graph.constants import lift_constants
from lowprec.graph.silence import silent_onnx_ir
from lowprec.passes.matching import ONNX_DOMAINS, NameSource, opset_version

FUNCTION_DOMAIN = "ai.lowprec.function"
_DEPTH = 4  # bodies inside bodies

_log = logging.getLogger(__name__)


def expand_functions(model: ir.Model, native: Container[str], chosen: Container[str] = ()) -> bool:
    """Rewrite the main graph of `model` in place; return whether anything changed.

    Args:
        model: A hub.
        native: Operators that have a kernel: they stay, and bodies may consist of them.
        chosen: Names of nodes that are expanded although their operator has a kernel.
    """
    version = opset_version(model)
    changed = False
    for _ in range(_DEPTH):
        nodes = [
            node
            for node in model.graph
            if node.domain in ONNX_DOMAINS
            and (node.op_type not in native or (node.name or "") in chosen)
            and _has_body(node.op_type, version)
        ]
        if not nodes:
            break
        with silent_onnx_ir():
            ShapeInferencePass(check_type=False, strict_mode=False)(model)
        called = [node for node in nodes if _call_body(model, node, native, version)]
        if not called:
            break
        names = {node.name for node in called}
        InlinePass()(model)
        model.graph.opset_imports.pop(FUNCTION_DOMAIN, None)
        _name_what_is_read(model)
        lift_constants(model)
        RemoveUnusedNodesPass()(model)
        _log.debug("expanded %s", sorted(name or "" for name in names))
        changed = True
    return changed


def _schema(op_type: str, version: int) -> Any:  # onnx's stubs do not know about bodies
    return onnx.defs.get_schema(op_type, version, "")


def _has_body(op_type: str, version: int) -> bool:
    try:
        schema = _schema(op_type, version)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _plain_bodies(op_type: str, version: int) -> list[onnx.FunctionProto]:
    """Return the bodies that depend on nothing, for opsets up to `version`, newest first."""
    schema = _schema(op_type, version)
    return [
        _parsed(schema.get_function_with_opset_version(own))
        for own in sorted(schema.function_opset_versions, reverse=True)
        if own <= version
    ]


def _call_body(model: ir.Model, node: ir.Node, native: Container[str], version: int) -> bool:
    """Let `node` call a function of its own with its body, where that body is native."""
    body = _body_of(node, version)
    if body is None or not _is_native(body.node, native, version):
        return False
    schema = _schema(node.op_type, version)
    body.domain = FUNCTION_DOMAIN
    body.name = f"{node.op_type}_{len(model.functions)}"
    del body.opset_import[:]
    body.opset_import.append(onnx.helper.make_opsetid("", version))
    del body.output[len(node.outputs) :]
    _make_all_outputs(body)
    function = ir.serde.deserialize_function(body)
    if len(node.inputs) > len(function.inputs):
        return False
    for name in function.attributes:
        default = schema.attributes[name].default_value if name in schema.attributes else None
        if name not in node.attributes and default is not None and default.name:
            node.attributes[name] = ir.serde.deserialize_attribute(default)
    model.functions[function.identifier()] = function
    node.domain, node.op_type = FUNCTION_DOMAIN, body.name
    return True


def _make_all_outputs(body: onnx.FunctionProto) -> None:
    """Let `body` make the outputs that it declares but leaves out, because nobody asks for them."""
    made = {name for node in body.node for name in node.output}
    for name in body.output:
        if name not in made:
            body.node.append(onnx.helper.make_node("Identity", [body.input[0]], [name]))


def _parsed(text: bytes) -> onnx.FunctionProto:
    body = onnx.FunctionProto()
    body.ParseFromString(text)
    return body


def _body_of(node: ir.Node, version: int) -> onnx.FunctionProto | None:
    """Return the newest body whose operators mean the same at opset `version`, or None."""
    schema = _schema(node.op_type, version)
    proto = ir.serde.serialize_node(node)
    for body in _plain_bodies(node.op_type, version):
        if _is_valid(body.node, version):
            return body
    types = _types(node.inputs)
    if types is None:
        return None
    for own in sorted(schema.context_dependent_function_opset_versions, reverse=True):
        if own > version:
            continue
        try:
            text = schema.get_context_dependent_function_with_opset_version(
                own, proto.SerializeToString(), [item.SerializeToString() for item in types]
            )
        except Exception as error:  # onnx raises whatever its builder of this body raises
            _log.debug("no body for %s: %s", node.name, error)
            continue
        body = _parsed(text)
        if body.node and _is_valid(body.node, version):
            return body
    return None


def _types(values: Sequence[ir.Value | None]) -> list[onnx.TypeProto] | None:
    """Return the types of `values`, an empty one where it is absent; None where one is unknown."""
    types = []
    for value in values:
        if value is None or not value.name:
            types.append(onnx.TypeProto())
            continue
        dtype = value.dtype
        if dtype is None and value.const_value is not None:
            dtype = value.const_value.dtype
        if dtype is None:
            return None
        shape = None if value.shape is None else [_size(dim) for dim in value.shape]
        types.append(onnx.helper.make_tensor_type_proto(int(dtype), shape))
    return types


def _size(dim: int | ir.SymbolicDim) -> int | str | None:
    return dim if isinstance(dim, int) else dim.value


def _is_valid(nodes: Sequence[onnx.NodeProto], version: int) -> bool:
    """Return whether `nodes`, written for an older opset, are valid at `version` as they are."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = 10
    context.opset_imports = {"": version}
    for node in nodes:
        if any(_is_graph(attribute) for attribute in node.attribute):
            return False
        try:
            onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as error:
            _log.debug("body of an older opset: %s", error)
            return False
    return True


def _is_native(
    nodes: Sequence[onnx.NodeProto], native: Container[str], version: int, depth: int = 1
) -> bool:
    """Return whether every node has a kernel, or a body of such nodes."""
    for node in nodes:
        if node.domain not in ONNX_DOMAINS:
            return False
        if node.op_type in native or node.op_type == "Constant":
            continue
        # A body that depends on types is known when the node is reached.
        if depth == _DEPTH or not _has_body(node.op_type, version):
            return False
        for body in _plain_bodies(node.op_type, version):
            if not _is_native(body.node, native, version, depth + 1):
                return False
    return True


def _is_graph(attribute: onnx.AttributeProto) -> bool:
    return bool(attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS))


def _name_what_is_read(model: ir.Model) -> None:
    """Give a name to outputs that the caller left out and the body itself reads."""
    names = NameSource(model)
    for node in model.graph:
        for output in node.outputs:
            if not output.name and output.uses():
                output.name = names.fresh(f"{node.name}_output")
