"""What graphs are written as: old dilations, ranges of training for int8, damage."""

from __future__ import annotations

from typing import Any

import keras_layers as cases
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf

import lowprec
from lowprec.adapters.tensorflow.hub import hub_of
from lowprec.adapters.tensorflow.keras_source import source_of_keras
from lowprec.adapters.tensorflow.nodes import Graph, Node
from lowprec.adapters.tensorflow.source import Source, source_of
from lowprec.adapters.tensorflow.translate import translate
from lowprec.errors import LowprecError, ModelError

RANDOM = np.random.default_rng(0)


def source(function: Any, *shape: int | None) -> Source:
    concrete = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec(shape))
    return source_of(concrete, ["x"])


def kinds(hub: ir.Model) -> list[str]:
    return [node.op_type for node in hub.graph]


def agrees(model: Source, hub: ir.Model, x: np.ndarray, tolerance: float = 1e-5) -> None:
    for wanted, found in zip(model.run([x]), lowprec.compile(hub).run({"x": x}), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", [(None, None), (9, 12)])
def test_a_dilation_around_a_convolution_is_one_operator(size: tuple[int | None, ...]) -> None:
    weights = RANDOM.standard_normal((3, 3, 2, 4)).astype(np.float32)
    depthwise = RANDOM.standard_normal((3, 3, 4, 1)).astype(np.float32)

    def call(x: tf.Tensor) -> tf.Tensor:
        x = tf.nn.atrous_conv2d(x, weights, 2, "SAME")
        return tf.nn.depthwise_conv2d(x, depthwise, [1] * 4, "SAME", dilations=[3, 3])

    model = source(call, None, *size, 2)
    assert any(node.op == "SpaceToBatchND" for node in model.graph.nodes.values())
    hub = hub_of(model, "dilated")
    assert kinds(hub).count("Conv") == 2
    assert "Reshape" not in kinds(hub)
    assert "Pad" not in kinds(hub)
    agrees(model, hub, RANDOM.standard_normal((2, 9, 12, 2)).astype(np.float32))


@pytest.mark.parametrize(("less", "padding"), [(0, "SAME"), (1, "SAME"), (-1, "VALID")])
def test_transposed_convolutions_make_the_size_that_is_computed(less: int, padding: str) -> None:
    weights = RANDOM.standard_normal((3, 3, 4, 2)).astype(np.float32)

    def call(x: tf.Tensor) -> tf.Tensor:
        sizes = tf.shape(x)
        shape = tf.stack([sizes[0], sizes[1] * 2 - less, sizes[2] * 2 - less, 4])
        return tf.nn.conv2d_transpose(x, weights, shape, 2, padding)

    model = source(call, None, None, None, 2)
    agrees(model, hub_of(model, "spread"), RANDOM.standard_normal((2, 5, 4, 2)).astype(np.float32))


def test_transposed_convolutions_of_other_sizes_are_refused() -> None:
    weights = RANDOM.standard_normal((3, 3, 4, 2)).astype(np.float32)

    def call(x: tf.Tensor) -> tf.Tensor:
        sizes = tf.shape(x)
        shape = tf.stack([sizes[0], sizes[1] * 2 - sizes[2] % 2, sizes[2] * 2, 4])
        return tf.nn.conv2d_transpose(x, weights, shape, 2, "SAME")

    model = source(call, None, None, None, 2)
    with pytest.raises(LowprecError, match="no fixed number"):
        hub_of(model, "spread")


def test_layers_on_sequences_have_no_extra_axis() -> None:
    chosen = [case for case in cases.LAYERS if case.layer in ("Conv1D", "MaxPooling1D")]
    for case in chosen:
        model, _ = source_of_keras(cases.alone([case]))
        hub = hub_of(model, "sequence")
        assert not {"Squeeze", "Unsqueeze"} & {*kinds(hub)}, case.name


def quantized(x: tf.Tensor, weights: np.ndarray, high: float) -> tf.Tensor:
    channels = np.abs(weights).reshape(-1, weights.shape[-1]).max(0)
    x = tf.quantization.fake_quant_with_min_max_vars(x, -1.0, high)
    kernel = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        tf.constant(weights), -channels, channels, narrow_range=True
    )
    return tf.nn.conv2d(x, kernel, 1, "SAME")


