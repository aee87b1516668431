"""A switchboard gives the numbers of either form, and of any mixture of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from sensitive_network import ASK, BAD, workbench
from small_networks import mobile

from lowprec.config import Config
from lowprec.graph import load
from lowprec.sensitivity import analyse, observable_outputs, output_sqnr, watching, with_rules
from lowprec.sensitivity.analysis import layer_sqnr, unrefined
from lowprec.sensitivity.switchboard import Switchboard
from lowprec.workbench import Workbench


@pytest.fixture(scope="module")
def forms() -> tuple[Workbench, object, object, list[dict[str, np.ndarray]]]:
    model, feeds = mobile()
    bench = Workbench(load(model), feeds)
    config = Config()
    prepared = bench.prepared(config)
    return bench, prepared, unrefined(prepared, config, feeds[0]), feeds[:4]


def test_nothing_and_everything_switched(forms) -> None:
    _, prepared, quantized, feeds = forms
    outputs = observable_outputs(prepared.hub, quantized)
    names = [node.name for node in prepared.hub.graph if node.op_type in ("Conv", "Gemm")]
    alone = Switchboard(prepared.hub, quantized, names, outputs)
    assert len(alone.layers) >= 6
    original = watching(prepared.hub, outputs, keep=False)
    other = watching(quantized, outputs, keep=False)
    for feed in feeds:
        np.testing.assert_array_equal(alone.run(feed, ())[0], original.run(feed)[0])
        # Additions between int8 layers are rounded in the one graph and not in the other.
        mixed, whole = alone.run(feed, alone.layers)[0], other.run(feed)[0]
        float_ = original.run(feed)[0]
        assert np.abs(mixed - whole).max() < np.abs(whole - float_).max()
        assert np.abs(mixed - float_).max() > 0


def test_back_from_the_quantised_form(forms) -> None:
    _, prepared, quantized, feeds = forms
    outputs = observable_outputs(prepared.hub, quantized)
    names = [node.name for node in prepared.hub.graph if node.op_type in ("Conv", "Gemm")]
    board = Switchboard(quantized, prepared.hub, names, outputs)
    other = watching(quantized, outputs, keep=False)
    for feed in feeds:
        expected = other.run(feed)[0]
        np.testing.assert_allclose(board.run(feed, ())[0], expected, rtol=0, atol=1e-3)


def test_outputs_are_compared_before_they_saturate() -> None:
    bench = workbench(softmax=True)
    (name,) = observable_outputs(bench.hub, bench.hub)
    softmax = bench.hub.graph.outputs[0].producer()
    assert softmax.op_type == "Softmax"
    assert name == softmax.inputs[0].name


def test_values_too_large_to_be_held_together_are_seen_in_groups(monkeypatch) -> None:
    bench = workbench()
    prepared = bench.prepared(ASK)
    quantized = bench.quantize(ASK, prepared=prepared, measure=False)
    names = ["first", BAD, "third"]
    feeds = bench.feeds.first(3)
    whole = layer_sqnr(prepared.hub, quantized.hub, names, feeds)
    monkeypatch.setattr("lowprec.sensitivity.analysis.LARGEST_WATCH", 1)
    assert layer_sqnr(prepared.hub, quantized.hub, names, feeds) == whole
    assert set(whole) == set(names)


def recurrent() -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """An LSTM of which all three outputs are read."""
    rng = np.random.default_rng(0)
    size, width, steps = 24, 20, 6
    weights = {
        "w": rng.standard_normal((1, 4 * size, width)).astype("f") / 4,
        "r": rng.standard_normal((1, 4 * size, size)).astype("f") / 4,
        "b": rng.standard_normal((1, 8 * size)).astype("f") / 8,
    }
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "b"], ["y", "h", "c"], "lstm", hidden_size=size),
        helper.make_node("Relu", ["y"], ["out"], "relu"),
        helper.make_node("Add", ["h", "c"], ["state"], "add"),
    ]
    float_ = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", float_, (steps, 1, width))],
        [helper.make_tensor_value_info(name, float_, None) for name in ("out", "state")],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model, [{"x": rng.standard_normal((steps, 1, width)).astype("f")} for _ in range(8)]


def test_all_outputs_of_a_recurrent_layer_are_switched() -> None:
    model, feeds = recurrent()
    bench = Workbench(load(model), feeds)
    config = Config.of({"layers": [{"op_type": "LSTM", "precision": "int8"}]})
    (layer,) = analyse(bench, config)
    assert layer.op_type == "LSTM"
    # The layer is all that there is: alone, it costs what everything costs.
    plain = Config.from_dict({**config.to_dict(), "algorithms": {"bias_correction": False}})
    expected = [bench.original.run(feed) for feed in feeds]
    whole = output_sqnr(expected, [bench.quantize(plain).run(feed) for feed in feeds])
    assert layer.isolated == pytest.approx(whole, abs=0.05)
    assert layer.gain > 60 or layer.gain == np.inf


def test_a_layer_in_a_body_is_measured_by_its_rule() -> None:
    """Bodies of If, Loop and Scan cannot be switched: there the model is quantised anew."""
    model, feeds = in_a_body()
    bench = Workbench(load(model), feeds)
    config = Config.of({"layers": [{"op_type": "MatMul", "precision": "int8"}]})
    found = {layer.name: layer for layer in analyse(bench, config)}
    assert "inner" in found
    assert found["inner"].accumulated is None
    assert found["inner"].isolated < 60
    rules = with_rules(config, {"inner": "f32"})
    assert rules.layer_precision("inner", "MatMul") == "f32"
    assert found["inner"].gain != 0


def in_a_body() -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """A product before a Loop (which runs twice), another one in its body."""
    rng = np.random.default_rng(0)
    float_, int64, bool_ = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL
    weights = [rng.standard_normal((32, 32)).astype("f") / 6 for _ in range(2)]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"], "same"),
            helper.make_node("MatMul", ["state", "w1"], ["next"], "inner"),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", int64, []),
            helper.make_tensor_value_info("go", bool_, []),
            helper.make_tensor_value_info("state", float_, [16, 32]),
        ],
        [
            helper.make_tensor_value_info("go_on", bool_, []),
            helper.make_tensor_value_info("next", float_, [16, 32]),
        ],
        [onnx.numpy_helper.from_array(weights[1], "w1")],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["first"], "outer"),
        helper.make_node("Loop", ["count", "", "first"], ["y"], "loop", body=body),
    ]
    constants = [
        onnx.numpy_helper.from_array(weights[0], "w0"),
        onnx.numpy_helper.from_array(np.array(2), "count"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", float_, [16, 32])],
        [helper.make_tensor_value_info("y", float_, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model, [{"x": rng.standard_normal((16, 32)).astype("f")} for _ in range(8)]
