"""Visit everything in a ModelProto, subgraphs and functions included, before anything is "
"believed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx


def protos_of_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield the main graph and every graph held by an attribute, also those inside functions."""
    yield from _graph_and_subgraphs(model.graph)
    for function in model.functions:
        yield from _subgraphs(function.node)


def protos_of_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Yield every node of every graph and function."""
    for graph in protos_of_graphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def protos_of_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor: initializers, attributes, and the parts of sparse tensors."""
    for graph in protos_of_graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in protos_of_nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            for sparse in attribute.sparse_tensors:
                yield from (sparse.values, sparse.indices)


def _graph_and_subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    yield from _subgraphs(graph.node)


def _subgraphs(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graph_and_subgraphs(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_and_subgraphs(graph)
