"""Whatever codes a config asks for: integer kernels, the same bits as QDQ, files others open."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import build

import lowprec
from lowprec.calibration import Range, calibrate
from lowprec.calibration.calibrator import tensor_configs
from lowprec.config import Config
from lowprec.graph import to_proto

rng = np.random.default_rng(5)
TEXT = (
    "m (float[N,8,9,9] x) => (float[N,12,9,9] y) "
    "{ [one] a = Conv <pads=[1,1,1,1]> (x, w, b) r = Relu(a)"
    "  [two] c = Conv <pads=[1,1,1,1]> (r, v, d) s = Add(c, r) t = Relu(s)"
    "  [three] y = Conv <pads=[1,1,1,1]> (t, u) }"
)
W = {
    "w": rng.standard_normal((16, 8, 3, 3)).astype(np.float32),
    "b": rng.standard_normal(16).astype(np.float32),
    "v": rng.standard_normal((16, 16, 3, 3)).astype(np.float32),
    "d": rng.standard_normal(16).astype(np.float32),
    "u": rng.standard_normal((12, 16, 3, 3)).astype(np.float32),
}
CODES = {
    "u8": {},
    "s8": {"activations": {"dtype": "s8"}},
    "s8 symmetric": {"activations": {"dtype": "s8", "scheme": "symmetric"}},
    "u8 symmetric": {"activations": {"scheme": "symmetric"}},
    "scheme auto": {"activations": {"dtype": "s8", "scheme": "auto"}},
    "reduced": {"activations": {"reduce_range": True}, "weights": {"reduce_range": True}},
    "reduced s8": {"activations": {"dtype": "s8", "reduce_range": True}},
    "weights per tensor": {"weights": {"granularity": "per_tensor"}},
}


def images(count: int) -> list[np.ndarray]:
    data = np.random.default_rng(2)
    return [data.standard_normal((1, 8, 9, 9)).astype(np.float32) for _ in range(count)]


def quantized(**config: object) -> lowprec.QuantizedModel:
    settings = {"layers": [{"op_type": "Conv", "precision": "int8"}], **config}
    return lowprec.quantize(to_proto(build(TEXT, W)), images(8), config=settings)


@pytest.mark.parametrize("name", CODES)
def test_layers_multiply_integers_and_others_open_the_file(name: str, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    model = quantized(**CODES[name])
    x = images(9)[-1]
    (answer,) = model.run({"x": x})
    ran = [step for step in model.explain().steps if step.kernel.startswith("conv")]
    assert len(ran) == 3
    assert all("u8s8" in step.kernel for step in ran), [step.kernel for step in ran]

    path = tmp_path / "model.onnx"
    model.save(path)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"x": x})
    scale = max(layer.scale or 0 for layer in model.report.layers)
    assert np.abs(answer - theirs).max() < 3 * scale * np.abs(W["u"]).max()
    assert np.abs(answer - theirs).mean() < 0.05 * np.abs(answer).mean() / 10


@pytest.mark.parametrize("scheme", ["asymmetric", "symmetric"])
def test_s8_codes_stand_for_the_same_numbers_as_u8_codes(scheme: str) -> None:
    x = images(9)[-1]
    answers = [
        quantized(activations={"dtype": dtype, "scheme": scheme}).run({"x": x})[0].tobytes()
        for dtype in ("u8", "s8")
    ]
    assert answers[0] == answers[1]


def zero_points(model: lowprec.QuantizedModel) -> dict[str, int]:
    return {layer.tensor: layer.zero_point for layer in model.report.layers if layer.tensor}


def test_symmetric_s8_has_zero_points_of_zero_and_reduced_codes_stay_in_range() -> None:
    model = quantized(activations={"dtype": "s8", "scheme": "symmetric"})
    assert set(zero_points(model).values()) == {0}
    reduced = quantized(**CODES["reduced"])
    for initializer in reduced.to_onnx().graph.initializer:
        codes = onnx.numpy_helper.to_array(initializer)
        if codes.dtype == np.int8 and codes.ndim == 4:
            assert 60 < np.abs(codes.astype(int)).max() <= 64
    record = next(layer for layer in reduced.report.layers if layer.tensor == "x")
    assert record.scale == pytest.approx((record.rmax - record.rmin) / 127, rel=1e-5)


def test_scheme_auto_is_symmetric_where_the_values_are() -> None:
    found = zero_points(quantized(**CODES["scheme auto"]))
    assert found["x"] == 0  # normal values
    assert found["r"] == -128  # after a Relu


def test_rules_set_method_and_scheme_of_what_a_layer_reads() -> None:
    model = build(TEXT, W)
    config = Config.of(
        {
            "calibration": {"method": "minmax"},
            "layers": [
                {"match": "one", "method": "percentile", "scheme": "symmetric"},
                {"op_type": "Relu", "method": "mse"},
                {"match": "three", "granularity": "per_tensor"},
            ],
        }
    )
    names = ["x", "r", "c", "t"]
    configs = tensor_configs(model, names, config)
    assert [configs[name].calibration.method for name in names] == [
        "percentile",
        "minmax",
        "minmax",
        "minmax",
    ]
    found = calibrate(model, names, [{"x": x} for x in images(4)], config).ranges
    assert (found["x"].method, found["x"].symmetric) == ("percentile 99.99", True)
    assert (found["r"].method, found["r"].symmetric) == ("minmax", False)

    result = quantized(**{**config.to_dict(), "layers": [*config.to_dict()["layers"]]})
    shapes = {
        initializer.name: list(initializer.dims)
        for initializer in result.to_onnx().graph.initializer
    }
    assert shapes["u_scale"] == []
    assert shapes["w_scale"] == [16]


def test_a_range_without_a_scheme_follows_the_config() -> None:
    from lowprec.quantization import apply_precisions

    model = build(TEXT, W)
    ranges = {name: Range(-1.0, 3.0, "mine") for name in ("x", "r", "c", "t")}
    config = Config.of(
        {
            "activations": {"dtype": "s8", "scheme": "symmetric"},
            "layers": [{"op_type": "Conv", "precision": "int8"}],
        }
    )
    result = apply_precisions(model, ranges, config)
    assert {layer.zero_point for layer in result.layers if layer.tensor} == {0}
