"""Small networks with what quantizers meet: convolutions of every kind, and attention."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper
from qdq_models import FLOAT, Builder

Array = np.ndarray


class _Network(Builder):
    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = np.random.default_rng(seed)

    def random(self, *shape: int, scale: float | None = None) -> str:
        """A weight; scaled so that a layer keeps the variance of its input."""
        depth = np.prod(shape[1:]) if len(shape) > 2 else shape[0]
        factor = np.sqrt(1.5 / depth) if scale is None else scale
        return self.constant((self.rng.standard_normal(shape) * factor).astype(np.float32))

    def conv(self, x: str, out: int, inner: int, size: int = 1, **attributes: object) -> str:
        pads = [size // 2] * 4
        weights = self.random(out, inner, size, size)
        return self.node("Conv", x, weights, self.random(out, scale=0.1), pads=pads, **attributes)

    def dense(self, x: str, inner: int, out: int) -> str:
        product = self.node("MatMul", x, self.random(inner, out))
        return self.node("Add", product, self.random(out, scale=0.1))

    def finished(self, y: str, inputs: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
        infos = [helper.make_tensor_value_info(n, FLOAT, shape) for n, shape in inputs.items()]
        outputs = [helper.make_tensor_value_info(y, FLOAT, None)]
        graph = helper.make_graph(self.nodes, "network", infos, outputs, self.constants)
        opsets = [helper.make_opsetid("", 17)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def mobile() -> tuple[onnx.ModelProto, list[dict[str, Array]]]:
    """Inverted residuals, then two kinds of pooling side by side and a grouped convolution.

    No squeeze and excitation (PP-OCR's models have it): one code of a gate, rounded the other way
    at a tie, moves every pixel of its channel.
    """
    b = _Network(1)
    x = b.node("Relu", b.conv("x", 16, 3, 3, strides=[2, 2]))
    for step in (1, 2):
        y = b.node("HardSwish", b.conv(x, 48, 16))
        y = b.node("Clip", b.conv(y, 48, 1, 3, group=48), *map(b.constant, np.float32([0, 6])))
        y = b.node("Mul", y, b.node("Sigmoid", y))
        x = b.node("Add", x, b.conv(y, 16, 48))
        if step == 1:
            x = b.node("LeakyRelu", x, alpha=0.1)
    pooled = b.node("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    averaged = b.node("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = b.node("Concat", pooled, averaged, axis=1)
    x = b.node("Flatten", b.node("GlobalAveragePool", b.conv(x, 40, 16, 3, group=2)))
    y = b.node("Gemm", x, b.random(10, 40, scale=0.2), b.random(10), transB=1)
    feeds = [{"x": b.rng.standard_normal((1, 3, 32, 32)).astype("f")} for _ in range(40)]
    return b.finished(b.node("Softmax", y), {"x": (1, 3, 32, 32)}), feeds


def transformer() -> tuple[onnx.ModelProto, list[dict[str, Array]]]:
    """A layer of attention and a feed-forward one over 9 positions of 32 numbers."""
    b = _Network(2)
    width, heads, length = 32, 4, 9

    def norm(x: str) -> str:
        gamma = b.constant(np.ones(width, np.float32))
        return b.node("LayerNormalization", x, gamma, b.random(width, scale=0.1))

    def split(x: str, perm: list[int]) -> str:
        sizes = b.constant(np.array([0, length, heads, width // heads]))
        return b.node("Transpose", b.node("Reshape", x, sizes), perm=perm)

    x = norm(b.dense("x", width, width))
    q, k, v = (b.dense(x, width, width) for _ in range(3))
    scores = b.node("MatMul", split(q, [0, 2, 1, 3]), split(k, [0, 2, 3, 1]))
    scores = b.node("Mul", scores, b.constant(np.float32(1 / np.sqrt(width // heads))))
    mixed = b.node("MatMul", b.node("Softmax", scores), split(v, [0, 2, 1, 3]))
    mixed = b.node("Transpose", mixed, perm=[0, 2, 1, 3])
    mixed = b.node("Reshape", mixed, b.constant(np.array([0, length, width])))
    x = norm(b.node("Add", x, b.dense(mixed, width, width)))
    y = b.dense(x, width, 64)
    erf = b.node("Erf", b.node("Div", y, b.constant(np.float32(np.sqrt(2)))))
    erf = b.node("Add", erf, b.constant(np.float32(1)))
    y = b.node("Mul", b.node("Mul", y, b.constant(np.float32(0.5))), erf)
    x = norm(b.node("Add", x, b.dense(y, 64, width)))
    feeds = [{"x": b.rng.standard_normal((2, length, width)).astype("f")} for _ in range(12)]
    return b.finished(b.dense(x, width, 12), {"x": (2, length, width)}), feeds
