"""First and last layers may have a precision of their own."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import build

import lowprec
from lowprec.config import Config
from lowprec.quantization import with_ends
from lowprec.quantization.algorithms.policy import first_layers, last_layers

rng = np.random.default_rng(2)
CONSTANTS = {
    name: rng.standard_normal((8, 8, 3, 3)).astype(np.float32) for name in ("w1", "w2", "w3", "w4")
}
TEXT = (
    "m (float[1,8,16,16] x) => (float[1,8,16,16] y, float[1,8,16,16] z) {"
    " s = Shape(x) r = Relu(x) a = Conv<pads=[1,1,1,1]>(r, w1) b = Relu(a)"
    " c = Conv<pads=[1,1,1,1]>(b, w2) d = Conv<pads=[1,1,1,1]>(c, w3)"
    " e = Conv<pads=[1,1,1,1]>(c, w4) y = Sigmoid(d) t = Reshape(e, s) z = Relu(t) }"
)


def network():
    hub = build(TEXT, CONSTANTS)
    for node in hub.graph:
        node.name = f"net[0]/{node.outputs[0].name}*"  # what exporters write, and patterns read
    return hub


def test_the_ends_are_found() -> None:
    graph = network().graph
    assert [node.outputs[0].name for node in first_layers(graph)] == ["a"]
    assert sorted(node.outputs[0].name for node in last_layers(graph)) == ["d", "e"]


def test_names_are_meant_literally_and_the_users_rules_win() -> None:
    hub = network()
    assert with_ends(hub, Config()) == Config()
    values = {"algorithms": {"first_layer": "f32", "last_layer": "bf16"}}
    config = with_ends(hub, Config.of(values))
    wanted = {"a": "f32", "c": None, "d": "bf16", "e": "bf16"}
    for name, precision in wanted.items():
        assert config.layer_precision(f"net[0]/{name}*", "Conv") == precision
    assert config.layer_precision("net[0]/ab*", "Conv") is None
    own = {**values, "layers": [{"match": "*d?", "precision": "int8"}]}
    config = with_ends(hub, Config.of(own))
    assert config.layer_precision("net[0]/d*", "Conv") == "int8"
    assert config.layer_precision("net[0]/e*", "Conv") == "bf16"


@pytest.mark.parametrize(
    ("key", "kept"), [("first_layer", {"a"}), ("last_layer", {"d", "e"}), (None, set())]
)
def test_quantize_obeys(key, kept) -> None:
    feeds = [{"x": rng.standard_normal((1, 8, 16, 16)).astype(np.float32)} for _ in range(4)]
    config = {"algorithms": {key: "f32"}} if key else {}
    report = lowprec.quantize(network(), feeds, config=config).report
    floats = {r.name for r in report.layers if r.op_type == "Conv" and r.precision == "f32"}
    assert floats == {f"net[0]/{name}*" for name in kept}
