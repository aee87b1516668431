"""Attention in one step: the bits of the operators that ONNX defines it by, on every ISA."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from one_node import ISAS, run_node
from onnx import TensorProto, helper, numpy_helper
from onnx_models import make_model, run_reference, value

from lowprec._ext import _core
from lowprec.engine import compile_model
from lowprec.graph import load
from lowprec.numerics import reference
from lowprec.passes import expand_functions

RNG = np.random.default_rng(6)
BATCH, HEADS, QUERIES, KEYS, SIZE = 2, 4, 13, 70, 24


def floats(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def bools(*shape):
    return RNG.random(shape) < 0.7


def some_hidden():
    """Return a mask with a query that sees nothing, and one that sees one key."""
    mask = bools(BATCH, 1, QUERIES, KEYS)
    mask[0, 0, 3] = False
    mask[1, 0, 5] = False
    mask[1, 0, 5, 64] = True
    return mask


def additive():
    return np.where(some_hidden(), floats(1), np.float32(-np.inf)).astype(np.float32)


MASKS = {
    "none": lambda: None,
    "bool, all see all": lambda: np.ones((QUERIES, KEYS), bool),
    "bool of queries and keys": lambda: bools(QUERIES, KEYS),
    "bool of keys, padding": lambda: bools(BATCH, 1, 1, KEYS),
    "bool with hidden rows": some_hidden,
    "bool of queries": lambda: bools(BATCH, HEADS, QUERIES, 1),
    "f32 of queries and keys": lambda: floats(QUERIES, KEYS),
    "f32 with hidden rows": additive,
    "f32 of heads": lambda: floats(HEADS, 1, KEYS),
}


def attention_model(operands, attributes):
    names = ["q", "k", "v", "mask"][: len(operands)]
    node = helper.make_node("Attention", names, ["y"], "it", **attributes)
    inputs = [
        value(name, list(array.shape), helper.np_dtype_to_tensor_dtype(array.dtype))
        for name, array in zip(names, operands, strict=True)
    ]
    rank = operands[0].ndim
    return make_model([node], inputs, [value("y", [None] * rank)], opset=23), names


def operators_one_by_one(operands, attributes):
    """Return what the engine makes of ONNX's own definition of the node."""
    model, names = attention_model(operands, attributes)
    hub = load(model)
    native = frozenset(_core.native_operators()) - {"Attention"}
    assert expand_functions(hub, native)
    session = compile_model(hub, fused=False, fallback=False)
    (y,) = session.run(dict(zip(names, operands, strict=True)))
    assert "Attention" not in {row.op for row in session.explain().steps}
    return y


def check(operands, attributes):
    mine = [run_node("Attention", operands, attributes, isa=isa)[0] for isa in ISAS]
    for isa, result in zip(ISAS, mine, strict=True):
        np.testing.assert_array_equal(result, mine[0], err_msg=isa)
    given = [operand for operand in operands if operand is not None]
    wanted = operators_one_by_one(given, attributes)
    np.testing.assert_array_equal(mine[0], wanted)
    np.testing.assert_allclose(mine[0], in_doubles(given, attributes), rtol=2e-5, atol=2e-6)


def in_doubles(operands, attributes):
    """Return the formula, in f64. ONNX's reference pads masks where it should broadcast them."""
    q, k, v = (operand.astype(np.float64) for operand in operands[:3])
    if q.ndim == 3:
        parts = [attributes["q_num_heads"], *[attributes["kv_num_heads"]] * 2]
        q, k, v = (
            x.reshape(*x.shape[:2], n, -1).transpose(0, 2, 1, 3)
            for x, n in zip((q, k, v), parts, strict=True)
        )
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    scores = q @ k.swapaxes(2, 3) * attributes.get("scale", 1 / np.sqrt(q.shape[3]))
    if len(operands) > 3:
        mask = operands[3]
        scores = scores + (np.where(mask, 0.0, -np.inf) if mask.dtype == bool else mask)
    if attributes.get("is_causal"):
        hidden = np.triu(np.ones(scores.shape[2:], bool), 1)
        scores = np.where(hidden, -np.inf, scores)
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = weights / weights.sum(axis=-1, keepdims=True)
    y = np.nan_to_num(weights) @ v
    if operands[0].ndim == 3:
        y = y.transpose(0, 2, 1, 3).reshape(*operands[0].shape[:2], -1)
    return y


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [0, 1])
def test_every_mask(mask, causal):
    made = MASKS[mask]()
    operands = [
        floats(BATCH, HEADS, QUERIES, SIZE),
        floats(BATCH, HEADS, KEYS, SIZE),
        floats(BATCH, HEADS, KEYS, SIZE),
        *([] if made is None else [made]),
    ]
    check(operands, {"is_causal": causal})


