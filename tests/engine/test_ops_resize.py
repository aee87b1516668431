"""Resize and Pad against ONNX's reference implementation, in both layouts."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from one_node import run_both_layouts, run_everywhere, run_node
from onnx.reference import ReferenceEvaluator

from lowprec._ext import _core

RNG = np.random.default_rng(6)


def reference(op, inputs, attributes):
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    node = onnx.helper.make_node(op, names, ["y"], **attributes)
    empty = onnx.helper.make_empty_tensor_value_info
    graph = onnx.helper.make_graph([node], "g", [empty(n) for n in names if n], [empty("y")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)])
    feeds = {n: x for n, x in zip(names, inputs, strict=True) if n}
    return ReferenceEvaluator(model).run(None, feeds)[0]


COORDINATES = [
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
]
SCALES = [(1, 1, 2, 3), (1, 1, 0.6, 0.5), (1, 1, 1.7, 1)]


@pytest.mark.parametrize("scales", SCALES, ids=str)
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_by_scales(mode, coordinates, scales):
    x = RNG.normal(size=(2, 3, 5, 6)).astype(np.float32)
    inputs = [x, None, np.array(scales, np.float32)]
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    result = run_both_layouts("Resize", inputs, attributes, constant=(2,))
    np.testing.assert_allclose(
        result, reference("Resize", inputs, attributes), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("sizes", [(2, 3, 7, 4), (2, 3, 1, 1), (2, 3, 10, 6)], ids=str)
@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_to_sizes(mode, coordinates, sizes):
    x = RNG.normal(size=(2, 3, 5, 6)).astype(np.float32)
    inputs = [x, None, None, np.array(sizes, np.int64)]
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    result = run_both_layouts("Resize", inputs, attributes, constant=(3,))
    np.testing.assert_allclose(
        result, reference("Resize", inputs, attributes), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest_rounding_of_any_element(rounding, dtype):
    x = RNG.integers(0, 100, (1, 2, 4, 5)).astype(dtype)
    inputs = [x, None, np.array([1, 1, 2, 0.5], np.float32)]
    attributes = {"nearest_mode": rounding, "coordinate_transformation_mode": "half_pixel"}
    result = run_both_layouts("Resize", inputs, attributes, constant=(2,))
    np.testing.assert_array_equal(result, reference("Resize", inputs, attributes))


def test_resize_of_other_axes():
    x = RNG.normal(size=(3, 4, 5)).astype(np.float32)
    inputs = [x, None, np.array([2.0, 1.5], np.float32)]
    for mode in ("nearest", "linear"):
        attributes = {"mode": mode, "axes": [0, 1]}
        result = run_both_layouts("Resize", inputs, attributes, constant=(2,))
        wanted = reference("Resize", inputs, attributes)
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)
    matrix = [x[0], None, np.array([2.0, 1.5], np.float32)]
    result = run_everywhere("Resize", matrix, {"mode": "cubic"}, constant=(2,))
    wanted = reference("Resize", matrix, {"mode": "cubic"})
    np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)


def test_crop_and_resize():
    x = RNG.normal(size=(1, 3, 6, 7)).astype(np.float32)
    roi = np.array([0, 0, 0.31, -0.23, 1, 1, 0.87, 1.41], np.float32)
    inputs = [x, roi, None, np.array([1, 3, 4, 5], np.int64)]
    for mode in ("nearest", "linear"):
        attributes = {"mode": mode, "coordinate_transformation_mode": "tf_crop_and_resize",
                      "extrapolation_value": 10.0}  # fmt: skip
        result = run_both_layouts("Resize", inputs, attributes, constant=(1, 3))
        wanted = reference("Resize", inputs, attributes)
        assert (wanted == 10).any()
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)


def test_cubic_without_what_is_outside():
    x = RNG.normal(size=(1, 2, 4, 4)).astype(np.float32)
    inputs = [x, None, np.array([1, 1, 0.8, 1.8], np.float32)]
    attributes = {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5}
    result = run_both_layouts("Resize", inputs, attributes, constant=(2,))
    np.testing.assert_allclose(
        result, reference("Resize", inputs, attributes), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("policy", "shape"), [("not_larger", (1, 1, 3, 7)), ("not_smaller", (1, 1, 9, 20))]
)
def test_aspect_ratio(policy, shape):
    x = RNG.normal(size=(1, 1, 4, 9)).astype(np.float32)
    inputs = [x, None, None, np.array([9, 7], np.int64)]
    attributes = {"axes": [2, 3], "keep_aspect_ratio_policy": policy}
    result = run_both_layouts("Resize", inputs, attributes, constant=(3,))
    assert result.shape == shape
    np.testing.assert_array_equal(result, reference("Resize", inputs, attributes))


@pytest.mark.parametrize("channels", [1, 8, 16, 37])
def test_a_resized_image_does_not_depend_on_the_lanes(channels):
    x = RNG.normal(size=(2, channels, 4, 5)).astype(np.float32)
    inputs = [x, None, np.array([1, 1, 2, 2], np.float32)]
    result = run_both_layouts("Resize", inputs, {"mode": "linear"}, constant=(2,))
    for c in (0, channels - 1):
        alone = run_both_layouts(
            "Resize", [x[:, c : c + 1], *inputs[1:]], {"mode": "linear"}, constant=(2,)
        )
        assert alone.tobytes() == result[:, c : c + 1].tobytes()


# ----------------------------------------------------------------------------------------- pad

NUMPY_MODE = {"constant": "constant", "edge": "edge", "reflect": "reflect", "wrap": "wrap"}


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.int64])
@pytest.mark.parametrize("mode", NUMPY_MODE)
@pytest.mark.parametrize(
    "pads", [(0, 0, 1, 2, 0, 0, 2, 1), (1, 2, 0, 3, 0, 1, 2, 0), (0,) * 8, (0, 0, 3, 4, 0, 0, 3, 4)]
)
def test_pad(pads, mode, dtype):
    x = RNG.integers(0, 100, (2, 3, 4, 5)).astype(dtype)
    inputs = [x, np.array(pads, np.int64)]
    widths = list(zip(pads[:4], pads[4:], strict=True))
    wanted = np.pad(x, widths, mode=NUMPY_MODE[mode])
    result = run_both_layouts("Pad", inputs, {"mode": mode}, constant=(1,))
    np.testing.assert_array_equal(result, wanted)


def test_pad_with_a_value_along_some_axes():
    x = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
    value = np.float32(-7.5)
    inputs = [x, np.array([1, 2, 3, 0], np.int64), value, np.array([-1, 1], np.int64)]
    wanted = np.pad(x, [(0, 0), (2, 0), (0, 0), (1, 3)], constant_values=value)
    for constant in ((1, 2, 3), (1, 3)):
        result = run_both_layouts("Pad", inputs, constant=constant)
        np.testing.assert_array_equal(result, wanted)


def test_negative_pads_crop():
    x = RNG.normal(size=(1, 3, 6, 7)).astype(np.float32)
    inputs = [x, np.array([0, 0, -1, 2, 0, 0, -2, -3], np.int64)]
    wanted = np.pad(x[:, :, 1:-2, :-3], [(0, 0), (0, 0), (0, 0), (2, 0)])
    np.testing.assert_array_equal(run_both_layouts("Pad", inputs, constant=(1,)), wanted)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_pad_of_any_rank(rank):
    x = RNG.normal(size=(3,) * rank).astype(np.float32)
    pads = np.array(list(itertools.islice(itertools.cycle([1, 0, 2]), 2 * rank)), np.int64)
    widths = list(zip(pads[:rank], pads[rank:], strict=True))
    result = run_everywhere("Pad", [x, pads], constant=(1,))
    np.testing.assert_array_equal(result, np.pad(x, widths))


def test_what_is_not_native_is_refused():
    x = RNG.normal(size=(1, 1, 4, 4)).astype(np.float32)
    half = np.array([1, 1, 0.5, 0.5], np.float32)
    with pytest.raises(_core.Unsupported, match="antialias"):
        run_node("Resize", [x, None, half], {"mode": "linear", "antialias": 1}, constant=(2,))
    with pytest.raises(_core.Unsupported, match="known"):
        run_node("Resize", [x, None, half])
    with pytest.raises(_core.EngineError, match="one value per axis"):
        run_node("Resize", [x, None, half[:3]], constant=(2,))
    with pytest.raises(_core.EngineError, match="begin and an end"):
        run_node("Pad", [x, np.array([1, 1], np.int64)], constant=(1,))
