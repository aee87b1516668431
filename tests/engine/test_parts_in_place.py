"""Codes that are put side by side are written where they belong; nobody's numbers change."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from qdq_models import Builder

import lowprec
from lowprec import graph
from lowprec._ext import _core
from lowprec.engine import Session, compile_model


def apart(proto: onnx.ModelProto) -> Session:
    """Return a session whose concatenations are steps in float: what they read is observed."""
    hub = graph.load(proto)
    names = [
        str(value.name)
        for node in hub.graph
        if node.op_type == "Concat"
        for value in (*node.inputs, *node.outputs)
        if value is not None
    ]
    return compile_model(hub, observers={name: _core.TensorObserver() for name in names})


def same_bits(proto: onnx.ModelProto, x: np.ndarray) -> Session:
    whole, plain = compile_model(graph.load(proto)), apart(proto)
    before = lowprec.get_num_threads()
    try:
        for threads in (1, 2):
            lowprec.set_num_threads(threads)
            (expected,) = plain.run({"x": x})
            for _ in range(2):
                assert whole.run({"x": x})[0].tobytes() == expected.tobytes()
    finally:
        lowprec.set_num_threads(before)
    return whole


def in_place(session: Session) -> int:
    return sum("in place" in step.kernel for step in session.explain().steps)


def up_and_beside(
    b: Builder, up: int, skip: int, kernel: int, *, own_scale: bool
) -> onnx.ModelProto:
    """x ──► Conv ──► MaxPool ──► ConvTranspose ──► beside the Conv's result ──► 3x3 Conv."""
    x = b.quantized("x", 0.02, 128)
    first = b.node("Relu", b.node("Conv", x, b.weights((skip, 3, 3, 3), 0), pads=[1] * 4))
    left = b.quantized(first, 0.013 if own_scale else 0.03, 0 if own_scale else 40)
    small = b.node("MaxPool", left, kernel_shape=[2, 2], strides=[2, 2])
    weights = b.weights((skip, up, kernel, kernel), 1)
    large = b.node(
        "ConvTranspose", small, weights, strides=[2, 2],
        pads=[(kernel - 2) // 2] * 2 + [(kernel - 1) // 2] * 2,
    )  # fmt: skip
    both = b.node("Concat", left, b.quantized(large, 0.03, 40), axis=1)
    both = b.quantized(both, 0.03, 40)
    y = b.node("Conv", both, b.weights((5, skip + up, 3, 3), 0), pads=[1] * 4)
    return b.model(y, ("n", 3, "h", "w"))


@pytest.mark.parametrize("up", [5, 32, 40])
@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("own_scale", [False, True])
@pytest.mark.parametrize("images", [1, 2])
def test_a_u_net_keeps_its_numbers(up, kernel, own_scale, images):
    proto = up_and_beside(Builder(np.random.default_rng(up)), up, 12, kernel, own_scale=own_scale)
    rng = np.random.default_rng(kernel)
    for size in ((8, 12), (2, 6)):
        x = rng.standard_normal((images, 3, *size)).astype("f")
        assert in_place(same_bits(proto, x)) == 1


def branches(b: Builder, *, readers: str) -> onnx.ModelProto:
    """Two convolutions side by side, one of them with few channels, a third operand twice."""
    x = b.quantized("x", 0.02, 128)
    parts = [
        b.quantized(b.node("Conv", x, b.weights((n, 3, k, k), 0), pads=[k // 2] * 4), 0.03, 90)
        for n, k in ((4, 1), (70, 3))
    ]
    operands = [*parts, parts[0]] if readers == "twice" else parts
    both = b.quantized(b.node("Concat", *operands, axis=1), 0.03, 90)
    channels = 78 if readers == "twice" else 74
    y = b.node("Conv", both, b.weights((6, channels, 3, 3), 0), pads=[2, 1, 0, 1])
    if readers == "another":
        y = b.node("Add", y, b.node("Conv", parts[1], b.weights((6, 70, 3, 3), 0), pads=[1] * 4))
    if readers == "nobody else, grouped":
        y = b.node("Conv", both, b.weights((74, 1, 3, 3), 0), pads=[1] * 4, group=74)
    return b.model(y, ("n", 3, "h", "w"))


@pytest.mark.parametrize("readers", ["one", "twice", "another", "nobody else, grouped"])
@pytest.mark.parametrize("isa", _core.available_isas())
def test_branches_keep_their_numbers(readers, isa, monkeypatch):
    monkeypatch.setenv("LOWPREC_ISA", isa)
    proto = branches(Builder(np.random.default_rng(7)), readers=readers)
    x = np.random.default_rng(3).standard_normal((2, 3, 7, 21)).astype("f")
    assert in_place(same_bits(proto, x)) == 1
