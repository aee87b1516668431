"""int8-dynamic: what is written, that it is the definition bit for bit, and who cannot have it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from mixed_models import apply, decibels, onnxruntime_results, precisions
from onnx import helper, numpy_helper
from onnx_models import make_model, value
from recurrent_models import FORMS, layer

import lowprec
from lowprec.engine import compile_model
from lowprec.errors import QuantizationError
from lowprec.graph import load, to_proto
from lowprec.numerics import reference

RNG = np.random.default_rng(12)
DYNAMIC = {"precision": "int8-dynamic"}
FORCED = {**DYNAMIC, "layers": [{"match": "*", "precision": "int8-dynamic"}]}


def random(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def one_layer(
    op: str, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None, **attributes: object
) -> onnx.ModelProto:
    names = ["x", "w", *(["b"] if bias is not None else [])]
    constants = [numpy_helper.from_array(w, "w")]
    constants += [] if bias is None else [numpy_helper.from_array(bias, "b")]
    node = helper.make_node(op, names, ["y"], "only", **attributes)
    return make_model([node], [value("x", list(x.shape))], [value("y", None)], constants)


def codes_of(w: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """s8 codes, and the scale of each output channel."""
    others = tuple(i for i in range(w.ndim) if i != axis)
    scale = (np.abs(w).max(axis=others) / np.float32(127)).astype(np.float32)
    spread = scale.reshape([-1 if i == axis else 1 for i in range(w.ndim)])
    return np.rint(w / spread).clip(-127, 127).astype(np.int64), scale


def expected_matrix(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    codes, scale, zero_point = reference.dynamic_quantize_linear(x)
    weights, w_scale = codes_of(w, 1)
    acc = (codes.astype(np.int64) - int(zero_point)) @ weights
    y = acc.astype(np.float32) * (np.float32(scale) * w_scale)
    return y if bias is None else y + bias


@pytest.mark.parametrize("shape", [(1, 40), (7, 40), (2, 3, 40)])
def test_a_matmul_is_the_definition_bit_for_bit(shape):
    x, w = random(*shape) * 3 + 1, random(40, 50)
    original, result, names = apply(one_layer("MatMul", x, w, None), [{"x": x}], FORCED)
    assert precisions(result) == {"only": "int8-dynamic"}
    assert names == []
    assert result.int8_macs == result.total_macs > 0
    session = compile_model(load(result.model))
    (y,) = session.run({"x": x})
    assert y.tobytes() == expected_matrix(x, w, None).tobytes()
    assert [step.op for step in session.explain().steps] == ["DynamicQuantizeLinear", "QMatMul"]
    (other,) = onnxruntime_results(to_proto(result.model), {"x": x})
    np.testing.assert_allclose(y, other, rtol=1e-6, atol=1e-6)
    assert decibels(original.run({"x": x})[0], y) > 35


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0)])
def test_a_gemm_is_the_definition_bit_for_bit(transposed, alpha, beta):
    x, w, bias = random(6, 33), random(33, 20), random(20)
    stored = np.ascontiguousarray(w.T) if transposed else w
    proto = one_layer("Gemm", x, stored, bias, transB=transposed, alpha=alpha, beta=beta)
    _, result, _ = apply(proto, [{"x": x}], FORCED)
    session = compile_model(load(result.model))
    (y,) = session.run({"x": x})
    # alpha and beta are powers of two: where they are multiplied does not change the bits.
    scaled = expected_matrix(x, w, None) * np.float32(alpha) + bias * np.float32(beta)
    assert y.tobytes() == scaled.tobytes()
    assert [step.op for step in session.explain().steps] == ["DynamicQuantizeLinear", "QMatMul"]


CONVOLUTIONS = [
    ((2, 8, 9, 10), (24, 8, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ((1, 8, 9, 10), (8, 1, 3, 3), {"group": 8, "pads": [1] * 4}),
    ((1, 8, 9, 10), (12, 4, 3, 3), {"group": 2, "auto_pad": "SAME_UPPER"}),
    ((2, 6, 31), (10, 6, 5), {"pads": [2, 2]}),
]


@pytest.mark.parametrize(("shape", "weights", "attributes"), CONVOLUTIONS)
def test_a_convolution_is_its_operators_bit_for_bit(shape, weights, attributes):
    x, w, bias = random(*shape) + np.float32(0.5), random(*weights), random(weights[0])
    original, result, _ = apply(one_layer("Conv", x, w, bias, **attributes), [{"x": x}], FORCED)
    proto = to_proto(result.model)
    onnx.checker.check_model(proto, full_check=True)
    session = compile_model(load(proto))
    (y,) = session.run({"x": x})
    (plain,) = compile_model(load(proto), fused=False).run({"x": x})
    assert y.tobytes() == plain.tobytes()
    (other,) = onnxruntime_results(proto, {"x": x})
    np.testing.assert_allclose(y, other, rtol=1e-5, atol=1e-5)
    assert decibels(original.run({"x": x})[0], y) > 35
    kernels = {(step.op, step.kernel) for step in session.explain().steps}
    assert {op for op, kernel in kernels if "channels-last" not in kernel} <= {
        "DynamicQuantizeLinear", "QConv", "Output",
    }  # fmt: skip
    assert any(op == "QConv" and "u8s8" in kernel for op, kernel in kernels)


def attention() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Q, K and V of one tensor, and the product of two of them."""
    constants = [numpy_helper.from_array(random(32, 32), name) for name in "qkv"]
    nodes = [helper.make_node("MatMul", ["x", name], [f"{name}_"], name) for name in "qkv"]
    nodes.append(helper.make_node("Transpose", ["k_"], ["kt"], "turn", perm=[0, 2, 1]))
    nodes.append(helper.make_node("MatMul", ["q_", "kt"], ["s"], "scores"))
    nodes.append(helper.make_node("MatMul", ["s", "v_"], ["y"], "mixed"))
    proto = make_model(nodes, [value("x", ["N", 20, 32])], [value("y", None)], constants)
    return proto, {"x": random(2, 20, 32)}


