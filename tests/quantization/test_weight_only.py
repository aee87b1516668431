"""Weights in codes or halves: the file shrinks, the numbers are those of the stored weights."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from mixed_models import apply, decibels, onnxruntime_results, precisions
from onnx import TensorProto, helper, numpy_helper
from onnx_models import make_model, value
from recurrent_models import FORMS, layer
from small_networks import mobile, transformer

import lowprec
from lowprec.engine import compile_model
from lowprec.errors import QuantizationError
from lowprec.graph import load, to_proto

RNG = np.random.default_rng(4)
WEIGHT_ONLY = ["int8-weight-only", "f16-weight-only"]


def with_stored_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with f32 constants where weights are widened: the numbers they stand for."""
    made = onnx.ModelProto.FromString(proto.SerializeToString())
    constants = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    kept = []
    for node in made.graph.node:
        arrays = [constants.get(name) for name in node.input]
        if node.op_type == "DequantizeLinear" and all(a is not None for a in arrays):
            codes, scale = arrays[0], arrays[1]
            axis = helper.get_node_attr_value(node, "axis") if scale.ndim else 0
            spread = [-1 if scale.ndim and i == axis else 1 for i in range(codes.ndim)]
            wide = codes.astype(np.float32) * scale.reshape(spread)
        elif node.op_type == "Cast" and arrays[0] is not None and arrays[0].dtype == np.float16:
            wide = arrays[0].astype(np.float32)
        else:
            kept.append(node)
            continue
        made.graph.initializer.append(numpy_helper.from_array(wide, node.output[0]))
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made


@pytest.mark.parametrize("precision", WEIGHT_ONLY)
@pytest.mark.parametrize("network", [mobile, transformer])
def test_the_bits_are_those_of_float_products_with_the_stored_weights(network, precision):
    proto, feeds = network()
    original, result, _ = apply(proto, feeds, {"precision": precision})
    made = to_proto(result.model)
    onnx.checker.check_model(made, full_check=True)
    plain = with_stored_weights(made)
    assert len(plain.graph.node) < len(made.graph.node)
    ours, wanted = (compile_model(load(model)) for model in (made, plain))
    for feed in feeds[:3]:
        (y,), (expected,) = ours.run(feed), wanted.run(feed)
        assert y.tobytes() == expected.tobytes()
        assert decibels(original.run(feed)[0], y) > (60 if precision == "f16-weight-only" else 30)
        np.testing.assert_allclose(y, onnxruntime_results(made, feed)[0], rtol=1e-3, atol=1e-4)
    # Nothing is left of the widening: the steps are those of the float model.
    kernels = [step.kernel for step in ours.explain().steps]
    original.run(feeds[0])
    assert kernels == [step.kernel for step in original.session.explain().steps]


@pytest.mark.parametrize(
    ("precision", "least", "most"), [(*WEIGHT_ONLY[:1], 3, 4), ("f16-weight-only", 1.9, 2)]
)
def test_the_file_shrinks(precision, least, most, tmp_path):
    w = numpy_helper.from_array(RNG.standard_normal((400, 400)).astype("f"), "w")
    proto = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "only")],
        [value("x", ["N", 400])], [value("y", ["N", 400])], [w],
    )  # fmt: skip
    model = lowprec.quantize(proto, precision=precision)
    assert least < model.report.float_bytes / model.report.int8_bytes <= most
    model.save(tmp_path / "small.onnx")
    feed = {"x": RNG.standard_normal((3, 400)).astype("f")}
    loaded = lowprec.load(tmp_path / "small.onnx")
    assert loaded.run(feed)[0].tobytes() == model.run(feed)[0].tobytes()
    compiled = lowprec.compile(str(tmp_path / "small.onnx"))
    assert compiled.run(feed)[0].tobytes() == model.run(feed)[0].tobytes()


@pytest.mark.parametrize(("op", "attributes"), FORMS)
@pytest.mark.parametrize("precision", WEIGHT_ONLY)
def test_recurrent_layers(op, attributes, precision):
    proto, x = layer(op, **attributes), RNG.standard_normal((6, 3, 12)).astype("f")
    original, result, _ = apply(proto, [{"x": x}], {"precision": precision})
    assert precisions(result)["layer"] == precision
    session = compile_model(load(result.model))
    (y,) = session.run({"x": x})
    (expected,) = compile_model(load(with_stored_weights(to_proto(result.model)))).run({"x": x})
    assert y.tobytes() == expected.tobytes()
    assert [step.op for step in session.explain().steps if step.op == op] == [op]
    assert decibels(original.run({"x": x})[0], y) > 35


def lookup(table: np.ndarray, *, rank: int = 2) -> onnx.ModelProto:
    shape = ["N", "T"][:rank]
    return make_model(
        [helper.make_node("Gather", ["table", "ids"], ["y"], "embed")],
        [value("ids", shape, TensorProto.INT64)],
        [value("y", None)],
        [numpy_helper.from_array(table, "table")],
    )


