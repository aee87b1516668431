"""Adaptive rounding: sums of a layer are closer than with every weight at its nearest code."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from networks import IN_INT8, integer_constants, quantized, sqnr
from small_models import build, values_of

from lowprec.config import Config
from lowprec.passes.layers import Layer, find_layer
from lowprec.quantization import refine
from lowprec.quantization.algorithms.patches import sample_patches
from lowprec.quantization.algorithms.round_weights import round_groups, shrunk

rng = np.random.default_rng(11)
ADAPTIVE = Config.of({"algorithms": {"bias_correction": False, "rounding": "adaptive"}, **IN_INT8})


def inputs(count: int, depth: int) -> np.ndarray:
    """Correlated, and mostly positive: what a Relu makes."""
    mixed = rng.standard_normal((count, 6)) @ rng.standard_normal((6, depth)) + 1
    return np.maximum(mixed, 0) + 0.1 * rng.random((count, depth))


def test_the_sums_are_closer_on_inputs_that_were_not_seen() -> None:
    x = inputs(4096, 160)  # more than one block of columns
    w = rng.standard_normal((2, 20, 160)).astype(np.float32)
    scale = np.abs(w).max(axis=2, keepdims=True) / 7  # few codes: rounding matters
    hessian = shrunk(np.stack([x[:2048].T @ x[:2048] / 2048] * 2), 2048)
    codes = round_groups(w, scale, hessian)
    nearest = np.rint(w / scale)
    assert np.abs(codes - nearest).max() <= 4

    def noise(chosen: np.ndarray) -> float:
        return float(np.square((chosen * scale - w) @ x[2048:].T).sum())

    assert noise(codes) < 0.25 * noise(nearest)


def test_without_correlations_it_is_the_nearest_code() -> None:
    w = rng.standard_normal((1, 8, 16)).astype(np.float32)
    scale = np.full((1, 8, 1), 0.03, np.float32)
    hessian = np.diag(rng.random(16) + 0.1)[None]
    np.testing.assert_array_equal(
        round_groups(w, scale, hessian), np.clip(np.rint(w / scale), -127, 127)
    )
    np.testing.assert_array_equal(
        round_groups(w, scale, np.zeros((1, 16, 16))), np.clip(np.rint(w / scale), -127, 127)
    )


CONVOLUTIONS = [
    "Conv<pads=[1, 1, 1, 1]>",
    "Conv<strides=[2, 1], pads=[0, 2, 1, 0]>",
    "Conv<dilations=[2, 2]>",
    'Conv<auto_pad="SAME_UPPER", strides=[2, 2]>',
    'Conv<auto_pad="SAME_LOWER", strides=[2, 2]>',
    "Conv<group=2, pads=[1, 1, 1, 1]>",
    "Conv<group=4>",
]


@pytest.mark.parametrize("operator", CONVOLUTIONS)
def test_patches_are_what_the_weights_meet(operator: str) -> None:
    groups = 4 if "group=4" in operator else 2 if "group=2" in operator else 1
    w = rng.standard_normal((8, 4 // groups, 3, 3)).astype(np.float32)
    hub = build(f"m (float[2,4,9,10] x) => (float[2,8,H,W] y) {{ y = {operator}(x, w) }}", {"w": w})
    x = rng.standard_normal((2, 4, 9, 10)).astype(np.float32)
    (y,) = values_of(hub, ["y"], {"x": x}).values()
    layer = find_layer(next(iter(hub.graph)))
    assert isinstance(layer, Layer)
    patches = sample_patches(x, layer, 10**6)
    sums = np.einsum("pgk,gok->pgo", patches, w.reshape(groups, 8 // groups, -1))
    expected = np.moveaxis(y, 1, -1).reshape(-1, 8)
    np.testing.assert_allclose(sums.reshape(-1, 8), expected, rtol=1e-4, atol=1e-5)
    assert len(sample_patches(x, layer, 5)) == 5


def network(seed: int = 11) -> tuple[ir.Model, list[dict[str, np.ndarray]]]:
    random = np.random.default_rng(seed)  # the same network whichever tests ran before
    constants = {
        "w": random.standard_normal((24, 3, 3, 3)).astype(np.float32),
        "v": random.standard_normal((24, 1, 3, 3)).astype(np.float32),
        "u": random.standard_normal((32, 24, 1, 1)).astype(np.float32),
        "t": random.standard_normal((10, 32)).astype(np.float32),
    }
    for name, array in constants.items():  # one large weight a row: the others have few codes
        array.reshape(len(array), -1)[:, 0] *= 12
        constants[name] = array
    hub = build(
        "m (float[2,3,12,12] x) => (float[2,10] y) {"
        " a = Conv(x, w) h = Relu(a) d = Conv<group=24>(h, v) k = Relu(d) p = Conv(k, u)"
        " q = Relu(p) g = GlobalAveragePool(q) f = Flatten(g) y = Gemm<transB=1>(f, t) }",
        constants,
    )
    feeds = [{"x": random.random((2, 3, 12, 12)).astype(np.float32)} for _ in range(12)]
    return hub, feeds


def test_the_outputs_get_better() -> None:
    hub, feeds = network()
    result = quantized(hub, feeds[:8], ADAPTIVE)
    before = sqnr(hub, result.model, feeds[8:])
    (outcome,) = refine(hub, result, feeds[:8], ADAPTIVE)
    assert outcome.name == "rounding"
    assert outcome.changed == 4
    assert outcome.gain is not None
    assert outcome.gain > 1
    assert sqnr(hub, result.model, feeds[8:]) > before + 1


def test_auto_leaves_expensive_layers_at_the_nearest_codes(monkeypatch) -> None:
    monkeypatch.setattr("lowprec.quantization.algorithms.round_weights.CHEAP_DEPTH", 24)
    hub, feeds = network()
    auto = Config.of({"algorithms": {"bias_correction": False, "rounding": "auto"}, **IN_INT8})
    result = quantized(hub, feeds[:8], auto)
    codes = {n: a.copy() for n, a in integer_constants(result.model, np.int8).items()}
    refine(hub, result, feeds[:8], auto)
    changed = {
        name.partition("_")[0]
        for name, array in integer_constants(result.model, np.int8).items()
        if (array != codes[name]).any()
    }
    assert changed == {"v", "u"}  # 9 and 24 weights a row; w has 27 and t 32


@pytest.mark.parametrize("seed", [14, 15])  # what is made up for goes beyond 64 unless it is held
def test_a_reduced_range_stays_reduced(seed: int) -> None:
    hub, feeds = network(seed)
    reduced = Config.of({**ADAPTIVE.to_dict(), "weights": {"reduce_range": True}})
    result = quantized(hub, feeds[:8], reduced)
    (outcome,) = refine(hub, result, feeds[:8], reduced)
    assert outcome.changed == 4
    codes = np.concatenate([a.ravel() for a in integer_constants(result.model, np.int8).values()])
    assert np.abs(codes.astype(int)).max() == 64


def test_by_default_cheap_models_are_rounded_and_large_ones_not() -> None:
    hub, feeds = network()
    default = Config.of(IN_INT8)
    result = quantized(hub, feeds[:8], default)
    assert [outcome.name for outcome in refine(hub, result, feeds[:8], default)] == [
        "rounding",
        "bias_correction",
    ]
    result = quantized(hub, feeds[:8], default)
    result.total_macs = 10**10
    assert refine(hub, result, feeds[:8], default) == []


def test_nearest_changes_nothing() -> None:
    hub, feeds = network()
    nearest = Config.of(
        {"algorithms": {"bias_correction": False, "rounding": "nearest"}, **IN_INT8}
    )
    result = quantized(hub, feeds[:8], nearest)
    codes = {n: a.copy() for n, a in integer_constants(result.model, np.int8).items()}
    assert refine(hub, result, feeds[:8], nearest) == []
    for name, array in integer_constants(result.model, np.int8).items():
        np.testing.assert_array_equal(array, codes[name])