def test_layers_that_read_one_tensor_quantise_it_once():
    proto, feed = attention()
    _, result, _ = apply(proto, [feed], DYNAMIC)
    found = {layer.name: (layer.precision, layer.reason) for layer in result.layers}
    assert {found[name] for name in "qkv"} == {("int8-dynamic", "")}
    assert found["scores"] == ("f32", "no constant weights")
    ops = [node.op_type for node in result.model.graph]
    assert ops.count("DynamicQuantizeLinear") == 1
    assert ops.count("MatMulInteger") == 3


def test_layers_that_would_not_gain_stay_float_unless_a_rule_names_them():
    x = random(1, 16, 40, 40)
    proto = one_layer("Conv", x, random(16, 1, 3, 3), None, group=16, pads=[1] * 4)
    (record,) = apply(proto, [{"x": x}], DYNAMIC)[1].layers
    assert record.precision == "f32"
    assert record.reason == "not worth it: 9 multiply-adds for each number quantised in each run"
    assert precisions(apply(proto, [{"x": x}], FORCED)[1]) == {"only": "int8-dynamic"}


def test_without_shapes_nothing_is_too_small():
    """A dimension that is not known is no reason: it may be large when the model runs."""
    proto = one_layer("MatMul", random(1, 64), random(64, 64), None)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    model = lowprec.quantize(proto, precision="int8-dynamic")
    assert [layer.precision for layer in model.report.layers] == ["int8-dynamic"]


def test_a_transposed_convolution_has_codes_for_weights_only():
    x = random(1, 8, 6, 6)
    proto = one_layer("ConvTranspose", x, random(8, 8, 3, 3), random(8))
    _, result, _ = apply(proto, [{"x": x}], DYNAMIC)
    (record,) = result.layers
    assert record.precision == "int8-weight-only"
    assert record.reason == "ONNX has no integer ConvTranspose: weights only"
    assert result.int8_macs == 0


@pytest.mark.parametrize(("op", "attributes"), FORMS)
def test_recurrent_layers_with_the_range_of_the_run(op, attributes):
    """The bits are those of a static layer that has the run's scale."""
    proto, x = layer(op, **attributes), RNG.standard_normal((20, 4, 12)).astype("f") * 2 + 1
    original, result, names = apply(proto, [{"x": x}], DYNAMIC)
    assert names == []
    record = next(record for record in result.layers if record.op_type == op)
    assert record.precision == "int8-dynamic"
    made = to_proto(result.model)
    onnx.checker.check_model(made, full_check=True)
    session = compile_model(load(made))
    (y,) = session.run({"x": x})
    assert [step.op for step in session.explain().steps] == ["DynamicQuantizeLinear", f"Q{op}"]
    _, scale, zero_point = reference.dynamic_quantize_linear(x)
    static = onnx.ModelProto.FromString(made.SerializeToString())
    (quantize,) = (n for n in static.graph.node if n.op_type == "DynamicQuantizeLinear")
    inputs = ["x", quantize.output[1], quantize.output[2]]
    constants = (np.float32(scale), np.uint8(zero_point))
    static.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name)
        for array, name in zip(constants, inputs[1:], strict=True)
    )
    quantize.CopyFrom(helper.make_node("QuantizeLinear", inputs, quantize.output[:1], "q"))
    (wanted,) = compile_model(load(static)).run({"x": x})
    assert y.tobytes() == wanted.tobytes()
    assert decibels(original.run({"x": x})[0], y) > 28
    (other,) = onnxruntime_results(made, {"x": x})
    assert decibels(other, y) > 28


def test_a_file_keeps_the_bits(tmp_path):
    proto, feed = attention()
    model = lowprec.quantize(proto, precision="int8-dynamic")
    model.save(tmp_path / "dynamic.onnx")
    loaded = lowprec.load(tmp_path / "dynamic.onnx")
    assert [a.tobytes() for a in loaded.run(feed)] == [a.tobytes() for a in model.run(feed)]
    assert loaded.report.to_json() == model.report.to_json()


def test_weights_must_be_finite():
    w = random(40, 40)
    w[3, 4] = np.nan
    proto = one_layer("MatMul", random(2, 40), w, None)
    with pytest.raises(QuantizationError, match="'w' of layer 'only' holds 1 NaN"):
        lowprec.quantize(proto, precision="int8-dynamic")
