"""Operators without a kernel become the operators that ONNX defines them by."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from lowprec import graph, passes

KERNELS = {
    *("Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Max", "Sigmoid", "Elu", "Softmax", "MatMul"),
    *("Cast", "CastLike", "Where", "Less", "Greater", "Not", "ReduceSum", "Identity", "Shape"),
    *("Gather", "GatherElements", "Reshape", "Transpose", "Concat", "Slice", "Expand", "Squeeze"),
    *("Unsqueeze", "ConstantOfShape"),
}


def hub_of(nodes, inputs, outputs, opset=25):
    made = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, d, s) for n, d, s in inputs],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
    )
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)])
    hub = graph.load(proto)
    passes.simplify(hub)
    return proto, hub


def operators(hub):
    return {node.op_type for node in hub.graph}


def assert_same_results(proto, hub, feeds):
    wanted = ReferenceEvaluator(proto).run(None, feeds)
    got = ReferenceEvaluator(ir.to_proto(hub)).run(None, feeds)
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_body_takes_the_place_of_the_node_and_keeps_the_names():
    nodes = [
        helper.make_node("Swish", ["x"], ["y"], name="first"),
        helper.make_node("Swish", ["y"], ["z"], name="second", alpha=0.5),
    ]
    proto, hub = hub_of(nodes, [("x", TensorProto.FLOAT, [2, 3])], ["y", "z"])
    assert passes.expand_functions(hub, KERNELS)
    assert operators(hub) <= KERNELS
    assert [value.name for value in hub.graph.outputs] == ["y", "z"]
    assert set(hub.opset_imports) == {""}
    assert not hub.functions
    onnx.checker.check_model(ir.to_proto(hub), full_check=True)
    x = np.linspace(-3, 3, 6, dtype=np.float32).reshape(2, 3)
    assert_same_results(proto, hub, {"x": x})
    assert not passes.expand_functions(hub, KERNELS)


def test_defaults_that_a_node_leaves_out_reach_the_body():
    nodes = [helper.make_node("ThresholdedRelu", ["x"], ["y"], name="it")]
    proto, hub = hub_of(nodes, [("x", TensorProto.FLOAT, [5])], ["y"], opset=22)
    assert passes.expand_functions(hub, KERNELS)
    assert operators(hub) <= KERNELS
    assert_same_results(proto, hub, {"x": np.array([-1, 0.5, 1, 1.5, 7], np.float32)})


def test_a_kernel_of_its_own_is_preferred_unless_the_node_is_chosen():
    nodes = [helper.make_node("Swish", ["x"], ["y"], name="it")]
    _, hub = hub_of(nodes, [("x", TensorProto.FLOAT, [2])], ["y"])
    assert not passes.expand_functions(hub, KERNELS | {"Swish"})
    assert operators(hub) == {"Swish"}
    assert passes.expand_functions(hub, KERNELS | {"Swish"}, ["it"])
    assert "Swish" not in operators(hub)


def test_a_body_without_kernels_is_left_alone():
    nodes = [helper.make_node("Swish", ["x"], ["y"], name="it")]
    _, hub = hub_of(nodes, [("x", TensorProto.FLOAT, [2])], ["y"])
    assert not passes.expand_functions(hub, KERNELS - {"Sigmoid"})
    assert operators(hub) == {"Swish"}


def test_a_body_that_depends_on_types_follows_absent_inputs_and_outputs():
    """Cross entropy with weights left out, and with the second output left out or asked for."""
    logits, labels = np.random.default_rng(0).random((3, 5), np.float32), np.array([0, 4, 2])
    for outputs in (["loss"], ["loss", "log_prob"]):
        nodes = [helper.make_node("SoftmaxCrossEntropyLoss", ["x", "t"], outputs, name="it")]
        inputs = [("x", TensorProto.FLOAT, [3, 5]), ("t", TensorProto.INT64, [3])]
        proto, hub = hub_of(nodes, inputs, outputs, opset=21)
        every = KERNELS | {"LogSoftmax", "ReduceMean", "Constant"}
        assert passes.expand_functions(hub, every)
        assert operators(hub) <= every
        assert_same_results(proto, hub, {"x": logits, "t": labels})


@pytest.mark.parametrize("op_type", ["Attention", "NoSuchOperator"])
def test_unknown_types_or_operators_are_no_reason_to_fail(op_type):
    nodes = [helper.make_node("Attention", ["q", "k", "v"], ["y"], name="it")]
    inputs = [(name, TensorProto.FLOAT, None) for name in "qkv"]
    _, hub = hub_of(nodes, inputs, ["y"])
    next(iter(hub.graph)).op_type = op_type
    passes.expand_functions(hub, KERNELS)
