"""Recurrent layers become int8 layers: what is stored, what is reported, what a file keeps."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from recurrent_models import FORMS, layer

import lowprec
from lowprec.passes.fuse_integer_recurrent import HIDDEN_SCALE


def feeds(count, seed, *, steps=20, batch=4, inputs=12):
    rng = np.random.default_rng(seed)
    return [{"x": rng.normal(size=(steps, batch, inputs)).astype(np.float32)} for _ in range(count)]


def sqnr(wanted, got):
    noise = np.square(wanted.astype(np.float64) - got).sum()
    return 10 * np.log10(np.square(wanted.astype(np.float64)).sum() / noise)


@pytest.mark.parametrize(("op", "attributes"), FORMS)
def test_int8_is_close_to_float_and_reported_as_int8(op, attributes):
    proto = layer(op, **attributes)
    quantized = lowprec.quantize(proto, feeds(8, 1))
    (record,) = [r for r in quantized.report.layers if r.name == "layer"]
    assert record.precision == "int8"
    assert "H * R in int8" in record.reason
    assert record.macs > 0
    assert record.weight_sqnr > 30
    compiled = lowprec.compile(proto)
    for fed in feeds(3, 2):
        assert sqnr(compiled.run(fed)[0], quantized.run(fed)[0]) > 25
    steps = [step.op for step in quantized.explain().steps]
    assert f"Q{op}" in steps
    assert not quantized.explain().fallbacks


@pytest.mark.parametrize(("op", "attributes"), FORMS)
def test_a_file_keeps_the_bits_and_runs_elsewhere(op, attributes, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    quantized = lowprec.quantize(layer(op, **attributes), feeds(8, 1))
    path = tmp_path / "layer.onnx"
    quantized.save(path)
    (fed,) = feeds(1, 3)
    made = quantized.run(fed)[0]
    assert lowprec.load(path).run(fed)[0].tobytes() == made.tobytes()
    proto = onnx.load(path)
    (node,) = [n for n in proto.graph.node if n.op_type == op]
    assert HIDDEN_SCALE in {p.key for p in node.metadata_props}
    by_name = {t.name: t for t in proto.graph.initializer}
    stored = [t for t in by_name.values() if t.data_type == TensorProto.INT8 and len(t.dims) == 3]
    assert len(stored) == 2
    other = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, fed)
    assert sqnr(made, other[0]) > 30


def test_without_the_metadata_the_recurrence_is_float(tmp_path):
    quantized = lowprec.quantize(layer("LSTM"), feeds(8, 1))
    path = tmp_path / "layer.onnx"
    quantized.save(path)
    proto = onnx.load(path)
    for node in proto.graph.node:
        del node.metadata_props[:]
    onnx.save(proto, path)
    (fed,) = feeds(1, 3)
    plain = lowprec.compile(str(path))
    made = plain.run(fed)[0]
    assert made.tobytes() != quantized.run(fed)[0].tobytes()
    runtime = pytest.importorskip("onnxruntime")
    expected = runtime.InferenceSession(str(path)).run(None, fed)[0]
    np.testing.assert_allclose(made, expected, atol=1e-5)


@pytest.mark.parametrize("text", ["", "nan", "-1", "inf", "many", "1e99"])
def test_metadata_that_makes_no_sense_is_ignored(text, tmp_path):
    path = tmp_path / "layer.onnx"
    lowprec.quantize(layer("GRU"), feeds(4, 1)).save(path)
    proto = onnx.load(path)
    for node in proto.graph.node:
        for entry in node.metadata_props:
            entry.value = text
    onnx.save(proto, path)
    (fed,) = feeds(1, 3)
    assert np.isfinite(lowprec.compile(str(path)).run(fed)[0]).all()


def test_the_state_has_the_range_that_calibration_saw():
    few = lowprec.quantize(layer("LSTM"), [{"x": f["x"] * 0.05} for f in feeds(4, 1)])
    many = lowprec.quantize(layer("LSTM"), [{"x": f["x"] * 20} for f in feeds(4, 1)])

    def scale(model):
        (node,) = [n for n in model.to_onnx().graph.node if n.op_type == "LSTM"]
        return float(next(p.value for p in node.metadata_props if p.key == HIDDEN_SCALE))

    assert scale(few) < 0.7 * scale(many)
    assert scale(many) <= np.float32(1 / 127)


def test_an_unbounded_state_that_nobody_sees_stays_float():
    proto = layer("RNN", outputs=("", "Y_h"), activations=["Relu"], direction="forward")
    quantized = lowprec.quantize(proto, [{"x": f["x"] * 0.1} for f in feeds(4, 1)])
    (record,) = [r for r in quantized.report.layers if r.name == "layer"]
    assert record.precision == "int8"
    assert "nothing bounds the state" in record.reason
    (node,) = [n for n in quantized.to_onnx().graph.node if n.op_type == "RNN"]
    assert not node.metadata_props


def test_the_config_keeps_a_recurrent_layer_in_float():
    quantized = lowprec.quantize(
        layer("LSTM"), feeds(4, 1), config={"layers": [{"op_type": "LSTM", "precision": "f32"}]}
    )
    (record,) = [r for r in quantized.report.layers if r.name == "layer"]
    assert record.precision == "f32"
    assert "excluded by the config" in record.reason
