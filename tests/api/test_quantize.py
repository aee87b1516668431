"""quantize(), load() and compile(): what goes in, what comes out, what is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import make_model, value
from refusals import refused

import lowprec
from lowprec.errors import ConfigError, InputError, LowprecError

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    """Two dense layers, (N, 16) -> (N, 32) -> (N, 10), with ReLU between."""
    sizes = {"w0": (16, 32), "b0": (32,), "w1": (32, 10), "b1": (10,)}
    constants = [
        numpy_helper.from_array(RNG.normal(size=size).astype(np.float32), name)
        for name, size in sizes.items()
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w0", "b0"], ["h"], "dense.0"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w1", "b1"], ["y"], "dense.1"),
    ]
    return make_model(nodes, [value("x", ["N", 16])], [value("y", ["N", 10])], constants)


@pytest.fixture(scope="module")
def samples() -> list[np.ndarray]:
    return [RNG.normal(size=(4, 16)).astype(np.float32) for _ in range(32)]


@pytest.fixture(scope="module")
def quantized(network, samples):
    return lowprec.quantize(network, samples)


def test_the_result_is_close_and_says_how_close(network, quantized, samples):
    original = lowprec.compile(network)
    expected = np.concatenate([original(x) for x in samples])
    actual = np.concatenate([quantized(x) for x in samples])
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert 0 < error < 0.03
    (agreement,) = quantized.report.agreement
    assert agreement["name"] == "y"
    assert 30 < agreement["sqnr"] < 60
    assert quantized.report.samples == 32
    assert [layer.precision for layer in quantized.report.layers] == ["int8", "f32", "int8"]
    assert quantized.report.int8_fraction == 1
    assert "dense.0" in str(quantized.report)
    assert set(quantized.report.speed["latency of the first sample, ms"]) == {"float", "int8"}


def test_it_is_called_in_every_way(quantized, samples):
    x = samples[0]
    expected = quantized.run({"x": x})[0]
    for result in (
        quantized(x),
        quantized(x=x),
        quantized.run(None, {"x": x})[0],
        quantized.run(["y"], {"x": x})[0],
    ):
        np.testing.assert_array_equal(result, expected)
    assert quantized.inputs[0].name == "x"
    assert [(arg.name, arg.type, arg.shape) for arg in quantized.get_inputs()] == [
        ("x", "tensor(float)", ["N", 16])
    ]
    assert quantized.get_outputs()[0].name == "y"
    assert repr(quantized) == "<lowprec.QuantizedModel (x: float32[N, 16]) -> (y: float32[N, 10])>"


def test_several_outputs_are_a_tuple():
    nodes = [helper.make_node("Split", ["x"], ["a", "b"], "split", axis=1, num_outputs=2)]
    model = make_model(nodes, [value("x", [1, 4])], [value("a", None), value("b", None)])
    x = np.arange(4, dtype=np.float32)[None]
    a, b = lowprec.compile(model)(x)
    assert (a.tolist(), b.tolist()) == ([[0, 1]], [[2, 3]])
    (b,) = lowprec.compile(model).run(["b"], {"x": x})
    assert b.tolist() == [[2, 3]]


def test_loading_what_was_saved_gives_the_same_bits(quantized, samples, tmp_path):
    path = tmp_path / "model.int8.onnx"
    quantized.save(path)
    loaded = lowprec.load(path)
    for x in samples:
        np.testing.assert_array_equal(quantized(x).view(np.int32), loaded(x).view(np.int32))
    assert loaded.config == quantized.config
    assert loaded.report.to_json() == quantized.report.to_json()
    assert loaded.to_onnx().SerializeToString(deterministic=True) == path.read_bytes()


def test_quantising_twice_gives_the_same_bytes(network, samples, tmp_path):
    (tmp_path / "model.onnx").write_bytes(network.SerializeToString())
    np.savez(tmp_path / "data.npz", x=np.concatenate(samples))
    program = "import sys, lowprec\nlowprec.quantize('model.onnx', 'data.npz').save(sys.argv[1])\n"
    for name, seed in (("a.onnx", "1"), ("b.onnx", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program, name]
        subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_file_holds_configuration_report_and_versions(quantized):
    metadata = {item.key: item.value for item in quantized.to_onnx().metadata_props}
    report = json.loads(metadata["lowprec.report"])
    assert report["config"] == quantized.config.to_dict()
    assert report["versions"]["lowprec"] == lowprec.__version__
    assert len(report["layers"]) == 3
    assert "speed" not in report


def test_metadata_of_the_original_is_kept(network, samples):
    model = onnx.ModelProto()
    model.CopyFrom(network)
    helper.set_model_props(model, {"character": "a\nb"})
    result = lowprec.quantize(model, samples).to_onnx()
    assert {item.key: item.value for item in result.metadata_props}["character"] == "a\nb"


def test_the_saved_model_runs_elsewhere(quantized, samples, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    quantized.save(path)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for x in samples[:4]:
        np.testing.assert_allclose(session.run(None, {"x": x})[0], quantized(x), atol=0.05)


def test_layers_are_excluded_by_name_type_and_pattern(network, samples):
    for rule in (
        {"match": "dense.0", "precision": "f32"},
        {"match": "*.0", "precision": "f32"},
        {"match": "dense.0", "op_type": "Gemm", "precision": "f32"},
    ):
        report = lowprec.quantize(network, samples, config={"layers": [rule]}).report
        precisions = {layer.name: layer.precision for layer in report.layers}
        assert precisions["dense.0"] == "f32"
        assert precisions["dense.1"] == "int8"
    report = lowprec.quantize(
        network, samples, config={"layers": [{"op_type": "Gemm", "precision": "f32"}]}
    ).report
    assert all(layer.precision == "f32" for layer in report.layers)
    assert all(layer.reason for layer in report.layers)


def test_no_more_samples_are_taken_than_asked_for(network, samples):
    taken = []

    def generate():
        for number, x in enumerate(samples):
            taken.append(number)
            yield x

    seen = []
    quantized = lowprec.quantize(
        network,
        generate(),
        config={"calibration": {"samples": 5}},
        progress=lambda done, total: seen.append((done, total)),
    )
    assert taken == [0, 1, 2, 3, 4]
    assert seen == [(number, 5) for number in range(1, 6)]
    assert quantized.report.samples == 5


def test_a_buffer_that_is_filled_again_does_no_harm(network, samples):
    """Loaders that reuse one array: what the report compares must be copies."""

    def generate():
        buffer = np.empty((4, 16), np.float32)
        for x in samples:
            buffer[:] = x
            yield buffer

    reused = lowprec.quantize(network, generate())
    assert reused.report.to_json() == lowprec.quantize(network, samples).report.to_json()


def test_evaluation_searches_and_a_missed_criterion_is_said(network, samples):
    kinds = []

    def score(model) -> float:
        kinds.append(type(model).__name__)
        return 1.0 if len(kinds) == 1 else 0.9

    tuning = {"max_trials": 2}
    quantized = lowprec.quantize(network, samples, evaluate=score, config={"tuning": tuning})
    assert kinds[0] == "CompiledModel"
    assert set(kinds[1:]) == {"QuantizedModel"}
    assert len(kinds) <= 3
    assert quantized.report.accuracy == {"score": {"float": 1.0, "int8": 0.9}}
    assert quantized.report.trials[0]["scores"] == {"score": 1.0}
    assert any("is NOT met after" in note for note in quantized.report.notes)

    kinds.clear()
    loose = {"tuning": {"accuracy": {"absolute": 0.2}}}
    quantized = lowprec.quantize(network, samples, evaluate={"top-1": score}, config=loose)
    assert len(kinds) == 2
    assert set(quantized.report.accuracy) == {"top-1"}


def test_precision_auto_keeps_the_outputs_and_gives_a_plain_configuration(network, samples):
    quantized = lowprec.quantize(network, samples, precision="auto")
    assert quantized.config.precision == "int8"
    assert quantized.report.accuracy["output error, %"]["int8"] <= 10
    again = lowprec.quantize(network, samples, config=quantized.config)
    for x in samples[:4]:
        np.testing.assert_array_equal(again(x), quantized(x))


def test_a_quantised_model_is_recognised_and_left_as_it_is(quantized, samples):
    again = lowprec.quantize(quantized.to_onnx())
    assert any("already quantised" in note for note in again.report.notes)
    assert again.report.layers == quantized.report.layers
    for x in samples[:4]:
        np.testing.assert_array_equal(again(x), quantized(x))
        np.testing.assert_array_equal(lowprec.compile(quantized.to_onnx())(x), quantized(x))


def test_a_float_file_loads_with_an_empty_report(network, samples, tmp_path):
    path = tmp_path / "float.onnx"
    onnx.save(network, path)
    loaded = lowprec.load(path)
    assert loaded.report.layers == []
    assert "another tool" in loaded.report.notes[0]
    np.testing.assert_array_equal(loaded(samples[0]), lowprec.compile(path)(samples[0]))


def test_an_output_that_int8_ruins_is_named():
    # The result is a small difference of large numbers: all of it is below one step of eight bits.
    weights = RNG.uniform(0.5, 1.5, (64, 64)).astype(np.float32)
    constants = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(weights.sum(axis=0), "sums"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "dense"),
        helper.make_node("Sub", ["h", "sums"], ["difference"], "sub"),
    ]
    model = make_model(nodes, [value("x", [64, 64])], [value("difference", [64, 64])], constants)
    data = [1 + RNG.normal(scale=1e-3, size=(64, 64)).astype(np.float32) for _ in range(4)]
    quantized = lowprec.quantize(model, data)
    assert quantized.report.int8_macs > 0
    (note,) = [note for note in quantized.report.notes if "dB of the float output" in note]
    assert "'difference'" in note
    assert "layers" in note


def test_all_zero_data_is_legal(network):
    quantized = lowprec.quantize(network, [np.zeros((1, 16), np.float32)] * 3)
    record = quantized.report.layers[0]
    assert record.scale == 1
    assert np.isfinite(quantized(np.ones((1, 16), np.float32))).all()


def test_a_model_without_layers_needs_no_data():
    node = helper.make_node("Relu", ["x"], ["y"])
    model = make_model([node], [value("x", [2])], [value("y", [2])])
    quantized = lowprec.quantize(model)
    assert quantized(np.array([-1, 1], np.float32)).tolist() == [0, 1]


def test_sessions_are_shared_by_threads(quantized, samples):
    expected = [quantized(x) for x in samples]
    failures = []

    def work() -> None:
        for _ in range(20):
            for x, y in zip(samples, expected, strict=True):
                if not np.array_equal(quantized(x), y):
                    failures.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


# ---- refusals ----


def test_runs_name_what_is_wrong(quantized, samples):
    x = samples[0]
    for feeds, words in (
        ({"z": x}, ["'z'", "x"]),
        ({}, ["'x'", "missing"]),
        ({"x": x[0]}, ["'x'", "rank 1"]),
        ({"x": x.astype(np.float64)}, ["'x'", "float64", "float32"]),
        ({"x": x[:0]}, ["'x'", "empty batch"]),
        ({"x": x[:, :3]}, ["'x'", "axis 1"]),
    ):
        with refused(InputError, *words):
            quantized.run(feeds)
    with refused(InputError, "2 inputs were given", "x"):
        quantized(x, x)
    with refused(InputError, "by position and by name"):
        quantized(x, x=x)
    with refused(InputError, "ndarray", "dict"):
        quantized.run(x)
    with refused(InputError, "no output 'q'", "y"):
        quantized.run(["q"], {"x": x})


def test_explaining_needs_a_run(network, samples):
    session = lowprec.compile(network)
    with refused(LowprecError, "run()"):
        session.explain()
    session(samples[0])
    assert [step.native for step in session.explain().steps]


def test_precision_is_given_once(network, samples):
    with refused(ConfigError, "precision is 'int9'"):
        lowprec.quantize(network, samples, precision="int9")
    with refused(ConfigError, "give it once"):
        lowprec.quantize(network, samples, precision="auto", config={"precision": "bf16"})


def test_damaged_metadata_are_named(quantized, tmp_path):
    proto = quantized.to_onnx()
    for item in proto.metadata_props:
        item.value = item.value[:50]
    path = tmp_path / "damaged.onnx"
    path.write_bytes(proto.SerializeToString())
    with refused(lowprec.errors.ModelError, "report"):
        lowprec.load(path)


def test_integer_inputs_keep_their_dtype():
    rows = RNG.normal(size=(5, 8)).astype(np.float32)
    table = numpy_helper.from_array(rows, "table")
    weight = numpy_helper.from_array(RNG.normal(size=(8, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "embed"),
        helper.make_node("MatMul", ["e", "w"], ["y"], "dense"),
    ]
    inputs = [value("ids", ["N"], TensorProto.INT64)]
    model = make_model(nodes, inputs, [value("y", None)], [table, weight])
    quantized = lowprec.quantize(model, [np.arange(5)])
    assert quantized.inputs[0].dtype == np.int64
    assert quantized(np.array([1, 3])).shape == (2, 3)
