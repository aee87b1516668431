"""If, Loop and Scan: our kernels inside the bodies, and onnxruntime's numbers."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import pytest
from thread_counts import threads

from lowprec import graph, passes
from lowprec.engine import compile_model
from lowprec.errors import InputError, LowprecError

HEAD = '<ir_version: 10, opset_import: ["": 21]>\n'
rng = np.random.default_rng(3)


def floats(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def session_of(text, *, simplify=False, **constants):
    model = onnx.parser.parse_model(HEAD + text)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    hub = graph.load(model)
    if simplify:
        passes.simplify(hub)
    return compile_model(hub), model


def reference(model, feeds):
    """Return onnxruntime's outputs; onnx's own reference gets a Loop without a condition wrong."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def check(text, feeds, *, atol=1e-5, **constants):
    """Run twice (an If may be decided by then); all values are onnxruntime's, bits are equal."""
    session, model = session_of(text, **constants)
    expected = reference(model, feeds)
    first, second = session.run(feeds), session.run(feeds)
    for got, again, wanted in zip(first, second, expected, strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, atol=atol)
        assert got.tobytes() == again.tobytes()
    assert not session.explain().fallbacks
    return session


def ops(session):
    return [step.op for step in session.explain().steps]


# --- If -------------------------------------------------------------------------------------------

BY_VALUE = """m (float[N,4] x, float[1] limit) => (float[N,3] y) {
    total = ReduceSum<keepdims=0>(x)
    above = Greater(total, limit)
    y = If (above) <
        then_branch = t () => (float[N,3] a) { p = MatMul(x, w) a = Relu(p) },
        else_branch = e () => (float[N,3] b) { b = MatMul(x, v) }
    >
}"""
WEIGHTS = {"w": floats(4, 3), "v": floats(4, 3)}


@pytest.mark.parametrize("limit", [-1e9, 1e9])
def test_a_condition_on_data_chooses_a_branch(limit):
    feeds = {"x": floats(5, 4), "limit": np.array([limit], np.float32)}
    session = check(BY_VALUE, feeds, **WEIGHTS)
    names = ops(session)
    assert "If" in names
    assert "MatMul" in names


def test_both_branches_of_one_session():
    session, model = session_of(BY_VALUE, **WEIGHTS)
    x = floats(5, 4)
    for limit in (-1e9, 1e9, -1e9):
        feeds = {"x": x, "limit": np.array([limit], np.float32)}
        np.testing.assert_allclose(session.run(feeds)[0], reference(model, feeds)[0], atol=1e-5)
        branch = [s for s in session.explain().steps if s.op == "MatMul"]
        assert len(branch) == 1


BY_SHAPE = """m (float[N,4] x) => (float[N,3] y) {
    shape = Shape(x)
    rows = Gather(shape, zero)
    many = Greater(rows, three)
    y = If (many) <
        then_branch = t () => (float[N,3] a) {
            even = Equal(rows, four)
            a = If (even) <
                then_branch = tt () => (float[N,3] c) { c = MatMul(x, w) },
                else_branch = te () => (float[N,3] d) { d = MatMul(x, v) }
            >
        },
        else_branch = e () => (float[N,3] b) { p = MatMul(x, v) b = Neg(p) }
    >
}"""
NUMBERS = {"zero": np.array(0), "three": np.array(3), "four": np.array(4)}


def test_a_condition_on_shapes_is_decided_once():
    session, model = session_of(BY_SHAPE, **WEIGHTS, **NUMBERS)
    for rows in (2, 4, 5, 2, 4, 5, 2, 4, 5):
        feeds = {"x": floats(rows, 4)}
        np.testing.assert_allclose(session.run(feeds)[0], reference(model, feeds)[0], atol=1e-5)
    assert "If" not in ops(session)
    first = session.run({"x": np.ones((4, 4), np.float32)})[0]
    fresh, _ = session_of(BY_SHAPE, **WEIGHTS, **NUMBERS)
    undecided = fresh.run({"x": np.ones((4, 4), np.float32)})[0]
    assert "If" in ops(fresh)
    assert first.tobytes() == undecided.tobytes()


BY_NUMBER = """m (float[N,4] x, int64 rate) => (float[N,3] y, float[N,3] same) {
    fast = Equal(rate, sixteen)
    y, same = If (fast) <
        then_branch = t () => (float[N,3] a, float[N,3] a2) { a = MatMul(x, w) a2 = Identity(a) },
        else_branch = e () => (float[N,3] b, float[N,3] b2) { b = MatMul(x, v) b2 = Identity(b) }
    >
}"""


