"""The range of one tensor, as calibration found it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """What the codes of one tensor have to hold.

    Attributes:
        rmin: Smallest real number.
        rmax: Largest real number.
        method: Which method chose it: "minmax", "percentile 99.99", ...
        clipped: Share of the observed values outside [rmin, rmax], 0..1.
        sqnr: Signal to quantisation noise expected with 8 bits, dB; None where it cannot be said
            (all observed values are 0, or nothing is lost).
        note: What else was considered and why it was not taken; empty where there was no choice.
        symmetric: Whether the zero point is the middle code; None: as the configuration says.
    """

    rmin: float
    rmax: float
    method: str
    clipped: float = 0.0
    sqnr: float | None = None
    note: str = ""
    symmetric: bool | None = None
