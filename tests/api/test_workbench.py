"""What stays the same between two configurations is not done again."""

import numpy as np
import pytest
from onnx import helper
from qdq_models import FLOAT, Builder

from lowprec import workbench as module
from lowprec.config import Config
from lowprec.errors import ConfigError
from lowprec.graph import load
from lowprec.workbench import Workbench

RNG = np.random.default_rng(6)


@pytest.fixture
def bench():
    b = Builder()
    x = b.node("Gemm", "x", b.constant(RNG.standard_normal((32, 32)).astype("f")))
    y = b.node("Gemm", b.node("Relu", x), b.constant(RNG.standard_normal((32, 32)).astype("f")))
    for node, name in zip((n for n in b.nodes if n.op_type == "Gemm"), "ab", strict=True):
        node.name = name
    graph = helper.make_graph(
        b.nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, (8, 32))],
        [helper.make_tensor_value_info(y, FLOAT, None)],
        b.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return Workbench(load(model), ({"x": x} for x in RNG.standard_normal((6, 8, 32)).astype("f")))


@pytest.fixture
def passes(monkeypatch):
    """Return a list that grows by one whenever the data is run."""
    counted = []

    def observe(*arguments):
        counted.append(arguments)
        return original(*arguments)

    original = module.observe
    monkeypatch.setattr(module, "observe", observe)
    return counted


def config(**values):
    rules = [{"match": "*", "precision": "int8"}, *values.pop("layers", ())]
    return Config.from_dict({**values, "layers": rules})


def test_other_methods_and_fewer_layers_use_what_was_seen(bench, passes):
    every = bench.quantize(config())
    fewer = bench.quantize(config(layers=[{"match": "b", "precision": "f32"}]))
    other = bench.quantize(config(calibration={"method": "percentile", "percentile": 90}))
    assert len(passes) == 1
    found = [[layer.precision for layer in q.report.layers] for q in (every, fewer, other)]
    assert found[0].count("int8") == found[2].count("int8") > found[1].count("int8")
    ranges = [{r.tensor: (r.rmin, r.rmax) for r in q.report.layers} for q in (every, other)]
    assert ranges[0] != ranges[1]


def test_other_data_or_bins_are_seen_anew(bench, passes):
    bench.quantize(config())
    bench.quantize(config(calibration={"samples": 3}))
    bench.quantize(config(calibration={"bins": 1024}))
    assert len(passes) == 3


def test_what_is_kept_changes_no_bit(bench):
    first = bench.quantize(config()).to_onnx().SerializeToString()
    bench.quantize(config(calibration={"method": "minmax"}))
    bench.quantize(config(layers=[{"match": "a", "precision": "f32"}]))
    assert bench.quantize(config()).to_onnx().SerializeToString() == first


def test_keys_follow_from_model_and_data(bench):
    assert bench.key(6) == bench.key(100) != bench.key(2)


def test_auto_is_a_search(bench):
    with pytest.raises(ConfigError, match=r"lowprec\.quantize"):
        bench.quantize(Config.from_dict({"precision": "auto"}))
