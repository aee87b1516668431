"""Layers in the bodies of If, Loop and Scan become int8 layers like any other."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import lowprec

HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'
rng = np.random.default_rng(17)


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def model_of(text: str, **constants: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(HEAD + text)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    return model


BRANCHES = """m (float[N,48] x, bool p) => (float[N,32] y) {
    h = Relu(x)
    y = If (p) <
        then_branch = t () => (float[N,32] a) { m1 = MatMul(h, w) r = Relu(m1) a = MatMul(r, u) },
        else_branch = e () => (float[N,32] b) { b = MatMul(h, v) }
    >
}"""
LAYERS = {"w": floats(48, 64) * 0.1, "u": floats(64, 32) * 0.1, "v": floats(48, 32) * 0.1}

ROUNDS = """m (float[4,64] x, int64 n) => (float[4,64] y, float[K,4,64] all) {
    y, all = Loop (n, yes, x) <
        body = b (int64 i, bool go, float[4,64] s) => (bool go2, float[4,64] t, float[4,64] u) {
            go2 = Identity(go)
            p = MatMul(s, w)
            t = Tanh(p)
            u = Identity(t)
        }
    >
}"""


def sqnr(wanted: np.ndarray, got: np.ndarray) -> float:
    noise = np.square(wanted.astype(np.float64) - got).sum()
    return float(10 * np.log10(np.square(wanted.astype(np.float64)).sum() / noise))


def branch_feeds(count: int, *, both: bool = True) -> list[dict[str, np.ndarray]]:
    return [{"x": floats(16, 48), "p": np.array(i % 2 == 0 or not both)} for i in range(count)]


def precisions(model) -> dict[str, str]:
    return {r.name: r.precision for r in model.report.layers if r.op_type == "MatMul"}


def test_both_branches_are_int8_and_a_file_keeps_the_bits(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    proto = model_of(BRANCHES, **LAYERS)
    quantized = lowprec.quantize(proto, branch_feeds(8))
    assert list(precisions(quantized).values()) == ["int8"] * 3
    path = tmp_path / "branches.onnx"
    quantized.save(path)
    loaded, other = lowprec.load(path), runtime.InferenceSession(str(path))
    compiled = lowprec.compile(proto)
    for fed in branch_feeds(4):
        made = quantized.run(fed)[0]
        assert "QMatMul" in [step.op for step in quantized.explain().steps]
        assert sqnr(compiled.run(fed)[0], made) > 25
        assert loaded.run(fed)[0].tobytes() == made.tobytes()
        np.testing.assert_allclose(other.run(None, fed)[0], made, atol=0.02)


def test_a_branch_that_no_sample_took_stays_float_and_says_so():
    text = BRANCHES.replace("b = MatMul(h, v)", "g = Tanh(h) b = MatMul(g, v)")
    quantized = lowprec.quantize(model_of(text, **LAYERS), branch_feeds(6, both=False))
    reasons = {r.precision: r.reason for r in quantized.report.layers if r.op_type == "MatMul"}
    assert sorted(precisions(quantized).values()) == ["f32", "int8", "int8"]
    assert "calibration never saw its input" in reasons["f32"]
    assert quantized.report.int8_fraction == 1  # of what ran
    for fed in branch_feeds(2):
        assert np.isfinite(quantized.run(fed)[0]).all()


def test_the_body_of_a_loop_is_int8_with_ranges_of_every_iteration(tmp_path):
    w = floats(64, 64) * 0.2
    proto = model_of(ROUNDS, w=w, yes=np.array(True))
    feeds = [{"x": floats(4, 64) * 0.01, "n": np.array(6)} for _ in range(6)]
    quantized = lowprec.quantize(proto, feeds)
    assert list(precisions(quantized).values()) == ["int8"]
    (record,) = [r for r in quantized.report.layers if r.op_type == "MatMul"]
    assert record.rmax > 0.3  # the input has 0.05; the state grows
    path = tmp_path / "rounds.onnx"
    quantized.save(path)
    made = quantized.run(feeds[0])
    again = lowprec.load(path).run(feeds[0])
    assert [a.tobytes() for a in made] == [a.tobytes() for a in again]
    assert "QMatMul" in [step.op for step in quantized.explain().steps]


def test_what_a_body_reads_from_outside_is_observed_once():
    from lowprec import calibration, graph, passes
    from lowprec.config import Config

    hub = graph.load(model_of(BRANCHES, **LAYERS))
    passes.simplify(hub)
    feeds = branch_feeds(4)
    found = calibration.calibrate(hub, ["h"], feeds, Config())
    assert found.observers["h"].count == 4 * 16 * 48


def test_constants_that_only_float_layers_read_leave_the_bodies():
    from lowprec import graph

    quantized = lowprec.quantize(model_of(BRANCHES, **LAYERS), branch_feeds(6))
    hub = graph.load(quantized.to_onnx())
    for body in hub.graphs():
        for name, value in body.initializers.items():
            assert value.uses() or value.is_graph_output(), name
            assert value.const_value.dtype.name != "FLOAT" or value.const_value.size <= 64


BORDERS = """m (float[N,48] x) => (float[N,32] y) {
    before = MatMul(x, k)
    shape = Shape(x)
    rows = Gather(shape, zero)
    many = Greater(rows, three)
    chosen = If (many) <
        then_branch = t () => (float[N,64] a) { m1 = MatMul(before, w) a = Relu(m1) },
        else_branch = e () => (float[N,64] b) { b = MatMul(before, w) }
    >
    y = MatMul(chosen, u)
}"""


def test_an_if_that_shapes_decide_has_the_same_bits_in_every_run():
    # Undecided, a branch is a graph of its own: its layers read and make floats. Decided, too, or
    # what is rounded twice at first would be rounded once later.
    constants = {"k": floats(48, 48) * 0.1, "w": LAYERS["w"], "u": LAYERS["u"]}
    proto = model_of(BORDERS, **constants, zero=np.array(0), three=np.array(3))
    quantized = lowprec.quantize(proto, [{"x": floats(16, 48)} for _ in range(8)])
    fed = {"x": floats(200, 48)}
    runs = [quantized.run(fed)[0] for _ in range(3)]
    steps = quantized.explain().steps
    assert "If" not in [step.op for step in steps]
    made = [step.output.split("[")[0] for step in steps if step.op == "QMatMul"]
    assert made == ["f32", "f32", "f32"]
    assert [run.tobytes() for run in runs[1:]] == [runs[0].tobytes()] * 2