@pytest.mark.parametrize(
    ("heads", "kv_heads", "queries", "keys", "size", "width"),
    [
        (1, 1, 1, 1, 1, 1),
        (6, 2, 5, 33, 16, 80),  # shared keys; values wider than a panel
        (4, 1, 130, 130, 8, 64),
        (3, 3, 200, 65, 40, 130),
        (2, 2, 64, 64, 64, 17),
    ],
)
@pytest.mark.parametrize("causal", [0, 1])
def test_sizes(heads, kv_heads, queries, keys, size, width, causal):
    operands = [
        floats(2, heads, queries, size),
        floats(2, kv_heads, keys, size),
        floats(2, kv_heads, keys, width),
    ]
    check(operands, {"is_causal": causal, "scale": 0.3})


def test_operands_of_rank_three():
    operands = [floats(2, 9, 48), floats(2, 11, 24), floats(2, 11, 20), bools(9, 11)]
    check(operands, {"q_num_heads": 4, "kv_num_heads": 2})


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads(threads):
    import lowprec

    operands = [floats(1, 2, 300, 32), floats(1, 2, 300, 32), floats(1, 2, 300, 32)]
    before = lowprec.get_num_threads()
    wanted = run_node("Attention", operands, {"is_causal": 1})[0]
    try:
        lowprec.set_num_threads(threads)
        mine = run_node("Attention", operands, {"is_causal": 1})[0]
    finally:
        lowprec.set_num_threads(before)
    np.testing.assert_array_equal(mine, wanted)


@pytest.mark.parametrize(
    ("operands", "attributes"),
    [
        ([(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 8, 4)], {}),
        ([(2, 3, 5, 4), (2, 2, 7, 4), (2, 2, 7, 4)], {}),
        ([(2, 3, 5, 4), (1, 3, 7, 4), (1, 3, 7, 4)], {}),
        ([(2, 3, 5, 4), (2, 3, 7, 5), (2, 3, 7, 4)], {}),
        ([(2, 5, 12), (2, 5, 12), (2, 5, 12)], {"q_num_heads": 5, "kv_num_heads": 3}),
        ([(2, 5, 12), (2, 5, 12), (2, 5, 12)], {}),
        ([(2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4)], {"y_perm": [0, 0, 1, 3]}),
        ([(2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4)], {"y_perm": [0, 1, 3, 2]}),
        ([(2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4), (5, 3)], {}),
        ([(2, 3, 5, 4), (2, 3, 5, 4), (2, 3, 5, 4)], {"column_factors": [1.0, 2.0]}),
    ],
)
def test_what_does_not_belong_together(operands, attributes):
    with pytest.raises(_core.EngineError):
        run_node("Attention", [floats(*shape) for shape in operands], attributes)


@pytest.mark.parametrize(
    "attributes", [{"softcap": 2.0}, {"softmax_precision": TensorProto.DOUBLE}]
)
def test_what_the_kernel_does_not_do_is_written_out(attributes):
    operands = [floats(1, 2, 5, 8), floats(1, 2, 6, 8), floats(1, 2, 6, 8)]
    model, names = attention_model(operands, attributes)
    feeds = dict(zip(names, operands, strict=True))
    session = compile_model(load(model))
    (mine,) = session.run(feeds)
    assert "Attention" not in {row.op for row in session.explain().steps}
    np.testing.assert_allclose(mine, run_reference(model, feeds)[0], rtol=2e-5, atol=2e-6)


def test_past_keys_and_values_are_written_out():
    node = helper.make_node(
        "Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "present_k", "present_v"], "it"
    )
    shapes = {"q": (1, 2, 3, 8), "k": (1, 2, 3, 8), "v": (1, 2, 3, 8)}
    shapes |= {"pk": (1, 2, 5, 8), "pv": (1, 2, 5, 8)}
    outputs = [value(name, [None] * 4) for name in ("y", "present_k", "present_v")]
    model = make_model([node], [value(n, list(s)) for n, s in shapes.items()], outputs, opset=23)
    feeds = {name: floats(*shape) for name, shape in shapes.items()}
    for mine, wanted in zip(
        compile_model(load(model)).run(feeds), run_reference(model, feeds), strict=True
    ):
        np.testing.assert_allclose(mine, wanted, rtol=2e-5, atol=2e-6)


