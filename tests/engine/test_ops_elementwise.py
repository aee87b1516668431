"""Two and more operands: broadcasting in both layouts, whole numbers, masks, casts."""

from __future__ import annotations

import numpy as np
import pytest
from one_node import ISAS, run_everywhere, run_node

from lowprec._ext import _core

RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def prelu(x, slope):
    return np.where(x < 0, x * slope, x)


FLOAT_OPERATORS = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide,
    "Min": np.minimum, "Max": np.maximum, "PRelu": prelu,
}  # fmt: skip
SHAPES = [
    ((5,), (5,)),
    ((17,), ()),
    ((3, 33), (33,)),
    ((3, 33), (3, 1)),
    ((2, 7, 3, 5), (2, 7, 3, 5)),
    ((2, 7, 3, 5), (1, 7, 1, 1)),  # a parameter per channel
    ((2, 7, 3, 5), (7, 1, 1)),
    ((2, 7, 3, 5), (2, 7, 1, 1)),  # a gate per image and channel
    ((2, 7, 3, 5), (2, 1, 3, 5)),
    ((2, 7, 3, 5), (5,)),
    ((2, 7, 3, 5), (7, 3, 5)),
    ((2, 7, 3, 5), (1,)),
    ((2, 7, 3, 5), (1, 1, 1, 1)),
    ((2, 18, 6), (18, 1)),
    ((2, 18, 6), (2, 18, 6)),
    ((4, 1), (1, 6)),
    ((2, 3, 1, 4, 1), (3, 5, 1, 2)),
    ((1, 16, 1, 1), (1, 16, 1, 1)),
    ((2, 97, 3), (3,)),  # short rows: several of them as one
    ((33, 64), (64,)),
    ((87, 1), (1,)),
]


@pytest.mark.parametrize(("a_shape", "b_shape"), SHAPES)
@pytest.mark.parametrize("op", FLOAT_OPERATORS)
def test_broadcasts_like_numpy_in_every_layout(op, a_shape, b_shape):
    a, b = normal(*a_shape), normal(*b_shape)
    wanted = FLOAT_OPERATORS[op](a, b)
    images = [i for i, x in enumerate((a, b)) if x.ndim in (3, 4)]
    for last in [(), *[(i,) for i in images], tuple(images)]:
        result = run_everywhere(op, [a, b], channels_last=last)
        assert result.shape == wanted.shape
        np.testing.assert_array_equal(result, wanted)
    if op != "PRelu":
        wanted = FLOAT_OPERATORS[op](b, a)
        np.testing.assert_array_equal(run_everywhere(op, [b, a], constant=(0,)), wanted)


def test_extremes_keep_nan_from_either_side():
    a = np.array([np.nan, 1, np.nan, np.inf, -np.inf] * 4, np.float32)
    b = np.array([1, np.nan, np.nan, np.nan, 3] * 4, np.float32)
    for op, function in (("Min", np.minimum), ("Max", np.maximum)):
        np.testing.assert_array_equal(run_everywhere(op, [a, b]), function(a, b))


def test_shapes_that_do_not_broadcast_are_named():
    with pytest.raises(_core.EngineError, match=r"\[3, 4\] and \[3\]"):
        run_node("Add", [normal(3, 4), normal(3)])


def test_sums_of_many_go_from_left_to_right():
    parts = [normal(2, 6, 3, 3) * 1e4, normal(2, 6, 3, 3), normal(6, 1, 1), normal(3)]
    wanted = ((parts[0] + parts[1]) + parts[2]) + parts[3]
    for last in ((), (0,), (0, 1)):
        np.testing.assert_array_equal(run_everywhere("Sum", parts, channels_last=last), wanted)
        mean = run_everywhere("Mean", parts, channels_last=last)
        np.testing.assert_array_equal(mean, wanted / np.float32(4))
    most = np.maximum(np.maximum(parts[0], parts[1]), parts[2])
    np.testing.assert_array_equal(run_everywhere("Max", parts[:3]), most)
    repeated = run_everywhere("Sum", [parts[1], parts[1], parts[1]])
    np.testing.assert_array_equal(repeated, (parts[1] + parts[1]) + parts[1])


POWERS = np.array(
    [0, -0.0, 1, -1, 2, -2, 0.5, -0.5, 3, -3, np.inf, -np.inf, np.nan, 1e-45, 1e38, -1e38, 16777216,
     8388609, 2.5, -2.5, 1e10, -1e-40, 0.75],
    np.float32,
)  # fmt: skip


