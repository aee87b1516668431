"""ONNX's runtime interface, and the switch that turns the NumPy fall-back off."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

from lowprec import graph, passes
from lowprec.engine import backend, compile_model
from lowprec.errors import ConfigError, InputError, UnsupportedError


def model_of(op_type, inputs, outputs, opset=21, **attributes):
    node = helper.make_node(op_type, list(inputs), list(outputs), name="it", **attributes)
    described = [
        [helper.make_tensor_value_info(name, *info) for name, info in values.items()]
        for values in (inputs, outputs)
    ]
    made = helper.make_graph([node], "graph", *described)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])


@pytest.fixture
def words():
    """A model that no kernel of ours will ever run natively: strings."""
    return model_of(
        "StringNormalizer",
        {"x": (TensorProto.STRING, ["n"])},
        {"y": (TensorProto.STRING, ["n"])},
        case_change_action="UPPER",
    )


def test_run_model_gives_outputs_by_position_and_name(linear):
    x = np.array([[1, 2, 3, 4]], np.float32)
    outputs = backend.run_model(linear, [x])
    session = compile_model(graph.load(linear))
    (wanted,) = session.run({"x": x})
    np.testing.assert_array_equal(outputs[0], wanted)
    np.testing.assert_array_equal(outputs["y"], wanted)
    prepared = backend.prepare(linear)
    np.testing.assert_array_equal(prepared.run({"x": x})[0], wanted)
    np.testing.assert_array_equal(prepared.run(x)[0], wanted)


def test_run_node_works_out_the_types():
    node = helper.make_node("ReduceMax", ["x", "axes"], ["y"], keepdims=0)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    (y,) = backend.run_node(node, [x, np.array([1])])
    np.testing.assert_array_equal(y, [2, 5])
    node = helper.make_node("Softmax", ["x"], ["y"])
    (y,) = backend.run_node(node, [x], outputs_info=[(np.dtype(np.float32), (2, 3))])
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-6)


def test_only_a_cpu_is_supported(linear, words):
    assert backend.supports_device("CPU")
    assert backend.supports_device("CPU:0")
    assert not backend.supports_device("CUDA")
    with pytest.raises(UnsupportedError, match="'CUDA'; lowprec runs on 'CPU'"):
        backend.prepare(linear, "CUDA")
    assert backend.is_compatible(linear)
    assert not backend.is_compatible(linear, "CUDA")
    assert backend.is_compatible(words)
    assert not backend.is_compatible(words, fallback=False)


def test_a_wrong_number_of_inputs_is_named(linear):
    with pytest.raises(InputError, match=r"2 inputs were given, the model takes 1: \['x'\]"):
        backend.run_model(linear, [np.zeros((1, 4), np.float32)] * 2)


def test_without_the_fall_back_the_node_is_named(words, monkeypatch):
    hub = graph.load(words)
    refusal = r"node 'it' \(StringNormalizer\) does not run natively: no native kernel"
    with pytest.raises(UnsupportedError, match=refusal):
        compile_model(hub, fallback=False)
    monkeypatch.setenv("LOWPREC_FALLBACK", "off")
    with pytest.raises(UnsupportedError, match=refusal):
        compile_model(hub)
    x = np.array(["ab"], object)
    assert compile_model(hub, fallback=True).run({"x": x})[0].tolist() == ["AB"]
    monkeypatch.setenv("LOWPREC_FALLBACK", "on")
    assert compile_model(hub).run({"x": x})[0].tolist() == ["AB"]
    monkeypatch.setenv("LOWPREC_FALLBACK", "no")
    with pytest.raises(ConfigError, match="'no'; it must be 'on' or 'off'"):
        compile_model(hub)


def test_an_element_type_that_no_kernel_holds_is_named():
    hub = graph.load(
        model_of("Identity", {"x": (TensorProto.STRING, [2])}, {"y": (TensorProto.STRING, [2])})
    )
    with pytest.raises(UnsupportedError, match="element type STRING of 'x'"):
        compile_model(hub, fallback=False)


def test_what_shows_only_at_a_run_is_refused_there_every_time():
    """A training-mode Dropout is known by its third input, which is fed."""
    hub = graph.load(
        model_of(
            "Dropout",
            {
                "x": (TensorProto.FLOAT, [3]),
                "ratio": (TensorProto.FLOAT, []),
                "training": (TensorProto.BOOL, []),
            },
            {"y": (TensorProto.FLOAT, [3])},
        )
    )
    passes.simplify(hub)
    session = compile_model(hub, fallback=False)
    x = np.ones(3, np.float32)
    feeds = {"x": x, "ratio": np.float32(0.5)}
    for _ in range(2):
        with pytest.raises(UnsupportedError, match=r"\(Dropout\).*training"):
            session.run({**feeds, "training": np.array(True)})
    (y,) = session.run({**feeds, "training": np.array(False)})
    np.testing.assert_array_equal(y, x)


def test_the_backend_is_imported_only_when_asked_for():
    code = "import sys, lowprec.engine; print('lowprec.engine.backend' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