# ---- products of codes ---------------------------------------------------------------------------
def test_weight_codes_are_255_times_exp():
    below = np.concatenate([np.linspace(-10, 0, 100_001), [-np.inf, -1e30]]).astype(np.float32)
    exact = 255 * np.exp(below.astype(np.float64))
    codes = reference.weight_codes(below)
    assert np.abs(codes - exact).max() < 0.52
    assert codes[below == 0].min() == 255
    assert np.all(np.diff(codes[:100_001].astype(int)) >= 0)


def check_codes(operands, attributes):
    mine = [run_node("Attention", operands, attributes | {"int8": 1}, isa=isa)[0] for isa in ISAS]
    for isa, result in zip(ISAS, mine, strict=True):
        np.testing.assert_array_equal(result, mine[0], err_msg=isa)
    q, k, v = operands[:3]
    scale = np.float32(attributes.get("scale", np.float32(1) / np.sqrt(np.float32(q.shape[3]))))
    bias = np.zeros((*q.shape[:3], k.shape[2]), np.float32)
    if len(operands) > 3:
        mask = operands[3]
        bias = bias + (np.where(mask, 0, -np.inf) if mask.dtype == bool else mask)
    if attributes.get("is_causal"):
        bias = bias + np.where(np.triu(np.ones(bias.shape[2:], bool), 1), -np.inf, 0)
    bias = bias.astype(np.float32)
    shared = q.shape[1] // k.shape[1]
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            wanted = reference.attention_of_codes(
                q[b, h], k[b, h // shared], v[b, h // shared], scale, bias[b, h]
            )
            np.testing.assert_array_equal(mine[0][b, h], wanted)
    exact = in_doubles(operands, attributes)
    error = np.sum((mine[0] - exact) ** 2) / np.sum(exact**2)
    assert error < 3e-3
    return mine[0]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [0, 1])
def test_codes_with_every_mask(mask, causal):
    made = MASKS[mask]()
    operands = [
        floats(BATCH, HEADS, QUERIES, SIZE),
        floats(BATCH, HEADS, KEYS, SIZE),
        floats(BATCH, HEADS, KEYS, SIZE),
        *([] if made is None else [made]),
    ]
    check_codes(operands, {"is_causal": causal})


@pytest.mark.parametrize(
    ("heads", "kv_heads", "queries", "keys", "size", "width"),
    [
        (1, 1, 1, 1, 1, 1),
        (6, 2, 5, 33, 16, 80),
        (4, 1, 130, 130, 8, 64),
        (3, 3, 201, 67, 41, 131),  # no size is a multiple of four
        (2, 2, 64, 64, 64, 17),
    ],
)
@pytest.mark.parametrize("causal", [0, 1])
def test_codes_of_sizes(heads, kv_heads, queries, keys, size, width, causal):
    operands = [
        floats(2, heads, queries, size),
        floats(2, kv_heads, keys, size),
        floats(2, kv_heads, keys, width),
    ]
    check_codes(operands, {"is_causal": causal, "scale": 0.2})


def test_codes_of_zeros_and_tiny_numbers():
    zeros = np.zeros((1, 2, 5, 8), np.float32)
    tiny = np.full((1, 2, 5, 8), 1e-38, np.float32)
    np.testing.assert_array_equal(
        run_node("Attention", [zeros, tiny, zeros], {"int8": 1})[0], zeros
    )


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("operand", [0, 1, 2])
def test_a_head_that_is_not_finite_is_not_made_of_codes(special, operand):
    operands = [floats(1, 3, 9, 8), floats(1, 3, 9, 8), floats(1, 3, 9, 8)]
    operands[operand][0, 1, 4, 5] = special
    mine = run_node("Attention", operands, {"int8": 1})[0]
    plain = run_node("Attention", operands)[0]
    np.testing.assert_array_equal(mine[0, 1], plain[0, 1])
    assert not np.array_equal(mine[0, 0], plain[0, 0])
    finite = [np.where(np.isfinite(x), x, 0).astype(np.float32) for x in operands]
    others = run_node("Attention", finite, {"int8": 1})[0]
    np.testing.assert_array_equal(mine[0, [0, 2]], others[0, [0, 2]])


