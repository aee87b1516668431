"""Pairs stand where the policy says, and whatever stays float says why."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest
from small_models import build, operators

from lowprec.calibration.ranges import Range
from lowprec.config import Config
from lowprec.passes import simplify
from lowprec.quantization import QuantizationResult, apply_precisions, tensors_to_calibrate

rng = np.random.default_rng(11)


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def quantize(
    model: ir.Model, config: Config | None = None, *, rmin: float = -2.0, rmax: float = 3.0
) -> QuantizationResult:
    """Quantise with the same range everywhere."""
    config = config or Config()
    simplify(model)
    names = tensors_to_calibrate(model, config)
    return apply_precisions(model, {n: Range(rmin, rmax, "minmax") for n in names}, config)


def reasons(result: QuantizationResult) -> dict[str, str]:
    return {record.name: record.reason for record in result.layers if record.precision == "f32"}


def int8(result: QuantizationResult) -> list[str]:
    return [record.op_type for record in result.layers if record.precision == "int8"]


def chain(result: QuantizationResult) -> list[str]:
    """Return the operators between input and output, dequantised constants left out."""
    kept = []
    for node in result.model.graph:
        constant = node.inputs[0] is not None and node.inputs[0].is_initializer()
        if not constant:
            kept.append(
                {"QuantizeLinear": "Q", "DequantizeLinear": "DQ"}.get(node.op_type, node.op_type)
            )
    return kept


TWO_CONVS = (
    "m (float[1,4,8,8] x) => (float[1,4,8,8] y) {"
    " a = Conv<pads=[1,1,1,1]>(x, w, b) h = %s(a) y = Conv<pads=[1,1,1,1]>(h, v) }"
)
WEIGHTS = {"w": floats(4, 4, 3, 3), "b": floats(4), "v": floats(4, 4, 3, 3)}


@pytest.mark.parametrize("activation", ["Relu", "HardSwish", "Sigmoid"])
def test_the_function_between_two_layers_sees_float(activation: str) -> None:
    result = quantize(build(TWO_CONVS % activation, WEIGHTS))
    assert chain(result) == ["Q", "DQ", "Conv", activation, "Q", "DQ", "Conv"]


def test_silu_stays_in_the_epilogue() -> None:
    text = (
        "m (float[1,4,8,8] x) => (float[1,4,6,6] y) {"
        " a = Conv<pads=[1,1,1,1]>(x, w, b) s = Sigmoid(a) h = Mul(a, s) y = Conv(h, v) }"
    )
    result = quantize(build(text, WEIGHTS))
    assert chain(result) == ["Q", "DQ", "Conv", "Sigmoid", "Mul", "Q", "DQ", "Conv"]
    assert "epilogue" in next(r.reason for r in result.layers if r.op_type == "Mul")


def test_one_pair_serves_all_readers_and_floats_keep_the_float() -> None:
    text = (
        "m (float[1,4,8,8] x) => (float[1,4,6,6] y, float[1,4,6,6] z, float[1,4,8,8] f) {"
        " h = Relu(x) y = Conv(h, w) z = Conv(h, v) f = Softmax(h) }"
    )
    result = quantize(build(text, {k: WEIGHTS[k] for k in "wv"}))
    assert Counter(chain(result))["Q"] == 1
    softmax = next(node for node in result.model.graph if node.op_type == "Softmax")
    assert softmax.inputs[0].producer().op_type == "Relu"


def test_data_movement_runs_on_codes_with_shared_parameters() -> None:
    text = (
        "m (float[1,4,8,8] x) => (float[1,4,2,2] y) {"
        " a = Conv<pads=[1,1,1,1]>(x, w) r = Relu(a)"
        " p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r) t = Transpose<perm=[0,1,3,2]>(p)"
        " y = Conv(t, v) }"
    )
    result = quantize(build(text, {k: WEIGHTS[k] for k in "wv"}))
    assert chain(result) == [
        *["Q", "DQ", "Conv", "Relu"],
        *["Q", "DQ", "MaxPool", "Q", "DQ", "Transpose", "Q", "DQ", "Conv"],
    ]
    scales = [n.inputs[1] for n in result.model.graph if n.op_type == "QuantizeLinear"]
    assert len({id(scale) for scale in scales[1:]}) == 1
    assert scales[0] is not scales[1]


def test_data_movement_with_a_float_reader_stays_float() -> None:
    text = (
        "m (float[1,4,8,8] x) => (float[1,4,2,2] y, float[1,4,4,4] f) {"
        " a = Conv<pads=[1,1,1,1]>(x, w) p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)"
        " y = Conv(p, v) f = Softmax(p) }"
    )
    result = quantize(build(text, {k: WEIGHTS[k] for k in "wv"}))
    assert "MaxPool" not in int8(result)


RESIDUAL = (
    "m (float[1,4,8,8] x) => (float[1,4,6,6] y) {"
    " a = Conv<pads=[1,1,1,1]>(x, w) r = Relu(a) c = Conv<pads=[1,1,1,1]>(r, v)"
    " s = Add(c, r) h = Relu(s) y = Conv(h, w) %s }"
)


def test_a_residual_addition_gets_its_integer_form() -> None:
    result = quantize(build(RESIDUAL % "", {k: WEIGHTS[k] for k in "wv"}))
    assert "Add" in int8(result)
    add = next(node for node in result.model.graph if node.op_type == "Add")
    # The layer that makes `c` for it alone adds `r` to its f32 result.
    assert [v.producer().op_type for v in add.inputs] == ["Conv", "DequantizeLinear"]
    reason = next(record.reason for record in result.layers if record.op_type == "Add")
    assert reason == "in the epilogue of the layer before it"


def test_of_two_layers_the_later_one_adds() -> None:
    text = (
        "m (float[1,4,8,8] x) => (float[1,4,8,8] y) {"
        " a = Conv<pads=[1,1,1,1]>(x, w) b = Conv<pads=[1,1,1,1]>(x, v) h = HardSwish(b)"
        " s = Add(h, a) y = Conv<pads=[1,1,1,1]>(s, w) }"
    )
    result = quantize(build(text, {k: WEIGHTS[k] for k in "wv"}))
    add = next(node for node in result.model.graph if node.op_type == "Add")
    assert [v.producer().op_type for v in add.inputs] == ["HardSwish", "DequantizeLinear"]


@pytest.mark.parametrize("why", ["broadcast", "read twice"])
def test_both_inputs_of_other_additions_are_codes(why: str) -> None:
    side = "GlobalAveragePool(a)" if why == "broadcast" else "Conv<pads=[1,1,1,1]>(a, w)"
    text = (
        "m (float[1,4,8,8] x) => (float[1,4,8,8] y, float[1,4,8,8] t) {"
        f" a = Conv<pads=[1,1,1,1]>(x, w) g = {side} b = Conv<pads=[1,1,1,1]>(a, v)"
        " s = Add(b, g) t = Conv<pads=[1,1,1,1]>(s, w) y = Conv<pads=[1,1,1,1]>(b, w) }"
    )
    if why == "broadcast":
        text = text.replace("(b, w)", "(t, w)")
    result = quantize(build(text, {k: WEIGHTS[k] for k in "wv"}))
    add = next(node for node in result.model.graph if node.op_type == "Add")
    kinds = [v.producer().op_type for v in add.inputs]
    expected = ["DequantizeLinear"] * 2 if why == "broadcast" else ["DequantizeLinear", "Conv"]
    assert kinds == expected


def test_an_addition_read_in_float_stays_float() -> None:
    text = (RESIDUAL % "z = Softmax(s)").replace("6,6] y)", "6,6] y, float[1,4,8,8] z)")
    result = quantize(build(text, {k: WEIGHTS[k] for k in "wv"}))
    assert "Add" not in int8(result)
    assert "read in float by Softmax" in next(r.reason for r in result.layers if r.op_type == "Add")


def test_an_addition_of_a_float_value_stays_float() -> None:
    text = (
        "m (float[1,4,8,8] x, float[1,4,8,8] f) => (float[1,4,6,6] y) {"
        " a = Conv<pads=[1,1,1,1]>(x, w) s = Add(a, f) y = Conv(s, v) }"
    )
    result = quantize(build(text, {k: WEIGHTS[k] for k in "wv"}))
    assert "Add" not in int8(result)
    assert "its input f does not come from" in next(
        r.reason for r in result.layers if r.op_type == "Add"
    )


def test_concat_and_average_pool_between_layers_get_their_integer_form() -> None:
    text = (
        "m (float[1,4,8,8] x) => (float[1,4,4,4] y) {"
        " a = Conv<pads=[1,1,1,1]>(x, w) b = Conv<pads=[1,1,1,1]>(x, v) c = Concat<axis=1>(a, b)"
        " p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(c) y = Conv(p, u) }"
    )
    result = quantize(build(text, {"w": WEIGHTS["w"], "v": WEIGHTS["v"], "u": floats(4, 8, 1, 1)}))
    assert {"Concat", "AveragePool"} <= set(int8(result))


def test_parts_that_only_a_concat_reads_are_rounded_once_with_its_scale() -> None:
    text = (
        "m (float[1,4,8,8] x) => (float[1,4,8,8] y) {"
        " a = Conv<pads=[1,1,1,1]>(x, w) b = Conv<pads=[1,1,1,1]>(x, v) c = Concat<axis=1>(a, b)"
        " d = Conv(b, t) e = Conv(c, u) y = Add(d, e) }"
    )
    model = build(
        text,
        {"w": WEIGHTS["w"], "v": WEIGHTS["v"], "u": floats(4, 8, 1, 1), "t": floats(4, 4, 1, 1)},
    )
    simplify(model)
    ranges = {"x": (-1.0, 1.0), "a": (-2.0, 1.0), "b": (-1.0, 2.0), "c": (-3.0, 3.0)}
    result = apply_precisions(
        model, {name: Range(*ends, "minmax") for name, ends in ranges.items()}, Config()
    )
    (concat,) = [node for node in result.model.graph if node.op_type == "Concat"]
    scales = [pair.producer().inputs[1].name for pair in concat.inputs]
    assert scales[0] == "c_scale"
    assert scales[1] == "b_scale"  # another layer reads it: its own range is finer


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"match": "first*", "precision": "f32"}, ["Conv"]),
        ({"op_type": "Conv", "precision": "f32"}, []),
        ({"match": "nobody", "precision": "f32"}, ["Conv", "Conv"]),
    ],
)
def test_the_config_excludes_by_name_pattern_and_type(rule: dict, expected: list[str]) -> None:
    model = build(TWO_CONVS % "Relu", WEIGHTS)
    convs = [node for node in model.graph if node.op_type == "Conv"]
    convs[0].name, convs[1].name = "first_conv", "second_conv"
    result = quantize(model, Config.of({"layers": [rule]}))
    assert int8(result) == expected
    assert all("excluded by the config" in r for n, r in reasons(result).items() if "conv" in n)


def test_small_layers_beside_large_ones_are_not_worth_it() -> None:
    text = (
        "m (float[1,64,64,64] x) => (float[1,8,1,1] y, float[1,64,64,64] z) {"
        " z = Conv<pads=[1,1,1,1]>(x, w) p = GlobalAveragePool(z) y = Conv(p, v) }"
    )
    model = build(text, {"w": floats(64, 64, 3, 3), "v": floats(8, 64, 1, 1)})
    result = quantize(model)
    assert int8(result) == ["Conv"]
    assert "not worth it: 512 multiply-adds" in reasons(result).values()
    asked = quantize(model, Config.of({"layers": [{"op_type": "Conv", "precision": "int8"}]}))
    assert int8(asked).count("Conv") == 2


def test_layers_that_cannot_be_quantised_say_so() -> None:
    text = (
        "m (float[3,4] x, float[4,5] u) => (float[3,5] a, float[3,5] b, float[3,3] c) {"
        " a = MatMul(x, u) t = Transpose(x) b = Gemm<transA=1>(t, w) s = Relu(t) c = MatMul(k, s) }"
    )
    result = quantize(build(text, {"w": floats(4, 5), "k": floats(3, 4)}))
    assert int8(result) == []
    said = [r.reason for r in result.layers if r.op_type in ("MatMul", "Gemm")]
    assert said == ["no constant weights", "Gemm with transA", "the weights are the first operand"]


def test_a_body_quantises_what_it_reads_from_outside_inside_of_it() -> None:
    text = (
        "m (float[1,4,8,8] x, bool p) => (float[1,4,6,6] y) { h = Relu(x)"
        " y = If(p) <then_branch = t () => (float[1,4,6,6] a) { a = Conv(h, w) },"
        " else_branch = e () => (float[1,4,6,6] b) { b = Conv(h, v) }> }"
    )
    result = quantize(build(text, {k: WEIGHTS[k] for k in "wv"}))
    assert "QuantizeLinear" not in operators(result.model)
    for body in result.model.graph.subgraphs():
        assert [node.op_type for node in body] == [
            "QuantizeLinear",
            "DequantizeLinear",
            "DequantizeLinear",
            "Conv",
        ]
    assert int8(result) == ["Conv", "Conv"]


def test_a_quantised_model_comes_back_as_it_is() -> None:
    first = quantize(build(TWO_CONVS % "Relu", WEIGHTS))
    assert tensors_to_calibrate(first.model, Config()) == []
    again = apply_precisions(first.model, {}, Config())
    assert again.note.startswith("already quantised")
    assert operators(again.model) == operators(first.model)


def test_every_float_operator_has_a_reason() -> None:
    result = quantize(build(RESIDUAL % "", {k: WEIGHTS[k] for k in "wv"}))
    assert all(record.reason for record in result.layers if record.precision == "f32")
    assert {record.name for record in result.layers} >= {
        node.name for node in result.model.graph if node.op_type in ("Conv", "Add", "Relu")
    }


def test_a_layer_whose_input_was_never_seen_stays_float() -> None:
    model = build(TWO_CONVS % "Relu", WEIGHTS)
    simplify(model)
    result = apply_precisions(model, {"x": Range(-1, 1, "minmax")}, Config())
    assert int8(result) == ["Conv"]
    assert any("calibration never saw its input h" in r for r in reasons(result).values())


def test_a_depthwise_layer_with_a_coarse_input_stays_float_unless_asked_for() -> None:
    text = (
        "m (float[1,4,8,8] x) => (float[1,4,4,4] y) {"
        " a = Conv(x, w) h = HardSwish(a) y = Conv<group=4>(h, v) }"
    )
    model = build(text, {"w": floats(4, 4, 3, 3), "v": floats(4, 1, 3, 3)})
    ranges = {"x": Range(-1, 1, "minmax", sqnr=25), "h": Range(-1, 1, "minmax", sqnr=25)}
    result = apply_precisions(model, ranges, Config())
    assert int8(result) == ["Conv"]
    assert any("25.0 dB" in reason for reason in reasons(result).values())
    fine = {**ranges, "h": Range(-1, 1, "minmax", sqnr=35)}
    assert int8(apply_precisions(model, fine, Config())) == ["Conv", "Conv"]
    asked = Config.of({"layers": [{"op_type": "Conv", "precision": "int8"}]})
    assert int8(apply_precisions(model, ranges, asked)) == ["Conv", "Conv"]


def test_no_layer_reads_what_eight_bits_ruin() -> None:
    model = build("m (float[2,16] x) => (float[2,8] y) { y = MatMul(x, w) }", {"w": floats(16, 8)})
    result = apply_precisions(model, {"x": Range(-1e6, 1, "minmax", sqnr=4)}, Config())
    assert int8(result) == []
    assert "eight bits would leave its input 4.0 dB" in "".join(reasons(result).values())
