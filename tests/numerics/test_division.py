"""Quantise by a corrected product is quantise by a division: every case in which it could differ.

Let a, b > 0 be f32, x / scale up to signs and powers of two, r = RN(1 / b), q = RN(a * r),
e = RN(a - b * q) and q' = RN(q + e * r). Then q is off by at most (a / b) * 2^-23, e by 2^-24 of
itself, so q' = RN(Q) with Q = (a / b) * (1 + h), |h| < 2^-45.9. To round to different whole
numbers, RN(Q) and RN(a / b) must be told apart by a tie t = k + 1/2, so a midpoint m between t and
one of its two neighbours lies between Q and a / b: |a - m * b| < m * b * 2^-45.9. With a, b, m as
whole numbers A and B of 24 bits and M of at most 26, odd, times powers of two:
|A * 2^j - M * B| < 2^50 * 2^-45.9 < 18, j from 23 to 26. So M * B = c modulo 2^j with |c| < 18, and
M has an inverse: for every tie, side, j and c there are few B. All of them are tried, with some
more c, at several exponents.
"""

from __future__ import annotations

import numpy as np
import pytest
from number_strategies import ISAS

from lowprec._ext import _core
from lowprec.numerics import reference

LARGEST_STEP = 256  # codes of 8 bits: what is further than this from the zero point saturates
C = 20


def suspects() -> np.ndarray:
    """Rows (A, B, k, j): A * 2^j is nearly M * B for a midpoint M beside the tie k + 1/2."""
    found = []
    for k in range(LARGEST_STEP + 1):
        tie = np.float32(k + 0.5)
        for neighbour in (np.nextafter(tie, np.float32(0)), np.nextafter(tie, np.float32(1e9))):
            middle = (float(tie) + float(neighbour)) / 2  # exact in float64
            fraction, _ = np.frexp(middle)
            m = int(fraction * 2**26)
            while m % 2 == 0:
                m //= 2
            assert m < 2**26
            for j in (23, 24, 25, 26):
                inverse = pow(m, -1, 2**j)
                for c in range(-C, C + 1):
                    b = c * inverse % 2**j
                    for whole in range(b, 2**24, 2**j):
                        a = (m * whole - c) >> j
                        if whole >= 2**23 and 2**23 <= a < 2**24:
                            found.append((a, whole, k))
    return np.array(found)


@pytest.fixture(scope="module")
def pairs() -> np.ndarray:
    return suspects()


def test_there_are_suspects(pairs):
    # For a few ties no such B is a whole number of 24 bits.
    assert len(set(pairs[:, 2])) > 0.9 * LARGEST_STEP
    assert len(pairs) > 5000


def test_a_plain_product_with_the_reciprocal_would_differ(pairs):
    a, b = (pairs[:, i].astype(np.float32) for i in (0, 1))
    a *= np.exp2(np.rint(np.log2((pairs[:, 2] + 0.5) * b.astype(float) / a))).astype(np.float32)
    assert np.any(np.rint(a / b) != np.rint(a * (np.float32(1) / b)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("exponent", [-99, -30, 0, 76])
def test_no_suspect_is_rounded_otherwise(isa, exponent, pairs):
    codes = np.empty(64 + 3, np.int8)  # a whole vector of codes, and some more
    for a, b, k in pairs[:: 1 if exponent == 0 else 3]:
        scale = np.float32(np.ldexp(float(b), exponent - 23))
        x = np.float64(a) * 2.0 ** np.rint(np.log2((k + 0.5) * float(scale) / a))
        values = np.full(codes.size, x, np.float32)
        values[1::2] *= -1
        # Codes near the ends of s8 need the tie's whole number moved into reach.
        zero_point = np.int8(-128 if k > 126 else 0)
        _core.quantize(values, codes, np.float32([scale]), int(zero_point), isa=isa)
        expected = reference.quantize_linear(values[:2], scale, zero_point)
        assert codes[0] == expected[0]
        assert codes[1] == expected[1]
        assert (codes[::2] == codes[0]).all()
