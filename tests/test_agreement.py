"""Agreement equals its textbook formulas, summed over batches of any shape."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from refusals import refused

from lowprec.agreement import AgreementSum
from lowprec.errors import ModelError

RNG = np.random.default_rng(0)


def agreement(*pairs):
    total = AgreementSum("y")
    for a, b in pairs:
        total.update(a, b)
    return total.result()


def test_formulas_over_ragged_batches():
    pairs = [
        (a, a + 0.1 * RNG.normal(size=a.shape).astype(np.float32))
        for a in (RNG.normal(size=(n, 7)).astype(np.float32) for n in (1, 3, 5))
    ]
    result = agreement(*pairs)
    a, b = (np.concatenate(side).astype(np.float64) for side in zip(*pairs, strict=True))
    assert result.sqnr == pytest.approx(10 * math.log10((a**2).sum() / ((a - b) ** 2).sum()))
    cosine = (a * b).sum() / math.sqrt((a**2).sum() * (b**2).sum())
    assert result.cosine == pytest.approx(cosine)
    assert result.max_error == pytest.approx(np.abs(a - b).max())
    assert result.max_value == pytest.approx(np.abs(a).max())
    assert result.argmax == pytest.approx((a.argmax(1) == b.argmax(1)).mean())
    assert result.equal == 0
    assert result.samples == 3


def test_equal_outputs():
    a = np.array([[1.0, 3.0, 2.0]], np.float32)
    result = agreement((a, a.copy()))
    assert (result.sqnr, result.cosine, result.max_error) == (math.inf, 1, 0)
    assert (result.argmax, result.equal) == (1, 1)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["sqnr"] is None


def test_arg_max_sees_what_sqnr_does_not():
    a = np.array([[1.0, 1.001, 0]], np.float32)
    b = np.array([[1.001, 1.0, 0]], np.float32)
    result = agreement((a, b), (a, a))
    assert result.argmax == 0.5
    assert result.sqnr > 50


def test_codes_do_not_wrap():
    """uint8 differences would wrap: 3 - 5 = 254."""
    result = agreement((np.array([3, 5], np.uint8), np.array([5, 3], np.uint8)))
    assert result.max_error == 2
    assert result.argmax == 0


def test_outputs_without_a_last_axis_to_compare():
    assert agreement((np.float32(2)[None], np.float32(2)[None])).argmax is None
    assert agreement((np.array(True), np.array(False))).max_error == 1


def test_silence():
    zeros = np.zeros((2, 3), np.float32)
    assert agreement((zeros, zeros)).cosine == 1
    result = agreement((zeros, zeros + 1))
    assert (result.sqnr, result.cosine) == (-math.inf, 0)


def test_texts_are_only_compared_for_equality():
    result = agreement((np.array(["a", "b"], object), np.array(["a", "c"], object)))
    assert result.equal == 0.5


def test_other_shapes_are_refused():
    with refused(ModelError, "'y'", "[2]", "[3]"):
        agreement((np.zeros(2), np.zeros(3)))
