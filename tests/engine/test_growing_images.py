"""Images that grow by concatenation share one buffer; nobody's numbers change."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_ir import Model
from small_models import build

from lowprec.engine import Session, compile_model

LAYERS, GROWTH, FIRST, SIZE = 4, 5, 6, 7


def block(*, codes: bool, other_reader: str = "") -> Model:
    """Return a block of DenseNet (arXiv:1608.06993): each layer reads all that came before it."""
    rng = np.random.default_rng(4)
    constants: dict[str, np.ndarray] = {
        "s": np.float32(0.02),
        "z": np.uint8(0),
        "e": np.float32(0.01),
    }
    text, image, channels = "x0 = MaxPool<kernel_shape=[1, 1]>(x)\n", "x0", FIRST
    for i in range(LAYERS):
        for name in ("scale", "bias", "mean", "variance"):
            values = rng.random(channels).astype(np.float32) + np.float32(0.5)
            constants[f"{name}{i}"] = values
        weights = rng.integers(-90, 90, (GROWTH, channels, 3, 3), np.int8)
        text += (
            f"n{i} = BatchNormalization({image}, scale{i}, bias{i}, mean{i}, variance{i})\n"
            f"r{i} = Relu(n{i})\n"
        )
        if codes:
            text += f"q{i} = QuantizeLinear(r{i}, s, z) d{i} = DequantizeLinear(q{i}, s, z)\n"
            text += f"w{i} = DequantizeLinear(wq{i}, e)\n"
            constants[f"wq{i}"] = weights
        else:
            constants[f"w{i}"] = weights.astype(np.float32) / 100
        source = f"d{i}" if codes else f"r{i}"
        text += f"f{i} = Conv<pads=[1, 1, 1, 1]>({source}, w{i})\n"
        text += f"x{i + 1} = Concat<axis=1>({image}, f{i})\n"
        image, channels = f"x{i + 1}", channels + GROWTH
    text += f"y = Sigmoid({image})\n" + other_reader
    outputs = f"float[N,{channels},{SIZE},{SIZE}] y"
    if other_reader:
        outputs += ", float[A,B,C,D] extra"
    return build(f"m (float[N,{FIRST},{SIZE},{SIZE}] x) => ({outputs}) {{ {text} }}", constants)


def steps_of(session: Session) -> list[str]:
    return [step.op for step in session.explain().steps]


@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize(
    "other_reader",
    ["", "extra = MaxPool<kernel_shape=[2, 2]>(x2)", "extra = Concat<axis=1>(x2, x1)",
     "extra = Concat<axis=1>(x1, x3)", "extra = Identity(x2)"],
)  # fmt: skip
def test_a_dense_block_keeps_its_numbers(codes, images, other_reader):
    model = block(codes=codes, other_reader=other_reader)
    whole = compile_model(model)
    # Products of codes are defined as integers where they are fused: observed images keep the
    # graph's concatenations apart, everything else stays.
    watched = {f"x{i}": _Watch() for i in range(1, LAYERS + 1)}
    apart = compile_model(model, observers={k: w.observer for k, w in watched.items()})
    rng = np.random.default_rng(images)
    for _ in range(2):
        x = rng.standard_normal((images, FIRST, SIZE, SIZE)).astype(np.float32)
        made = whole.run({"x": x})
        for a, b in zip(made, apart.run({"x": x}), strict=True):
            np.testing.assert_array_equal(a, b)
        repeated = whole.run({"x": x})
        for a, b in zip(made, repeated, strict=True):
            np.testing.assert_array_equal(a, b)
    assert "Elementwise" in steps_of(whole)


class _Watch:
    def __init__(self) -> None:
        from lowprec._ext import _core

        self.observer = _core.TensorObserver()


def test_the_buffer_is_shared():
    model = block(codes=True)
    session = compile_model(model)
    x = np.zeros((1, FIRST, SIZE, SIZE), np.float32)
    session.run({"x": x})
    watched = {f"x{i}": _Watch().observer for i in range(1, LAYERS + 1)}
    apart = compile_model(model, observers=watched)
    apart.run({"x": x})
    assert session.explain().arena_bytes < apart.explain().arena_bytes
