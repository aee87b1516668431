"""Images keep their numbers on the way between layouts, with and without a border."""

from __future__ import annotations

import numpy as np
import pytest
from engine_programs import ISAS, run_operator
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir import Model
from small_models import build

from lowprec.engine import compile_model
from lowprec.numerics import reference

CHANNELS = [1, 2, 3, 4, 5, 7, 8, 16, 18, 33, 34, 70]
SCALE, ZERO_POINT, WEIGHT_SCALE = np.float32(0.03), np.uint8(117), np.float32(0.01)
WIDTHS = [1, 3, 4, 5, 15, 16, 17, 33, 224]


@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(
        st.integers(1, 2), st.sampled_from(CHANNELS), st.integers(1, 3), st.sampled_from(WIDTHS)
    ),
    dtype=st.sampled_from([np.uint8, np.int8, np.float32]),
    seed=st.integers(0, 2**32 - 1),
)
def test_there_and_back(shape, dtype, seed):
    # A pool of one pixel changes nothing; it works on channels-last images.
    x = np.random.default_rng(seed).integers(-100, 100, shape).astype(dtype)
    result, rows = run_operator("MaxPool", x, [], {"kernel_shape": [1, 1]}, ISAS[0])
    np.testing.assert_array_equal(result, x)
    if shape[1] > 1 and shape[2] * shape[3] > 1:
        assert "to channels-last" in [row["kernel"] for row in rows]


def picture_network(channels: int, size: int) -> Model:
    return build(
        f"""m (float[N,{channels},{size},{size + 3}] x) => (float[N,5,H,W] y) {{
          q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
          w = DequantizeLinear(wq, ws)
          y = Conv<pads=[1, 2, 0, 1], strides=[2, 1]>(d, w)
        }}""",
        {
            "s": SCALE,
            "z": ZERO_POINT,
            "ws": WEIGHT_SCALE,
            "wq": np.random.default_rng(1).integers(-127, 128, (5, channels, 3, 3), np.int8),
        },
    )


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("images", [1, 3])
def test_pictures_are_quantised_into_the_border_of_the_first_layer(channels, images):
    model = picture_network(channels, 21)
    x = np.random.default_rng(2).standard_normal((images, channels, 21, 24)).astype(np.float32)
    session = compile_model(model)
    result = session.run({"x": x})[0]
    codes = reference.quantize_linear(x, SCALE, ZERO_POINT)
    acc = reference.conv_integer(
        codes,
        model.graph.initializers["wq"].const_value.numpy(),
        ZERO_POINT,
        np.int8(0),
        pads=[1, 2, 0, 1],
        strides=[2, 1],
        dilations=[1, 1],
    )
    both = SCALE * np.full(5, WEIGHT_SCALE)
    np.testing.assert_array_equal(result, reference.dequantize_accumulator(acc, both, axis=1))
    assert [step.op for step in session.explain().steps][:2] == ["QuantizeLinear", "QConv"]


def shuffled(x: np.ndarray, groups: int) -> np.ndarray:
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h, w).swapaxes(1, 2).reshape(x.shape)


@pytest.mark.parametrize(
    ("groups", "channels"), [(1, 4), (2, 6), (3, 12), (4, 136), (4, 68), (5, 10)]
)
@pytest.mark.parametrize("precision", ["codes", "floats"])
def test_channel_shuffle(groups, channels, precision):
    sizes = {"p": [-1, groups, channels // groups, 5, 6], "j": [-1, channels, 5, 6]}
    constants = {name: np.array(size, np.int64) for name, size in sizes.items()}
    rng = np.random.default_rng(3)
    constants["w"] = rng.standard_normal((channels, 2, 1, 1)).astype(np.float32)
    constants["v"] = rng.standard_normal((channels, 1, 3, 3)).astype(np.float32)
    body = """a = Conv(x, w)
        r = Reshape(a, p) t = Transpose<perm=[0, 2, 1, 3, 4]>(r) s = Reshape(t, j)
        y = Conv<group=%d, pads=[1, 1, 1, 1]>(s, v)"""
    if precision == "codes":
        body = body.replace("y = Conv<group=%d, pads=[1, 1, 1, 1]>(s, v)", "y = Cast<to=1>(s)")
        body = body.replace("Reshape(a, p)", "Reshape(q, p)").replace(
            "a = Conv(x, w)", "a = Conv(x, w) q = QuantizeLinear(a, k, z)"
        )
        constants |= {"k": np.float32(0.02), "z": np.uint8(100)}
        del constants["v"]
    else:
        body %= channels
    model = build(f"m (float[2,2,5,6] x) => (float[2,{channels},5,6] y) {{ {body} }}", constants)
    x = rng.standard_normal((2, 2, 5, 6)).astype(np.float32)
    fused, plain = compile_model(model), compile_model(model, fused=False)
    result = fused.run({"x": x})[0]
    np.testing.assert_array_equal(result, plain.run({"x": x})[0])
    assert "ChannelShuffle" in [step.op for step in fused.explain().steps]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_planes_are_shuffled(isa, dtype):
    x = np.arange(2 * 6 * 20).reshape(2, 6, 4, 5).astype(dtype)
    attributes = {"groups": 3, "sizes": [6, 4, 5]}
    result, _ = run_operator("ChannelShuffle", x, [], attributes, isa)
    np.testing.assert_array_equal(result, shuffled(x, 3))


@pytest.mark.parametrize(
    ("perm", "parts", "whole"),
    [
        ([0, 2, 1, 4, 3], [2, 2, 3, 5, 5], [2, 6, 5, 5]),
        ([0, 2, 1, 3, 4], [2, 2, 3, 5, 5], [2, 3, 10, 5]),
        ([0, 2, 1, 3, 4], [1, 4, 3, 5, 5], [2, 6, 5, 5]),
    ],
)
def test_what_only_looks_like_a_shuffle_is_left_alone(perm, parts, whole):
    out = ",".join(map(str, whole))
    model = build(
        f"""m (float[2,6,5,5] x) => (float[{out}] y) {{
          r = Reshape(x, p) t = Transpose<perm={perm}>(r) y = Reshape(t, j) }}""",
        {"p": np.array(parts, np.int64), "j": np.array(whole, np.int64)},
    )
    x = np.arange(300, dtype=np.float32).reshape(2, 6, 5, 5)
    session = compile_model(model)
    expected = x.reshape(parts).transpose(perm).reshape(whole)
    np.testing.assert_array_equal(session.run({"x": x})[0], expected)
    assert "ChannelShuffle" not in [step.op for step in session.explain().steps]