def test_ranges_of_training_become_pairs_with_their_scales() -> None:
    weights = RANDOM.standard_normal((3, 3, 2, 4)).astype(np.float32)
    model = source(lambda x: quantized(x, weights, 3.0), None, 6, 6, 2)
    hub = hub_of(model, "trained")
    pairs = [node for node in hub.graph if node.op_type == "DequantizeLinear"]
    assert len(pairs) == 2
    scales = {node.inputs[0].dtype or ir.DataType.UINT8: node.inputs[1] for node in pairs}
    held = scales[ir.DataType.INT8].const_value
    assert held is not None
    channels = np.abs(weights).reshape(-1, 4).max(0)
    np.testing.assert_allclose(held.numpy(), channels / 127, rtol=1e-6)
    zero = next(node for node in pairs if node.inputs[0].dtype == ir.DataType.INT8).inputs[2]
    assert zero is not None
    assert not zero.const_value.numpy().any()  # symmetric
    agrees(model, hub, RANDOM.standard_normal((2, 6, 6, 2)).astype(np.float32), 2e-5)


@pytest.mark.parametrize(("bits", "narrow"), [(8, True), (4, False), (8, False)])
def test_ranges_of_other_widths_round_as_tensorflow_rounds(bits: int, narrow: bool) -> None:
    model = source(
        lambda x: tf.quantization.fake_quant_with_min_max_args(
            x, -1.3, 2.0, num_bits=bits, narrow_range=narrow
        ),
        None,
        64,
    )
    agrees(model, hub_of(model, "rounded"), RANDOM.standard_normal((3, 64)).astype(np.float32) * 2)


def damaged(op: str, constants: list[Any], **attributes: Any) -> Any:
    """Translate one node that reads an input of shape [open, 4, 6] and constants."""
    nodes = {
        "x": Node("x", "Placeholder", ()),
        "y": Node("y", op, (("x", 0), *((f"c{n}", 0) for n in range(len(constants)))), attributes),
    }
    shapes: dict[Any, Any] = {("x", 0): (None, 4, 6)}
    for number, constant in enumerate(constants):
        held = np.asarray(constant)
        nodes[f"c{number}"] = Node(f"c{number}", "Const", (), {"value": held})
        shapes[f"c{number}", 0] = held.shape

    def none(name: str) -> Any:
        raise AssertionError(name)

    graph = Graph(nodes, shapes, none)
    return translate(graph, {"x": ("x", 0)}, {"y": ("y", 0)}, [np.dtype(np.float32)], {})


@pytest.mark.parametrize(
    ("op", "constants", "attributes"),
    [
        ("Sum", [[7]], {}),
        ("ExpandDims", [9], {}),
        ("Transpose", [[0, 0, 1]], {}),
        ("Transpose", [[0, 5, 1]], {}),
        ("GatherV2", [[0, 1], 5], {}),
        ("ConcatV2", [np.zeros((1, 4, 6), np.float32), 8], {}),
        ("Pad", [[[0, 0], [-3, 0], [0, 1]]], {}),
        ("Pad", [[[0, 0]]], {}),
        ("StridedSlice", [[0], [3], [0]], {}),
        ("StridedSlice", [[0, 0], [3], [1]], {}),
        ("ArgMax", [4], {}),
        ("Split", [], {"num_split": "x"}),
        ("Cumsum", [3], {}),
        ("Conv2D", [np.zeros((3, 3), np.float32)], {"padding": "SAME"}),
        ("FakeQuantWithMinMaxVars", [2.0, -2.0], {}),
        ("FakeQuantWithMinMaxVars", [np.nan, 2.0], {}),
        ("Cast", [], {}),
    ],
)
def test_damaged_constants_are_refused(
    op: str, constants: list[Any], attributes: dict[str, Any]
) -> None:
    with pytest.raises(ModelError, match="node 'y'"):
        damaged(op, constants, **attributes)


@pytest.mark.parametrize(
    ("op", "constants"),
    [
        ("Fill", [[2**20, 2**20], np.float32(0)]),
        ("Range", [np.int32(0), np.int32(2**31 - 1), np.int32(1)]),
        ("Range", [np.int32(0), np.int32(5), np.int32(0)]),
        ("BroadcastTo", [np.zeros(1, np.float32), [2**30, 2**30]]),
        ("Tile", [np.zeros(2, np.float32), [2**30]]),
        ("LinSpace", [np.float32(0), np.float32(1), np.int32(-4)]),
        ("Fill", [[-5], np.float32(0)]),
    ],
)
def test_constants_that_would_be_huge_are_refused(op: str, constants: list[Any]) -> None:
    nodes = {
        f"c{n}": Node(f"c{n}", "Const", (), {"value": np.asarray(c)})
        for n, c in enumerate(constants)
    }
    nodes["y"] = Node(
        "y", op, tuple((f"c{n}", 0) for n in range(len(constants))), {"T": np.dtype(np.float32)}
    )
    graph = Graph(nodes, {}, lambda name: pytest.fail(name))
    with pytest.raises(ModelError, match="node 'y'"):
        translate(graph, {}, {"y": ("y", 0)}, [], {})