@pytest.mark.parametrize("precision", [*WEIGHT_ONLY, "int8-dynamic"])
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_only_the_rows_of_a_table_that_are_asked_for_are_widened(precision, rank):
    rows = 2000  # enough to be worth it without a rule
    table = RNG.standard_normal((rows, 33)) * np.exp(RNG.uniform(-5, 5, (rows, 1)))
    table = table.astype("f")
    table[7] = 0
    ids = RNG.integers(0, rows, (3, 4)[:rank])
    _, result, _ = apply(lookup(table, rank=rank), [{"ids": ids}], {"precision": precision})
    (record,) = (record for record in result.layers if record.name == "embed")
    half = precision == "f16-weight-only"
    assert record.precision == ("f16-weight-only" if half else "int8-weight-only")
    made = to_proto(result.model)
    onnx.checker.check_model(made, full_check=True)
    (y,) = compile_model(load(made)).run({"ids": ids})
    if half:
        expected = table.astype(np.float16).astype(np.float32)
    else:  # a scale for each row
        scale = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
        scale[7] = 1
        expected = np.rint(table / scale).astype(np.int8).astype(np.float32) * scale
    assert y.tobytes() == expected[ids].tobytes()
    assert y.shape == (*ids.shape, 33)
    assert onnxruntime_results(made, {"ids": ids})[0].tobytes() == y.tobytes()


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic"])
def test_large_tables_are_codes_beside_int8_layers_small_ones_by_a_rule(precision):
    feed, rule = {"ids": np.zeros((1, 2), np.int64)}, {"op_type": "Gather", "precision": "int8"}
    small, large = (lookup(RNG.standard_normal((n, 33)).astype("f")) for n in (50, 2000))
    for proto, rules, expected in (
        (small, [], "f32"),
        (small, [rule], "int8-weight-only"),
        (large, [], "int8-weight-only"),
        (large, [{"match": "*", "precision": "f32"}], "f32"),
    ):
        _, result, _ = apply(proto, [feed], {"precision": precision, "layers": rules})
        assert precisions(result)["embed"] == expected


def test_a_table_that_a_layer_reads_too_is_stored_for_both():
    table = numpy_helper.from_array(RNG.standard_normal((5000, 16)).astype("f"), "table")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "embed"),
        helper.make_node("Gemm", ["rows", "table"], ["y"], "scores", transB=1),
    ]
    proto = make_model(nodes, [value("ids", ["N"], TensorProto.INT64)], [value("y", None)], [table])
    feed = {"ids": np.arange(5)}
    for precision in (*WEIGHT_ONLY, "int8-dynamic"):
        original, result, _ = apply(proto, [feed], {"precision": precision})
        made = to_proto(result.model)
        onnx.checker.check_model(made, full_check=True)
        (y,) = compile_model(load(made)).run(feed)
        assert decibels(original.run(feed)[0], y) > 30
        assert "table" not in {t.name for t in made.graph.initializer}


@pytest.mark.parametrize(("bad", "kind"), [(1e5, "f16-weight-only"), (np.inf, "int8-weight-only")])
def test_numbers_that_do_not_fit(bad, kind):
    w = RNG.standard_normal((20, 20)).astype("f")
    w[3, 4] = bad
    proto = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "only")],
        [value("x", ["N", 20])],
        [value("y", ["N", 20])],
        [numpy_helper.from_array(w, "w")],
    )
    if kind == "int8-weight-only":
        with pytest.raises(QuantizationError, match="layer 'only' holds 1 NaN or infinite"):
            lowprec.quantize(proto, precision=kind)
        return
    (record,) = lowprec.quantize(proto, precision=kind).report.layers
    assert record.precision == "f32"
    assert record.reason == "a constant of 1e+05 does not fit f16"


def test_constants_in_halves_may_be_shared_and_some_may_not_fit():
    """A bias out of range stays f32; the weights beside it are halves all the same."""
    w, b = RNG.standard_normal((80, 80)).astype("f"), np.full(80, 1e6, "f")
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "first"),
        helper.make_node("Gemm", ["h", "w"], ["y"], "second"),
    ]
    constants = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")]
    proto = make_model(nodes, [value("x", ["N", 80])], [value("y", ["N", 80])], constants)
    feed = {"x": RNG.standard_normal((2, 80)).astype("f")}
    _, result, _ = apply(proto, [feed], {"precision": "f16-weight-only"})
    stored = {v.name: v.dtype.name for v in result.model.graph.initializers.values()}
    assert stored == {"w_f16": "FLOAT16", "b": "FLOAT"}
    only_second = {"layers": [{"match": "second", "precision": "f16-weight-only"}]}
    _, result, _ = apply(proto, [feed], {"precision": "int8-weight-only", **only_second})
    assert precisions(result) == {"first": "int8-weight-only", "second": "f16-weight-only"}
    stored = {v.name: v.dtype.name for v in result.model.graph.initializers.values()}
    assert stored["w_f16"] == "FLOAT16"
    assert stored["w_quantized"] == "INT8"
    assert "w" not in stored
