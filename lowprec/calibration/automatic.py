"""The rule `auto`: tensor by tensor, the candidate with the least expected squared error.

Candidates are minmax and `CANDIDATES`, judged on the very codes that the tensor will get (a u8 with
a zero point is no symmetric s8). Cutting tails is a bet that outliers mean nothing to the rest of
the network, and a histogram cannot know that: a candidate is out of the question when it clips more
than `MAX_CLIPPED` of the values, or when the clipped values hold more than `MAX_CLIPPED_POWER` of
the tensor's energy. So a mask of -10,000 in an attention layer keeps its range, whatever share of
the values it is. The range says what was rejected, and why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lowprec.calibration.codes import Codes, codes_of
from lowprec.calibration.protocol import (
    TensorStatistics,
    WholeRule,
    clamped,
    clipped_share,
    describe_range,
    histogram_of,
)
from lowprec.calibration.ranges import Range
from lowprec.calibration.searches import least_squares
from lowprec.calibration.statistics import squared_errors

if TYPE_CHECKING:
    pass

CANDIDATES: tuple[float | str, ...] = (99.999, 99.99, "mse")
"""What `auto` tries beside minmax: percentiles, and methods by name."""
MAX_CLIPPED = 1e-3
"""Share of the values that `auto` may clip."""
MAX_CLIPPED_POWER = 1e-2
"""Share of a tensor's squared values that the error may be."""
MIN_GAIN = 1.01
"""Factor by which a candidate must lower the expected error; the wider range wins a tie."""


class Auto(WholeRule):
    """The candidate with the least expected squared error; see the module's text for the limits."""

    def range(self, tensor: TensorStatistics) -> Range:
        """Return minmax, or the best candidate where it is better and safe."""
        codes = codes_of(self._config)
        ranges = {"minmax": (tensor.minimum, tensor.maximum)}
        if tensor.minimum < tensor.maximum:
            ranges.update(_candidate(tensor, wanted, codes) for wanted in CANDIDATES)
        errors = dict(
            zip(
                ranges,
                squared_errors(
                    histogram_of(tensor).without_zeros,
                    [codes.steps(low, high) for low, high in ranges.values()],
                ),
                strict=True,
            )
        )
        power = histogram_of(tensor).power()
        best, rejected = "minmax", []
        for name, (low, high) in list(ranges.items())[1:]:
            if errors[name] * MIN_GAIN >= errors[best]:
                continue
            share = clipped_share(tensor, low, high)
            if share > MAX_CLIPPED:
                rejected.append(f"{name} would clip {100 * share:.2g} % of the values")
            elif errors[name] > MAX_CLIPPED_POWER * power:
                lost = 100 * errors[name] / power
                rejected.append(f"{name} would lose {lost:.2g} % of the tensor's energy")
            else:
                best = name
        note = self._note(best, {name: float(error) for name, error in errors.items()}, rejected)
        return describe_range(tensor, *ranges[best], best, self._config, note=note)

    @staticmethod
    def _note(best: str, errors: dict[str, float], rejected: list[str]) -> str:
        """Say how much better the winner is, and what was out of the question."""
        parts = []
        others = [name for name in errors if name != best and errors[name] > 0]
        if best == "minmax" and others and not rejected and errors[best] > 0:
            other = min(others, key=errors.__getitem__)
            loss = 10 * np.log10(errors[other] / errors[best])
            parts.append(
                f"{other} would be {loss:.1f} dB worse" if loss > 0 else "no gain in cutting"
            )
        elif best != "minmax" and errors[best] > 0:
            gain = 10 * np.log10(errors["minmax"] / errors[best])
            parts.append(f"{gain:.1f} dB better than minmax")
        return "; ".join(parts + rejected)


def _candidate(
    tensor: TensorStatistics, wanted: float | str, codes: Codes
) -> tuple[str, tuple[float, float]]:
    if isinstance(wanted, str):
        return wanted, least_squares(tensor, codes)
    histogram, tail = histogram_of(tensor), (100 - wanted) / 200
    bounds = clamped(tensor, histogram.quantile(tail), histogram.quantile(1 - tail))
    return f"percentile {wanted:g}", bounds
