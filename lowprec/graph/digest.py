"""The content of a hub model as one short text, to recognise it by."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir


def model_digest(model: ir.Model) -> str:
    """Return a hash of what `model` computes: nodes, names, constants.

    Metadata of nodes count, for they hold the scale of a recurrent layer's state; the model's own
    do not.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(repr(sorted(model.opset_imports.items())).encode())
    graph = model.graph
    for values in (graph.inputs, graph.outputs):
        digest.update(repr([(value.name, str(value.dtype)) for value in values]).encode())
    for name in sorted(graph.initializers):
        tensor = graph.initializers[name].const_value
        if tensor is None:
            continue
        digest.update(f"{name} {tensor.dtype} {tensor.shape};".encode())
        if tensor.dtype == ir.DataType.STRING:
            digest.update(repr(tensor.numpy().tolist()).encode())
        else:
            array = np.ascontiguousarray(tensor.numpy())
            digest.update(array.reshape(-1).view(np.uint8).data)
    for node in graph:
        digest.update(ir.serde.serialize_node(node).SerializeToString(deterministic=True))
    for key in sorted(model.functions):
        function = ir.serde.serialize_function(model.functions[key])
        digest.update(function.SerializeToString(deterministic=True))
    return digest.hexdigest()
