"""The onnx package's nine light models, with weights that make their outputs mean something.

The package ships real topologies (AlexNet to ResNet-50) whose weights are `ConstantOfShape` nodes:
every output is the same number. Here they get seeded random weights, scaled as for training (He et
al. 2015, arXiv:1502.01852), so that a layer keeps the variance of what flows through it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

LIGHT_FOLDER = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
BRANCH_SCALE = 0.4  # of what a Sum adds, or sixteen residual blocks double the variance each


def light_models() -> list[Path]:
    """Return the paths of the models inside the onnx package, sorted."""
    return sorted(LIGHT_FOLDER.glob("light_*.onnx"))


def with_random_weights(path: Path, seed: int = 0) -> onnx.ModelProto:
    """Return the model at `path` with seeded random initializers as weights, for any batch size."""
    model = onnx.load(str(path))
    model.ir_version = 8  # before 4, an initializer had to be an input as well
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = {
        node.output[0]: tuple(int(size) for size in constants[node.input[0]])
        for node in graph.node
        if node.op_type == "ConstantOfShape"
    }
    shapes |= {name: value.shape for name, value in constants.items() if value.dtype == np.float32}
    # A batch norm's scale, or a Mul's, may reach its consumer through Unsqueeze.
    uses = {name: (node, i) for node in graph.node for i, name in enumerate(node.input)}
    rng = np.random.default_rng(seed)
    fresh = {}
    for name, shape in shapes.items():
        if name not in uses:
            continue
        node, position = uses[name]
        while node.op_type == "Unsqueeze":
            node, position = uses[node.output[0]]
        fresh[name] = random_weight(node, position, shape, rng)
        is_branch = node.output[0] in uses and uses[node.output[0]][0].op_type == "Sum"
        if (node.op_type, position) == ("BatchNormalization", 1) and is_branch:
            fresh[name] *= np.float32(BRANCH_SCALE)

    used = {name for node in graph.node if node.op_type != "ConstantOfShape" for name in node.input}
    kept = [t for t in graph.initializer if t.name in used and t.name not in fresh]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in fresh.items())
    nodes = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    del graph.node[:]
    graph.node.extend(nodes)
    # Old models list their weights as inputs too; only the picture is one.
    pictures = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(pictures)
    free_batch(graph)
    return model


def free_batch(graph: onnx.GraphProto) -> None:
    """Let axis 0 of inputs and outputs be of any size: the files and their Reshapes say 1."""
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    weights = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[0] in weights or node.input[1] not in weights:
            continue
        target = weights[node.input[1]]
        sizes = numpy_helper.to_array(target).copy()
        if sizes[0] == 1:
            sizes[0] = 0  # as many as there are
            target.CopyFrom(numpy_helper.from_array(sizes, target.name))


def random_weight(
    node: onnx.NodeProto, position: int, shape: tuple[int, ...], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a weight of `shape` for input `position` of `node`."""
    draw = rng.standard_normal(shape, dtype=np.float32)
    match node.op_type, position:
        case "Conv", 1:
            return draw * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        case "Gemm", 1:
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            return draw * np.float32(np.sqrt(2 / shape[1 if transposed else 0]))
        case "BatchNormalization", 4:
            return np.float32(1) + np.float32(0.2) * np.abs(draw)
        case ("BatchNormalization", 1) | ("Mul", _):
            return np.float32(1) + np.float32(0.1) * draw
        case _:  # biases, means
            return np.float32(0.05) * draw


def pictures(count: int, seed: int) -> list[NDArray[np.float32]]:
    """Return (1, 3, 224, 224) pictures of mean 0 and deviation 1: smooth blots and some grain."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        blots = rng.standard_normal((3, 8, 8))
        for axis in (1, 2):
            at = np.linspace(0, 7, 224)
            low = np.minimum(at.astype(int), 6)
            part = (at - low).reshape((-1, 1) if axis == 1 else (1, -1))
            blots = np.take(blots, low, axis) * (1 - part) + np.take(blots, low + 1, axis) * part
        picture = blots + 0.2 * rng.standard_normal((3, 224, 224))
        picture = (picture - picture.mean()) / picture.std()
        made.append(picture[None].astype(np.float32))
    return made
