"""RNN, GRU and LSTM: the reference's bits on every instruction set, onnxruntime's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from one_node import ISAS, run_everywhere, run_node
from onnx import TensorProto, helper
from thread_counts import threads

from lowprec import graph
from lowprec.engine import compile_model
from lowprec.errors import LowprecError
from lowprec.numerics import reference

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
NAMES = ("X", "W", "R", "B", "lengths", "h", "c", "P")
USUAL = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def operands(op, *, steps=5, batch=3, inputs=4, hidden=6, directions=1, seed=0, lengths=False,
             peepholes=False, start=True, layout=0):  # fmt: skip
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return (rng.normal(size=shape) * 0.7).astype(np.float32)

    gates = GATES[op] * hidden
    state = (batch, directions, hidden) if layout else (directions, batch, hidden)
    result = {
        "X": normal(*((batch, steps) if layout else (steps, batch)), inputs),
        "W": normal(directions, gates, inputs),
        "R": normal(directions, gates, hidden),
        "B": normal(directions, 2 * gates),
        "lengths": rng.integers(1, steps + 1, batch).astype(np.int32) if lengths else None,
        "h": normal(*state) if start else None,
    }
    if op == "LSTM":
        result["c"] = 2 * normal(*state) if start else None
        result["P"] = normal(directions, 3 * hidden) if peepholes else None
    return result


def unary(name, isa="scalar"):
    """Return an activation as the engine computes it (its bits have tests of their own)."""

    def apply(x):
        return run_node(name, [np.ascontiguousarray(x)], isa=isa)[0]

    return apply


def by_definition(op, given, attributes, codes=None):
    """Return Y (T, 1, N, H) of one forward direction, by the reference.

    `codes`: x and its scale and zero point, W, R and their scales, and that of h, or 0.
    """
    hidden, names = given["R"].shape[2], attributes.get("activations", USUAL[op])
    before = bool(attributes.get("linear_before_reset", 0))
    wb, rb = np.split(given["B"][0], 2)
    apart = np.arange(len(rb)) >= (2 * hidden if before else len(rb))
    bias = wb + np.where(apart, np.float32(0), rb)
    if codes is None:
        gates = reference.x_gates(given["X"], given["W"][0], bias)
        product = reference.h_product(given["R"][0])
    else:
        x, x_scale, x_zero_point, w, w_scale, r, r_scale, h_scale = codes
        gates = reference.x_gates_of_codes(x, x_scale, x_zero_point, w[0], w_scale, bias)
        if h_scale:
            product = reference.h_product_of_codes(r[0], r_scale, h_scale)
        else:
            product = reference.h_product(r[0].astype(np.float32) * r_scale[:, None])
    f, *others = [unary(name) for name in names]
    if op == "RNN":
        return reference.rnn(gates, product, given["h"][0], f=f)[:, None]
    if op == "GRU":
        last = rb[2 * hidden :] if before else None
        return reference.gru(gates, product, given["h"][0], f=f, g=others[0], last_bias=last)[
            :, None
        ]
    p = None if given["P"] is None else given["P"][0]
    made, _ = reference.lstm(
        gates, product, given["h"][0], given["c"][0], p,
        f=f, g=others[0], k=others[1], input_forget=bool(attributes.get("input_forget", 0)),
    )  # fmt: skip
    return made[:, None]


FORMS = {
    "RNN": ("RNN", {}, {}),
    "RNN, relu": ("RNN", {}, {"activations": ["Relu"]}),
    "GRU": ("GRU", {}, {}),
    "GRU, linear before reset": ("GRU", {}, {"linear_before_reset": 1}),
    "LSTM": ("LSTM", {}, {}),
    "LSTM, peepholes": ("LSTM", {"peepholes": True}, {}),
    "LSTM, coupled": ("LSTM", {"peepholes": True}, {"input_forget": 1}),
    "LSTM, softsign": ("LSTM", {}, {"activations": ["Sigmoid", "Softsign", "Softplus"]}),
}
# Around vectors of 16, panels of 64 and the tiles' rows.
SIZES = [(1, 1, 1, 1), (5, 3, 4, 6), (3, 1, 40, 16), (4, 7, 17, 33), (2, 9, 5, 65)]


def engine_attributes(attributes):
    return {k: ",".join(v) if k == "activations" else v for k, v in attributes.items()}


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_bits_are_the_references_on_every_instruction_set(form, sizes):
    op, options, attributes = FORMS[form]
    steps, batch, inputs, hidden = sizes
    given = operands(op, steps=steps, batch=batch, inputs=inputs, hidden=hidden, **options)
    expected = by_definition(op, given, attributes)
    for constant in ((1, 2, 3, 7), ()):
        where = [i for i in constant if i < len(given) and list(given.values())[i] is not None]
        made = run_everywhere(
            op, list(given.values()), engine_attributes(attributes), constant=where
        )
        assert made.shape == expected.shape
        assert made.tobytes() == expected.tobytes()


def as_codes(rng, given, dtype, h_scale):
    """Return random codes in place of X, W and R: what `by_definition` and the engine take."""
    low = 0 if dtype is np.uint8 else -128
    x = rng.integers(low, low + 256, given["X"].shape).astype(dtype)
    w, r = (rng.integers(-127, 128, given[k].shape).astype(np.int8) for k in ("W", "R"))
    w_scale, r_scale = ((rng.random(w.shape[1]) * 0.01 + 1e-3).astype(np.float32) for _ in "wr")
    zero_point = dtype(low + 100)
    h_scale = np.float32(h_scale)
    codes = (x, np.float32(0.02), zero_point, w, w_scale, r, r_scale, h_scale)
    attributes = {
        "x_scale": float(codes[1]),
        "x_zero_point": int(zero_point),
        "w_scale": [float(s) for s in w_scale],
        "r_scale": [float(s) for s in r_scale],
        "h_scale": float(h_scale),
    }
    return codes, attributes, {**given, "X": x, "W": w, "R": r}


@pytest.mark.parametrize("h_scale", [0.0, 1 / 127, 0.003])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("form", FORMS)
def test_bits_of_codes_are_the_references_on_every_instruction_set(form, dtype, h_scale):
    op, options, attributes = FORMS[form]
    for number, (steps, batch, inputs, hidden) in enumerate(SIZES):
        given = operands(op, steps=steps, batch=batch, inputs=inputs, hidden=hidden, **options)
        rng = np.random.default_rng(number)
        codes, extra, fed = as_codes(rng, given, dtype, h_scale)
        expected = by_definition(op, given, attributes, codes)
        where = [i for i in (1, 2, 3, 7) if i < len(fed) and list(fed.values())[i] is not None]
        made = run_everywhere(
            f"Q{op}", list(fed.values()), {**engine_attributes(attributes), **extra}, constant=where
        )
        assert made.tobytes() == expected.tobytes()


def test_codes_in_both_directions_and_layouts_are_the_two_directions():
    given = operands("LSTM", steps=6, batch=5, directions=2, lengths=True)
    _, extra, fed = as_codes(np.random.default_rng(0), given, np.uint8, 0.008)
    constant = (1, 2, 3)
    both = run_node("QLSTM", list(fed.values()), {**extra, "direction": "bidirectional"},
                    outputs=3, constant=constant)  # fmt: skip
    first = {k: turned(v) if k in ("X", "h", "c") else v for k, v in fed.items()}
    batch_first = run_node("QLSTM", list(first.values()),
                           {**extra, "direction": "bidirectional", "layout": 1},
                           constant=constant)  # fmt: skip
    np.testing.assert_array_equal(batch_first[0], both[0].transpose(2, 0, 1, 3))
    for d, direction in enumerate(("forward", "reverse")):
        one = {k: v[d : d + 1] if k in ("W", "R", "B", "h", "c") else v for k, v in fed.items()}
        alone = run_node("QLSTM", list(one.values()), {**extra, "direction": direction},
                         outputs=3, constant=constant)  # fmt: skip
        np.testing.assert_array_equal(alone[0][:, 0], both[0][:, d])
        np.testing.assert_array_equal(alone[2][0], both[2][d])


@pytest.mark.parametrize("op", GATES)
def test_bits_do_not_depend_on_threads(op):
    given = operands(op, steps=9, batch=21, inputs=48, hidden=80, directions=2)
    results = []
    for count in (1, 2, 3, 4):
        with threads(count):
            results.append(
                run_node(
                    op, list(given.values()), {"direction": "bidirectional"}, constant=(1, 2, 3)
                )
            )
    assert all(r[0].tobytes() == results[0][0].tobytes() for r in results[1:])
    _, extra, fed = as_codes(np.random.default_rng(1), given, np.uint8, 0.008)
    extra["direction"] = "bidirectional"
    results = []
    for count in (1, 2, 3, 4):
        with threads(count):
            results.append(run_node(f"Q{op}", list(fed.values()), extra, constant=(1, 2, 3)))
    assert all(r[0].tobytes() == results[0][0].tobytes() for r in results[1:])


def test_a_large_single_sequence_has_the_same_bits_on_every_thread_count():
    given = operands("GRU", steps=3, batch=1, inputs=16, hidden=640)
    results = []
    for count in (1, 2, 4):
        with threads(count):
            results.append(run_node("GRU", list(given.values()), {}, constant=(1, 2, 3))[0])
    assert all(r.tobytes() == results[0].tobytes() for r in results[1:])


def outputs_of(op):
    return 3 if op == "LSTM" else 2


def turned(array):
    return None if array is None else np.ascontiguousarray(array.swapaxes(0, 1))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", GATES)
def test_batch_first_is_the_same_layer_seen_otherwise(op, direction):
    directions = 2 if direction == "bidirectional" else 1
    given = operands(op, directions=directions, lengths=True)
    attributes = {"direction": direction, "hidden_size": 6}
    y, *states = run_node(op, list(given.values()), attributes, outputs=outputs_of(op))
    first = {k: turned(v) if k in ("X", "h", "c") else v for k, v in given.items()}
    y1, *states1 = run_node(
        op, list(first.values()), {**attributes, "layout": 1}, outputs=outputs_of(op)
    )
    np.testing.assert_array_equal(y1, y.transpose(2, 0, 1, 3))
    for state, state1 in zip(states, states1, strict=True):
        np.testing.assert_array_equal(state1, state.swapaxes(0, 1))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("op", GATES)
def test_a_shorter_sequence_gives_what_it_gives_alone(op, direction):
    given = operands(op, steps=7, batch=4, lengths=True)
    given["lengths"][:] = [7, 1, 4, 0]
    y, *states = run_node(
        op, list(given.values()), {"direction": direction}, outputs=outputs_of(op)
    )
    for b, length in enumerate(given["lengths"]):
        assert not y[length:, :, b].any()
        if length == 0:
            np.testing.assert_array_equal(states[0][:, b], given["h"][:, b])
            continue
        alone = {
            k: v[:, b : b + 1] if k in ("h", "c") and v is not None else v for k, v in given.items()
        }
        alone["X"], alone["lengths"] = given["X"][:length, b : b + 1], None
        y1, *states1 = run_node(
            op, list(alone.values()), {"direction": direction}, outputs=outputs_of(op)
        )
        np.testing.assert_array_equal(y[:length, :, b], y1[:, :, 0])
        for state, state1 in zip(states, states1, strict=True):
            np.testing.assert_array_equal(state[:, b], state1[:, 0])


def test_blocks_of_steps_leave_no_trace():
    # 1200 steps of 80 gates are more than one block; the halves are run one after the other.
    given = operands("RNN", steps=1200, batch=1, inputs=8, hidden=80)
    whole = run_node("RNN", list(given.values()), {}, outputs=2, constant=(1, 2, 3))
    first = {**given, "X": given["X"][:601]}
    y1, h1 = run_node("RNN", list(first.values()), {}, outputs=2, constant=(1, 2, 3))
    second = {**given, "X": given["X"][601:], "h": h1}
    y2, h2 = run_node("RNN", list(second.values()), {}, outputs=2, constant=(1, 2, 3))
    np.testing.assert_array_equal(whole[0], np.concatenate([y1, y2]))
    np.testing.assert_array_equal(whole[1], h2)
    backward = run_node("RNN", list(given.values()), {"direction": "reverse"}, constant=(1, 2, 3))
    flipped = {**given, "X": np.ascontiguousarray(given["X"][::-1])}
    forward = run_node("RNN", list(flipped.values()), {}, constant=(1, 2, 3))
    np.testing.assert_array_equal(backward[0][::-1], forward[0])


# --- whole models, against onnxruntime ------------------------------------------------------------

ALL_ACTIVATIONS = [
    "Relu", "Tanh", "Sigmoid", "Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh",
    "HardSigmoid", "Elu", "Softsign", "Softplus",
]  # fmt: skip
ATTRIBUTES = [
    *[(op, {}, {"direction": d}) for op in GATES for d in ("forward", "reverse", "bidirectional")],
    *[(op, {"lengths": True}, {"direction": "bidirectional"}) for op in GATES],
    *[(op, {"start": False}, {"clip": 0.3}) for op in GATES],
    ("GRU", {}, {"linear_before_reset": 1, "clip": 0.2}),
    ("LSTM", {"peepholes": True}, {"clip": 0.2}),
    ("LSTM", {}, {"input_forget": 1}),
    ("LSTM", {}, {
        "activations": ["Sigmoid", "ScaledTanh", "Affine"],
        "activation_alpha": [0.3, 0.7], "activation_beta": [0.4, 0.2],
    }),
    *[
        ("GRU", {}, {
            "activations": ["Sigmoid", name], "activation_alpha": [0.3], "activation_beta": [0.4],
        })
        for name in ALL_ACTIVATIONS
    ],
]  # fmt: skip


def model_of(op, given, attributes, *, constant=("W", "R", "B", "P")):
    from onnx import numpy_helper

    names = [name if given.get(name) is not None else "" for name in NAMES]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h", "Y_c"][: outputs_of(op)]
    node = helper.make_node(op, names, outputs, hidden_size=given["R"].shape[2], **attributes)
    fed = {k: v for k, v in given.items() if v is not None and k not in constant}
    kinds = {k: TensorProto.INT32 if k == "lengths" else TensorProto.FLOAT for k in fed}
    proto = helper.make_model(
        helper.make_graph(
            [node],
            "recurrent",
            [helper.make_tensor_value_info(k, kinds[k], v.shape) for k, v in fed.items()],
            [helper.make_tensor_value_info(k, TensorProto.FLOAT, None) for k in outputs],
            [
                numpy_helper.from_array(v, k)
                for k, v in given.items()
                if k in constant and v is not None
            ],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )  # fmt: skip
    return proto, fed


@pytest.mark.parametrize("case", ATTRIBUTES, ids=str)
def test_numbers_are_onnxruntimes(case):
    runtime = pytest.importorskip("onnxruntime")
    op, options, attributes = case
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    given = operands(op, directions=directions, **options)
    proto, feeds = model_of(op, given, attributes)
    expected = runtime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    ).run(None, feeds)
    session = compile_model(graph.load(proto))
    made = session.run(feeds)
    assert not session.explain().fallbacks
    for got, wanted in zip(made, expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_what_nobody_reads_is_not_made():
    given = operands("LSTM")
    full = run_node("LSTM", list(given.values()), {}, outputs=3)
    only_c = run_node("LSTM", list(given.values()), {}, outputs=[False, False, True])
    np.testing.assert_array_equal(only_c[0], full[2])
    only_h = run_node("LSTM", list(given.values()), {}, outputs=[False, True, False])
    np.testing.assert_array_equal(only_h[0], full[1])


HOSTILE = {
    "hidden_size": {"hidden_size": 2**40},
    "direction": {"direction": "sideways"},
    "too few directions": {"direction": "bidirectional"},
    "activation": {"activations": ["Swoosh", "Tanh", "Tanh"]},
    "too few activations": {"activations": ["Tanh"]},
    "clip": {"clip": -1.0},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_attributes_that_cannot_be_are_refused(name):
    proto, feeds = model_of("LSTM", operands("LSTM"), {})
    for key, value in HOSTILE[name].items():
        kept = [a for a in proto.graph.node[0].attribute if a.name != key]
        del proto.graph.node[0].attribute[:]
        proto.graph.node[0].attribute.extend([*kept, helper.make_attribute(key, value)])
    with pytest.raises(LowprecError):
        compile_model(graph.load(proto)).run(feeds)


@pytest.mark.parametrize(("which", "shape"), [
    ("B", (1, 24)), ("B", (48,)), ("h", (1, 3, 7)), ("h", (1, 2, 6)), ("c", (3, 6)),
    ("lengths", (4,)), ("P", (1, 24)),
])  # fmt: skip
def test_operands_that_do_not_fit_are_refused(which, shape):
    given = operands("LSTM", lengths=True, peepholes=True)
    given[which] = np.ones(shape, given[which].dtype)
    proto, feeds = model_of("LSTM", given, {})
    with pytest.raises(LowprecError, match="must be"):
        compile_model(graph.load(proto)).run(feeds)


@pytest.mark.parametrize("length", [-1, 6, 2**31 - 1])
def test_lengths_outside_of_the_input_are_refused(length):
    given = operands("GRU", lengths=True)
    given["lengths"][1] = length
    proto, feeds = model_of("GRU", given, {})
    with pytest.raises(LowprecError, match="sequence_lens"):
        compile_model(graph.load(proto)).run(feeds)


def test_every_instruction_set_is_there():
    assert "scalar" in ISAS
