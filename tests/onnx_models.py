"""Small ONNX models built by hand."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def value(name: str, shape: list[int | str | None] | None, dtype: int = TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


def make_model(nodes, inputs, outputs, initializers=(), *, opset=21, ir_version=10, domains=()):
    graph = helper.make_graph(nodes, "small", inputs, outputs, list(initializers))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(*pair) for pair in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def linear() -> onnx.ModelProto:
    """y = relu(x @ w + b), x (N, 4), w (4, 3); the weight is an initializer, the bias a "
    "Constant."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(size=(4, 3)).astype(np.float32), "w")
    bias = numpy_helper.from_array(rng.normal(size=3).astype(np.float32), "bias_value")
    nodes = [
        helper.make_node("Constant", [], ["b"], "constant_b", value=bias),
        helper.make_node("MatMul", ["x", "w"], ["product"], "matmul"),
        helper.make_node("Add", ["product", "b"], ["sum"], "add"),
        helper.make_node("Relu", ["sum"], ["y"], "relu"),
    ]
    model = make_model(nodes, [value("x", ["N", 4])], [value("y", ["N", 3])], [weight])
    helper.set_model_props(model, {"character": "a\nb\nc"})
    return model


def run_reference(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, feeds)
