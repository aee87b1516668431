"""Operators of onnxruntime's own domain, one at a time, against onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from lowprec import errors, graph
from lowprec.engine import compile_model

RNG = np.random.default_rng(5)
Array = np.ndarray


@dataclass
class Case:
    """A node: its operands, and which of them are fed in a run rather than constant."""

    op: str
    operands: Sequence[Array | None]
    attributes: dict[str, Any] = field(default_factory=dict)
    fed: Sequence[int] = (0,)
    outputs: int = 1
    step: float = 0.0  # how far a result may be off beside the rounding of floats
    opset: int = 17
    label: str = ""

    def __str__(self) -> str:
        return self.label or self.op


def codes(*shape: int, dtype: type = np.uint8) -> Array:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max, shape, endpoint=True).astype(dtype)


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def f32(value: float) -> Array:
    return np.float32(value).reshape(())


def u8(value: int) -> Array:
    return np.uint8(value).reshape(())


def s8(value: int) -> Array:
    return np.int8(value).reshape(())


def binary(op: str) -> Case:
    a = (codes(2, 3, 4, 5), f32(0.02), u8(120))
    b = (codes(3, 1, 5), f32(0.03), u8(90))
    return Case(op, [*a, *b, f32(0.05), u8(100)], fed=(0, 3), step=1)


def unary(op: str, **attributes: Any) -> Case:
    operands = [codes(2, 8, 6, 6), f32(0.03), u8(110), f32(0.02), u8(60)]
    return Case(op, operands, attributes, step=1)


def cases() -> list[Case]:
    found = [
        binary("QLinearAdd"),
        binary("QLinearMul"),
        unary("QLinearLeakyRelu", alpha=0.2),
        unary("QLinearSigmoid"),
        unary("QLinearGlobalAveragePool"),
        unary("QLinearGlobalAveragePool", channels_last=1),
        unary("QLinearAveragePool", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 1, 0, 0]),
        unary("QLinearSoftmax", axis=-1, opset=13),
        unary("QLinearSoftmax", axis=1, opset=11),
        Case(
            "QLinearConcat",
            [
                f32(0.05), u8(100), codes(2, 3, 4), f32(0.02), u8(3),
                codes(2, 5, 4), f32(0.07), u8(9),
            ],
            {"axis": 1},
            fed=(2, 5),
            step=1,
        ),
        Case(
            "QLinearWhere",
            [
                np.array([[True], [False]]), codes(2, 5), f32(0.02), u8(3),
                codes(2, 5), f32(0.04), u8(77), f32(0.05), u8(30),
            ],
            fed=(0, 1, 4),
            step=1,
        ),
    ]  # fmt: skip
    for w_type, channels in ((np.int8, 6), (np.uint8, 1), (np.int8, 1)):
        scale = (RNG.random(channels) * 0.02 + 0.01).astype("f")
        zero = np.zeros(channels, np.int8) if w_type == np.int8 else np.array([131], np.uint8)
        bias = RNG.integers(-3000, 3000, 6).astype(np.int32)
        shape = (channels,) if channels > 1 else ()
        numbers = (scale.reshape(shape), zero.reshape(shape))
        x = (codes(5, 9), f32(0.02), u8(120))
        weights = (codes(9, 6, dtype=w_type), *numbers)
        label = f"{w_type.__name__} {channels}"
        found += [
            Case("QGemm", [*x, *weights, bias, f32(0.3), u8(128)], label=f"QGemm {label}"),
            Case("QGemm", [*x, *weights, bias], {"alpha": 0.5}, label=f"QGemm f32 {label}"),
            Case("QGemm", [*x, *weights, None, f32(0.3), u8(128)], label=f"QGemm bare {label}"),
            Case(
                "MatMulIntegerToFloat",
                [x[0], weights[0], x[1], numbers[0], x[2], numbers[1], floats(6)],
                label=f"MatMulIntegerToFloat {label}",
            ),
            Case(
                "DynamicQuantizeMatMul",
                [floats(2, 5, 9), *weights, floats(6)],
                label=f"DynamicQuantizeMatMul {label}",
            ),
        ]
    found += [
        Case("QuantizeLinear", [floats(4, 5), f32(1e-3), np.uint16(30000).reshape(())]),
        Case("DequantizeLinear", [codes(4, 5, dtype=np.int16), f32(1e-3), np.int16(7).reshape(())]),
        Case("QuantizeLinear", [floats(4, 5), f32(0.02), s8(-3)], label="QuantizeLinear s8"),
    ]
    return found + float_cases() + transformer_cases()


def float_cases() -> list[Case]:
    x, w = floats(2, 4, 6, 7), floats(5, 4, 3, 3)
    conv = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    return [
        Case("FusedConv", [x, w, floats(5)], {**conv, "activation": "Relu"}),
        Case(
            "FusedConv",
            [x, w, floats(5), floats(2, 5, 6, 7)],
            {**conv, "activation": "LeakyRelu", "activation_params": [0.3]},
            fed=(0, 3),
            label="FusedConv with a summand",
        ),
        Case(
            "FusedConv",
            [x, w],
            {**conv, "activation": "Clip", "activation_params": [-0.5, 0.7]},
            label="FusedConv Clip",
        ),
        Case(
            "FusedGemm",
            [floats(9, 5), floats(9, 6), floats(6)],
            {"transA": 1, "activation": "LeakyRelu", "activation_alpha": 0.2, "alpha": 0.7},
        ),
        Case("FusedMatMul", [floats(2, 5, 9), floats(2, 9, 6)], {"alpha": 0.25}, fed=(0, 1)),
        Case(
            "FusedMatMul",
            [floats(2, 3, 9, 5), floats(2, 3, 6, 9)],
            {"transA": 1, "transB": 1},
            fed=(0, 1),
            label="FusedMatMul transposed",
        ),
        Case("Gelu", [floats(3, 8)]),
        Case("FastGelu", [floats(3, 8), floats(8)]),
        Case("BiasGelu", [floats(3, 8), floats(8)]),
        Case("QuickGelu", [floats(3, 8)], {"alpha": 1.5}),
        Case(
            "MatMulNBits",
            [floats(3, 40), codes(7, 3, 8), floats(7 * 3)],
            {"K": 40, "N": 7, "bits": 4, "block_size": 16},
        ),
        Case(
            "MatMulNBits",
            [floats(3, 40), codes(7, 3, 8), floats(7 * 3), codes(7 * 2)],
            {"K": 40, "N": 7, "bits": 4, "block_size": 16},
            label="MatMulNBits with zero points",
        ),
    ]


def transformer_cases() -> list[Case]:
    x, w, b = floats(2, 5, 12), floats(12, 36), floats(36)
    lengths = np.array([3, 5], np.int32)
    raw = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 1, 1]], np.int32)
    heads = {"num_heads": 3}
    ids = np.array([[1, 2, 3, 4, 0], [9, 8, 7, 6, 5]], np.int32)
    segments = np.array([[0, 0, 1, 1, 1], [0, 1, 0, 1, 0]], np.int32)
    tables = [floats(10, 12), floats(16, 12), floats(2, 12), floats(12), floats(12)]
    q = [codes(*table.shape) for table in tables]
    scales = [f32(0.01 * (i + 1)) for i in range(5)]
    zeros = [u8(120 + i) for i in range(5)]
    quantized = [codes(2, 5, 12), codes(12, 36, dtype=np.int8), b, f32(0.02), f32(0.01)]
    return [
        Case("Attention", [x, w, b], heads),
        Case("Attention", [x, w, b, raw], heads, fed=(0, 3), label="Attention raw mask"),
        Case("Attention", [x, w, b, lengths], heads, fed=(0, 3), label="Attention lengths"),
        Case("Attention", [x, w, b], {**heads, "unidirectional": 1}, label="Attention causal"),
        Case("QAttention", [*quantized, raw, u8(128), s8(0)], heads, fed=(0, 5), step=1e-3),
        Case("SkipLayerNormalization", [x, floats(2, 5, 12), *tables[3:], floats(12)], fed=(0, 1)),
        Case("EmbedLayerNormalization", [ids, segments, *tables, raw], fed=(0, 1, 7), outputs=2),
        Case(
            "QEmbedLayerNormalization",
            [ids, segments, *q, raw, *scales, *zeros],
            fed=(0, 1, 7),
            outputs=2,
        ),
        Case(
            "DynamicQuantizeLSTM",
            [
                floats(4, 2, 6), codes(1, 6, 20, dtype=np.int8), codes(1, 5, 20, dtype=np.int8),
                floats(1, 40), None, None, None, None,
                np.float32([0.005]), np.int8([0]), np.float32([0.004]), np.int8([0]),
            ],
            {"hidden_size": 5},
            step=0.03,  # onnxruntime quantises the activations, too
        ),
    ]  # fmt: skip


def model_of(case: Case) -> tuple[onnx.ModelProto, dict[str, Array]]:
    names, inputs, constants, feeds = [], [], [], {}
    for i, operand in enumerate(case.operands):
        names.append("" if operand is None else f"x{i}")
        if operand is None:
            continue
        if i in case.fed:
            dtype = helper.np_dtype_to_tensor_dtype(operand.dtype)
            inputs.append(helper.make_tensor_value_info(names[-1], dtype, operand.shape))
            feeds[names[-1]] = operand
        else:
            constants.append(numpy_helper.from_array(np.asarray(operand), names[-1]))
    made = [f"y{i}" for i in range(case.outputs)]
    node = helper.make_node(case.op, names, made, "node", domain="com.microsoft", **case.attributes)
    outputs = [onnx.ValueInfoProto(name=name) for name in made]
    whole = helper.make_graph([node], "one", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", case.opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(whole, opset_imports=opsets, ir_version=9), feeds


def theirs(model: onnx.ModelProto, feeds: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_an_operator_gives_what_onnxruntime_gives(case: Case):
    model, feeds = model_of(case)
    expected = theirs(model, feeds)
    hub = graph.load(model)
    assert all(node.domain == "" for node in hub.graph)
    session = compile_model(hub)
    results = session.run(feeds)
    if case.op != "MatMulNBits":  # its blocks are dequantised by the fall-back
        assert "reference" not in {step.kernel for step in session.explain().steps}
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype
        assert result.shape == wanted.shape
        off = np.abs(result.astype(np.float64) - wanted.astype(np.float64))
        bound = case.step + (0 if wanted.dtype.kind in "iu" else 2e-5 * (1 + np.abs(wanted)))
        assert (off <= bound).all()
        if case.step == 1:
            assert (off > 0).sum() <= max(1, 0.05 * off.size)  # a tie, rounded in another place


def test_a_mean_of_codes():
    """onnxruntime defines QLinearReduceMean, and has no kernel for it on CPUs."""
    case = unary("QLinearReduceMean", axes=[2, 3], keepdims=0)
    model, feeds = model_of(case)
    (result,) = compile_model(graph.load(model)).run(feeds)
    mean = ((feeds["x0"].astype(np.float64) - 110) * 0.03).mean(axis=(2, 3))
    assert result.shape == (2, 8)
    assert np.abs((result.astype(np.float64) - 60) * 0.02 - mean).max() < 0.0101


def test_an_old_model_is_upgraded_first():
    case = unary("QLinearSigmoid")
    case.opset = 11
    model, feeds = model_of(case)
    hub = graph.load(model)
    assert hub.graph.opset_imports == {"": 21}
    (result,) = compile_model(hub).run(feeds)
    assert np.abs(result.astype(int) - theirs(model, feeds)[0]).max() <= 1


def attention(**attributes: Any) -> Case:
    return Case("Attention", [floats(2, 5, 12), floats(12, 36), floats(36)], attributes)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case("GroupQueryAttention", [floats(2, 5, 12)]), "com.microsoft"),
        (attention(num_heads=5), "36 columns with 5 heads"),
        (attention(num_heads=3, do_rotary=1), "rotary"),
        (
            Case(
                "MatMulNBits",
                [floats(3, 40), codes(7, 3, 4), floats(7 * 3)],
                {"K": 40, "N": 7, "bits": 2, "block_size": 16},
            ),
            "2 bits",
        ),
        (
            Case(
                "MatMulNBits",
                [floats(3, 40), codes(7, 3, 8), floats(7 * 3)],
                {"K": 1 << 40, "N": 1 << 40, "bits": 4, "block_size": 16},
            ),
            "K=",
        ),
        (Case("FusedConv", [floats(1, 2, 3, 3), floats(2, 2, 1, 1)], {"activation": "Odd"}), "Odd"),
    ],
    ids=lambda item: str(item).replace(" ", "_"),
)
def test_what_has_no_translation_is_refused_by_name(case: Case, reason: str):
    model, _ = model_of(case)
    with pytest.raises(errors.UnsupportedError) as caught:
        graph.load(model)
    message = str(caught.value)
    assert reason in message
    assert case.op in message
    assert "'node'" in message
    assert "\n" not in message
