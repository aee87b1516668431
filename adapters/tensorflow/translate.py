"""A TensorFlow graph as a hub graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.adapters.tensorflow import operations
from lowprec.adapters.tensorflow.layout import channels_first
from lowprec.adapters.tensorflow.memory import refuse_memory
from lowprec.adapters.tensorflow.nodes import Graph, Tensor
from lowprec.adapters.tensorflow.translator import ATTENTION_OPSET, OPSET, Translator

assert operations  # importing them registers the translations


def translate(
    graph: Graph,
    inputs: Mapping[str, Tensor],
    outputs: Mapping[str, Tensor],
    dtypes: Sequence[np.dtype[Any]],
    constants: Mapping[Tensor, NDArray[Any]],
) -> ir.Model:
    """Return `graph` as a hub graph.

    Args:
        graph: What is translated.
        inputs: The graph's inputs by the names that they get.
        outputs: The same for the outputs.
        dtypes: Of the inputs, in order.
        constants: Values of tensors that stand for variables, or for their handles.

    Raises:
        UnsupportedError: some operation has no translation.
    """
    refuse_memory(graph, list(outputs.values()), [*inputs.values(), *constants])
    translator = Translator(graph)
    fed: list[ir.Value] = []
    for (name, tensor), dtype in zip(inputs.items(), dtypes, strict=True):
        shape = graph.shapes.get(tensor)
        value = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.from_numpy(dtype)),
            shape=None if shape is None else ir.Shape(_open(shape, name)),
        )
        translator.set_value(tensor, value)
        fed.append(value)
    for tensor, array in constants.items():
        translator.set_constant(tensor, array)
    translator.reserve([*inputs, *outputs])
    translator.run(list(outputs.values()))
    results = [translator.result(tensor, name) for name, tensor in outputs.items()]
    nodes = _alive(translator.nodes, results)
    made = ir.Graph(
        fed,
        results,
        nodes=nodes,
        initializers=[value for value in translator.initializers.values() if value.uses()],
        opset_imports={"": ATTENTION_OPSET if _attends(nodes) else OPSET},
        name="tensorflow",
    )
    model = ir.Model(made, ir_version=10)
    channels_first(model)
    return model


def _alive(nodes: Sequence[ir.Node], results: Sequence[ir.Value]) -> list[ir.Node]:
    """Return the nodes that the results need; patterns leave others behind."""
    needed = set(results)
    kept: list[ir.Node] = []
    for node in reversed(nodes):
        if needed.isdisjoint(node.outputs):
            for index in range(len(node.inputs)):
                node.replace_input_with(index, None)
            continue
        kept.append(node)
        inner = (
            within
            for attribute in node.attributes.values()
            if attribute.type == ir.AttributeType.GRAPH
            for within in attribute.as_graph().all_nodes()
        )
        needed.update(value for reader in (node, *inner) for value in reader.inputs if value)
    return kept[::-1]


def _attends(nodes: Sequence[ir.Node]) -> bool:
    """Return whether something may be attention: a product, Softmax, and a product."""
    return any(
        node.op_type == "Softmax"
        and any(use.node.op_type in ("MatMul", "Einsum") for use in node.outputs[0].uses())
        for node in nodes
    )


def _open(shape: Sequence[int | None], name: str) -> list[int | str]:
    return [
        size if size is not None else ("batch" if axis == 0 else f"{name}_{axis}")
        for axis, size in enumerate(shape)
    ]
