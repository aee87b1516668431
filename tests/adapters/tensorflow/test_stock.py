"""Quantised models run by TensorFlow's own int8 operators."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import lowprec
from lowprec.adapters.tensorflow.binding import KEY, Binding
from lowprec.adapters.tensorflow.keras_capture import capture_keras
from lowprec.adapters.tensorflow.stock import graph_def, operation_name
from lowprec.adapters.tensorflow.stock_files import save_stock
from lowprec.errors import OutputError, UnsupportedError
from lowprec.graph import load

Array = NDArray[Any]
LAYERS = keras.layers
RANDOM = np.random.default_rng(0)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def run(definition: Any, binding: Binding, *arrays: Array) -> list[Array]:
    """Return what a frozen graph gives."""
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(definition, name="")
    feeds = {
        f"{operation_name(name)}:0": array
        for name, array in zip(binding.inputs, arrays, strict=True)
    }
    outputs = [name if ":" in name else f"{operation_name(name)}:0" for name in binding.outputs]
    with tf.compat.v1.Session(graph=graph) as session:
        return list(session.run(outputs, feeds))


def sqnr(expected: Array, found: Array) -> float:
    noise = float(np.square(expected - found).sum())
    return 10 * float(np.log10(np.square(expected).sum() / max(noise, 1e-30)))


def made(model: keras.Model, samples: int = 6) -> tuple[Any, Binding]:
    captured = capture_keras(model)
    shape = [size or 5 for size in model.input_shape[1:]]
    name = captured.graph.graph.inputs[0].name
    data = [{name: RANDOM.standard_normal((2, *shape)).astype(np.float32)} for _ in range(samples)]
    return lowprec.quantize(captured.graph, data), captured.binding[KEY]


def types(definition: Any) -> list[str]:
    return [node.op for node in definition.node]


def residual() -> keras.Model:
    """Return a network with all that is quantised in its own way."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3), name="picture")
    x = LAYERS.Conv2D(16, 3, padding="same")(inputs)
    x = LAYERS.BatchNormalization()(x)
    x = LAYERS.ReLU(6.0)(x)
    y = LAYERS.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    y = LAYERS.Conv2D(16, 1)(y)
    x = LAYERS.Add()([x, y])
    y = LAYERS.Conv2D(16, 3, padding="same")(x)
    x = LAYERS.ReLU()(LAYERS.Add()([x, y]))
    x = LAYERS.MaxPooling2D(2)(x)
    x = LAYERS.Conv2D(24, 3, strides=2, padding="same", dilation_rate=1)(x)
    x = LAYERS.Flatten()(x)
    x = LAYERS.Dense(32, activation="relu")(x)
    return keras.Model(inputs, LAYERS.Dense(7, name="scores")(x), name="residual")


@pytest.fixture(scope="module")
def network() -> tuple[keras.Model, Any, Binding, Any]:
    model = residual()
    quantized, binding = made(model)
    return model, quantized, binding, graph_def(quantized, binding)


def test_it_gives_what_lowprec_gives(network: Any) -> None:
    model, quantized, binding, definition = network
    for batch in (1, 5):
        images = RANDOM.standard_normal((batch, 16, 16, 3)).astype(np.float32)
        expected = np.asarray(model(images))
        ours = quantized.run({"picture": images})[0]
        (stock,) = run(definition, binding, images)
        assert stock.shape == expected.shape
        assert sqnr(expected, stock) > sqnr(expected, ours) - 1
        assert sqnr(expected, stock) > 28
        assert sqnr(ours, stock) > 35


def test_layers_are_in_8_bits_and_nothing_of_lowprec_is_left(network: Any) -> None:
    *_, definition = network
    found = types(definition)
    assert found.count("QuantizedConv2DWithBiasSumAndReluAndRequantize") >= 1
    assert found.count("QuantizedDepthwiseConv2DWithBiasAndReluAndRequantize") == 1
    # The pooling; what is added needs no copy, for only convolutions before the sum read it too.
    assert found.count("QuantizedMaxPool") == 1
    assert "QuantizedMatMulWithBiasAndDequantize" in found
    assert not {"Conv2D", "Transpose", "DepthwiseConv2dNative"} & set(found)
    assert found.count("QuantizeV2") == 1
    assert b"lowprec" not in definition.SerializeToString().lower()


