"""load() yields the hub's form of a model and leaves its source alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import make_model, run_reference, value
from refusals import refused

from lowprec.errors import LowprecError, ModelError, UnsupportedError
from lowprec.graph import load, to_proto

X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def test_same_results_from_path_proto_and_ir(linear, linear_path):
    (expected,) = run_reference(linear, {"x": X})
    for source in (linear_path, str(linear_path), linear, ir.from_proto(linear)):
        (result,) = run_reference(to_proto(load(source)), {"x": X})
        np.testing.assert_array_equal(result, expected)


def test_the_source_is_not_changed(linear):
    before = linear.SerializeToString(deterministic=True)
    model = load(linear)
    for graph in model.graphs():
        for number, held in enumerate(tuple(graph.initializers.values())):
            held.name = f"renamed_{number}"
    to_proto(model)
    assert linear.SerializeToString(deterministic=True) == before


def test_an_ir_model_is_not_changed(linear):
    source = ir.from_proto(linear)
    before = ir.to_proto(source).SerializeToString(deterministic=True)
    load(source)
    assert ir.to_proto(source).SerializeToString(deterministic=True) == before


def test_metadata_is_kept_through_upgrade_too(linear):
    linear.opset_import[0].version = 13
    assert load(linear).metadata_props == {"character": "a\nb\nc"}


def test_constants_become_initializers(linear):
    model = load(linear)
    assert [node.op_type for node in model.graph] == ["MatMul", "Add", "Relu"]
    assert set(model.graph.initializers) == {"w", "b"}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"value_float": 2.5}, np.float32(2.5)),
        ({"value_floats": [1.0, 2.0]}, np.array([1, 2], np.float32)),
        ({"value_int": 3}, np.int64(3)),
        ({"value_ints": [1, 2]}, np.array([1, 2], np.int64)),
        ({"value_string": "a"}, np.array(b"a", object)),
        ({"value_strings": ["a", "b"]}, np.array([b"a", b"b"], object)),
        (
            {
                "sparse_value": helper.make_sparse_tensor(
                    numpy_helper.from_array(np.array([7.0], np.float32), "s"),
                    numpy_helper.from_array(np.array([[1, 2]], np.int64), "s_indices"),
                    [2, 3],
                )
            },
            np.array([[0, 0, 0], [0, 0, 7]], np.float32),
        ),
    ],
)
def test_every_form_of_constant_is_lifted(attributes, expected):
    node = helper.make_node("Constant", [], ["c"], **attributes)
    user = helper.make_node("Identity", ["c"], ["y"])
    model = load(make_model([node, user], [], [value("y", None)]))
    tensor = model.graph.initializers["c"].const_value
    assert [node.op_type for node in model.graph] == ["Identity"]
    np.testing.assert_array_equal(tensor.numpy(), expected)
    assert tensor.numpy().shape == np.shape(expected)


def test_a_constant_that_is_an_output_stays_a_node():
    node = helper.make_node("Constant", [], ["y"], value_float=1.0)
    model = load(make_model([node], [], [value("y", [])]))
    assert [node.op_type for node in model.graph] == ["Constant"]
    np.testing.assert_array_equal(run_reference(to_proto(model), {})[0], np.float32(1))


def branch(name: str, number: float) -> onnx.GraphProto:
    nodes = [
        helper.make_node("Constant", [], ["c"], "constant", value_float=number),
        helper.make_node("Squeeze", ["x"], ["flat"], "squeeze", axes=[0]),
        helper.make_node("Mul", ["flat", "c"], ["out"], "mul"),
    ]
    return helper.make_graph(nodes, name, [], [value("out", [4])])


def if_model(opset: int) -> onnx.ModelProto:
    node = helper.make_node(
        "If", ["flag"], ["y"], then_branch=branch("then", 2.0), else_branch=branch("else", 3.0)
    )
    inputs = [value("x", [1, 4]), value("flag", [], TensorProto.BOOL)]
    return make_model([node], inputs, [value("y", [4])], opset=opset, ir_version=7)


def test_subgraphs_are_lifted_upgraded_and_named():
    model = load(if_model(11))
    assert model.graph.opset_imports[""] == 21
    names = [node.name for graph in model.graphs() for node in graph]
    values = [out.name for graph in model.graphs() for node in graph for out in node.outputs]
    assert len(set(names)) == len(names)
    assert all(names)
    assert len(set(values)) == len(values)
    assert all(values)
    assert "Constant" not in {node.op_type for graph in model.graphs() for node in graph}
    for flag, factor in ((True, 2), (False, 3)):
        feeds = {"x": X[:1], "flag": np.array(flag)}
        np.testing.assert_array_equal(run_reference(to_proto(model), feeds)[0], X[0] * factor)


def test_old_opsets_are_upgraded_with_weights_unharmed():
    weight = np.random.default_rng(2).normal(size=(64, 64)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Unsqueeze", ["p"], ["u"], axes=[0]),
        helper.make_node("ReduceMean", ["u"], ["y"], axes=[2], keepdims=0),
    ]
    initializer = numpy_helper.from_array(weight, "w")
    inputs = [value("x", ["N", 64]), value("w", [64, 64])]
    model = make_model(nodes, inputs, [value("y", None)], [initializer], opset=9, ir_version=3)
    hub = load(model)
    assert hub.graph.opset_imports[""] == 21
    assert [item.name for item in hub.graph.inputs] == ["x"]
    np.testing.assert_array_equal(hub.graph.initializers["w"].const_value.numpy(), weight)
    x = np.random.default_rng(3).normal(size=(3, 64)).astype(np.float32)
    np.testing.assert_allclose(
        run_reference(to_proto(hub), {"x": x})[0], (x @ weight).mean(1)[None], atol=1e-5
    )


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 25, reason="this onnx ends before opset 25")
def test_newer_opsets_are_kept_until_saved(linear):
    linear.opset_import[0].version = 25
    model = load(linear)
    assert model.graph.opset_imports[""] == 25
    assert to_proto(model).opset_import[0].version == 23  # MatMul, Add, Relu: the same since 14


def test_declared_shapes_are_not_believed(linear):
    linear.graph.value_info.append(value("product", [17, 99]))
    linear.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "?"
    model = load(linear)
    assert model.graph.inputs[0].shape[0].value is None
    assert all(node.outputs[0].shape is None for node in model.graph if node.op_type != "Relu")
    assert not [info for info in to_proto(model).graph.value_info if info.name == "product"]


@pytest.mark.parametrize("dim", [-1, 0, "", "?", "-1", None])
def test_dimensions_that_say_nothing_are_unknown(linear, dim):
    linear.graph.input[0].CopyFrom(value("x", [dim, 4]))
    shape = load(linear).graph.inputs[0].shape
    assert shape[0].value is None
    assert shape[1] == 4


def test_names_are_unique_and_stable():
    nodes = [
        helper.make_node("Relu", ["x"], ["Relu_0"]),
        helper.make_node("Relu", ["Relu_0"], ["b"], "same"),
        helper.make_node("Relu", ["b"], ["c"], "same"),
        helper.make_node("Relu", ["c"], ["y"], "Relu_0"),
    ]
    model = make_model(nodes, [value("x", [2])], [value("y", [2])])
    first, second = ([node.name for node in load(model).graph] for _ in range(2))
    assert first == second == ["Relu_1", "same", "same_0", "Relu_0"]


def test_omitted_optional_outputs_stay_omitted():
    rng = np.random.default_rng(0)
    w, r = (
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("w", (1, 8, 3)), ("r", (1, 8, 2)))
    )
    node = helper.make_node("LSTM", ["x", "w", "r"], ["", "h"], hidden_size=2)
    model = load(make_model([node], [value("x", [1, 1, 3])], [value("h", None)], [w, r]))
    assert [out.name for out in next(iter(model.graph)).outputs] == ["", "h"]


def test_local_functions_are_inlined():
    function = helper.make_function(
        "custom", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 21)],
    )  # fmt: skip
    node = helper.make_node("Twice", ["x"], ["y"], "call", domain="custom")
    model = make_model([node], [value("x", [2])], [value("y", [2])], domains=[("custom", 1)])
    model.functions.append(function)
    hub = load(model)
    assert [node.op_type for node in hub.graph] == ["Add"]
    assert not hub.functions
    x = np.ones(2, np.float32)
    np.testing.assert_array_equal(run_reference(to_proto(hub), {"x": x})[0], x + x)


def test_nodes_out_of_order_are_sorted():
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Neg", ["x"], ["a"])]
    model = load(make_model(nodes, [value("x", [2])], [value("y", [2])]))
    assert [node.op_type for node in model.graph] == ["Neg", "Relu"]


# ---- refusals: one line each ----


def refuses(source: object, error: type[LowprecError], *words: str) -> None:
    with refused(error, *words):
        load(source)


def test_unknown_domain_names_operator_and_node():
    node = helper.make_node("NhwcConv", ["x"], ["y"], "conv7", domain="com.microsoft")
    model = make_model([node], [value("x", [2])], [value("y", [2])], domains=[("com.microsoft", 1)])
    refuses(model, UnsupportedError, "NhwcConv", "conv7", "com.microsoft")


def test_unknown_operator_is_named():
    node = helper.make_node("Reluu", ["x"], ["y"], "act")
    refuses(make_model([node], [value("x", [2])], [value("y", [2])]), ModelError, "Reluu", "act")


def test_unknown_attribute_is_refused_before_the_converter_sees_it():
    node = helper.make_node("Relu", ["x"], ["y"], "act", colour=3)
    model = make_model([node], [value("x", [2])], [value("y", [2])], opset=9)
    refuses(model, ModelError, "act", "colour")


def test_cycles_are_refused():
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    refuses(make_model(nodes, [value("x", [2])], [value("b", [2])]), ModelError, "cycle")


def test_undefined_inputs_and_outputs_are_refused(capfd):
    node = helper.make_node("Relu", ["ghost"], ["y"], "act")
    refuses(make_model([node], [], [value("y", [2])]), ModelError, "act", "ghost")
    node = helper.make_node("Relu", ["x"], ["y"], "act")
    refuses(make_model([node], [value("x", [2])], [value("ghost", [2])]), ModelError, "ghost")
    assert capfd.readouterr().err == ""


def test_values_defined_twice_are_refused():
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])]
    refuses(make_model(nodes, [value("x", [2])], [value("y", [2])]), ModelError, "'y'", "twice")


def test_a_graph_without_outputs_is_refused():
    node = helper.make_node("Relu", ["x"], ["y"])
    refuses(make_model([node], [value("x", [2])], []), ModelError, "no outputs")


def test_opsets_newer_than_onnx_are_refused(linear):
    linear.opset_import[0].version = 999
    refuses(linear, ModelError, "999", "upgrade onnx")


def test_a_failed_upgrade_names_the_operator():
    """The converter only says "spatial must have value 1"; which of many nodes is found by "
    "halving."""
    parameters = ["scale", "bias", "mean", "variance"]
    nodes = [
        helper.make_node("Relu", ["x" if i == 0 else f"v{i - 1}"], [f"v{i}"]) for i in range(5)
    ]
    nodes.append(
        helper.make_node("BatchNormalization", ["v4", *parameters], ["n"], "norm7", spatial=0)
    )
    nodes.append(helper.make_node("Relu", ["n"], ["y"]))
    inputs = [value("x", [1, 4]), *(value(name, [4]) for name in parameters)]
    model = make_model(nodes, inputs, [value("y", None)], opset=8)
    refuses(model, ModelError, "BatchNormalization", "norm7", "opset 8", "spatial")


