"""Every operator that is shared out gives the same bits with 1, 2, 3 and 4 threads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from engine_programs import ISAS
from thread_counts import bytes_by_count

import lowprec.numerics as nx
from lowprec._ext import _core

RNG = np.random.default_rng(5)
CODES = {"x_scale": 0.02, "x_zero_point": 9, "w_scale": [1e-3], "y_scale": 0.05, "y_dtype": 2}
SIDE = {"y_scale": 0.05, "y_zero_point": 9, "y_dtype": 2}


def reals(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def codes(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def weights(*shape: int) -> np.ndarray:
    return RNG.integers(-127, 128, shape).astype(np.int8)


def plan_of(
    op: str,
    fed: list[np.ndarray],
    constants: list[np.ndarray | None],
    attributes: Mapping[str, Any],
    outputs: int = 1,
    isa: str | None = None,
) -> _core.Plan:
    program = _core.Program(isa)
    sources = [program.add_value(f"x{i}", x.dtype) for i, x in enumerate(fed)]
    ids = [-1 if c is None else program.add_constant(f"c{i}", c) for i, c in enumerate(constants)]
    made = [program.add_value(f"y{i}", np.float32) for i in range(outputs)]
    program.add_node(op, "node", [*sources, *ids], made, dict(attributes))
    program.set_io(sources, made)
    return program.plan([x.shape for x in fed])


def same_bits(plan: _core.Plan, fed: list[np.ndarray]) -> None:
    made = bytes_by_count(lambda: b"".join(y.tobytes() for y in plan.run(fed)[0]))
    assert len(set(made.values())) == 1
    assert len(set(made[1])) > 1, "the result says nothing"


PRODUCTS = {
    "rows": ("MatMul", reals(301, 200), [reals(200, 90)], {}),
    "columns": ("MatMul", reals(1, 2000), [reals(2000, 2060)], {}),
    "transposed": ("Gemm", reals(134, 180), [reals(200, 180), reals(200)], {"transB": 1}),
    "codes": ("QMatMul", codes(262, 131), [weights(131, 130)], CODES),
    "one row of codes": ("QMatMul", codes(1, 2001), [weights(2001, 2060)], CODES),
    "conv": ("Conv", reals(2, 24, 25, 29), [reals(40, 24, 3, 3)], {"pads": [1] * 4}),
    "strided conv": (
        "QConv",
        codes(2, 24, 39, 43),
        [weights(40, 24, 3, 3)],
        CODES | {"pads": [1, 0, 2, 1], "strides": [2, 2]},
    ),
    "few large groups": (
        "QConv",
        codes(1, 96, 30, 31),
        [weights(96, 48, 3, 3)],
        CODES | {"group": 2},
    ),
    "many small groups": ("Conv", reals(1, 96, 30, 31), [reals(96, 4, 3, 3)], {"group": 24}),
    "transposed conv": (
        "ConvTranspose",
        reals(1, 24, 57, 69),
        [reals(24, 40, 3, 3)],
        {"strides": [2, 2]},
    ),
    "depthwise": (
        "Conv",
        reals(2, 70, 63, 69),
        [reals(70, 1, 3, 3)],
        {"group": 70, "pads": [1] * 4},
    ),
    "depthwise codes": (
        "QConv",
        codes(2, 130, 21, 23),
        [weights(130, 1, 5, 5)],
        CODES | {"group": 130, "pads": [2] * 4},
    ),
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", PRODUCTS)
def test_products(case, isa):
    op, x, constants, attributes = PRODUCTS[case]
    same_bits(plan_of(op, [x], constants, attributes, isa=isa), [x])


IMAGE = reals(2, 50, 61, 47)
LARGE = reals(4, 100, 61, 47)
QIMAGE = codes(2, 50, 61, 47)
OTHERS = {
    "dynamic product": ("MatMul", [reals(12, 40, 64), reals(12, 64, 50)], [], {}),
    "dynamic product in pieces": ("MatMul", [reals(300, 200), reals(200, 250)], [], {}),
    "dynamic Gemm": ("Gemm", [reals(200, 300), reals(250, 200)], [], {"transA": 1, "transB": 1}),
    "unary": ("Sigmoid", [IMAGE], [], {}),
    "integer map": ("Neg", [RNG.integers(-9, 9, (300, 401))], [], {}),
    "clip": ("Clip", [IMAGE], [np.float32(-0.5), np.float32(0.5)], {}),
    "cast": ("Cast", [IMAGE], [], {"to": 10}),
    "binary": ("Add", [IMAGE, reals(2, 50, 61, 47)], [], {}),
    "broadcast rows": ("Mul", [reals(700, 301), reals(301)], [], {}),
    "broadcast columns": ("Sub", [reals(700, 301), reals(700, 1)], [], {}),
    "broadcast few long rows": ("Add", [reals(12, 128, 128), reals(1, 128, 128)], [], {}),
    "qadd of few long rows": (
        "QAdd",
        [codes(12, 128, 128), codes(1, 128, 128)],
        [],
        {"a_scale": 0.1, "b_scale": 0.07, "b_zero_point": 3} | SIDE,
    ),
    "broadcast outer": ("Add", [reals(1, 50, 61, 47), reals(8, 1, 61, 1)], [], {}),
    "integers": ("Add", [RNG.integers(-9, 9, (300, 401)), RNG.integers(-9, 9, (401,))], [], {}),
    "where": ("Where", [reals(300, 401) > 0, reals(300, 401), reals(1, 401)], [], {}),
    "mean": ("Mean", [IMAGE, reals(1, 50, 61, 47), reals(47)], [], {}),
    "quantize": ("QuantizeLinear", [IMAGE], [np.float32(0.05), np.uint8(9)], {}),
    "quantize channels": (
        "QuantizeLinear",
        [IMAGE],
        [np.linspace(0.01, 0.1, 50, dtype=np.float32), np.arange(50, dtype=np.uint8)],
        {"axis": 1},
    ),
    "quantize last axis": (
        "QuantizeLinear",
        [reals(9000, 50)],
        [np.linspace(0.01, 0.1, 50, dtype=np.float32), np.arange(50, dtype=np.uint8)],
        {"axis": 1},
    ),
    "dequantize": ("DequantizeLinear", [QIMAGE], [np.float32(0.05), np.uint8(9)], {}),
    "qadd": (
        "QAdd",
        [QIMAGE, codes(2, 50, 61, 47)],
        [],
        {"a_scale": 0.1, "b_scale": 0.07, "b_zero_point": 3} | SIDE,
    ),
    "qmul broadcast": (
        "QMul",
        [codes(2, 61, 47, 50), codes(50)],
        [],
        {"a_scale": 0.1, "b_scale": 0.07, "b_zero_point": 3} | SIDE,
    ),
    "table": (
        "QTable",
        [QIMAGE],
        [],
        {"x_scale": 0.1, "codes": [11], "a": [0.0], "b": [0.0]} | SIDE,
    ),
    "qconcat": (
        "QConcat",
        [QIMAGE, codes(2, 30, 61, 47)],
        [],
        {"x_scale": [0.1, 0.05], "x_zero_point": [0, 9], "axis": 1} | SIDE,
    ),
    "max pool": (
        "MaxPool",
        [IMAGE],
        [],
        {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [2, 1]},
    ),
    "max pool codes": ("MaxPool", [QIMAGE], [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "average pool": (
        "AveragePool",
        [IMAGE],
        [],
        {"kernel_shape": [5, 3], "pads": [2, 1, 2, 1], "count_include_pad": 1},
    ),
    "average pool inside": (
        "AveragePool",
        [IMAGE],
        [],
        {"kernel_shape": [5, 3], "pads": [2, 1, 2, 1], "strides": [3, 2]},
    ),
    "qaverage pool": (
        "QAveragePool",
        [QIMAGE],
        [],
        {"kernel_shape": [3, 3], "x_scale": 0.1, "x_zero_point": 3} | SIDE,
    ),
    "global average": ("GlobalAveragePool", [IMAGE], [], {}),
    "reduce rows": ("ReduceSum", [reals(700, 301)], [np.array([1])], {}),
    "log sum exp": ("ReduceLogSumExp", [reals(700, 301)], [np.array([1])], {}),
    "reduce integers": ("ReduceMax", [RNG.integers(-9, 9, (700, 301))], [np.array([1])], {}),
    "softmax": ("Softmax", [reals(700, 301)], [], {}),
    "softmax inner": ("Softmax", [reals(60, 30, 40)], [], {"axis": 1}),
    "unit rows": ("LpNormalization", [reals(700, 301)], [], {"axis": -1}),
    "layer norm": ("LayerNormalization", [reals(700, 301)], [reals(301), reals(301)], {}),
    "instance norm": ("InstanceNormalization", [IMAGE], [reals(50), reals(50)], {}),
    "group norm": ("GroupNormalization", [IMAGE], [reals(50), reals(50)], {"num_groups": 5}),
    "batch norm": (
        "BatchNormalization",
        [IMAGE],
        [reals(50), reals(50), reals(50), np.abs(reals(50))],
        {},
    ),
    "lrn": ("LRN", [IMAGE], [], {"size": 5}),
    "arg max": ("ArgMax", [reals(700, 301)], [], {"axis": 1}),
    "running sum": ("CumSum", [reals(700, 301)], [np.array(1)], {}),
    "resize": (
        "Resize",
        [IMAGE],
        [None, np.array([1, 1, 1.7, 2.3], np.float32)],
        {"mode": "linear"},
    ),
    "resize cubic": (
        "Resize",
        [IMAGE],
        [None, np.array([1, 1, 1.7, 2.3], np.float32)],
        {"mode": "cubic"},
    ),
    "resize nearest": ("Resize", [IMAGE], [None, np.array([1, 1, 2, 3], np.float32)], {}),
    "pad": ("Pad", [IMAGE], [np.array([0, 0, 2, 1, 0, 3, 1, 2])], {"mode": "reflect"}),
    "transpose": ("Transpose", [IMAGE], [], {"perm": [3, 0, 2, 1]}),
    "transpose pixels": ("Transpose", [QIMAGE], [], {"perm": [0, 2, 3, 1]}),
    "slice": (
        "Slice",
        [LARGE],
        [np.array([3, 1]), np.array([90, 60]), np.array([1, 2]), np.array([1, 1])],
        {},
    ),
    "concat": ("Concat", [LARGE, reals(4, 30, 61, 47)], [], {"axis": 1}),
    "tile": ("Tile", [reals(50, 61, 47)], [np.array([2, 1, 3])], {}),
    "expand": ("Expand", [reals(100, 1, 47)], [np.array([100, 162, 47])], {}),
    "gather": ("Gather", [reals(400, 301), RNG.integers(-400, 400, 2100)], [], {"axis": 0}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_operators(case):
    op, fed, constants, attributes = OTHERS[case]
    same_bits(plan_of(op, fed, constants, attributes), fed)


def test_dynamic_quantisation_finds_the_same_range():
    x = reals(300, 401)
    same_bits(plan_of("DynamicQuantizeLinear", [x], [], {}, outputs=3), [x])


def test_sums_beyond_32_bits():
    x, w = codes(40, 70001), np.full((70001, 3), 127, np.int8)
    plan = plan_of("QMatMul", [x], [w], CODES | {"y_dtype": 1})
    assert "64 bits" in plan.rows()[-1]["kernel"]
    same_bits(plan, [x])


def test_the_failure_of_a_shared_step_is_told():
    indices = np.zeros(100000, np.int64)
    indices[77777] = 400
    plan = plan_of("Gather", [reals(400, 8), indices], [], {"axis": 0})
    with pytest.raises(_core.EngineError, match="index 400 is outside an axis of 400"):
        bytes_by_count(lambda: plan.run([reals(400, 8), indices])[0][0].tobytes())


A, B = codes(200, 301), weights(301, 200)
FLOATS, MORE = reals(400, 500), reals(500, 300)
NUMERICS = {
    "matmul_integer": lambda: nx.matmul_integer(A, B, np.uint8(3), np.int8(0)),
    "qlinear_matmul": lambda: nx.qlinear_matmul(
        A,
        np.float32(0.1),
        np.uint8(3),
        B,
        np.float32(0.02),
        np.int8(0),
        np.float32(0.9),
        np.uint8(8),
    ),
    "to_bf16": lambda: nx.to_bf16(FLOATS),
    "quantize_linear": lambda: nx.quantize_linear(FLOATS, np.float32(0.1), np.uint8(7)),
    "dynamic_quantize_linear": lambda: nx.dynamic_quantize_linear(FLOATS)[0],
}


@pytest.mark.parametrize("name", NUMERICS)
def test_numerics(name):
    made = bytes_by_count(lambda: np.asarray(NUMERICS[name]()).tobytes())
    assert len(set(made.values())) == 1
