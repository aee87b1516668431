"""The codes that a tensor's range is mapped onto.

| dtype | scheme     | codes       | with reduce_range | zero point |
|-------|------------|-------------|-------------------|------------|
| u8    | asymmetric | 0 .. 255    | 0 .. 127          | any        |
| s8    | asymmetric | -128 .. 127 | -64 .. 63         | any        |
| u8    | symmetric  | 1 .. 255    | 1 .. 127          | 128 (64)   |
| s8    | symmetric  | -127 .. 127 | -63 .. 63         | 0          |

A symmetric range has as many codes on either side, so both dtypes stand for the same reals. ONNX's
QuantizeLinear saturates at the dtype, not at the reduced range: a value outside the range that was
calibrated may still get one of the codes that `reduce_range` leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lowprec.numerics import reference

if TYPE_CHECKING:
    from lowprec.config import Config


@dataclass(frozen=True)
class Codes:
    """What the ends of a range are mapped onto.

    Attributes:
        dtype: Of the codes, uint8 or int8.
        qmin: Code of the lower end.
        qmax: Code of the upper end.
        symmetric: Whether the zero point is the middle code.
    """

    dtype: np.dtype[Any]
    qmin: int
    qmax: int
    symmetric: bool

    @property
    def levels(self) -> int:
        """Number of codes."""
        return self.qmax - self.qmin + 1

    def parameters(self, rmin: float, rmax: float) -> tuple[np.float32, int]:
        """Return scale (real units per code) and zero point for the range [rmin, rmax]."""
        scale, zero_point = reference.choose_qparams(
            np.float32(rmin), np.float32(rmax), self.qmin, self.qmax, self.symmetric
        )
        return np.float32(scale), int(zero_point)

    def steps(self, rmin: float, rmax: float) -> tuple[float, int, int]:
        """Return scale, and the lowest and highest multiple of it that a code stands for."""
        scale, zero_point = self.parameters(rmin, rmax)
        limits = np.iinfo(self.dtype)
        return float(scale), int(limits.min) - zero_point, int(limits.max) - zero_point


def codes_of(config: Config, *, symmetric: bool | None = None) -> Codes:
    """Return the codes that `config.activations` asks for.

    Args:
        config: Its scheme `auto` counts as asymmetric.
        symmetric: The scheme of this tensor, where it is known; None: the config's.
    """
    wanted = config.activations
    if symmetric is None:
        symmetric = wanted.scheme == "symmetric"
    bits = 7 if wanted.reduce_range else 8
    qmin = 0 if wanted.dtype == "u8" else -(2 ** (bits - 1))
    return Codes(
        np.dtype(np.uint8 if wanted.dtype == "u8" else np.int8),
        qmin + 1 if symmetric else qmin,
        qmin + 2**bits - 1,
        symmetric,
    )
