"""A caller's memory: outputs go where they are wanted, inputs are read where they are."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import lowprec
from lowprec.engine import session as session_module
from lowprec.errors import InputError

RNG = np.random.default_rng(0)
TURNED = """<ir_version: 10, opset_import: ["" : 21]>
g (float[n, m] x) => (float[m, n] y, float[n, m] z) {
    y = Transpose(x)
    z = Relu(x)
}"""
CODES = """<ir_version: 10, opset_import: ["" : 21]>
g (float[n, 64] x) => (uint8[n, 64] q, float[n, 64] y)
<float s = {0.05}, uint8 zero = {128}> {
    q = QuantizeLinear(x, s, zero)
    y = DequantizeLinear(q, s, zero)
}"""


def compiled(text: str) -> lowprec.CompiledModel:
    return lowprec.compile(onnx.parser.parse_model(text))


@pytest.fixture
def no_copies(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the output was copied")

    monkeypatch.setattr(session_module.np, "copyto", refuse)


def test_outputs_are_written_in_place(no_copies):
    model = compiled(TURNED)
    x = RNG.standard_normal((5, 7)).astype(np.float32)
    out = [np.empty((7, 5), np.float32), np.empty((5, 7), np.float32)]
    results = model.run({"x": x}, out=out)
    assert [id(result) for result in results] == [id(array) for array in out]
    np.testing.assert_array_equal(out[0], x.T)
    np.testing.assert_array_equal(out[1], np.maximum(x, 0))


def test_onnxruntimes_form_takes_out_too():
    model = compiled(TURNED)
    x = RNG.standard_normal((2, 3)).astype(np.float32)
    out = [np.empty((3, 2), np.float32), np.empty((2, 3), np.float32)]
    (z,) = model.run(["z"], {"x": x}, out=out)
    assert z is out[1]
    np.testing.assert_array_equal(out[0], x.T)


def test_an_output_may_be_the_input():
    model = compiled(TURNED)
    x = RNG.standard_normal((6, 6)).astype(np.float32)
    before = x.copy()
    model.run({"x": x}, out=[x, np.empty_like(x)])
    np.testing.assert_array_equal(x, before.T)


def test_strided_outputs_are_filled():
    model = compiled(TURNED)
    x = RNG.standard_normal((5, 7)).astype(np.float32)
    wide = np.zeros((7, 10), np.float32)
    turned = np.zeros((7, 5), np.float32).T
    model.run({"x": x}, out=[wide[:, ::2], turned])
    np.testing.assert_array_equal(wide[:, ::2], x.T)
    assert not wide[:, 1::2].any()
    np.testing.assert_array_equal(turned, np.maximum(x, 0))


def test_codes_at_the_end_of_a_page_are_not_read_past():
    # What steps read again may need a little room behind it, which the caller's array lacks.
    model = compiled(CODES)
    x = RNG.standard_normal((4, 64)).astype(np.float32)
    expected = model.run({"x": x})
    out = [np.empty((4, 64), np.uint8), np.empty((4, 64), np.float32)]
    for result, wanted in zip(model.run({"x": x}, out=out), expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


def test_misaligned_and_strided_inputs_give_the_same_bits():
    model = compiled(TURNED)
    x = RNG.standard_normal((5, 7)).astype(np.float32)
    expected = model.run({"x": x})
    bytes_of = np.zeros(x.nbytes + 1, np.uint8)
    odd = bytes_of[1:].view(np.float32).reshape(x.shape)
    odd[...] = x
    for feed in (odd, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2]):
        for result, wanted in zip(model.run({"x": feed}), expected, strict=True):
            np.testing.assert_array_equal(result, wanted)


def read_only() -> np.ndarray:
    array = np.empty((3, 2), np.float32)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ([np.empty((3, 2), np.float32)], ["1 arrays", "2"]),
        ([np.empty((2, 3), np.float32)] * 2, ["'y'", "[2, 3]", "[3, 2]"]),
        ([np.empty((3, 2)), np.empty((2, 3))], ["'y'", "float64", "float32"]),
        ([read_only(), np.empty((2, 3), np.float32)], ["'y'", "read-only"]),
        ([[0.0], np.empty((2, 3), np.float32)], ["'y'", "list", "NumPy array"]),
        (np.empty((2, 3, 2), np.float32), ["list of arrays", "ndarray"]),
    ],
)
def test_arrays_that_do_not_fit_are_refused(out, words):
    with pytest.raises(InputError) as caught:
        compiled(TURNED).run({"x": np.zeros((2, 3), np.float32)}, out=out)
    assert all(word in str(caught.value) for word in words)
