"""Rounding many weights together: the codes whose sums are closest, not each weight's own."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowprec._ext import _core
from lowprec.errors import InputError


def round_rows(weights: ArrayLike, hessian: ArrayLike, limit: int = 127) -> NDArray[np.int8]:
    """Return codes of rows of weights whose sums over typical inputs keep their values.

    The bits of its namesake in `lowprec.numerics.reference`, with any number of threads.

    Args:
        weights: Real values over their scales, shape (rows, n).
        hessian: E[x x^T] of the inputs, (n, n), positive definite; symmetric, so that only its
            upper triangle is read.
        limit: The largest code, 1 to 127.

    Returns:
        s8 in [-limit, limit], shape (rows, n).

    Raises:
        InputError: shapes do not fit, `limit` is none, numbers are not real and finite, or the
            hessian is not positive definite.
    """
    rows, factor = _reals(weights, "weights"), _reals(hessian, "the hessian").copy()
    if rows.ndim != 2 or factor.shape != (rows.shape[1],) * 2:
        raise InputError(
            f"weights have shape {list(rows.shape)} and the hessian {list(factor.shape)}; they "
            "must be [rows, n] and [n, n]"
        )
    if not isinstance(limit, int | np.integer) or not 1 <= limit <= 127:
        raise InputError(f"the largest code is {limit!r}; it must be a whole number, 1 to 127")
    if not (np.isfinite(rows).all() and np.isfinite(factor).all()):
        raise InputError("weights and the hessian must be finite")
    codes = np.empty(rows.shape, np.int8)
    _core.upper_factor(factor)
    if not (factor.diagonal() > 0).all() or not np.isfinite(factor).all():
        raise InputError("the hessian is not positive definite; add to its diagonal")
    _core.round_rows(rows, factor, limit, codes)
    return codes


def _reals(values: ArrayLike, what: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values)
        if array.dtype.kind in "biuf":
            return np.ascontiguousarray(array, np.float64)
    except ValueError:  # rows of different lengths
        pass
    raise InputError(f"{what} must be an array of real numbers")
