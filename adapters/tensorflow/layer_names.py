"""Nodes under the names of the Keras layers that they come from.

A trace gives every call of a layer a scope of its own, `functional_1/conv2d_1_2` for conv2d_1:
which is whose shows in the variables that are read there. The layer's product or convolution gets
the layer's name, `conv2d_1` or `encoder/dense`, and what else belongs to it `conv2d_1/BiasAdd`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import onnx_ir as ir

# What a layer is there for, where it has one of these.
PRODUCTS = (
    *("Conv", "ConvTranspose", "MatMul", "Gemm", "Einsum"),
    *("Gather", "LSTM", "GRU", "RNN"),
)


def name_after_layers(graph: ir.Model, model: keras.Model, function: Any) -> None:
    """Rename the nodes of `graph`; those of layers without weights keep the names of the trace.

    Args:
        graph: Captured of `model`.
        model: With its layers.
        function: The trace: a concrete function of TensorFlow.
    """
    scopes = _scopes(model, function)
    if not scopes:
        return
    nodes = list(graph.graph)
    owners = [_owner(str(node.name), scopes) for node in nodes]
    products = Counter(
        owner[0]
        for node, owner in zip(nodes, owners, strict=True)
        if owner is not None and node.op_type in PRODUCTS
    )
    taken: Counter[str] = Counter()
    for node, owner in zip(nodes, owners, strict=True):
        name = str(node.name)
        if owner is not None:
            layer, rest = owner
            is_all = node.op_type in PRODUCTS and products[layer] == 1
            name = layer if is_all or not rest else f"{layer}/{rest}"
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name] - 1}"


def _scopes(model: keras.Model, function: Any) -> dict[str, str]:
    """Return the layers' paths by their scopes in the trace."""
    owners: dict[int, tuple[str, str]] = {}
    for path, layer in _layers(model, ()):
        for kind in ("_trainable_variables", "_non_trainable_variables"):
            for variable in getattr(layer, kind, ()):
                value: Any = getattr(variable, "value", None)
                if hasattr(value, "handle"):
                    owners[id(value.handle)] = (layer.name, path)
    read = {
        inner.name: owners[id(outer)]
        for outer, inner in function.graph.captures
        if id(outer) in owners
    }
    scopes: dict[str, str] = {}
    unsure = set()
    for operation in function.graph.get_operations():
        for tensor in operation.inputs:
            if tensor.name not in read:
                continue
            name, path = read[tensor.name]
            parts = operation.name.split("/")
            own = re.compile(rf"{re.escape(name)}(_\d+)*")
            places = [number for number, part in enumerate(parts) if own.fullmatch(part)]
            scope = "/".join(parts[: places[-1] + 1]) if places else ""
            if scope and scopes.setdefault(scope, path) != path:
                unsure.add(scope)
    return {scope: path for scope, path in scopes.items() if scope not in unsure}


def _layers(model: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield layers within layers with their names from the model down."""
    for layer in model._flatten_layers(include_self=False, recursive=False):
        inner = (*path, layer.name)
        yield "/".join(inner), layer
        yield from _layers(layer, inner)


def _owner(name: str, scopes: dict[str, str]) -> tuple[str, str] | None:
    """Return a node's layer, and its name within."""
    parts = name.split("/")
    for length in range(len(parts), 0, -1):
        layer = scopes.get("/".join(parts[:length]))
        if layer is not None:
            return layer, "/".join(parts[length:])
    return None
