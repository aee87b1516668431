"""Sessions: cuts, fall-backs, shapes that change, what a user may feed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from lowprec import graph
from lowprec._ext import _core
from lowprec.engine import Session, compile_model
from lowprec.errors import InputError, LowprecError, ModelError

RNG = np.random.default_rng(0)


def model(nodes, inputs, outputs, constants=(), opset=21) -> onnx.ModelProto:
    return helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
            [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
            [numpy_helper.from_array(array, name) for name, array in constants],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=10,
    )


def session(proto: onnx.ModelProto, **options) -> Session:
    return compile_model(graph.load(proto), **options)


def assert_like_reference(proto: onnx.ModelProto, feeds, **options) -> Session:
    compiled = session(proto, **options)
    results = compiled.run(feeds)
    for result, expected in zip(results, ReferenceEvaluator(proto).run(None, feeds), strict=True):
        assert result.dtype == expected.dtype
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    return compiled


FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def test_shape_arithmetic_needs_no_cut():
    proto = model(
        [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Gather", ["s", "zero"], ["n"]),
            helper.make_node("Concat", ["n", "minus"], ["t"], axis=0),
            helper.make_node("Reshape", ["x", "t"], ["y"]),
            helper.make_node("Relu", ["y"], ["z"]),
        ],
        [("x", FLOAT, ["n", 3, 4])],
        [("z", FLOAT, None)],
        [("zero", np.array([0])), ("minus", np.array([-1]))],
    )
    compiled = assert_like_reference(proto, {"x": RNG.standard_normal((2, 3, 4)).astype("f")})
    assert [step.op for step in compiled.explain().steps] == ["UnaryChain"]
    assert_like_reference(proto, {"x": RNG.standard_normal((5, 3, 4)).astype("f")})


def test_a_shape_that_is_only_known_at_run_time_cuts_the_program():
    proto = model(
        [
            helper.make_node("Relu", ["x"], ["r"]),
            helper.make_node("Add", ["target", "one"], ["t"]),
            helper.make_node("Reshape", ["r", "t"], ["y"]),
        ],
        [("x", FLOAT, [None]), ("target", INT64, [2])],
        [("y", FLOAT, None)],
        [("one", np.array([1, 0]))],
    )
    x = RNG.standard_normal(12).astype("f")
    compiled = session(proto)
    for target in ([1, 6], [2, 4], [1, 6]):
        (y,) = compiled.run({"x": x, "target": np.array(target)})
        np.testing.assert_array_equal(y, np.maximum(x, 0).reshape(target[0] + 1, target[1]))


def test_an_operator_without_a_kernel_falls_back_and_is_named():
    proto = model(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("DeformConv", ["a", "w", "offset"], ["d"]),
            helper.make_node("Neg", ["d"], ["y"]),
        ],
        [("x", FLOAT, ["n", 1, 3, 3])],
        [("y", FLOAT, None)],
        [
            ("w", RNG.standard_normal((1, 1, 2, 2)).astype("f")),
            ("offset", RNG.standard_normal((4, 8, 2, 2)).astype("f")),
        ],
    )
    compiled = assert_like_reference(proto, {"x": RNG.standard_normal((4, 1, 3, 3)).astype("f")})
    assert compiled.explain().fallbacks == ("DeformConv",)
    assert [step.native for step in compiled.explain().steps] == [True, False, True]


def test_control_flow_sees_the_values_around_it():
    branch = helper.make_graph(
        [helper.make_node("Add", ["outer", "c"], ["then_out"])],
        "then",
        [],
        [helper.make_tensor_value_info("then_out", FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["outer"], ["else_out"])],
        "else",
        [],
        [helper.make_tensor_value_info("else_out", FLOAT, None)],
    )
    proto = model(
        [
            helper.make_node("Relu", ["x"], ["outer"]),
            helper.make_node("If", ["flag"], ["i"], then_branch=branch, else_branch=other),
            helper.make_node("Abs", ["i"], ["y"]),
        ],
        [("x", FLOAT, [3]), ("flag", BOOL, [])],
        [("y", FLOAT, None)],
        [("c", np.float32([1, 2, 3]))],
    )
    for flag in (True, False):
        x = np.float32([-1, 2, 3])
        assert_like_reference(proto, {"x": x, "flag": np.array(flag)})


def test_outputs_that_are_inputs_or_constants_are_copies():
    proto = model(
        [helper.make_node("Relu", ["x"], ["y"])],
        [("x", FLOAT, [2])],
        [("y", FLOAT, None), ("x", FLOAT, [2]), ("c", FLOAT, [1])],
        [("c", np.float32([7]))],
    )
    x = np.float32([1, 2])
    compiled = session(proto)
    results = compiled.run({"x": x})
    results[1][0] = results[2][0] = 99
    assert x[0] == 1
    np.testing.assert_array_equal(compiled.run({"x": x})[2], [7])


def test_results_go_into_given_arrays():
    compiled = session(
        model([helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, [2])], [("y", FLOAT, None)])
    )
    out = np.empty(2, np.float32)
    (result,) = compiled.run({"x": np.float32([-1, 2])}, out=[out])
    assert result is out
    np.testing.assert_array_equal(out, [0, 2])
    with pytest.raises(InputError, match=r"float32 \[2\]"):
        compiled.run({"x": np.float32([-1, 2])}, out=[np.empty(3, np.float32)])


@pytest.fixture
def convolution() -> Session:
    weights = RNG.standard_normal((4, 3, 3, 3)).astype("f")
    return session(
        model(
            [helper.make_node("Conv", ["image", "w"], ["y"], pads=[1] * 4)],
            [("image", FLOAT, ["n", 3, "h", "w"])],
            [("y", FLOAT, None)],
            [("w", weights)],
        )
    )


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({"picture": np.zeros((1, 3, 4, 4), "f")}, "no input 'picture'.*'image'"),
        ({}, "'image' is missing.*float32 .n, 3, h, w."),
        ({"image": np.zeros((3, 4, 4), "f")}, "rank 3.*float32 .n, 3, h, w."),
        ({"image": np.zeros((1, 3, 4, 4))}, "float64.*astype"),
        ({"image": np.zeros((0, 3, 4, 4), "f")}, "empty batch"),
        ({"image": np.zeros((1, 2, 4, 4), "f")}, "size 2 on axis 1"),
        ([np.zeros((1, 3, 4, 4), "f")], "dict of arrays"),
    ],
)
def test_what_does_not_fit_is_named(convolution, feeds, words):
    with pytest.raises(InputError, match=words):
        convolution.run(feeds)


def test_inputs_may_be_strided_and_change_shape(convolution):
    image = RNG.standard_normal((2, 5, 6, 3)).astype("f")
    strided = image.transpose(0, 3, 1, 2)
    (result,) = convolution.run({"image": strided})
    (expected,) = convolution.run({"image": np.ascontiguousarray(strided)})
    np.testing.assert_array_equal(result, expected)
    for width in range(1, 50):
        assert convolution.run({"image": np.ones((1, 3, 2, width), "f")})[0].shape[3] == width


def test_explain_wants_a_run_first(convolution):
    with pytest.raises(LowprecError, match="call run"):
        convolution.explain()
    convolution.run({"image": np.zeros((1, 3, 4, 4), "f")})
    text = str(convolution.explain())
    assert "conv f32" in text
    assert "depthwise f32: group is 1" in text


def test_sessions_serve_threads_at_once(convolution):
    images = [RNG.standard_normal((1, 3, 8, 8 + i % 3)).astype("f") for i in range(24)]
    expected = [convolution.run({"image": image})[0] for image in images]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda image: convolution.run({"image": image})[0], images))
    for result, right in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, right)


def test_profile_times_every_step(convolution):
    times = convolution.profile({"image": np.zeros((1, 3, 64, 64), "f")}, repeats=3)
    assert [time.row.kernel for time in times][1] == "conv f32"
    assert all(time.seconds >= 0 for time in times)


@pytest.mark.parametrize("name", ["a", "x", "y"])
def test_observers_see_values_inside_the_run(name):
    proto = model(
        [
            helper.make_node("Relu", ["x"], ["a"]),
            helper.make_node("Mul", ["a", "c"], ["b"]),
            helper.make_node("Det", ["b"], ["d"]),
            helper.make_node("Neg", ["d"], ["y"]),
        ],
        [("x", FLOAT, ["n", 2, 2])],
        [("y", FLOAT, None)],
        [("c", np.float32([2]))],
    )
    observer = _core.TensorObserver()
    compiled = session(proto, observers={name: observer})
    x = RNG.standard_normal((3, 2, 2)).astype("f")
    (y,) = compiled.run({"x": x})
    seen = {"a": np.maximum(x, 0), "x": x, "y": y}[name]
    assert observer.count == seen.size
    assert observer.minimum == seen.min()
    assert observer.maximum == seen.max()


def test_an_unknown_observed_name_is_named():
    proto = model(
        [helper.make_node("Relu", ["x"], ["y"])], [("x", FLOAT, [2])], [("y", FLOAT, None)]
    )
    with pytest.raises(ModelError, match="no value is called 'nope'"):
        session(proto, observers={"nope": _core.TensorObserver()})


def test_element_types_without_kernels_fall_back():
    import ml_dtypes

    bf16 = TensorProto.BFLOAT16
    proto = model(
        [
            helper.make_node("Add", ["x", "x"], ["a"]),
            helper.make_node("Cast", ["a"], ["y"], to=FLOAT),
        ],
        [("x", bf16, [3])],
        [("y", FLOAT, None), ("a", bf16, None)],
    )
    x = np.float32([1, 2, 3]).astype(ml_dtypes.bfloat16)
    y, a = session(proto).run({"x": x})
    np.testing.assert_array_equal(y, [2, 4, 6])
    assert a.dtype == ml_dtypes.bfloat16


def test_a_shape_that_is_known_before_a_cut_is_known_behind_it():
    """Reshape's target follows from x's shape, but what it reshapes comes after the cut."""
    proto = model(
        [
            helper.make_node("Shape", ["x"], ["size"]),
            helper.make_node("NonZero", ["x"], ["places"]),
            helper.make_node("Transpose", ["places"], ["rows"]),
            helper.make_node("GatherND", ["x", "rows"], ["found"]),
            helper.make_node("ReduceMax", ["found"], ["most"], keepdims=0),
            helper.make_node("Sub", ["x", "most"], ["less"]),
            helper.make_node("Mul", ["size", "parts"], ["halves"]),
            helper.make_node("Concat", ["halves", "minus"], ["target"], axis=0),
            helper.make_node("Reshape", ["less", "target"], ["y"]),
        ],
        [("x", FLOAT, ["n", "m"])],
        [("y", FLOAT, None)],
        [("parts", np.array([1, 1])), ("minus", np.array([-1]))],
    )
    for shape in ((2, 3), (4, 5)):
        x = RNG.integers(0, 3, shape).astype("f") + np.eye(*shape, dtype="f")
        compiled = assert_like_reference(proto, {"x": x})
        assert compiled.explain().fallbacks == ()


def test_two_contents_that_are_known_at_different_times():
    """Slice's starts are fed, its ends are made from what is fed: both are asked for at once."""
    proto = model(
        [
            helper.make_node("Add", ["ends", "one"], ["last"]),
            helper.make_node("Slice", ["x", "starts", "last"], ["y"]),
        ],
        [("x", FLOAT, [6]), ("starts", INT64, [1]), ("ends", INT64, [1])],
        [("y", FLOAT, None)],
        [("one", np.array([1]))],
    )
    compiled = session(proto)
    x = RNG.standard_normal(6).astype("f")
    for start, end in ((0, 2), (1, 4)):
        (y,) = compiled.run({"x": x, "starts": np.array([start]), "ends": np.array([end])})
        np.testing.assert_array_equal(y, x[start : end + 1])
    assert compiled.explain().fallbacks == ()