def test_a_condition_on_a_fed_number_is_decided_by_number():
    session, model = session_of(BY_NUMBER, **WEIGHTS, sixteen=np.array(16000))
    x = floats(3, 4)
    for rate in (16000, 8000, 16000, 8000, 16000):
        feeds = {"x": x, "rate": np.array(rate)}
        for got, wanted in zip(session.run(feeds), reference(model, feeds), strict=True):
            np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert "If" not in ops(session)


def test_shapes_that_come_from_data_decide_nothing():
    text = """m (float[N] x) => (float y) {
        where = NonZero(x)
        shape = Shape(where)
        found = Gather(shape, one)
        any = Greater(found, zero)
        y = If (any) <
            then_branch = t () => (float a) { a = ReduceSum<keepdims=0>(x) },
            else_branch = e () => (float b) { b = ReduceMax<keepdims=0>(x) }
        >
    }"""
    session, model = session_of(text, zero=np.array(0), one=np.array(1))
    for values in ([1, 2], [1, 2], [0, 0], [-3, 0], [0, 0]):
        feeds = {"x": np.array(values, np.float32)}
        np.testing.assert_allclose(session.run(feeds)[0], reference(model, feeds)[0])


def test_a_constant_condition_leaves_the_simplified_graph():
    text = """m (float[N,4] x) => (float[N,3] y) {
        y = If (yes) <
            then_branch = t () => (float[N,3] a) { p = MatMul(x, w) a = Relu(p) },
            else_branch = e () => (float[N,3] b) { b = MatMul(x, v) }
        >
    }"""
    session, model = session_of(text, simplify=True, **WEIGHTS, yes=np.array(True))
    feeds = {"x": floats(2, 4)}
    np.testing.assert_allclose(session.run(feeds)[0], reference(model, feeds)[0], atol=1e-5)
    assert "If" not in ops(session)


def test_a_branch_may_be_a_constant_or_an_outer_value():
    text = """m (float[2] x, bool c) => (float[2] y) {
        r = Relu(x)
        y = If (c) <
            then_branch = t () => (float[2] k) { k = Identity(konst) },
            else_branch = e () => (float[2] o) { o = Identity(r) }
        >
    }"""
    for simplify in (False, True):
        session, model = session_of(text, simplify=simplify, konst=np.array([5, 6], np.float32))
        for c in (True, False, True, False, True, False):
            feeds = {"x": floats(2), "c": np.array(c)}
            made = session.run(feeds)[0]
            np.testing.assert_array_equal(made, reference(model, feeds)[0])
            made += 1  # nobody else's memory


# --- Loop -----------------------------------------------------------------------------------------

POWERS = """m (int64 n, float[3,3] x) => (float[3,3] y, float[K,3,3] steps) {
    y, steps = Loop (n, , x) <
        body = b (int64 i, bool go, float[3,3] s) => (bool go2, float[3,3] t, float[3,3] u) {
            go2 = Identity(go)
            p = MatMul(s, w)
            t = Relu(p)
            u = Identity(t)
        }
    >
}"""


@pytest.mark.parametrize("trips", [1, 2, 7])
def test_a_loop_runs_so_often(trips):
    session = check(
        POWERS, {"n": np.array(trips), "x": floats(3, 3)}, w=np.abs(floats(3, 3)) * 0.5, atol=1e-4
    )
    assert ops(session)[0] == "Loop"
    assert "MatMul" in ops(session)


def test_a_loop_that_never_runs_returns_its_start():
    session, _ = session_of(POWERS, w=floats(3, 3))
    x = floats(3, 3)
    y, steps = session.run({"n": np.array(0), "x": x})
    np.testing.assert_array_equal(y, x)
    assert steps.shape == (0, 3, 3)
    assert steps.dtype == np.float32
    y += 1
    assert not np.array_equal(y, x)


UNTIL = """m (float[1] x, float[1] limit) => (float[1] y) {
    y = Loop (, yes, x) <
        body = b (int64 i, bool go, float[1] s) => (bool more, float[1] t) {
            t = Add(s, s)
            below = Less(t, limit)
            more = Squeeze(below)
        }
    >
}"""


def test_a_condition_ends_a_loop():
    check(
        UNTIL,
        {"x": np.array([1], np.float32), "limit": np.array([100], np.float32)},
        yes=np.array(True),
    )