def test_powers_are_rounded_once():
    base = np.exp(RNG.normal(0, 5, 20_000)).astype(np.float32)
    exponent = RNG.normal(0, 5, 20_000).astype(np.float32)
    a, b = (grid.ravel() for grid in np.meshgrid(POWERS, POWERS))
    a, b = np.concatenate([a, base]), np.concatenate([b, exponent])
    with np.errstate(all="ignore"):
        wanted = np.power(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)
    result = run_everywhere("Pow", [a, b])
    np.testing.assert_array_equal(result, wanted)
    np.testing.assert_array_equal(np.signbit(result), np.signbit(wanted) & ~np.isnan(result))


@pytest.mark.parametrize("exponent", [2.0, 0.5, 3.0, -1.0, 0.0, 1.7])
def test_powers_by_a_constant(exponent):
    x = np.abs(normal(3, 35)) + np.float32(0.01)
    wanted = np.power(x.astype(np.float64), np.float64(np.float32(exponent)))
    result = run_everywhere("Pow", [x, np.float32(exponent)], constant=(1,))
    np.testing.assert_array_equal(result, wanted.astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
def test_results_may_overwrite_operands_that_nobody_reads_again(isa):
    x, gate = normal(2, 6, 4, 5), normal(2, 6, 1, 1)
    program = _core.Program(isa)
    fed = [program.add_value("x", np.float32), program.add_value("gate", np.float32)]
    names = ("minus", "kept", "sum", "gated", "weights", "root", "result")
    minus, kept, total, gated, weights, root, result = (
        program.add_value(name, np.float32) for name in names
    )
    for op, inputs, output in (
        ("Neg", [fed[0]], minus),
        ("Exp", [minus], kept),  # over minus
        ("Add", [kept, fed[0]], total),  # not over kept: Mul reads it
        ("Mul", [fed[1], kept], gated),  # over kept, its second operand
        ("Softmax", [gated], weights),
        ("Sqrt", [weights], root),
        ("Sub", [total, root], result),
    ):
        program.add_node(op, op, inputs, [output], {})
    program.set_io(fed, [result])
    plan = program.plan([x.shape, gate.shape])
    (made,), _ = plan.run([x, gate])
    exponential = np.exp(-x.astype(np.float64))
    grown = np.exp(exponential * gate)
    weighted = grown / grown.sum(-1, keepdims=True)
    np.testing.assert_allclose(made, exponential + x - np.sqrt(weighted), rtol=1e-5, atol=1e-5)
    assert plan.arena_bytes < 3 * (x.nbytes + 256)


# ------------------------------------------------------------------------------ whole numbers


def truncated_division(a, b):
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(a.dtype)


WHOLE = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": truncated_division,
    "Min": np.minimum, "Max": np.maximum, "Mod": np.mod,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8, np.uint8])
@pytest.mark.parametrize("op", WHOLE)
def test_whole_numbers(op, dtype):
    info = np.iinfo(dtype)
    a = RNG.integers(info.min + 1, info.max, (3, 21), dtype)
    b = RNG.integers(1, 60, 21).astype(dtype)
    if info.min < 0:
        b[::2] *= -1
    with np.errstate(over="ignore"):
        wanted = WHOLE[op](a, b)
    np.testing.assert_array_equal(run_everywhere(op, [a, b]), wanted)


def test_division_of_whole_numbers_never_traps():
    a = np.array([-(2**63), 5, -(2**63), 7], np.int64)
    b = np.array([-1, 0, 1, -1], np.int64)
    assert run_everywhere("Div", [a, b]).tolist() == [-(2**63), 0, -(2**63), -7]
    assert run_everywhere("Mod", [a, b]).tolist() == [0, 0, 0, 0]


def test_c_remainder():
    a = np.array([-5.5, 5.5, -3.0, 7.25], np.float32)
    b = np.array([2.0, -2.0, 1.5, 0.5], np.float32)
    np.testing.assert_array_equal(run_everywhere("Mod", [a, b], {"fmod": 1}), np.fmod(a, b))
    whole = run_everywhere("Mod", [a.astype(np.int32), b.astype(np.int32)], {"fmod": 1})
    assert whole.tolist() == [-1, 1, 0, 0]


def test_whole_powers_wrap():
    base, exponent = np.array([3, -2, 2, 10], np.int64), np.array([4, 3, 62, 0], np.int64)
    assert run_everywhere("Pow", [base, exponent]).tolist() == [81, -8, 2**62, 1]


# --------------------------------------------------------------------------- masks and choices

COMPARISONS = {
    "Equal": np.equal, "Greater": np.greater, "Less": np.less,
    "GreaterOrEqual": np.greater_equal, "LessOrEqual": np.less_equal,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.uint8, np.int8])
