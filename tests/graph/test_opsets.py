"""A newer opset is declared as 23 exactly where no operator needs the newer definition."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_models import make_model, run_reference, value

from lowprec.graph import load, to_proto

pytestmark = pytest.mark.skipif(
    onnx.defs.onnx_opset_version() < 27, reason="the installed onnx does not know opset 27"
)
FLOAT, BF16, INT64 = TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.INT64


def saved_opset(node: onnx.NodeProto, *types: int, opset: int = 27) -> int:
    inputs = [value(name, [2, 2], dtype) for name, dtype in zip(node.input, types, strict=False)]
    outputs = [value(name, None, types[-1]) for name in node.output]
    model = make_model([node], inputs, outputs, opset=opset)
    return to_proto(load(model)).opset_import[0].version


@pytest.mark.parametrize(
    ("node", "types", "opset"),
    [
        (helper.make_node("Relu", ["x"], ["y"]), (FLOAT, FLOAT), 23),
        # Newer definitions that only allow more types:
        (helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0]), (FLOAT, FLOAT), 23),
        (helper.make_node("Cast", ["x"], ["y"], to=INT64), (FLOAT, INT64), 23),
        (helper.make_node("Range", ["a", "b", "c"], ["y"]), (FLOAT, FLOAT, FLOAT, FLOAT), 23),
        # New type, new attribute, new operator:
        (helper.make_node("Range", ["a", "b", "c"], ["y"]), (BF16, BF16, BF16, BF16), 27),
        (helper.make_node("Cast", ["x"], ["y"], to=INT64, round_mode="down"), (FLOAT, INT64), 27),
        (helper.make_node("Swish", ["x"], ["y"]), (FLOAT, FLOAT), 27),
    ],
)
def test_the_oldest_opset_that_says_the_same(node, types, opset):
    assert saved_opset(node, *types) == opset


def test_new_inputs_keep_the_new_opset():
    names = ["q", "k", "v"]
    inputs = [value(name, [1, 2, 3, 4]) for name in names]
    lengths = value("lengths", [1], INT64)
    plain = helper.make_node("Attention", names, ["y"])
    padded = helper.make_node("Attention", [*names, "", "", "", "lengths"], ["y"])
    for node, given, opset in ((plain, inputs, 23), (padded, [*inputs, lengths], 25)):
        model = make_model([node], given, [value("y", None)], opset=25)
        assert to_proto(load(model)).opset_import[0].version == opset


def test_subgraphs_count_too():
    def branch(name: str, operator: str) -> onnx.GraphProto:
        node = helper.make_node(operator, ["x"], [name])
        return helper.make_graph([node], name, [], [value(name, [2])])

    for operator, opset in (("Relu", 23), ("Swish", 27)):
        node = helper.make_node(
            "If", ["c"], ["y"], then_branch=branch("t", operator), else_branch=branch("e", "Neg")
        )
        inputs = [value("x", [2]), value("c", [], TensorProto.BOOL)]
        model = make_model([node], inputs, [value("y", [2])], opset=27)
        saved = to_proto(load(model))
        assert saved.opset_import[0].version == opset
        feeds = {"x": np.array([-1, 2], np.float32), "c": np.array(False)}
        assert run_reference(saved, feeds)[0].tolist() == [1, -2]