def test_a_loop_in_a_loop_and_an_if_in_it():
    text = """m (float[2] x, int64 n) => (float[2] y) {
        y = Loop (n, , x) <
            body = b (int64 i, bool go, float[2] s) => (bool go2, float[2] t) {
                go2 = Identity(go)
                first = Equal(i, zero)
                inner = Loop (n, , s) <
                    body = c (int64 j, bool g, float[2] p) => (bool g2, float[2] q) {
                        g2 = Identity(g)
                        q = Add(p, x)
                    }
                >
                t = If (first) <
                    then_branch = th () => (float[2] a) { a = Neg(inner) },
                    else_branch = el () => (float[2] d) { d = Identity(inner) }
                >
            }
        >
    }"""
    check(text, {"x": floats(2), "n": np.array(3)}, zero=np.array(0))


def test_a_state_may_grow():
    text = """m (float[1] x, int64 n) => (float[K] y) {
        y = Loop (n, , x) <
            body = b (int64 i, bool go, float[K] s) => (bool go2, float[L] t) {
                go2 = Identity(go)
                t = Concat<axis=0>(s, x)
            }
        >
    }"""
    session = check(text, {"x": floats(1), "n": np.array(5)})
    assert session.run({"x": floats(1), "n": np.array(3)})[0].shape == (4,)


# --- Scan -----------------------------------------------------------------------------------------

SUMS = """m (float[2] start, float[%s] x) => (float[2] y, float[%s] all) {
    y, all = Scan <num_scan_inputs=1, %s body = b (float[2] s, float[2] e) => (float[2] t, float[2] u) {
        t = Add(s, e)
        u = Identity(t)
    }> (start, x)
}"""  # noqa: E501


@pytest.mark.parametrize(
    ("shape", "made", "attributes"),
    [
        ((5, 2), "5,2", ""),
        ((5, 2), "5,2", "scan_input_directions=[1],"),
        ((5, 2), "5,2", "scan_output_directions=[1],"),
        ((2, 5), "5,2", "scan_input_axes=[1],"),
        ((2, 5), "2,5", "scan_input_axes=[-1], scan_output_axes=[1],"),
    ],
)
def test_a_scan_walks_along_its_axis(shape, made, attributes):
    text = SUMS % (",".join(map(str, shape)), made, attributes)
    check(text, {"start": floats(2), "x": floats(*shape)})


# --- everywhere -----------------------------------------------------------------------------------


