"""An AlexNet in small for 28 x 28 images, trained in a second, and digits in MNIST's files.

The convolutions are random (their features are good enough for digits); the last layer is solved
by least squares. The digits are scikit-learn's, 8 x 8, resampled to 28 x 28.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

import lowprec
from lowprec.data.resize import resize

TRAINED = 1297  # digits that the last layer is solved on; the other 500 are test images
WIDTH = 256  # features before the last layer


def digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images (1797, 28, 28) and labels."""
    data = load_digits()
    small = np.rint(data.images * (255 / 16)).astype(np.uint8)
    images = np.stack([resize(image, 28, 28, antialias=True) for image in small])
    return images, data.target.astype(np.uint8)


def write_mnist(root: Path) -> None:
    """Write the digits as the four files of MNIST, as torchvision leaves them: root/MNIST/raw."""
    images, labels = digits()
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    halves = {"train": slice(0, TRAINED), "t10k": slice(TRAINED, None)}
    for part, half in halves.items():
        for name, array in (("images", images[half]), ("labels", labels[half])):
            head = struct.pack(">BBBB", 0, 0, 8, array.ndim)
            sizes = struct.pack(f">{array.ndim}I", *array.shape)
            path = folder / f"{part}-{name}-idx{array.ndim}-ubyte.gz"
            path.write_bytes(gzip.compress(head + sizes + array.tobytes()))


def make_alexnet(path: Path) -> None:
    """Write the network, input `input` (N, 1, 28, 28), output `logits` (N, 10)."""
    rng = np.random.default_rng(7)
    constants: dict[str, NDArray[np.float32]] = {}

    def layer(name: str, *shape: int) -> None:
        fan_in = np.prod(shape[1:])
        constants[f"{name}.w"] = rng.normal(0, np.sqrt(2 / fan_in), shape).astype(np.float32)
        constants[f"{name}.b"] = rng.normal(0, 0.05, shape[0]).astype(np.float32)

    layer("conv1", 16, 1, 5, 5)
    layer("conv2", 32, 16, 5, 5)
    layer("conv3", 48, 32, 3, 3)
    layer("conv4", 48, 48, 3, 3)
    layer("conv5", 32, 48, 3, 3)
    layer("fc6", WIDTH, 32 * 3 * 3)
    layer("fc8", 10, WIDTH)
    images, labels = digits()
    inputs = (images[:TRAINED, None].astype(np.float32) / 255 - 0.1307) / 0.3081
    features = lowprec.compile(_graph(constants, "fc6.r", WIDTH))(inputs.astype(np.float32))
    design = np.concatenate([features, np.ones((TRAINED, 1))], axis=1).astype(np.float64)
    target = np.where(np.eye(10)[labels[:TRAINED]] > 0, 4.0, -1.0)
    gram = design.T @ design + 1.0 * np.eye(WIDTH + 1)
    solved = np.linalg.solve(gram, design.T @ target).astype(np.float32)
    constants["fc8.w"], constants["fc8.b"] = np.ascontiguousarray(solved[:-1].T), solved[-1]
    onnx.save(_graph(constants, "logits", 10), path)


def _graph(constants: dict[str, NDArray[np.float32]], output: str, width: int) -> onnx.ModelProto:
    nodes = []
    value = "input"

    def add(operator: str, name: str, result: str, **attributes: object) -> None:
        nonlocal value
        weights = [f"{name}.w", f"{name}.b"] if operator in ("Conv", "Gemm") else []
        nodes.append(helper.make_node(operator, [value, *weights], [result], name, **attributes))
        value = result

    for number, (name, pads) in enumerate(
        [("conv1", 2), ("conv2", 2), ("conv3", 1), ("conv4", 1), ("conv5", 1)]
    ):
        add("Conv", name, f"{name}.y", pads=[pads] * 4)
        add("Relu", f"relu{number + 1}", f"{name}.r")
        if name in ("conv1", "conv2", "conv5"):
            add("MaxPool", f"pool{number + 1}", f"{name}.p", kernel_shape=[2, 2], strides=[2, 2])
    add("Flatten", "flatten", "flat")
    add("Gemm", "fc6", "fc6.y", transB=1)
    add("Relu", "relu6", "fc6.r")
    if output == "logits":
        add("Gemm", "fc8", "logits", transB=1)
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "alexnet",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model
