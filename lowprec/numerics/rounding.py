"""Rounding many weights together: the codes whose sums are closest, not each weight's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowprec._ext import _core
from lowprec.errors import InputError


def round_rows(
    weights: NDArray[np.float64], hessian: NDArray[np.float64], limit: int = 127
) -> NDArray[np.int8]:
    """Return codes of rows of weights whose sums over typical inputs keep their values.

    The bits of its namesake in `lowprec.numerics.reference`, with any number of threads.

    Args:
        weights: Real values over their scales, shape (rows, n).
        hessian: E[x x^T] of the inputs, (n, n), symmetric and positive definite.
        limit: The largest code, 1 to 127.

    Returns:
        s8 in [-limit, limit], shape (rows, n).

    Raises:
        InputError: shapes do not fit, `limit` is none, or a number is not finite.
    """
    rows = np.ascontiguousarray(weights, np.float64)
    factor = np.array(hessian, np.float64, order="C")
    if rows.ndim != 2 or factor.shape != (rows.shape[1],) * 2:
        raise InputError(
            f"weights have shape {list(rows.shape)} and the hessian {list(factor.shape)}; they "
            "must be [rows, n] and [n, n]"
        )
    if not 1 <= limit <= 127:
        raise InputError(f"the largest code is {limit}; it must be 1 to 127")
    if not (np.isfinite(rows).all() and np.isfinite(factor).all()):
        raise InputError("weights and the hessian must be finite")
    codes = np.empty(rows.shape, np.int8)
    _core.upper_factor(factor)
    _core.round_rows(rows, factor, limit, codes)
    return codes