@pytest.mark.parametrize("op", COMPARISONS)
def test_comparisons(op, dtype):
    a = RNG.integers(0, 4, (2, 5, 3, 2)).astype(dtype)
    b = RNG.integers(0, 4, (5, 1, 1)).astype(dtype)
    for last in ((), (0,)):
        result = run_everywhere(op, [a, b], channels_last=last)
        assert result.dtype == np.bool_
        np.testing.assert_array_equal(result, COMPARISONS[op](a, b))


def test_nan_equals_nothing():
    x = np.array([np.nan, 1], np.float32)
    assert run_everywhere("Equal", [x, x]).tolist() == [False, True]
    assert run_everywhere("LessOrEqual", [x, x]).tolist() == [False, True]


@pytest.mark.parametrize(
    ("op", "function"),
    [("And", np.logical_and), ("Or", np.logical_or), ("Xor", np.logical_xor), ("Equal", np.equal)],
)
def test_logic(op, function):
    a, b = RNG.integers(0, 2, (4, 9)).astype(bool), RNG.integers(0, 2, 9).astype(bool)
    np.testing.assert_array_equal(run_everywhere(op, [a, b]), function(a, b))


def test_not_nan_and_infinities():
    mask = np.array([True, False, True])
    assert run_everywhere("Not", [mask]).tolist() == [False, True, False]
    x = np.array([np.nan, np.inf, -np.inf, 1], np.float32)
    assert run_everywhere("IsNaN", [x]).tolist() == [True, False, False, False]
    assert run_everywhere("IsInf", [x]).tolist() == [False, True, True, False]
    only = run_everywhere("IsInf", [x], {"detect_negative": 0})
    assert only.tolist() == [False, True, False, False]


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.float16])
def test_where(dtype):
    mask = RNG.integers(0, 2, (2, 1, 3, 4)).astype(bool)
    yes, no = RNG.integers(0, 9, (2, 5, 3, 4)).astype(dtype), np.array(11, dtype)
    for last in ((), (1,), (0, 1)):
        result = run_everywhere("Where", [mask, yes, no], channels_last=last)
        np.testing.assert_array_equal(result, np.where(mask, yes, no))


def test_clip_with_bounds_known_only_at_run_time():
    x = np.array([-5, 0.25, 5, np.nan], np.float32)
    low, high = np.float32(-1), np.float32(1)
    np.testing.assert_array_equal(run_everywhere("Clip", [x, low, high]), np.clip(x, low, high))
    np.testing.assert_array_equal(run_everywhere("Clip", [x, None, high]), np.minimum(x, high))
    whole = np.array([-300, 3, 300], np.int64)
    result = run_everywhere("Clip", [whole, np.int64(0), np.int64(255)], constant=(1, 2))
    assert result.tolist() == [0, 3, 255]


# -------------------------------------------------------------------------------------- casts

CAST = {np.float32: 1, np.uint8: 2, np.int8: 3, np.uint16: 4, np.int16: 5, np.int32: 6, np.int64: 7,
        np.bool_: 9, np.float16: 10, np.float64: 11, np.uint32: 12, np.uint64: 13}  # fmt: skip


@pytest.mark.parametrize("to", CAST)
@pytest.mark.parametrize("source", CAST)
def test_casts_like_numpy(source, to):
    values = np.array([0, 1, 2, 100, 127], source)
    if source in (np.float32, np.float64, np.float16):
        values = np.concatenate([values, np.array([0.75, 2.5, 99.9], source)])
    if np.issubdtype(source, np.signedinteger) and not np.issubdtype(to, np.floating):
        values = np.concatenate([values, np.array([-1, -128], source)])
    result = run_everywhere("Cast", [values], {"to": CAST[to]})
    assert result.dtype == to
    np.testing.assert_array_equal(result, values.astype(to))
    like = run_everywhere("CastLike", [values, np.zeros(1, to)])
    np.testing.assert_array_equal(like, result)


def test_half_floats_round_half_to_even():
    x = np.concatenate([normal(4099) * 100, [65504, 65519, 65520, 1e-8, np.inf, np.nan]])
    x = x.astype(np.float32)
    with np.errstate(over="ignore"):
        wanted = x.astype(np.float16)
    np.testing.assert_array_equal(run_everywhere("Cast", [x], {"to": 10}), wanted)


def test_what_no_integer_holds_becomes_the_smallest():
    x = np.array([np.nan, 1e30, -1e30], np.float32)
    assert run_everywhere("Cast", [x], {"to": 7}).tolist() == [-(2**63)] * 3


def test_identity_and_inference_dropout_pass_the_data():
    x = normal(3, 5)
    np.testing.assert_array_equal(run_everywhere("Identity", [x]), x)
    data, mask = run_node("Dropout", [x], outputs=2)
    np.testing.assert_array_equal(data, x)
    assert mask.dtype == np.bool_
    assert mask.all()
    assert mask.shape == x.shape