@pytest.mark.parametrize("known_rank", [True, False])
@pytest.mark.parametrize(("axis", "plain"), [(2, True), (1, False)])
def test_softmax_on_the_last_axis_stays_plain(known_rank, axis, plain):
    """Until opset 13 softmax flattened at its axis; on the last one that changes nothing."""
    nodes = [
        helper.make_node("Concat", ["n", "n", "n"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("Softmax", ["x" if known_rank else "r"], ["y"], "act", axis=axis),
    ]
    inputs = [value("x", [2, 2, 2]), value("n", [1], TensorProto.INT64)]
    model = make_model(nodes, inputs, [value("y", None)], opset=12, ir_version=7)
    hub = load(model)
    assert ("Flatten" in {node.op_type for node in hub.graph}) is not plain
    x = np.random.default_rng(0).normal(size=(2, 2, 2)).astype(np.float32)
    flat = np.exp(x).reshape(4, 2) if axis == 2 else np.exp(x).reshape(2, 4)
    expected = (flat / flat.sum(1, keepdims=True)).reshape(2, 2, 2)
    (result,) = run_reference(to_proto(hub), {"x": x, "n": np.array([2])})
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_upgraded_nodes_keep_their_names():
    node = helper.make_node("Upsample", ["x"], ["y"], "up", height_scale=2.0, width_scale=2.0)
    model = make_model([node], [value("x", [1, 1, 2, 2])], [value("y", None)], opset=1)
    assert [(node.op_type, node.name) for node in load(model).graph] == [("Resize", "up")]


def test_other_objects_are_refused():
    refuses(3, ModelError, "int", "accepted")


@pytest.mark.parametrize("dims", [[1 << 40], [-4], [2, 1 << 62, 1 << 62]])
def test_declared_sizes_reserve_no_memory(linear, dims):
    del linear.graph.initializer[0].dims[:]
    linear.graph.initializer[0].dims.extend(dims)
    refuses(linear, ModelError, "'w'")


def test_sparse_tensors_reserve_no_memory():
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([7.0], np.float32), "s"),
        numpy_helper.from_array(np.array([1], np.int64), "s_indices"),
        [1 << 20, 1 << 20],
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], sparse_value=sparse),
        helper.make_node("Identity", ["c"], ["y"]),
    ]
    refuses(make_model(nodes, [], [value("y", None)]), ModelError, "'s'", "too large")


def test_unknown_tensor_types_are_refused(linear):
    linear.graph.initializer[0].data_type = 77
    refuses(linear, ModelError, "'w'", "77")
