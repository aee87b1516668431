"""Refuse what is not a usable ONNX model, naming the operator or tensor and the remedy."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from lowprec.errors import ModelError, UnsupportedError
from lowprec.graph.external import check_external
from lowprec.graph.foreign import can_translate
from lowprec.graph.tensors import check_inline_size
from lowprec.graph.walk import protos_of_graphs, protos_of_nodes, protos_of_tensors

ONNX_DOMAINS = ("", "ai.onnx")


def check_proto(model: onnx.ModelProto, folder: Path | None) -> None:
    """Raise ModelError unless `model` has a graph with outputs, opsets, and honest tensors.

    Args:
        model: As read; nothing in it is trusted.
        folder: Where external data may lie; None when the model did not come from a file.
    """
    if not model.graph.output:
        raise ModelError(
            f"the model's graph '{model.graph.name}' has no outputs, so there is nothing to run; "
            "export it with at least one output"
        )
    if not model.opset_import and model.ir_version >= 3:
        raise ModelError(
            "the model declares no operator set (opset_import is empty): the file is truncated "
            "or was written by hand; export it again"
        )
    _check_texts(model)
    for graph in protos_of_graphs(model):
        _check_names(graph)
    for tensor in protos_of_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            check_external(tensor, folder)
        else:
            check_inline_size(tensor)


def _check_texts(model: onnx.ModelProto) -> None:
    """Raise ModelError unless every name is text; protobuf hands out anything else as bytes."""
    texts: list[str | bytes] = [model.producer_name, model.producer_version, model.domain]
    texts += [opset.domain for opset in model.opset_import]
    texts += [model.doc_string, *_entries(model)]
    for graph in protos_of_graphs(model):
        texts += [
            graph.name,
            graph.doc_string,
            *_entries(graph),
            *(tensor.name for tensor in graph.initializer),
        ]
        for info in (*graph.input, *graph.output):
            texts.append(info.name)
            texts += [dim.dim_param for dim in info.type.tensor_type.shape.dim]
    for node in protos_of_nodes(model):
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [node.doc_string, *_entries(node)]
        texts += [attribute.name for attribute in node.attribute]
    damaged = [text for text in texts if isinstance(text, bytes)]
    if damaged:
        raise ModelError(
            f"the name {damaged[0]!r} in the model is not text; the file is damaged, export it "
            f"again"
        )


def _entries(owner: onnx.ModelProto | onnx.GraphProto | onnx.NodeProto) -> list[str | bytes]:
    return [text for entry in owner.metadata_props for text in (entry.key, entry.value)]


def _check_names(graph: onnx.GraphProto) -> None:
    seen: set[str] = set()
    names = [value.name for value in graph.input]
    names += [name for node in graph.node for name in node.output]
    for name in names:
        if name and name in seen:
            raise ModelError(
                f"graph '{graph.name}' defines the value '{name}' twice; "
                "every value needs one producer: export the model again"
            )
        seen.add(name)
    for tensor in graph.initializer:
        if not tensor.name:
            raise ModelError(f"graph '{graph.name}' has an initializer without a name")


def check_opsets(model: ir.Model) -> None:
    """Raise when the model asks for operator sets that the installed onnx does not know."""
    newest = onnx.defs.onnx_opset_version()
    version = model.graph.opset_imports.get("", 1)
    if not 1 <= version <= newest:
        raise ModelError(
            f"the model uses opset {version}, the installed onnx {onnx.__version__} knows 1 to "
            f"{newest}; upgrade onnx or export with an older opset"
        )


def check_operators(model: ir.Model) -> None:
    """Raise unless every node is a well-formed operator that the installed onnx knows.

    Raises:
        UnsupportedError: an operator of a domain that is not ONNX's own, and has no translation.
        ModelError: an operator, attribute or number of inputs that ONNX does not know.
    """
    opsets = model.graph.opset_imports
    context = onnx.checker.C.CheckerContext()
    context.ir_version = 10
    context.opset_imports = dict(opsets)
    for graph in model.graphs():
        for node in graph:
            if can_translate(node):
                continue  # load() makes standard operators of it, and looks at those
            _check_operator(node, opsets)
            if not any(_holds_graph(attribute) for attribute in node.attributes.values()):
                _check_arguments(node, context)


def _check_operator(node: ir.Node, opsets: dict[str, int]) -> None:
    where = f"operator '{node.op_type}' of node '{node.name}'"
    if node.domain != "" and not node.domain.startswith("ai.onnx"):
        raise UnsupportedError(
            f"{where} belongs to the domain '{node.domain}', which is not part of ONNX; "
            "export the model without a runtime's own operators (for onnxruntime: before its "
            "optimisations, quantised in QDQ format)"
        )
    version = opsets.get(node.domain)
    if version is None:
        raise ModelError(
            f"{where} uses the domain '{node.domain}', which the model does not import"
        )
    try:
        onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        domain = node.domain or "ai.onnx"
        raise ModelError(
            f"{where} is not an operator of '{domain}' opset {version}; "
            "check the spelling, or upgrade onnx or the declared opset"
        ) from None


def _check_arguments(node: ir.Node, context: onnx.checker.C.CheckerContext) -> None:
    try:
        onnx.checker.check_node(ir.serde.serialize_node(node), context)
    except onnx.checker.ValidationError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ModelError(
            f"node '{node.name}' ({node.op_type}) is not valid ONNX: {reason}; export the model "
            f"again"
        ) from None


def _holds_graph(attribute: ir.Attr) -> bool:
    return attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def check_references(model: ir.Model) -> None:
    """Raise ModelError when a node or output reads a value that nothing produces."""
    visible = _all_values(model)
    for graph in model.graphs():
        for node in graph:
            for value in node.inputs:
                if value is not None and value not in visible:
                    raise ModelError(
                        f"node '{node.name}' ({node.op_type}) reads '{value.name}', which nothing "
                        "produces; export the model again"
                    )
        for value in graph.outputs:
            if value not in visible:
                raise ModelError(
                    f"graph output '{value.name}' is produced by no node; export the model again"
                )


def _all_values(model: ir.Model) -> set[ir.Value]:
    values: set[ir.Value] = set()
    for graph in model.graphs():
        values.update(graph.inputs, graph.initializers.values())
        for node in graph:
            values.update(node.outputs)
    return values
