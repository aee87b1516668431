"""Real models from installed packages: float equals onnxruntime's, int8 keeps what they are for."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import onnx
import onnxruntime
import pytest
from real_models import RealModel, real_models
from recognition import as_runner
from recognizer import model_path, read_characters, read_words
from words import draw_words, to_input

import lowprec

# Of the largest value; sums are in another order than onnxruntime's. Magika computes a variance as
# a difference of two sums, which for some files cancel almost entirely; onnxruntime's sums were
# measured to be off by 1e-5 there, ours by 5e-7, and the outputs to differ by up to 1.5e-3.
ALLOWED_ERROR = {"Magika": 5e-3}
# The large ones are left to `make bench`: seconds each, and no operator that these do not have.
SMALL = {
    "PP-OCR rec",
    "PP-OCR det",
    "PP-OCR cls",
    "Silero sequence",
    "Magika",
    "Basic Pitch",
    "light_shufflenet",
    "light_squeezenet",
}


# Only eight samples calibrate here; of four words, one may go wrong.
LEAST_SAME = {"PP-OCR rec": 0.75}


def has_package(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


needs_recognizer = pytest.mark.skipif(
    not has_package("rapidocr-onnxruntime"), reason="rapidocr-onnxruntime is not installed"
)


@pytest.fixture(params=[m for m in real_models() if m.name in SMALL], ids=lambda m: m.name)
def model(request) -> RealModel:
    return request.param


@pytest.fixture
def source(model) -> str | onnx.ModelProto:
    try:
        return model.load()
    except importlib.metadata.PackageNotFoundError as missing:
        pytest.skip(f"{missing.name} is not installed")


def test_float_equals_onnxruntime(model, source):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    peer = onnxruntime.InferenceSession(
        source if isinstance(source, str) else source.SerializeToString(), options
    )
    session = lowprec.compile(source)
    for feeds in model.feeds(2, 5):
        for ours, theirs in zip(session.run(feeds), peer.run(None, feeds), strict=True):
            difference = np.abs(np.subtract(ours, theirs, dtype=np.float64)).max()
            allowed = ALLOWED_ERROR.get(model.name, 1e-4)
            assert difference <= allowed * np.abs(theirs).max()


def test_int8_decides_like_float(model, source):
    quantized = lowprec.quantize(source, model.feeds(8, 1))
    session = lowprec.compile(source)
    same = [
        model.decide(quantized.run(feeds)) == model.decide(session.run(feeds))
        for feeds in model.feeds(4, 2)
    ]
    assert np.mean(np.concatenate(same)) >= LEAST_SAME.get(model.name, 0.95)


@pytest.mark.skipif(not has_package("basic-pitch"), reason="basic-pitch is not installed")
def test_basic_pitch_keeps_its_filters_in_float():
    (pitch,) = (model for model in real_models() if model.name == "Basic Pitch")
    report = lowprec.quantize(pitch.load(), pitch.feeds(4, 1)).report
    assert 0.9 <= report.int8_fraction < 0.95
    assert sum("a logarithm follows" in layer.reason for layer in report.layers) >= 20
    assert min(output["sqnr"] for output in report.agreement) >= 25


@pytest.fixture(scope="module")
def recognizer_and_words():
    calibration, words = draw_words(1, 48, 80)
    samples = [to_input(word) for word in calibration]
    return lowprec.quantize(model_path(), samples), samples, words


@needs_recognizer
def test_int8_recognizer_reads_what_float_reads(recognizer_and_words):
    quantized, _, words = recognizer_and_words
    characters = read_characters(model_path())
    exact = read_words(as_runner(lowprec.compile(model_path())), words, characters)
    int8 = read_words(as_runner(quantized), words, characters)
    assert exact.exact >= 0.97
    assert int8.exact >= exact.exact - 0.026  # two of eighty words


@needs_recognizer
def test_recognizer_works_in_int8(recognizer_and_words):
    report = recognizer_and_words[0].report
    assert report.int8_fraction >= 0.9
    assert all(layer.reason for layer in report.layers if layer.precision != "int8")


@needs_recognizer
def test_recognizer_saves_small_and_loads_with_its_bits(recognizer_and_words, tmp_path):
    quantized, samples, words = recognizer_and_words
    quantized.save(tmp_path / "first.onnx")
    lowprec.quantize(model_path(), samples).save(tmp_path / "second.onnx")
    first = (tmp_path / "first.onnx").read_bytes()
    assert first == (tmp_path / "second.onnx").read_bytes()
    assert len(first) <= 0.35 * model_path().stat().st_size
    loaded = lowprec.load(tmp_path / "first.onnx")
    for word in words[:5]:
        feeds = {"x": to_input(word)}
        assert loaded.run(feeds)[0].tobytes() == quantized.run(feeds)[0].tobytes()
