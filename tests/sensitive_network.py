"""A small network of which one layer is hard to quantise, and a workbench for it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from qdq_models import FLOAT, Builder

from lowprec.config import Config
from lowprec.graph import load
from lowprec.workbench import Workbench

BAD = "second"
ASK = Config.of({"layers": [{"op_type": "Gemm", "precision": "int8"}]})  # small as they are


def network(
    outlier: float = 400.0, *, softmax: bool = False
) -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """Three layers; one input channel of the second is large and hardly read."""
    rng = np.random.default_rng(0)
    b = Builder()
    spread = np.ones((32, 1), np.float32)
    spread[5] = outlier
    first = rng.standard_normal((32, 16)).astype("f") * spread / 4
    second = rng.standard_normal((32, 32)).astype("f") / 6
    second[:, 5] /= outlier
    third = rng.standard_normal((12, 32)).astype("f") / 3
    x = b.node("Gemm", "x", b.constant(first), transB=1)
    x = b.node("Tanh", b.node("Gemm", b.node("Relu", x), b.constant(second), transB=1))
    x = b.node("Gemm", x, b.constant(third), transB=1)
    y = b.node("Softmax", x) if softmax else x
    gemms = [node for node in b.nodes if node.op_type == "Gemm"]
    for node, name in zip(gemms, ("first", BAD, "third"), strict=True):
        node.name = name
    graph = helper.make_graph(
        b.nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, (8, 16))],
        [helper.make_tensor_value_info(y, FLOAT, None)],
        b.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    feeds = [{"x": rng.standard_normal((8, 16)).astype("f")} for _ in range(12)]
    return model, feeds


def workbench(outlier: float = 400.0, *, softmax: bool = False) -> Workbench:
    """Return a workbench of `network`."""
    model, feeds = network(outlier, softmax=softmax)
    return Workbench(load(model), feeds, name="network")
