"""Model files are untrusted: sizes that overflow or exhaust memory are refused, never run."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lowprec import graph
from lowprec.engine import compile_model
from lowprec.errors import LowprecError

HUGE = 2**62


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


# Operator, constant operands after the image (1, 4, 5, 6), attributes.
HOSTILE = {
    "stride": ("Conv", [ones(4, 4, 1, 1)], {"strides": [HUGE, 1]}),
    "dilation": ("Conv", [ones(4, 4, 3, 3)], {"dilations": [HUGE, 1], "pads": [HUGE, 1, HUGE, 1]}),
    "border": ("Conv", [ones(4, 4, 1, 1)], {"pads": [2**24] * 4, "strides": [2**24] * 2}),
    "transposed stride": ("ConvTranspose", [ones(4, 4, 3, 3)], {"strides": [2**40, 1]}),
    "window": ("MaxPool", [], {"kernel_shape": [2**31, 1], "pads": [2**31, 0, 2**31, 0]}),
    "block": ("DepthToSpace", [], {"blocksize": HUGE}),
    "axis twice": ("Slice", [ints(4, -1), ints(HUGE, HUGE), ints(1, 1)], {}),
    "pad": ("Pad", [ints(0, 0, 2**40, 0, 0, 0, 0, 0)], {}),
    "scale": ("Resize", [ones(0), np.array([1, 1, 1e9, 1], np.float32)], {}),
    "no scale": ("Resize", [ones(0), np.array([1, 1, np.nan, 1], np.float32)], {}),
    "tile": ("Tile", [ints(1, 2**40, 1, 1)], {}),
    "expand": ("Expand", [ints(2**40, 4, 5, 6)], {}),
    "negative sizes": ("Reshape", [ints(-2, -60)], {}),
    "window of channels": ("LRN", [], {"size": -(2**40)}),
    "k": ("TopK", [ints(HUGE)], {}),
    "root of windows": ("LpPool", [], {"kernel_shape": [2**31, 1], "pads": [2**31, 0, 2**31, 0]}),
    "columns": ("Col2Im", [ints(2**40, 2**40), ints(2, 2)], {}),
    "transform": ("DFT", [ints(2**40)[0], ints(1)[0]], {}),
    "frames": ("STFT", [ints(0)[0]], {}),
    "samples": ("RoiAlign", [ones(1, 4), ints(0)], {"sampling_ratio": HUGE}),
    "bins": ("RoiAlign", [ones(1, 4), ints(0)], {"output_height": 2**40, "output_width": 2**40}),
    "result size": ("ConvTranspose", [ones(4, 4, 3, 3)], {"output_shape": [HUGE, HUGE]}),
    "no groups": ("GroupNormalization", [ones(4), ones(4)], {"num_groups": 0}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_sizes_that_cannot_be_are_refused(name):
    op, constants, attributes = HOSTILE[name]
    tensors = [numpy_helper.from_array(array, f"c{i}") for i, array in enumerate(constants)]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node(op, ["r", *(tensor.name for tensor in tensors)], ["y"], **attributes),
    ]
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 5, 6])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    proto = helper.make_model(
        helper.make_graph(nodes, "hostile", [image], [result], tensors),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    with pytest.raises(LowprecError):
        compile_model(graph.load(proto)).run({"x": ones(1, 4, 5, 6)})


@pytest.mark.parametrize("operands", [(HUGE, -1, -1), (0, HUGE, 1)])
def test_a_range_that_does_not_fit_is_refused(operands):
    tensors = [numpy_helper.from_array(np.array(v), f"c{i}") for i, v in enumerate(operands)]
    node = helper.make_node("Range", ["c0", "c1", "c2"], ["y"])
    result = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    proto = helper.make_model(
        helper.make_graph([node], "range", [], [result], tensors),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    with pytest.raises(LowprecError):
        compile_model(graph.load(proto)).run({})