@pytest.mark.parametrize("causal", [0, 1])
def test_codes_with_any_number_of_threads(causal):
    import lowprec

    operands = [floats(1, 2, 300, 32), floats(1, 2, 300, 32), floats(1, 2, 300, 32)]
    attributes = {"is_causal": causal, "int8": 1}
    before = lowprec.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            lowprec.set_num_threads(threads)
            results.append(run_node("Attention", operands, attributes)[0])
    finally:
        lowprec.set_num_threads(before)
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("special", [np.nan, np.inf])
def test_a_mask_that_is_no_number_is_seen_in_the_result(special):
    operands = [floats(1, 2, 5, 8), floats(1, 2, 7, 8), floats(1, 2, 7, 8)]
    mask = np.zeros((5, 7), np.float32)
    mask[2, 3] = special
    mask[4] = -np.inf
    for isa in ISAS:
        (mine,) = run_node("Attention", [*operands, mask], {"int8": 1}, isa=isa)
        assert np.isnan(mine[:, :, 2]).all()
        assert (mine[:, :, 4] == 0).all()
        assert np.isfinite(mine[:, :, [0, 1, 3]]).all()


@pytest.mark.parametrize("row", [False, True])
def test_codes_in_and_codes_out(row):
    hub = load(packed_model(quantized=True, row=row))
    node = next(n for n in hub.graph if n.op_type == "Attention")
    node.metadata_props["lowprec.attention"] = "int8"
    feeds = {"x": floats(2, 40, 64), "mask": bools(2, 1, 1, 40)}
    session = compile_model(hub)
    (mine,) = session.run(feeds)
    steps = [step for step in session.explain().steps if step.kernel != "copy input"]
    assert [step.kernel.split()[0] for step in steps] == ["matrix", "attention"]
    assert steps[1].kernel == "attention int8"
    # The same, but for what is made of the result: seen from outside it may not differ.
    floats_out = load(packed_model())
    node = next(n for n in floats_out.graph if n.op_type == "Attention")
    node.metadata_props["lowprec.attention"] = "int8"
    (y,) = compile_model(floats_out).run(feeds)
    if row:
        y = y * np.linspace(0.5, 2.0, 64, dtype=np.float32)
    wanted = reference.quantize_linear(y, np.float32(0.02), np.uint8(120))
    np.testing.assert_array_equal(mine, wanted)


