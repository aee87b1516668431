"""Builds small Q/DQ models, and asks both sides what they make of them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from lowprec import graph
from lowprec.passes import fuse

RNG = np.random.default_rng(3)
FLOAT = TensorProto.FLOAT


class Builder:
    """Builds small Q/DQ models."""

    def __init__(self, rng: np.random.Generator = RNG) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def quantized(self, value: str, scale: float, zero: int = 0, dtype: type = np.uint8) -> str:
        parameters = (self.constant(np.float32(scale)), self.constant(dtype(zero)))
        codes = self.node("QuantizeLinear", value, *parameters)
        return self.node("DequantizeLinear", codes, *parameters)

    def weights(self, shape: tuple[int, ...], axis: int, scale: float = 0.01) -> str:
        codes = self.rng.integers(-127, 128, shape).astype(np.int8)
        scales = (self.rng.random(shape[axis]) * scale + scale / 10).astype(np.float32)
        zeros = np.zeros(shape[axis], np.int8)
        return self.node(
            "DequantizeLinear",
            self.constant(codes),
            self.constant(scales),
            self.constant(zeros),
            axis=axis,
        )

    def floats(self, shape: tuple[int, ...]) -> str:
        return self.constant(self.rng.standard_normal(shape).astype(np.float32) * np.float32(0.1))

    def model(self, output: str, shape: tuple[int | None, ...]) -> onnx.ModelProto:
        return helper.make_model(
            helper.make_graph(
                self.nodes,
                "small",
                [helper.make_tensor_value_info("x", FLOAT, shape)],
                [helper.make_tensor_value_info(output, FLOAT, None)],
                self.constants,
            ),
            opset_imports=[helper.make_opsetid("", 21)],
            ir_version=10,
        )


def operators(proto: onnx.ModelProto) -> list[str]:
    hub = graph.load(proto)
    fuse(hub)
    return [node.op_type for node in hub.graph]


def onnxruntime_result(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    run = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return run.run(None, {"x": x})[0]
