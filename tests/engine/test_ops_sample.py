"""Points between pixels, boxes, and Fourier transforms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from one_node import run_everywhere, run_node
from reference_node import reference

from lowprec._ext import _core

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sample(mode, padding, corners):
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    shapes = [((2, 3, 5, 4), (2, 3, 2, 2))]
    if mode != "cubic":
        shapes.append(((1, 2, 3, 4, 3), (1, 2, 2, 3, 3)))
    for shape, grid_shape in shapes:
        x = RNG.standard_normal(shape).astype(np.float32)
        grid = RNG.uniform(-1.9, 1.9, grid_shape).astype(np.float32)
        (wanted,) = reference("GridSample", [x, grid], attributes)
        got = run_everywhere("GridSample", [x, grid], attributes)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_grid_sample_far_outside_reads_nothing():
    x = np.ones((1, 1, 3, 3), np.float32)
    far = [np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38, 1e6, -1e6]
    grid = np.array(list(itertools.product(far, far)), np.float32).reshape(1, 8, 8, 2)
    for mode in ("linear", "nearest", "cubic"):
        got = run_everywhere("GridSample", [x, grid], {"mode": mode})
        np.testing.assert_array_equal(got, 0)
        for padding in ("border", "reflection"):
            for corners in (0, 1):
                attributes = {"mode": mode, "padding_mode": padding, "align_corners": corners}
                got = run_everywhere("GridSample", [x, grid], attributes)
                np.testing.assert_allclose(got, 1, rtol=1e-5)
                # One pixel: aligned corners leave nothing to reflect at.
                one = run_everywhere("GridSample", [x[:, :, :1, :1], grid], attributes)
                np.testing.assert_allclose(one, 1, rtol=1e-5)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(mode, coordinates, ratio):
    x = RNG.standard_normal((2, 3, 8, 9)).astype(np.float32)
    rois = np.array([[0, 0, 7, 7], [-3, 2, 5, 30], [2, 2, 2, 2], [1.5, 3, 4.5, 6]], np.float32)
    images = np.array([0, 1, 1, 0])
    attributes = {
        "mode": mode,
        "coordinate_transformation_mode": coordinates,
        "sampling_ratio": ratio,
        "output_height": 3,
        "output_width": 2,
        "spatial_scale": 0.9,
    }
    (wanted,) = reference("RoiAlign", [x, rois, images], attributes)
    got = run_everywhere("RoiAlign", [x, rois, images], attributes)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    wild = np.array([[np.nan, 0, np.inf, 1e30]], np.float32)
    assert run_everywhere("RoiAlign", [x, wild, images[:1]], attributes).shape == (1, 3, 3, 2)
    with pytest.raises(_core.EngineError, match="outside an axis"):
        run_node("RoiAlign", [x, rois, images + 5], attributes)


@pytest.mark.parametrize("centred", [0, 1])
@pytest.mark.parametrize("least", [None, 0.3])
def test_boxes_that_stay(centred, least):
    corner, size = RNG.uniform(0, 5, (2, 40, 2)), RNG.uniform(0.5, 3, (2, 40, 2))
    boxes = np.concatenate([corner, size if centred else corner + size], 2).astype(np.float32)
    scores = RNG.uniform(0, 1, (2, 3, 40)).round(1).astype(np.float32)  # many are equal
    inputs = [boxes, scores, np.array([6]), np.array([0.4], np.float32)]
    inputs += [] if least is None else [np.array([least], np.float32)]
    (wanted,) = reference("NonMaxSuppression", inputs, {"center_point_box": centred})
    got = run_everywhere(
        "NonMaxSuppression", inputs, {"center_point_box": centred}, known=range(len(inputs))
    )
    np.testing.assert_array_equal(got, wanted)
    assert 6 < len(got) <= 36
    none = run_everywhere("NonMaxSuppression", inputs[:2], known=(0, 1))
    assert none.shape == (0, 3)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 12, 64, 97])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_fourier_transforms(n, kind):
    tolerance = 1e-5 if kind is np.float32 else 1e-11
    x = RNG.standard_normal((3, n, 2, 2)).astype(kind)
    signal = (x[..., 0] + 1j * x[..., 1]).astype(np.complex128)

    def parts(z):
        return np.stack([z.real, z.imag], -1)

    def check(got, wanted):
        assert got.dtype == kind
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance * np.sqrt(n))

    axis = np.int64(1)
    check(run_everywhere("DFT", [x, None, axis], known=(2,)), parts(np.fft.fft(signal, axis=1)))
    inverse = {"inverse": 1}
    got = run_everywhere("DFT", [x, None, axis], inverse, known=(2,))
    check(got, parts(np.fft.ifft(signal, axis=1)))
    real = x[..., :1]
    half = parts(np.fft.rfft(real[..., 0].astype(np.float64), axis=1))
    check(run_everywhere("DFT", [real, None, axis], {"onesided": 1}, known=(2,)), half)
    back = run_everywhere(
        "DFT", [half.astype(kind), np.int64(n), axis], {"onesided": 1, "inverse": 1}, known=(1, 2)
    )
    check(back, real)
    longer = run_everywhere("DFT", [x, np.int64(n + 3), axis], known=(1, 2))
    check(longer, parts(np.fft.fft(signal, n + 3, axis=1)))


def test_frames():
    x = RNG.standard_normal((2, 30, 1)).astype(np.float32)
    window = np.hanning(8).astype(np.float32)
    got = run_everywhere("STFT", [x, np.int64(5), window], known=(1,))
    frames = np.stack([x[:, at : at + 8, 0] * window for at in range(0, 23, 5)], 1)
    wanted = np.fft.rfft(frames, axis=2)
    np.testing.assert_allclose(got[..., 0] + 1j * got[..., 1], wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(_core.EngineError, match="frames of 31"):
        run_node("STFT", [x, np.int64(5), None, np.int64(31)], known=(1, 3))
