"""Scale and zero point: real = scale * (code - zero_point).

Jacob et al. 2018, arXiv:1712.05877, equation 1; the scale is computed as ONNX's
DynamicQuantizeLinear does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowprec._ext import _core
from lowprec.errors import QuantizationError
from lowprec.numerics import reference
from lowprec.numerics._arguments import BYTE_DTYPES, CODE_DTYPES, code_array, scale_array


@dataclass(frozen=True, eq=False)
class QParams:
    """How the codes of one tensor stand for reals: real = scale * (code - zero_point).

    Attributes:
        scale: float32, above 0, real units per code; shape () per tensor or (C,) per channel.
        zero_point: The code of real 0.0, of `scale`'s shape; its dtype is the codes' dtype.
        axis: The axis that the (C,) entries belong to; None per tensor.

    Two QParams are equal when every bit of them is.

    Raises:
        InputError: a wrong dtype.
        QuantizationError: a scale that is not finite and positive; shapes that do not belong
            together.

    Example:
        >>> QParams(np.float32(0.5), np.uint8(3)).dtype
        dtype('uint8')
    """

    scale: NDArray[np.float32]
    zero_point: NDArray[Any]
    axis: int | None = None

    def __post_init__(self) -> None:
        scale, zero_point = scale_array(self.scale), code_array(self.zero_point, "zero_point")
        if scale.shape != zero_point.shape or scale.ndim != (self.axis is not None):
            raise QuantizationError(
                f"scale has shape {scale.shape}, zero_point {zero_point.shape} and axis is "
                f"{self.axis}; expected two () without an axis, or two (C,) with one"
            )
        for name, array in (("scale", scale), ("zero_point", zero_point)):
            array = array.copy()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the codes."""
        return self.zero_point.dtype

    def _key(self) -> tuple[object, ...]:
        return (
            self.axis,
            self.dtype,
            self.scale.shape,
            self.scale.tobytes(),
            self.zero_point.tobytes(),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, QParams) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def choose_qparams(
    rmin: ArrayLike,
    rmax: ArrayLike,
    *,
    qmin: int,
    qmax: int,
    symmetric: bool = False,
    axis: int | None = None,
) -> QParams:
    """Return the scale and zero point that map [rmin, rmax] onto [qmin, qmax].

    The range is first widened to contain 0, so that real 0.0 (padding, ReLU) is always exact. The
    codes' dtype is the smallest that holds [qmin, qmax]: uint8 for 0 to 255, int8 for -127 to 127,
    uint16, int16. A scale is never below 2**-126, the smallest normal float32: a denormal one would
    not survive a division.

    Args:
        rmin: Smallest value, real units, shape () or (C,).
        rmax: Largest value, real units, same shape as `rmin`.
        qmin: Smallest code, inclusive.
        qmax: Largest code, inclusive.
        symmetric: The range becomes +-max(|rmin|, |rmax|) and the zero point the middle code: 0 for
            signed codes.
        axis: Channel axis that the (C,) entries belong to; needed for shape (C,), None per tensor.

    Returns:
        QParams with float32 scale = (rmax - rmin) / (qmax - qmin), or 1.0 for the range [0, 0].

    Raises:
        QuantizationError: a bound that is not finite, rmin > rmax, or codes that no dtype holds.

    Example:
        >>> choose_qparams(-1.0, 3.0, qmin=0, qmax=255).zero_point.item()
        64
    """
    with _core.FloatState():
        return _choose(_bound(rmin), _bound(rmax), qmin, qmax, symmetric, axis)


def _choose(
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    qmin: int,
    qmax: int,
    symmetric: bool,
    axis: int | None,
) -> QParams:
    if low.shape != high.shape or low.ndim > 1:
        raise QuantizationError(
            f"rmin has shape {low.shape} and rmax {high.shape}; expected () or (C,) for both"
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise QuantizationError(f"a range must be finite in float32; got rmin={low}, rmax={high}")
    if (low > high).any():
        raise QuantizationError(f"rmin must not exceed rmax; got rmin={low}, rmax={high}")
    scale, zero_point = reference.choose_qparams(low, high, qmin, qmax, symmetric)
    return QParams(scale, zero_point.astype(_dtype_of_codes(qmin, qmax)), axis)


def _bound(value: ArrayLike) -> NDArray[np.float32]:
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(value).astype(np.float32)


def _dtype_of_codes(qmin: int, qmax: int) -> np.dtype[Any]:
    if qmax - qmin < 2:
        raise QuantizationError(
            f"qmin is {qmin} and qmax {qmax}; expected at least three codes, qmax >= qmin + 2"
        )
    for dtype in (*BYTE_DTYPES, *CODE_DTYPES[2:4]):
        limits = np.iinfo(dtype)
        if limits.min <= qmin and qmax <= limits.max:
            return dtype
    raise QuantizationError(
        f"no 8-bit or 16-bit dtype holds the codes {qmin} to {qmax}; "
        "expected a range inside [0, 65535] or [-32768, 32767]"
    )
