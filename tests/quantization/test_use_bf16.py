"""precision="bf16": what is written, what it computes, what the report says."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import make_model, run_reference, value

import lowprec
from lowprec import numerics
from lowprec.errors import ConfigError, DataError

RNG = np.random.default_rng(8)


def random(*shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) + 1)).astype(np.float32)


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    """Convolution, depthwise, residual add, pooling, a dense layer, and attention-like products."""
    constants = {
        "w0": random(24, 3, 3, 3),
        "b0": random(24),
        "w1": random(24, 1, 3, 3),
        "w2": random(24, 24, 1, 1),
        "w3": random(24, 40),
        "b3": random(40),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["a"], "first", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["ar"], "relu"),
        helper.make_node("Conv", ["ar", "w1"], ["d"], "deep", pads=[1] * 4, group=24),
        helper.make_node("HardSwish", ["d"], ["dh"], "swish"),
        helper.make_node("Conv", ["dh", "w2"], ["p"], "point"),
        helper.make_node("Add", ["p", "ar"], ["r"], "residual"),
        helper.make_node("MaxPool", ["r"], ["m"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["m", "m"], ["c"], "join", axis=2),
        helper.make_node("GlobalAveragePool", ["c"], ["g"], "mean"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "dense"),
        helper.make_node("Transpose", ["y"], ["t"], "turn"),
        helper.make_node("MatMul", ["t", "y"], ["z"], "scores"),
    ]
    return make_model(
        nodes,
        [value("x", ["N", 3, 14, 10])],
        [value("y", ["N", 40]), value("z", [40, 40])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )


@pytest.fixture(scope="module")
def feed() -> dict[str, np.ndarray]:
    return {"x": RNG.standard_normal((2, 3, 14, 10)).astype(np.float32)}


@pytest.fixture(scope="module")
def model(network):
    return lowprec.quantize(network, precision="bf16")


def decibels(expected: np.ndarray, actual: np.ndarray) -> float:
    error = np.square(expected.astype(np.float64) - actual).sum()
    return float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / max(error, 1e-300)))


def test_layers_are_bf16_and_no_data_is_needed(model, network, feed):
    precision = {layer.name: layer.precision for layer in model.report.layers}
    assert {name for name, kind in precision.items() if kind == "bf16"} == {
        "first", "deep", "point", "dense", "scores",
    }  # fmt: skip
    assert model.report.bf16_fraction == pytest.approx(1.0, abs=0.01)
    assert "5 of" in str(model.report)
    assert "in bf16" in str(model.report)
    expected = lowprec.compile(network).run(feed)
    for wanted, made in zip(expected, model.run(feed), strict=True):
        assert 35 < decibels(wanted, made) < 80  # bf16, and neither float nor int8


def test_the_steps_are_bf16_products_without_casts_between(model, feed):
    model.run(feed)
    steps = model.explain().steps
    kernels = [step.kernel for step in steps]
    assert kernels.count("conv bf16") == 2
    assert kernels.count("depthwise bf16") == 1
    assert kernels.count("matrix bf16") == 1
    assert kernels.count("matrix bf16 dynamic") == 1
    assert all(step.native for step in steps)
    assert "BAdd" not in [step.op for step in steps]  # the residual is in the layer's epilogue
    casts = [step for step in steps if step.op == "Cast"]
    assert len(casts) <= 3  # the input; y, which is both a result and an operand


def test_bits_do_not_depend_on_threads(model, feed):
    before = lowprec.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 4):
            lowprec.set_num_threads(threads)
            results.append([result.tobytes() for result in model.run(feed)])
    finally:
        lowprec.set_num_threads(before)
    assert results[0] == results[1] == results[2]


def test_the_file_is_plain_onnx_that_others_compute(model, feed, tmp_path):
    path = tmp_path / "bf16.onnx"
    model.save(path)
    onnx.checker.check_model(str(path), full_check=True)
    proto = onnx.load(path)
    stored = {t.name: t.data_type for t in proto.graph.initializer}
    weights = [name for name in stored if name.startswith("w")]
    assert len(weights) == 4
    assert all(stored[name] == TensorProto.BFLOAT16 for name in weights)
    assert {node.domain for node in proto.graph.node} == {""}
    # ONNX's reference implementation sums in another order; a sum that falls near the middle of two
    # bf16 numbers may round to either.
    for wanted, made in zip(run_reference(proto, feed), model.run(feed), strict=True):
        assert decibels(wanted, made) > 45
    loaded = lowprec.load(path)
    assert [a.tobytes() for a in loaded.run(feed)] == [a.tobytes() for a in model.run(feed)]
    assert loaded.report.to_json() == model.report.to_json()
    again = lowprec.compile(str(path))
    assert [a.tobytes() for a in again.run(feed)] == [a.tobytes() for a in model.run(feed)]


def test_onnxruntime_opens_the_file(model, feed):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(
        model.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for wanted, made in zip(session.run(None, feed), model.run(feed), strict=True):
        assert decibels(wanted, made) > 45


def test_weights_are_rounded_to_nearest(network, model):
    proto = model.to_onnx()
    original = {t.name: numpy_helper.to_array(t) for t in network.graph.initializer}
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            array = numpy_helper.to_array(tensor)
            expected = numerics.to_bf16(original[tensor.name.removesuffix("_bf16")])
            assert array.astype(np.float32).tobytes() == expected.astype(np.float32).tobytes()


def test_layers_that_are_kept_in_f32(network, feed):
    config = {
        "layers": [{"match": "point", "precision": "f32"}, {"op_type": "Gemm", "precision": "f32"}]
    }
    model = lowprec.quantize(network, precision="bf16", config=config)
    record = {layer.name: layer for layer in model.report.layers}
    assert record["point"].precision == record["dense"].precision == "f32"
    assert record["point"].reason == "excluded by the config: f32"
    assert record["first"].precision == "bf16"
    model.run(feed)
    assert "conv f32" in [step.kernel for step in model.explain().steps]
    # Its input is not rounded either: nobody else reads it.
    consumers = {name: node for node in model.to_onnx().graph.node for name in node.input}
    assert consumers["dh"].op_type == "Conv"


def test_data_is_only_compared_on(network, feed):
    model = lowprec.quantize(network, [feed] * 20, precision="bf16")
    assert model.report.samples == 8
    assert 30 < model.report.agreement[0]["sqnr"] < 80
    assert "bf16" in model.report.speed["latency of the first sample, ms"]


def test_a_converted_model_stays_as_it_is(model):
    again = lowprec.quantize(model.to_onnx(), precision="bf16")
    assert "bf16 already" in " ".join(again.report.notes)


def test_rules_may_ask_for_what_needs_data(network, feed):
    config = {"layers": [{"match": "point", "precision": "int8"}]}
    with pytest.raises(DataError, match="no calibration data"):
        lowprec.quantize(network, precision="bf16", config=config)
    model = lowprec.quantize(network, [feed], precision="bf16", config=config)
    assert {layer.precision for layer in model.report.layers if layer.macs} == {"bf16", "int8"}
    with pytest.raises(ConfigError):
        lowprec.quantize(network, precision="bf16", config={"precision": "auto"})


@pytest.mark.parametrize("bad", [np.inf, np.nan, 3.4e38])
def test_a_weight_that_bf16_cannot_hold_keeps_its_layer(bad):
    weights = np.ones((4, 4), np.float32)
    weights[1, 2] = bad
    proto = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "only")],
        [value("x", ["N", 4])],
        [value("y", ["N", 4])],
        [numpy_helper.from_array(weights, "w")],
    )
    (layer,) = lowprec.quantize(proto, precision="bf16").report.layers
    assert layer.precision == "f32"
    assert "too large for bf16" in layer.reason


def test_bf16_weights_with_f32_activations_are_widened_once():
    weights = random(300, 1200).astype(ml_dtypes.bfloat16)
    tensor = helper.make_tensor(
        "w", TensorProto.BFLOAT16, weights.shape, weights.tobytes(), raw=True
    )
    proto = make_model(
        [
            helper.make_node("Cast", ["w"], ["wide"], "widen", to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["x", "wide"], ["y"], "only"),
        ],
        [value("x", ["N", 300])],
        [value("y", ["N", 1200])],
        [tensor],
    )
    x = random(3, 300)
    model = lowprec.compile(proto)
    (result,) = model.run({"x": x})
    np.testing.assert_allclose(result, x @ weights.astype(np.float32), rtol=1e-4, atol=1e-5)
    assert [step.kernel for step in model.explain().steps] == ["matrix f32"]
