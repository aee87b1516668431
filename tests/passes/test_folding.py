"""Folding keeps what the model computes and removes the operators it names."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from small_models import assert_same_outputs, build, operators, run

from lowprec.passes import simplify
from lowprec.passes.fold_affine import fold_affine
from lowprec.passes.fold_batch_norm import fold_batch_norm
from lowprec.passes.fold_constants import fold_constants
from lowprec.passes.fold_padding import fold_padding
from lowprec.passes.fold_pool_padding import fold_pool_padding
from lowprec.passes.matching import constant_array
from lowprec.passes.remove_identity import remove_identity

rng = np.random.default_rng(7)


def floats(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def batch_norm_constants(channels: int) -> dict[str, np.ndarray]:
    return {
        "g": floats(channels),
        "s": floats(channels),
        "m": floats(channels),
        "v": np.abs(floats(channels)) + np.float32(0.1),
    }


BATCH_NORM = {
    "conv": (
        "(float[1,4,6,6] x) => (float[1,6,6,6] y) {"
        " c = Conv<pads=[1,1,1,1], group=2>(x, w, b) y = BatchNormalization(c, g, s, m, v) }",
        {"w": floats(6, 2, 3, 3), "b": floats(6)},
        (1, 4, 6, 6),
    ),
    "conv without bias": (
        "(float[1,4,6,6] x) => (float[1,6,4,4] y) {"
        " c = Conv(x, w) y = BatchNormalization<epsilon=0.01>(c, g, s, m, v) }",
        {"w": floats(6, 4, 3, 3)},
        (1, 4, 6, 6),
    ),
    "grouped transposed conv": (
        "(float[1,4,5,5] x) => (float[1,6,10,10] y) {"
        " c = ConvTranspose<group=2, kernel_shape=[2,2], strides=[2,2]>(x, w, b)"
        " y = BatchNormalization(c, g, s, m, v) }",
        {"w": floats(4, 3, 2, 2), "b": floats(6)},
        (1, 4, 5, 5),
    ),
    "gemm": (
        "(float[3,4] x) => (float[3,6] y) {"
        " c = Gemm<transB=1>(x, w, b) y = BatchNormalization(c, g, s, m, v) }",
        {"w": floats(6, 4), "b": floats(6)},
        (3, 4),
    ),
    "matmul": (
        "(float[3,4] x) => (float[3,6] y) <float[3,6] c> {"
        " c = MatMul(x, w) y = BatchNormalization(c, g, s, m, v) }",
        {"w": floats(4, 6)},
        (3, 4),
    ),
}


@pytest.mark.parametrize("case", BATCH_NORM)
def test_batch_norm_goes_into_the_layer(case: str) -> None:
    text, constants, shape = BATCH_NORM[case]
    model = build("m " + text, {**constants, **batch_norm_constants(6)})
    before = ir.to_proto(model)
    assert fold_batch_norm(model)
    assert "BatchNormalization" not in operators(model)
    assert_same_outputs(before, model, {"x": floats(*shape)})
    assert not fold_batch_norm(model)


def test_batch_norm_stays_when_the_layer_has_another_reader() -> None:
    text = (
        "m (float[1,4,6,6] x) => (float[1,6,4,4] y, float[1,6,4,4] z) {"
        " c = Conv(x, w) y = BatchNormalization(c, g, s, m, v) z = Relu(c) }"
    )
    model = build(text, {"w": floats(6, 4, 3, 3), **batch_norm_constants(6)})
    assert not fold_batch_norm(model)


AFFINE = {
    "scalars after conv": (
        "(float[1,4,6,6] x) => (float[1,6,4,4] y) {"
        " c = Conv(x, w, b) p = Mul(k, c) y = Add(p, l) }",
        {"w": floats(6, 4, 3, 3), "b": floats(6), "k": floats(1), "l": floats()},
        ["Conv"],
    ),
    "channels after conv": (
        "(float[1,4,6,6] x) => (float[1,6,4,4] y) { c = Conv(x, w) p = Div(c, k) y = Sub(l, p) }",
        {
            "w": floats(6, 4, 3, 3),
            "k": floats(1, 6, 1, 1) + np.float32(5),
            "l": floats(6, 1, 1),
        },
        ["Conv"],
    ),
    "channels after grouped transposed conv": (
        "(float[1,4,6,6] x) => (float[1,6,8,8] y) {"
        " c = ConvTranspose<group=2>(x, w) p = Mul(c, k) y = Sub(p, l) }",
        {"w": floats(4, 3, 3, 3), "k": floats(6, 1, 1), "l": floats(6, 1, 1)},
        ["ConvTranspose"],
    ),
    "columns after gemm": (
        "(float[3,4] x) => (float[3,6] y) { c = Gemm<alpha=0.5, beta=2.0>(x, w, b) y = Mul(c, k) }",
        {"w": floats(4, 6), "b": floats(6), "k": floats(6)},
        ["Gemm"],
    ),
    "columns after matmul": (
        "(float[2,3,4] x) => (float[2,3,6] y) { c = MatMul(x, w) p = Mul(c, k) y = Add(p, l) }",
        {"w": floats(4, 6), "k": floats(6), "l": floats(6)},
        ["MatMul", "Add"],
    ),
}
SHAPES = {"gemm": (3, 4), "matmul": (2, 3, 4), "conv": (1, 4, 6, 6)}


@pytest.mark.parametrize("case", AFFINE)
def test_affine_chain_goes_into_the_layer(case: str) -> None:
    text, constants, expected = AFFINE[case]
    model = build("m " + text, constants)
    before = ir.to_proto(model)
    simplify(model)
    assert operators(model) == expected
    assert_same_outputs(before, model, {"x": floats(*SHAPES[case.rsplit(maxsplit=1)[-1]])})


@pytest.mark.parametrize(
    "constant",
    [floats(1, 1, 4, 4), floats(4), floats(6, 6, 1, 1)[:1, :, :, :], floats(1, 1, 1, 1, 1)],
    ids=["spatial", "along the width", "channels", "raises the rank"],
)
def test_only_constants_along_the_channels_are_folded(constant: np.ndarray) -> None:
    shape = "1,1,6,4,4" if constant.ndim == 5 else "1,6,4,4"
    model = build(
        f"m (float[1,4,6,6] x) => (float[{shape}] y) {{ c = Conv(x, w) y = Mul(c, k) }}",
        {"w": floats(6, 4, 3, 3), "k": constant},
    )
    assert fold_affine(model) == (constant.shape == (1, 6, 1, 1))


def test_shared_weights_are_not_changed_under_the_other_reader() -> None:
    text = (
        "m (float[1,4,6,6] x) => (float[1,4,4,4] y, float[1,4,4,4] z) {"
        " c = Conv(x, w) y = Mul(c, k) z = Conv(x, w) }"
    )
    model = build(text, {"w": floats(4, 4, 3, 3), "k": np.float32(3)})
    before = ir.to_proto(model)
    assert fold_affine(model)
    assert_same_outputs(before, model, {"x": floats(1, 4, 6, 6)})


def test_a_factor_that_overflows_is_left_alone() -> None:
    model = build(
        "m (float[1,4,6,6] x) => (float[1,6,4,4] y) { c = Conv(x, w) y = Mul(c, k) }",
        {"w": np.full((6, 4, 3, 3), 1e30, np.float32), "k": np.float32(1e30)},
    )
    assert not fold_affine(model)


def test_constant_subgraphs_are_evaluated() -> None:
    text = (
        "m (float[2,3] x) => (float[2,4] y) {"
        " t = Transpose<perm=[1,0]>(w) u = Add(t, one) y = MatMul(x, u) }"
    )
    model = build(text, {"w": floats(4, 3), "one": np.float32(1)})
    before = ir.to_proto(model)
    assert fold_constants(model)
    assert operators(model) == ["MatMul"]
    assert_same_outputs(before, model, {"x": floats(2, 3)})


def test_a_shape_of_a_few_bytes_does_not_become_gigabytes() -> None:
    text = "m (float[1] x) => (float[1,1] y) { e = Expand(k, n) s = ReduceSum(e) y = Mul(x, s) }"
    model = build(text, {"k": floats(1), "n": np.array([1 << 20, 1 << 12], np.int64)})
    assert not fold_constants(model)


def test_constant_of_shape_becomes_weights() -> None:
    text = "m (float[2,3] x) => (float[2,4] y) { w = ConstantOfShape(shape) y = MatMul(x, w) }"
    model = build(text, {"shape": np.array([3, 4], np.int64)})
    assert fold_constants(model)
    np.testing.assert_array_equal(constant_array(model.graph[0].inputs[1]), np.zeros((3, 4)))


def test_stored_int8_weights_stay_int8() -> None:
    text = "m (float[2,3] x) => (float[2,4] y) { w = DequantizeLinear(q, s) y = MatMul(x, w) }"
    model = build(text, {"q": np.ones((3, 4), np.int8), "s": np.float32(0.5)})
    assert not fold_constants(model)


def test_identity_dropout_and_idle_cast_vanish_and_outputs_keep_their_names() -> None:
    text = (
        "m (float[2,3] x) => (float[2,3] y) {"
        " a = Identity(x) b = Dropout(a) c = Cast<to=1>(b) d = Relu(c) y = Identity(d) }"
    )
    model = build(text)
    before = ir.to_proto(model)
    assert remove_identity(model)
    assert operators(model) == ["Relu"]
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert_same_outputs(before, model, {"x": floats(2, 3)})


def test_an_input_that_is_also_an_output_keeps_its_identity() -> None:
    model = build("m (float[2] x) => (float[2] y, float[2] z) { y = Identity(x) z = Identity(x) }")
    assert not remove_identity(model)


CAPTURE = (
    "m (float[1,4,6,6] x, bool p) => (float[1,6,4,4] y) {"
    " c = Conv(x, w) s = Mul(c, k)"
    " y = If(p) <then_branch = t () => (float[1,6,4,4] a) { a = Identity(s) },"
    " else_branch = e () => (float[1,6,4,4] b) { b = Relu(c) }> }"
)


def test_a_value_captured_by_a_subgraph_counts_as_used() -> None:
    model = build(CAPTURE, {"w": floats(6, 4, 3, 3), "k": np.float32(3)})
    before = ir.to_proto(model)
    simplify(model)
    assert "Mul" in operators(model)  # c is read inside the If as well: it must not be scaled
    x = floats(1, 4, 6, 6)
    for condition in (True, False):
        assert_same_outputs(before, model, {"x": x, "p": np.array(condition)})


def test_simplify_works_inside_subgraphs_and_does_not_capture_outputs() -> None:
    text = (
        "m (float[2,3] x, bool p) => (float[2,4] y) {"
        " y = If(p) <then_branch = t () => (float[2,4] a) { c = MatMul(x, w) a = Mul(c, k) },"
        " else_branch = e () => (float[2,4] b) { d = MatMul(x, w) b = Identity(d) }> }"
    )
    model = build(text, {"w": floats(3, 4), "k": np.float32(3)})
    before = ir.to_proto(model)
    simplify(model)
    branches = {name: a.as_graph() for name, a in model.graph[0].attributes.items()}
    assert [n.op_type for n in branches["then_branch"]] == ["MatMul"]
    assert [n.op_type for n in branches["else_branch"]] == ["MatMul"]
    x = floats(2, 3)
    for condition in (True, False):
        assert_same_outputs(before, model, {"x": x, "p": np.array(condition)})


def test_an_overridable_initializer_is_not_a_constant() -> None:
    text = "m (float[2,3] x, float k) => (float[2,4] y) { c = MatMul(x, w) y = Mul(c, k) }"
    model = build(text, {"w": floats(3, 4), "k": np.float32(3)})
    assert not fold_affine(model)
    feeds = {"x": floats(2, 3), "k": np.array(1, np.float32)}
    (before,) = run(model, feeds)
    simplify(model)
    (after,) = run(model, feeds)
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_a_sequence_of_tensors_stays_one() -> None:
    text = (
        "m (float[2,3] x) => (float[2,3] y) {"
        " s = SequenceConstruct(x, x) i = Identity(s) y = SequenceAt(i, k) }"
    )
    model = build(text, {"k": np.array(1, np.int64)})
    before = ir.to_proto(model)
    simplify(model)
    assert operators(model) == ["SequenceConstruct", "SequenceAt"]
    assert_same_outputs(before, model, {"x": floats(2, 3)})


def test_a_wrong_declared_shape_is_neither_believed_nor_printed(capfd) -> None:
    # The file says [2, 9]; what comes out is [2, 4].
    proto = ir.to_proto(build("m (float[2,3] x) => (float[2,4] y) { y = MatMul(x, w) }",
                              {"w": floats(3, 4)}))  # fmt: skip
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 9
    model = ir.from_proto(proto)
    simplify(model)
    assert operators(model) == ["MatMul"]
    assert capfd.readouterr() == ("", "")


PADDED = {
    "all axes": ("Pad(x, p)", [0, 0, 1, 0, 0, 0, 2, 3], None, [2, 1, 3, 3]),
    "its own axes": ("Pad(x, p, , a)", [1, 0, 2, 3], [-2, 3], [2, 1, 3, 3]),
    "a zero": ("Pad(x, p, z)", [0, 0, 1, 0, 0, 0, 2, 3], None, [2, 1, 3, 3]),
}


@pytest.mark.parametrize("case", PADDED.values(), ids=PADDED)
def test_a_convolution_pads_itself(case: tuple) -> None:
    pad, pads, axes, expected = case
    constants = {"p": np.array(pads, np.int64), "w": floats(2, 3, 3, 3), "z": np.float32(0)}
    if axes is not None:
        constants["a"] = np.array(axes, np.int64)
    text = (
        "m (float[1,3,6,7] x) => (float[1,2,9,9] y) {"
        f" q = {pad} y = Conv<pads=[1, 1, 1, 0]>(q, w) }}"
    )
    model = build(text, constants)
    before = build(text, constants)
    assert fold_padding(model)
    (conv,) = [node for node in model.graph if node.op_type == "Conv"]
    assert list(conv.attributes["pads"].as_ints()) == expected
    assert conv.inputs[0].name == "x"
    simplify(model)
    assert operators(model) == ["Conv"]
    assert_same_outputs(before, model, {"x": floats(1, 3, 6, 7)})


@pytest.mark.parametrize(
    ("pad", "pads"),
    [
        ('Pad<mode="reflect">(x, p)', [0, 0, 1, 0, 0, 0, 2, 3]),
        ("Pad(x, p, one)", [0, 0, 1, 0, 0, 0, 2, 3]),
        ("Pad(x, p)", [0, 0, -1, 0, 0, 0, 4, 3]),
        ("Pad(x, p)", [1, 0, 1, 0, 0, 0, 2, 3]),
    ],
)
def test_other_padding_is_left_alone(pad: str, pads: list[int]) -> None:
    constants = {"p": np.array(pads, np.int64), "w": floats(2, 3, 3, 3), "one": np.float32(1)}
    model = build(
        f"m (float[N,3,6,7] x) => (float[M,2,H,W] y) {{ q = {pad} y = Conv(q, w) }}", constants
    )
    assert not fold_padding(model)


_PADS = {"p": np.array([0, 0, 1, 0, 0, 0, 1, 2], np.int64)}


@pytest.mark.parametrize(
    "nodes",
    [
        "r = Relu(x) q = Pad(r, p) y = MaxPool<kernel_shape=[2,3], strides=[2,2]>(q)",
        "q = Pad(x, p) y = AveragePool<kernel_shape=[2,3], strides=[2,2]>(q)",
        "q = Pad(x, p) y = AveragePool<kernel_shape=[2,3], pads=[0,1,0,0], count_include_pad=1>(q)",
    ],
)
def test_a_pool_pads_itself(nodes: str) -> None:
    text = f"m (float[1,3,6,7] x) => (float[1,3,H,W] y) {{ {nodes} }}"
    model, before = build(text, _PADS), build(text, _PADS)
    assert fold_pool_padding(model)
    simplify(model)
    assert "Pad" not in operators(model)
    assert_same_outputs(before, model, {"x": floats(1, 3, 6, 7)})


@pytest.mark.parametrize(
    "nodes",
    [
        "q = Pad(x, p) y = MaxPool<kernel_shape=[2,3]>(q)",  # zeros would win
        "r = Relu(x) q = Pad(r, p) y = MaxPool<kernel_shape=[2,2]>(q)",  # as wide as the kernel
        "q = Pad(x, p) y = AveragePool<kernel_shape=[2,3], pads=[0,1,0,0]>(q)",  # counts differ
        "q = Pad(x, p) y = AveragePool<kernel_shape=[2,3], ceil_mode=1, strides=[2,2]>(q)",
    ],
)
def test_a_pool_that_would_give_something_else_is_left_alone(nodes: str) -> None:
    model = build(f"m (float[1,3,6,7] x) => (float[1,3,H,W] y) {{ {nodes} }}", _PADS)
    assert not fold_pool_padding(model)


def test_times_one_is_nothing() -> None:
    model = build(
        "m (float[2,3] x) => (float[2,3] y) { a = Mul(one, x) b = Div(a, one) c = Mul(b, two)"
        " d = Mul(c, row) y = Relu(d) }",
        {"one": np.float32(1), "two": np.float32(2), "row": np.ones((1, 3), np.float32)},
    )
    assert remove_identity(model)
    assert operators(model) == ["Mul", "Mul", "Relu"]
    assert_same_outputs(model, model, {"x": floats(2, 3)})
