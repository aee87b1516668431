"""Precision auto: the budget of noise is searched, layers are measured, reasons are told."""

import math
from dataclasses import replace

import numpy as np
import pytest
from onnx import helper
from qdq_models import FLOAT, Builder

import lowprec
from lowprec.config import Config
from lowprec.tuning.allocation import LayerCost
from lowprec.tuning.automatic import METRIC, from_row, search_budget, to_row
from lowprec.tuning.trial import Trial

COSTS = [
    LayerCost("loud", "Conv", 10, {"int8": 1.0, "bf16": 1.5, "f32": 3.0}, {"int8": 0.64}),
    LayerCost("middle", "Conv", 10, {"int8": 1.0, "bf16": 1.5, "f32": 3.0}, {"int8": 0.08}),
    LayerCost("quiet", "Conv", 10, {"int8": 1.0, "bf16": 1.5, "f32": 3.0}, {"int8": 0.001}),
]


def tried(met):
    """Return the layers that are not int8 in every trial of a search, and whether it held."""
    search = search_budget(Config(), COSTS)
    found = []
    config = next(search)
    while True:
        chosen = {rule.match: rule.precision for rule in config.layers}
        found.append((chosen, met(chosen)))
        try:
            config = search.send(replace(Trial(1, config, ""), met=found[-1][1]))
        except StopIteration:
            return found


def test_plain_int8_that_holds_needs_no_more():
    assert tried(lambda chosen: True) == [({}, True), ({}, True)]


def test_the_loudest_layer_leaves_int8_first():
    found = tried(lambda chosen: "loud" in chosen)
    assert ({"loud": "bf16"}, True) in found
    assert min(len(chosen) for chosen, held in found if held) == 1


def test_a_goal_that_only_float_meets_ends_with_float():
    found = tried(lambda chosen: set(chosen.values()) == {"f32"})
    assert found[-1] == ({"loud": "f32", "middle": "f32", "quiet": "f32"}, True)


def test_a_goal_that_nothing_meets_ends():
    assert len(tried(lambda chosen: False)) < 15


def test_costs_survive_the_log():
    assert [from_row(to_row(cost)) for cost in COSTS] == COSTS


@pytest.fixture(scope="module")
def network():
    """Two layers; the first reads a channel so large that eight bits lose the others."""
    rng = np.random.default_rng(3)
    b = Builder()
    first = rng.standard_normal((256, 256)).astype("f") / 16
    first[:, 7] /= 300
    second = rng.standard_normal((256, 256)).astype("f") / 16
    x = b.node("Gemm", "x", b.constant(first), transB=1)
    y = b.node("Gemm", b.node("Relu", x), b.constant(second), transB=1)
    for node, name in zip((n for n in b.nodes if n.op_type == "Gemm"), "ab", strict=True):
        node.name = name
    graph = helper.make_graph(
        b.nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, (64, 256))],
        [helper.make_tensor_value_info(y, FLOAT, None)],
        b.constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(4)
    feeds = rng.standard_normal((8, 64, 256)).astype("f")
    feeds[:, :, 7] *= 3000
    return list(feeds)


def test_a_layer_that_int8_would_ruin_stays_higher_and_the_report_says_why(network, samples):
    plain = lowprec.quantize(
        network, samples, config={"layers": [{"match": "*", "precision": "int8"}]}
    )
    assert plain.report.agreement[0]["sqnr"] < 20
    quantized = lowprec.quantize(network, samples, precision="auto")
    records = {record.name: record for record in quantized.report.layers}
    assert records["a"].precision != "int8"
    assert records["a"].reason
    assert quantized.report.agreement[0]["sqnr"] > 20
    assert quantized.report.accuracy[METRIC]["int8"] <= 10


def test_auto_meets_a_criterion_of_the_users_own(network, samples):
    original = lowprec.compile(network)
    wanted = [original(x) for x in samples]

    def worst(model) -> float:
        return max(
            float(np.abs(model(x) - y).max() / np.abs(y).max())
            for x, y in zip(samples, wanted, strict=True)
        )

    goal = {"accuracy": {"absolute": 0.02, "higher_is_better": False}}
    quantized = lowprec.quantize(
        network, samples, precision="auto", evaluate=worst, config={"tuning": goal}
    )
    assert worst(quantized) <= 0.02
    assert quantized.report.trials[0]["scores"] == {"score": 0.0}


def test_fixed_layers_stay_fixed(network, samples):
    quantized = lowprec.quantize(
        network,
        samples,
        config={"precision": "auto", "layers": [{"match": "b", "precision": "f32"}]},
    )
    records = {record.name: record for record in quantized.report.layers}
    assert records["b"].precision == "f32"
    assert math.isfinite(quantized.report.accuracy[METRIC]["int8"])
