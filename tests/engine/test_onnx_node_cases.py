"""ONNX's own node tests: what is native gives their results, and what refuses is listed here."""

from __future__ import annotations

import functools
import re
import warnings

import numpy as np
import onnx
import pytest
from one_node import run_node
from onnx import numpy_helper

from lowprec._ext import _core
from lowprec.engine.lower import CONTENTS_NEEDED

HELD = {np.dtype(name) for name in (
    "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool", "float16", "float64",
    "uint32", "uint64",
)}  # fmt: skip

# The expected values hold the rounding noise of a transform in f32, larger than the tolerance.
NOISY = ("test_dft_inverse", "test_dft_inverse_opset19")

# The only reasons for which a native operator may hand a case to the fall-back.
REFUSALS = [
    r"no arithmetic in .*f16",
    r"Pow: no arithmetic in \w+ and \w+",  # mixed element types
    r"BatchNormalization: training",
    r"Dropout: training mode",
    r"(De)?[Qq]uantizeLinear .*(16|in blocks)",
    r"OneHot: indices that are not s32 or s64",
    r"Resize with antialias",
    r"Attention: .*(past keys|softcap|a window|more than one|not f32)",  # written out
    r"not constant|addend",  # products: see test_products.py
]


@functools.cache
def cases_by_operator():
    """Cases of one node, by operator. Collecting runs every example, about 6 s, once."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collected = collect_testcases(None)
    cases = {}
    for case in collected:
        nodes = case.model.graph.node if case.model is not None else []
        if len(nodes) == 1 and nodes[0].domain in ("", "ai.onnx"):
            cases.setdefault(nodes[0].op_type, {})[case.name] = case
    return cases


def plain(value):
    """An operand or result as an array; None where it is no tensor of an element that we hold."""
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    if isinstance(value, (list, dict)) or value is None:
        return None
    array = np.asarray(value)
    return array if array.dtype in HELD else None


def attributes_of(node):
    result = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            result[f"{attribute.name}_dtype"] = value.data_type
            value = numpy_helper.to_array(value).reshape(-1).tolist()
        elif isinstance(value, bytes):
            value = value.decode()
        elif not isinstance(value, (int, float)):
            value = list(value)
        result[attribute.name] = value
    return result


def run_case(case, inputs):
    """Run the case's node natively; return (outputs, None) or (None, why it refused)."""
    node = case.model.graph.node[0]
    by_name = dict(zip([value.name for value in case.model.graph.input], inputs, strict=True))
    operands = [by_name[name] if name else None for name in node.input]
    weighted = node.op_type in ("Conv", "ConvTranspose", "Gemm")
    try:
        made = run_node(
            node.op_type,
            operands,
            attributes_of(node),
            outputs=[bool(name) for name in node.output],
            known=CONTENTS_NEEDED.get(node.op_type, ()),
            constant=range(1, len(operands)) if weighted else (),
        )
    except _core.Unsupported as refusal:
        return None, str(refusal)
    return made, None


# No case of one node: RMSNormalization and what is lowprec's own are tested elsewhere.
WITHOUT_CASES = ("GlobalLpPool",)
INTERNAL = r"Observe|UnaryChain|Upsample|ChannelShuffle|Elementwise|[QB][A-Z]"
NATIVE = sorted(op for op in _core.native_operators() if not re.match(INTERNAL, op))


@pytest.mark.parametrize("op", NATIVE)
def test_native_operator(op):
    ran = 0
    for name, case in cases_by_operator().get(op, {}).items():
        if name in NOISY:
            continue
        for inputs, outputs in case.data_sets:
            operands, wanted = [plain(x) for x in inputs], [plain(y) for y in outputs]
            if any(array is None for array in operands + wanted):
                continue
            made, refusal = run_case(case, operands)
            if made is None:
                assert any(re.search(known, refusal) for known in REFUSALS), f"{name}: {refusal}"
                continue
            ran += 1
            for got, expected in zip(made, wanted, strict=True):
                assert got.dtype == expected.dtype, name
                assert got.shape == expected.shape, name
                np.testing.assert_allclose(
                    got, expected, rtol=case.rtol, atol=case.atol, err_msg=name
                )
    assert ran > 0 or op in WITHOUT_CASES, f"no case of {op} ran natively"
