"""One ONNX operator run by others: ONNX's reference implementation, and onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

TYPES = {
    np.dtype(name): getattr(TensorProto, name.upper())
    for name in ("uint8", "int8", "uint16", "int16", "int32")
} | {np.dtype(np.float32): TensorProto.FLOAT}


def model_of(op: str, inputs: list[np.ndarray], outputs: list[np.dtype], **attributes):
    """A model of one node, its inputs of these dtypes and ranks."""
    names = [f"input{i}" for i in range(len(inputs))]
    results = [f"output{i}" for i in range(len(outputs))]
    graph = helper.make_graph(
        [helper.make_node(op, names, results, **attributes)],
        op,
        [
            helper.make_tensor_value_info(name, TYPES[x.dtype], [None] * x.ndim)
            for name, x in zip(names, map(np.asarray, inputs), strict=True)
        ],
        [
            helper.make_tensor_value_info(name, TYPES[np.dtype(dtype)], None)
            for name, dtype in zip(results, outputs, strict=True)
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run_onnxruntime(op, inputs, outputs, **attributes):
    runtime = pytest.importorskip("onnxruntime")
    inputs = [np.asarray(x) for x in inputs]
    model = model_of(op, inputs, outputs, **attributes).SerializeToString()
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {f"input{i}": x for i, x in enumerate(inputs)})


def run_onnx(op, inputs, outputs, **attributes):
    inputs = [np.asarray(x) for x in inputs]
    model = ReferenceEvaluator(model_of(op, inputs, outputs, **attributes))
    return model.run(None, {f"input{i}": x for i, x in enumerate(inputs)})