# ---- what stands around it -----------------------------------------------------------------------
def packed_model(*, quantized=False, row=False, counts=True):
    """nn.MultiheadAttention as torch exports it: one product for q, k and v, axes moved about.

    Without `counts`, how many heads there are is left to Reshape: its shapes are made in the run.
    """
    heads, size = 4, 16
    wide = heads * size
    constants = {
        "w": np.random.default_rng(3).normal(0, 0.125, (wide, 3 * wide)).astype(np.float32),
        "split": np.array([0, 0, 3, wide], np.int64),
        "one": np.array([0], np.int64),
        "minus_two": np.array([-2], np.int64),
        "i0": np.array(0, np.int64),
        "i1": np.array(1, np.int64),
        "i2": np.array(2, np.int64),
        "heads": np.array([0, -1, heads, size], np.int64),
        "joined": np.array([0, -1, wide], np.int64),
        "row": np.linspace(0.5, 2.0, wide, dtype=np.float32),
        "scale": np.float32(0.02),
        "zero": np.uint8(120),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Reshape", ["xw", "split"], ["parts"]),
        helper.make_node("Unsqueeze", ["parts", "one"], ["parts5"]),
        helper.make_node("Transpose", ["parts5"], ["moved"], perm=[3, 1, 2, 0, 4]),
        helper.make_node("Squeeze", ["moved", "minus_two"], ["three"]),
    ]
    if not counts:
        constants["rest"] = np.array([-1], np.int64)
        constants["size"] = np.array([size], np.int64)
        del constants["heads"], constants["joined"]
        nodes += [
            helper.make_node("Shape", ["x"], ["places"], end=2),
            helper.make_node("Concat", ["places", "rest", "size"], ["heads"], axis=0),
            helper.make_node("Concat", ["places", "rest"], ["joined"], axis=0),
        ]
    for i, name in enumerate("qkv"):
        nodes += [
            helper.make_node("Gather", ["three", f"i{i}"], [f"{name}_flat"], axis=0),
            helper.make_node("Reshape", [f"{name}_flat", "heads"], [f"{name}_split"]),
            helper.make_node("Transpose", [f"{name}_split"], [name], perm=[0, 2, 1, 3]),
        ]
    nodes += [
        helper.make_node("Attention", ["q", "k", "v", "mask"], ["a"], "attention"),
        helper.make_node("Transpose", ["a"], ["a_moved"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["a_moved", "joined"], ["a_joined"]),
    ]
    last = "a_joined"
    if row:
        nodes.append(helper.make_node("Mul", [last, "row"], ["times"]))
        last = "times"
    if quantized:
        nodes.append(helper.make_node("QuantizeLinear", [last, "scale", "zero"], ["codes"]))
        last = "codes"
    dtype = TensorProto.UINT8 if quantized else TensorProto.FLOAT
    return make_model(
        nodes,
        [value("x", ["b", "s", wide]), value("mask", ["b", 1, 1, "s"], TensorProto.BOOL)],
        [value(last, ["b", "s", wide], dtype)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
        opset=23,
    )


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("row", [False, True])
@pytest.mark.parametrize("shape", [(1, 40), (3, 9)])
@pytest.mark.parametrize("counts", [True, False])
def test_heads_are_read_and_written_in_place(quantized, row, shape, counts):
    model = packed_model(quantized=quantized, row=row, counts=counts)
    feeds = {"x": floats(*shape, 64), "mask": bools(shape[0], 1, 1, shape[1])}
    hub = load(model)
    session = compile_model(hub)
    (mine,) = session.run(feeds)
    ops = [step.op for step in session.explain().steps if step.kernel != "copy input"]
    kept = ["Mul"] if row and not quantized else []
    assert ops == ["MatMul", "Attention", *kept]
    (wanted,) = compile_model(hub, fused=False).run(feeds)
    np.testing.assert_array_equal(mine, wanted)


def test_a_moved_tensor_that_others_read_is_still_made():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Attention", ["t", "t", "t"], ["y"], "attention"),
        helper.make_node("Relu", ["t"], ["z"]),
    ]
    model = make_model(
        nodes,
        [value("x", [2, 5, 3, 8])],
        [value("y", [None] * 4), value("z", [None] * 4)],
        opset=23,
    )
    x = floats(2, 5, 3, 8)
    y, z = compile_model(load(model)).run({"x": x})
    wanted = run_reference(model, {"x": x})
    np.testing.assert_allclose(y, wanted[0], rtol=2e-5, atol=2e-6)
    np.testing.assert_array_equal(z, wanted[1])


@pytest.mark.parametrize("op", ["Slice", "Split"])
def test_parts_of_a_product(op):
    nodes = []
    constants = {"w": floats(12, 36)}
    if op == "Split":
        nodes.append(helper.make_node("Split", ["xw"], ["q", "k", "v"], axis=-1, num_outputs=3))
    else:
        for i, name in enumerate("qkv"):
            constants |= {
                f"from{i}": np.array([12 * i], np.int64),
                f"to{i}": np.array([12 * i + 12], np.int64),
            }
            nodes.append(helper.make_node("Slice", ["xw", f"from{i}", f"to{i}", "last"], [name]))
        constants["last"] = np.array([2], np.int64)
    model = make_model(
        [
            helper.make_node("MatMul", ["x", "w"], ["xw"]),
            *nodes,
            helper.make_node("Attention", ["q", "k", "v"], ["y"], q_num_heads=3, kv_num_heads=3),
        ],
        [value("x", ["b", "s", 12])],
        [value("y", ["b", "s", 12])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
        opset=23,
    )
    x = floats(2, 7, 12)
    session = compile_model(load(model))
    (mine,) = session.run({"x": x})
    assert [step.op for step in session.explain().steps] == ["MatMul", "Attention"]
    np.testing.assert_allclose(mine, run_reference(model, {"x": x})[0], rtol=2e-5, atol=1e-5)


def test_an_observed_result_is_not_fused_away():
    from lowprec._ext._core import TensorObserver

    hub = load(packed_model())
    name = next(n for n in hub.graph if n.op_type == "Attention").outputs[0].name
    observer = TensorObserver(64)
    session = compile_model(hub, observers={name: observer})
    feeds = {"x": floats(2, 9, 64), "mask": bools(2, 1, 1, 9)}
    (mine,) = session.run(feeds)
    assert observer.count == mine.size
    assert isinstance(hub, ir.Model)