def test_the_file_runs_where_lowprec_was_never_imported(network: Any, tmp_path: Path) -> None:
    _, quantized, binding, definition = network
    images = RANDOM.standard_normal((3, 16, 16, 3)).astype(np.float32)
    save_stock(quantized, binding, tmp_path / "m.pb")
    save_stock(quantized, binding, tmp_path / "m")
    save_stock(quantized, binding, tmp_path / "m")  # replaces it
    np.save(tmp_path / "images.npy", images)
    program = """
import sys
import numpy as np, tensorflow as tf
images = np.load("images.npy")
definition = tf.compat.v1.GraphDef.FromString(open("m.pb", "rb").read())
graph = tf.Graph()
with graph.as_default():
    tf.graph_util.import_graph_def(definition, name="")
with tf.compat.v1.Session(graph=graph) as session:
    np.save("pb.npy", session.run("scores:0", {"picture:0": images}))
loaded = tf.saved_model.load("m")
np.save("folder.npy", loaded.signatures["serving_default"](tf.constant(images))["scores"])
assert not [name for name in sys.modules if name.startswith("lowprec")]
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)
    (expected,) = run(definition, binding, images)
    for name in ("pb.npy", "folder.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / name), expected)


def test_a_keras_model_saves_it(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), LAYERS.Dense(8, "relu"), LAYERS.Dense(3)])
    data = [RANDOM.standard_normal((4, 6)).astype(np.float32) for _ in range(4)]
    quantized = lowprec.quantize(model, data)
    quantized.save(tmp_path / "m.pb", target="tensorflow")
    definition = tf.compat.v1.GraphDef.FromString((tmp_path / "m.pb").read_bytes())
    (found,) = run(definition, quantized._how, data[0])
    assert sqnr(np.asarray(quantized(data[0])), found) > 35
    with pytest.raises(UnsupportedError, match=r"\.pb"):
        quantized.save(tmp_path / "m.keras", target="tensorflow")
    with pytest.raises(UnsupportedError, match="openvino"):
        quantized.save(tmp_path / "m.pb", target="openvino")
    with pytest.raises(OutputError, match="overwrite"):
        quantized.save(tmp_path / "m.pb", target="tensorflow", overwrite=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("")
    with pytest.raises(OutputError, match="something else"):
        quantized.save(tmp_path / "mine", target="tensorflow")
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_a_graph_file_keeps_the_names_of_its_tensors(tmp_path: Path) -> None:
    weights = RANDOM.standard_normal((3, 3, 8, 8)).astype(np.float32)
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 8], "in/images")
        tf.split(tf.nn.relu(tf.nn.conv2d(x, weights, 1, "SAME")), 2, 3, name="halves")
    (tmp_path / "float.pb").write_bytes(graph.as_graph_def().SerializeToString())
    data = [{"in/images": RANDOM.standard_normal((2, 8, 8, 8)).astype(np.float32)}] * 2
    quantized = lowprec.quantize(str(tmp_path / "float.pb"), data)
    quantized.save(tmp_path / "int8.pb", target="tensorflow")
    results = []
    for name in ("float.pb", "int8.pb"):
        definition = tf.compat.v1.GraphDef.FromString((tmp_path / name).read_bytes())
        with tf.Graph().as_default() as read:
            tf.graph_util.import_graph_def(definition, name="")
            with tf.compat.v1.Session(graph=read) as session:
                feed = {"in/images:0": data[0]["in/images"]}
                results.append(session.run(["halves:0", "halves:1"], feed))
    assert "QuantizedConv2DWithBias" in types(definition)
    for expected, found in zip(*results, strict=True):
        assert sqnr(expected, found) > 30


# ---- One layer with given codes: exactly what the QDQ graph means --------------------------------


def hub_of(
    nodes: list[onnx.NodeProto], constants: dict[str, Array], shape: list[Any]
) -> tuple[ir.Model, Binding]:
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    shapes = tuple(size if isinstance(size, int) else None for size in shape)
    return load(proto), Binding("graph", "layer", ("x:0",), ("y:0",), (shapes,), (None,))


def codes(source: str, result: str, scale: str, zero: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, scale, zero], [f"{result}_codes"]),
        helper.make_node("DequantizeLinear", [f"{result}_codes", scale, zero], [result]),
    ]


def convolution(
    zero: int, result_zero: int, dtype: Any = np.uint8, between: str = "", **attributes: Any
) -> tuple[ir.Model, Binding]:
    channels, out = 8, 12
    group = attributes.get("group", 1)
    weights = RANDOM.integers(-127, 128, (out if group == 1 else 8, channels // group, 3, 3))
    out = weights.shape[0]
    constants = {
        "s": np.float32(0.02),
        "z": dtype(zero),
        "t": np.float32(0.05),
        "u": dtype(result_zero),
        "w": weights.astype(np.int8),
        "ws": RANDOM.uniform(0.001, 0.01, out).astype(np.float32),
        "b": RANDOM.normal(0, 1, out).astype(np.float32),
        "low": np.float32(-1),
        "high": np.float32(2),
    }
    nodes = [
        # As images come: channels last.
        helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]),
        *codes("first", "a", "s", "z"),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["real"], axis=0),
        helper.make_node("Conv", ["a", "real", "b"], ["c"], name="conv", **attributes),
    ]
    end = "c"
    if between:
        bounds = ["low", "high"] if between == "Clip" else []
        nodes.append(helper.make_node(between, ["c", *bounds], ["d"], name="between"))
        end = "d"
    nodes += [
        *codes(end, "e", "t", "u"),
        helper.make_node("Transpose", ["e"], ["y"], perm=[0, 2, 3, 1]),
    ]
    return hub_of(nodes, constants, ["n", 10, 9, channels])


@pytest.mark.parametrize(
    ("zero", "result_zero", "dtype", "between", "attributes"),
    [
        (0, 0, np.uint8, "Relu", {"pads": [1, 1, 1, 1]}),
        (0, 128, np.uint8, "", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        (100, 90, np.uint8, "", {"pads": [1, 0, 1, 2]}),
        (100, 90, np.uint8, "Clip", {"pads": [1, 1, 1, 1], "strides": [2, 1]}),
        (3, -7, np.int8, "", {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
        (0, 0, np.uint8, "Relu", {"pads": [1, 1, 1, 1], "group": 8}),
        (77, 120, np.uint8, "", {"pads": [1, 1, 1, 1], "group": 8}),
        (77, 120, np.uint8, "", {"pads": [1, 1, 1, 1], "group": 2}),
        (77, 120, np.uint8, "LeakyRelu", {"pads": [1, 1, 1, 1]}),
    ],
)
def test_codes_are_those_of_the_hub(
    zero: int, result_zero: int, dtype: Any, between: str, attributes: dict[str, Any]
) -> None:
    hub, binding = convolution(zero, result_zero, dtype, between, **attributes)
    images = RANDOM.normal(1, 2, (3, 10, 9, 8)).astype(np.float32)
    expected = lowprec.compile(hub).run({"x": images})[0]
    definition = graph_def(hub, binding)
    (found,) = run(definition, binding, images)
    assert found.shape == expected.shape
    assert np.ptp(expected) > 2
    # A step at most, where a sum falls between two codes.
    assert np.abs(found - expected).max() < 0.051
    assert (np.abs(found - expected) > 0.01).mean() < 0.002
    in_codes = any("Conv2D" in name and "Quantized" in name for name in types(definition))
    assert in_codes == (attributes.get("group") != 2)


def test_a_summand_that_others_read_later_is_copied() -> None:
    """Where TensorFlow would write into codes that somebody still needs, it crashes."""
    inputs = keras.Input((8, 8, 4), name="picture")
    x = LAYERS.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    y = LAYERS.Add()([x, LAYERS.Conv2D(4, 3, padding="same")(x)])
    y = LAYERS.Conv2D(4, 3, padding="same", activation="relu")(y)
    z = LAYERS.Add()([x, LAYERS.Conv2D(4, 3, padding="same")(y)])
    z = LAYERS.Conv2D(4, 3, padding="same")(z)
    w = LAYERS.MaxPooling2D(2)(x)
    model = keras.Model(inputs, [z, w])
    quantized, binding = made(model)
    definition = graph_def(quantized, binding)
    assert types(definition).count("QuantizedConv2DWithBiasSumAndReluAndRequantize") == 2
    images = RANDOM.standard_normal((2, 8, 8, 4)).astype(np.float32)
    for _ in range(3):
        found = run(definition, binding, images)
        for a, b in zip(quantized.run({"picture": images}), found, strict=True):
            assert sqnr(a, b) > 35


def test_a_summand_that_another_convolution_may_read_later_is_copied() -> None:
    inputs = keras.Input((8, 8, 4), name="picture")
    x = LAYERS.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    y = LAYERS.Add()([x, LAYERS.Conv2D(4, 3, padding="same")(x)])
    y = LAYERS.Conv2D(4, 3, padding="same", activation="relu")(y)
    z = LAYERS.Conv2D(4, 3, padding="same", activation="relu")(x)
    quantized, binding = made(keras.Model(inputs, [y, z]))
    found = types(graph_def(quantized, binding))
    assert found.count("QuantizedConv2DWithBiasSumAndReluAndRequantize") == 1
    assert found.count("QuantizedMaxPool") == 1


def test_a_channel_of_no_weight_keeps_its_zero_point() -> None:
    hub, binding = convolution(0, 128)
    for value in hub.graph.initializers.values():
        if value.name == "ws":
            scales = value.const_value.numpy().copy()
            scales[3] = 1e-12
            value.const_value = ir.Tensor(scales, name="ws")
    images = RANDOM.normal(1, 2, (1, 10, 9, 8)).astype(np.float32)
    expected = lowprec.compile(hub).run({"x": images})[0]
    (found,) = run(graph_def(hub, binding), binding, images)
    assert np.abs(found - expected).max() < 0.051


# ---- Operators in float --------------------------------------------------------------------------


def float_network() -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((12, 10, 6), name="picture")
    x = LAYERS.Conv2D(8, 3, strides=2, padding="same", activation="silu")(inputs)
    x = LAYERS.UpSampling2D(2, interpolation="bilinear")(x)
    x = LAYERS.Conv2DTranspose(6, 3, strides=2, padding="same", activation="gelu")(x)
    x = LAYERS.ZeroPadding2D(((1, 0), (2, 1)))(x)
    x = LAYERS.Cropping2D(1)(x)
    x = LAYERS.LeakyReLU()(LAYERS.LayerNormalization()(x))
    y = LAYERS.AveragePooling2D(3, strides=2, padding="same")(x)
    z = LAYERS.MaxPooling2D(3, strides=2, padding="same")(x)
    x = LAYERS.Concatenate()([y, z])
    gate = LAYERS.GlobalAveragePooling2D(keepdims=True)(x)
    x = LAYERS.Multiply()([x, LAYERS.Conv2D(12, 1, activation="hard_sigmoid")(gate)])
    x = LAYERS.PReLU(shared_axes=[1, 2])(x)
    x = LAYERS.Reshape((-1, 12))(x)
    x = LAYERS.Conv1D(8, 3, padding="causal", activation="elu")(x)
    x = LAYERS.GlobalMaxPooling1D()(x)
    return keras.Model(inputs, LAYERS.Dense(4, activation="softmax")(x))


def test_float_operators() -> None:
    model = float_network()
    captured = capture_keras(model)
    binding = captured.binding[KEY]
    definition = graph_def(captured.graph, binding)
    images = RANDOM.standard_normal((3, 12, 10, 6)).astype(np.float32)
    (found,) = run(definition, binding, images)
    np.testing.assert_allclose(found, np.asarray(model(images)), atol=2e-6)


def test_the_same_in_8_bits() -> None:
    model = float_network()
    quantized, binding = made(model)
    images = RANDOM.standard_normal((3, 12, 10, 6)).astype(np.float32)
    (found,) = run(graph_def(quantized, binding), binding, images)
    expected, ours = np.asarray(model(images)), quantized.run({"picture": images})[0]
    assert sqnr(expected, found) > sqnr(expected, ours) - 3
    assert sqnr(expected, found) > 20


def test_what_cannot_be_written_is_named() -> None:
    keras.utils.set_random_seed(0)
    x = helper.make_node("Hardmax", ["x"], ["y"], name="odd")
    hub, binding = hub_of([x], {}, ["n", 4])
    with pytest.raises(UnsupportedError, match=r"Hardmax of node 'odd'.*target"):
        graph_def(hub, binding)
