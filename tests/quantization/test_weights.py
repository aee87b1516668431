"""Weights and biases become integers that the accumulator can add up exactly."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import build

from lowprec.config import Config
from lowprec.errors import QuantizationError
from lowprec.passes.layers import Layer, find_layer
from lowprec.quantization.weights import quantize_weights

rng = np.random.default_rng(3)
SCALE = np.float32(0.02)


def conv(weights: np.ndarray, bias: np.ndarray) -> Layer:
    m, c, *k = weights.shape
    size = ",".join(str(n + 3) for n in k)
    out = ",".join(["4"] * len(k))
    model = build(
        f"m (float[1,{c},{size}] x) => (float[1,{m},{out}] y) {{ y = Conv(x, w, b) }}",
        {"w": weights, "b": bias},
    )
    layer = find_layer(model.graph[0])
    assert isinstance(layer, Layer)
    return layer


def test_each_channel_uses_its_whole_code_range() -> None:
    weights = rng.standard_normal((5, 3, 3, 3)).astype(np.float32) * 10.0 ** np.arange(
        -2, 3
    ).reshape(5, 1, 1, 1).astype(np.float32)
    q = quantize_weights(conv(weights, np.zeros(5, np.float32)), SCALE, Config(), has_bias=True)
    assert (np.abs(q.codes).max(axis=(1, 2, 3)) == 127).all()
    real = q.codes * q.scale.reshape(5, 1, 1, 1)
    assert (np.abs(real - weights) <= q.scale.reshape(5, 1, 1, 1) * 0.5000001).all()
    assert q.sqnr is not None
    assert q.sqnr > 35


@given(
    st.floats(2.0**-100, 2.0**10, width=32),
    st.floats(-(2.0**20), 2.0**20, width=32),
    st.floats(2.0**-20, 2.0**10, width=32),
)
def test_bias_and_sum_fit_32_bits_together(size: float, bias: float, scale: float) -> None:
    weights = np.full((2, 4, 3, 3), size, np.float32)
    layer = conv(weights, np.array([bias, -bias], np.float32))
    q = quantize_weights(layer, np.float32(scale), Config(), has_bias=True)
    assert q.bias_codes is not None
    assert q.bias_scale is not None
    products = 255 * np.abs(q.codes.astype(np.int64)).sum(axis=(1, 2, 3))
    assert (np.abs(q.bias_codes.astype(np.int64)) + products < 2**31).all()
    restored = q.bias_codes * q.bias_scale.astype(np.float64)
    assert (np.abs(restored - [bias, -bias]) <= q.bias_scale * 0.51 + abs(bias) * 2e-7).all()
    assert (q.bias_scale >= 2.0**-126).all()


def test_a_dead_channel_keeps_its_bias() -> None:
    weights = rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    weights[1] = 0
    weights[2] = 1e-25
    bias = np.array([0.1, 0.2, 0.3], np.float32)
    q = quantize_weights(conv(weights, bias), SCALE, Config(), has_bias=True)
    assert q.raised_channels == 1
    assert q.bias_codes is not None
    np.testing.assert_allclose((q.bias_codes * q.bias_scale)[1:], bias[1:], rtol=1e-5)
    assert not q.codes[1:].any()


def test_all_zero_weights_without_bias_have_scale_1() -> None:
    layer = conv(np.zeros((3, 2, 3, 3), np.float32), np.zeros(3, np.float32))
    q = quantize_weights(layer, SCALE, Config(), has_bias=True)
    np.testing.assert_array_equal(q.scale, np.ones(3, np.float32))
    assert q.sqnr is None


def test_grouped_transposed_convolution_shares_scales_between_groups() -> None:
    weights = rng.standard_normal((4, 3, 2, 2)).astype(np.float32)
    bias = rng.standard_normal(6).astype(np.float32)
    model = build(
        "m (float[1,4,5,5] x) => (float[1,6,6,6] y) { y = ConvTranspose<group=2>(x, w, b) }",
        {"w": weights, "b": bias},
    )
    layer = find_layer(model.graph[0])
    assert isinstance(layer, Layer)
    q = quantize_weights(layer, SCALE, Config(), has_bias=True)
    assert q.scale.shape == (3,)
    assert q.bias_scale is not None
    np.testing.assert_array_equal(q.bias_scale, np.tile(SCALE * q.scale, 2))


def test_per_tensor_weights_have_one_scale() -> None:
    weights = rng.standard_normal((3, 2, 3, 3)).astype(np.float32)
    config = Config.of({"weights": {"granularity": "per_tensor"}})
    layer = conv(weights, np.ones(3, np.float32))
    q = quantize_weights(layer, SCALE, config, has_bias=True)
    assert q.scale.shape == ()
    assert np.abs(q.codes).max() == 127


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("tensor", ["w", "b"])
def test_constants_must_be_finite(bad: float, tensor: str) -> None:
    weights, bias = np.ones((3, 2, 3, 3), np.float32), np.ones(3, np.float32)
    (weights if tensor == "w" else bias).reshape(-1)[1] = bad
    with pytest.raises(QuantizationError, match=f"'{tensor}'.*1 NaN or infinite.*repair"):
        quantize_weights(conv(weights, bias), SCALE, Config(), has_bias=True)


def test_the_slices_of_a_large_layer_are_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    from lowprec.quantization import weights as module

    array = rng.standard_normal((7, 5)).astype(np.float32)
    model = build("m (float[2,7] x) => (float[2,5] y) { y = MatMul(x, w) }", {"w": array})
    layer = find_layer(model.graph[0])
    assert isinstance(layer, Layer)
    whole = quantize_weights(layer, SCALE, Config(), has_bias=False)
    monkeypatch.setattr(module, "_SLICE", 10)
    sliced = quantize_weights(layer, SCALE, Config(), has_bias=False)
    np.testing.assert_array_equal(whole.codes, sliced.codes)
    assert isinstance(layer.node, ir.Node)
    assert whole.sqnr == pytest.approx(sliced.sqnr)