def test_bits_do_not_depend_on_threads_nor_on_who_else_runs():
    session, _ = session_of(POWERS, w=np.abs(floats(3, 3)) * 0.5)
    x = floats(3, 3)
    results = []
    for count in (1, 2, 3, 4):
        with threads(count):
            results.append(session.run({"n": np.array(20), "x": x})[1].tobytes())
    shared = []

    def work(trips):
        for _ in range(20):
            made = session.run({"n": np.array(trips), "x": x})[1]
            shared.append((trips, made.tobytes()))

    workers = [threading.Thread(target=work, args=(trips,)) for trips in (20, 3, 20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    results += [made for trips, made in shared if trips == 20]
    assert len(results) == 44
    assert len(set(results)) == 1


@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_bits_do_not_depend_on_the_instruction_set(isa, monkeypatch):
    from lowprec._ext import _core

    if isa not in _core.available_isas():
        pytest.skip(f"no {isa} here")
    feeds = {"n": np.array(6), "x": floats(3, 3)}
    w = np.abs(floats(3, 3)) * 0.5
    best = session_of(POWERS, w=w)[0].run(feeds)
    monkeypatch.setenv("LOWPREC_ISA", isa)
    session = session_of(POWERS, w=w)[0]
    made = session.run(feeds)
    assert {step.isa for step in session.explain().steps if step.op == "MatMul"} == {isa}
    assert [a.tobytes() for a in made] == [a.tobytes() for a in best]


def test_a_profile_has_the_steps_of_the_bodies():
    session, _ = session_of(POWERS, w=floats(3, 3))
    rows = session.profile({"n": np.array(4), "x": floats(3, 3)}, repeats=3)
    assert rows[0].row.op == "Loop"
    assert "MatMul" in [time.row.op for time in rows]
    assert all(time.seconds >= 0 for time in rows)


def test_sequences_stay_with_the_reference():
    text = """m (float[2] x, int64 n) => (float[K] y) {
        none = SequenceEmpty<dtype=1>()
        all = Loop (n, yes, none) <
            body = b (int64 i, bool go, seq(float) s) => (bool go2, seq(float) t) {
                go2 = Identity(go)
                t = SequenceInsert(s, x)
            }
        >
        y = ConcatFromSequence<axis=0>(all)
    }"""
    session, _ = session_of(text, yes=np.array(True))
    x = floats(2)
    (made,) = session.run({"x": x, "n": np.array(3)})
    np.testing.assert_array_equal(made, np.tile(x, 3))
    assert "Loop" in session.explain().fallbacks


# --- untrusted files ------------------------------------------------------------------------------


def test_outputs_larger_than_the_memory_are_refused_before_they_are_made():
    session, _ = session_of(POWERS, w=floats(3, 3))
    with pytest.raises(InputError, match="memory"):
        session.run({"n": np.array(2**62), "x": floats(3, 3)})


def test_a_loop_that_has_settled_ends():
    text = """m (float[2] x, int64 n) => (float[2] y) {
        y = Loop (n, , x) <
            body = b (int64 i, bool go, float[2] s) => (bool go2, float[2] t) {
                go2 = Identity(go)
                t = Relu(s)
            }
        >
    }"""
    session, _ = session_of(text)
    x = floats(2)
    np.testing.assert_array_equal(session.run({"x": x, "n": np.array(2**62)})[0], np.maximum(x, 0))
    forever = text.replace("(n, , x)", "(, , x)").replace(", int64 n", "")
    with pytest.raises(InputError, match="never ends"):
        session_of(forever)[0].run({"x": x})


BROKEN = {
    "a condition of two": (
        BY_VALUE, {"x": floats(2, 4), "limit": np.zeros(2, np.float32)}, WEIGHTS
    ),
    "a trip count of two": (
        POWERS.replace("int64 n", "int64[2] n"),
        {"n": np.array([1, 2]), "x": floats(3, 3)}, {"w": floats(3, 3)},
    ),
    "a trip count that is no number": (
        POWERS.replace("int64 n", "float n"),
        {"n": np.array(np.nan, np.float32), "x": floats(3, 3)}, {"w": floats(3, 3)},
    ),
    "an axis that is not there": (
        SUMS % ("5,2", "5,2", "scan_input_axes=[7],"), {"start": floats(2), "x": floats(5, 2)}, {},
    ),
    "no scanned input": (
        (SUMS % ("5,2", "5,2", "")).replace("num_scan_inputs=1", "num_scan_inputs=0"),
        {"start": floats(2), "x": floats(5, 2)}, {},
    ),
    "too many scanned inputs": (
        (SUMS % ("5,2", "5,2", "")).replace("num_scan_inputs=1", "num_scan_inputs=9"),
        {"start": floats(2), "x": floats(5, 2)}, {},
    ),
    "too many axes": (
        SUMS % ("5,2", "5,2", "scan_output_axes=[0,0],"),
        {"start": floats(2), "x": floats(5, 2)}, {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_is_refused(name):
    text, feeds, constants = BROKEN[name]
    text = text.replace("float[1] limit", "float[L] limit")
    with pytest.raises(LowprecError):
        session_of(text, **constants)[0].run(feeds)


UNEVEN = """m (float[2] x, bool c) => (float[2] y, float[2] z) {
    y, z = If (%s) <
        then_branch = t () => (float[2] a) { a = Relu(x) },
        else_branch = e () => (float[2] b, float[2] d) { b = Neg(x) d = Abs(x) }
    >
}"""


@pytest.mark.parametrize("condition", ["c", "yes"])
def test_a_branch_that_makes_too_little_is_refused(condition):
    feeds = {"x": floats(2), "c": np.array(True)}
    for simplify in (False, True):
        with pytest.raises(LowprecError):
            session_of(UNEVEN % condition, simplify=simplify, yes=np.array(True))[0].run(feeds)


def test_a_branch_that_makes_too_much_is_no_harm():
    text = UNEVEN.replace("y, z = If", "y = If").replace(", float[2] z)", ")") % "c"
    session, _ = session_of(text)
    x = floats(2)
    for c in (True, False, True, False):
        made = session.run({"x": x, "c": np.array(c)})[0]
        np.testing.assert_array_equal(made, np.maximum(x, 0) if c else -x)


@pytest.mark.parametrize("damage", ["no then", "no else", "inputs"])
@pytest.mark.parametrize("simplify", [False, True])
def test_a_damaged_if_is_refused(damage, simplify):
    model = onnx.parser.parse_model(HEAD + UNEVEN % "yes")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    (node,) = model.graph.node
    kept = [a for a in node.attribute if not damage.endswith(a.name.split("_")[0])]
    for attribute in kept if damage == "inputs" else ():
        attribute.g.input.append(onnx.helper.make_tensor_value_info("more", 1, [1]))
    del node.attribute[:]
    node.attribute.extend(kept)

    def load_and_run():
        hub = graph.load(model)
        if simplify:
            passes.simplify(hub)
        compile_model(hub).run({"x": floats(2), "c": np.array(True)})

    with pytest.raises(LowprecError):
        load_and_run()
