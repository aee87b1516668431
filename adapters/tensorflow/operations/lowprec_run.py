"""LowprecRun: the model that it runs takes its place, so that saved models are captured again."""

from __future__ import annotations

import onnx_ir as ir

from lowprec.adapters.tensorflow.content import proto_of
from lowprec.adapters.tensorflow.nodes import Node
from lowprec.adapters.tensorflow.translator import OPSET, Translator, translates
from lowprec.errors import UnsupportedError
from lowprec.graph import load


@translates("LowprecRun")
def _run(translator: Translator, node: Node) -> list[ir.Value]:
    """The last input is the model, the bytes of an ONNX file; the others are its inputs."""
    count = len(node.inputs) - 1
    hub = load(proto_of(translator.constant(node, count)))
    if hub.opset_imports[""] != OPSET:
        raise UnsupportedError(
            f"node '{node.name}' runs a model of opset {hub.opset_imports['']}, and the graph "
            f"around it has {OPSET}; save it as .onnx and load that"
        )
    graph = hub.graph
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    graph.inputs.clear()
    graph.outputs.clear()
    for number, value in enumerate(inputs):
        given = translator.value(node, number)
        ir.convenience.replace_all_uses_with(value, given)
        outputs = [given if output is value else output for output in outputs]
    for name in list(graph.initializers):
        value = graph.initializers.pop(name)
        value.name = translator.unique(name)
        translator.initializers[value.name] = value
    nodes = list(graph)
    graph.remove(nodes)
    for inner in nodes:
        inner.name = translator.unique(str(inner.name))
        for value in inner.outputs:
            if value.name:
                value.name = translator.unique(value.name)
    translator.nodes.extend(nodes)
    return outputs
