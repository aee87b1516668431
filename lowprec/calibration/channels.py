"""What each channel of a tensor holds: extremes, moments, on demand a histogram.

Activations are quantised per tensor; their channels matter to what prepares a model for that
(equalisation, smoothing, bias correction) and to reports. The engine is tapped: nothing is copied
out of a run, and memory depends on the channels alone.

    found = observe_channels(hub, {"conv1_out": 1, "tokens": -1}, feeds)
    found["conv1_out"].absolute_maximum   # float32, shape (channels,)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lowprec._ext._core import ChannelObserver, TensorObserver
from lowprec.calibration.statistics import Histogram
from lowprec.engine import compile_model
from lowprec.errors import DataError

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class ChannelStatistics:
    """What was seen of the channels of one tensor, shape (channels,) each, in real units.

    Attributes:
        minimum: Smallest value, float32.
        maximum: Largest value, float32.
        mean: float64.
        variance: float64, of the values seen (not an estimate of a larger whole).
        count: Values per channel.
        histograms: One per channel, where they were asked for; else empty.
    """

    minimum: NDArray[np.float32]
    maximum: NDArray[np.float32]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    count: int
    histograms: tuple[Histogram, ...] = ()

    @property
    def absolute_maximum(self) -> NDArray[np.float32]:
        """Largest magnitude, float32, shape (channels,)."""
        return np.maximum(-self.minimum, self.maximum)

    @classmethod
    def of(cls, observer: ChannelObserver) -> ChannelStatistics:
        """Return what `observer` holds."""
        minimum, maximum = observer.extremes()
        channels = range(observer.channels)
        sums = [observer.sums(channel) for channel in channels]
        unit, count = Fraction(2) ** TensorObserver.LOWEST, max(observer.count, 1)
        means = [values * unit / count for values, _ in sums]
        squares = [of_squares * unit / count for _, of_squares in sums]
        histograms = []
        for channel in channels if observer.bins else ():
            counts, first, width = observer.histogram(channel)
            histograms.append(Histogram(counts, first * width, width))
        return cls(
            minimum,
            maximum,
            np.array([float(mean) for mean in means]),
            np.array([max(float(s - m * m), 0.0) for s, m in zip(squares, means, strict=True)]),
            observer.count,
            tuple(histograms),
        )


def observe_channels(
    model: ir.Model,
    axes: Mapping[str, int],
    feeds: Iterable[Mapping[str, NDArray[Any]]],
    *,
    bins: int = 0,
) -> dict[str, ChannelStatistics]:
    """Return what each channel of some values holds while `feeds` run through `model`.

    Args:
        model: Float hub; not changed. It is compiled for this call.
        axes: Float32 value name -> its channel axis (1 of an image, -1 of tokens; negative ones
            count from the end). Any value of the model, inputs included.
        feeds: Complete feeds by input name; consumed once, all of them.
        bins: Bins of a histogram per channel, 16 to 65536; 0 for none. They cost 16 bytes per bin
            and channel.

    Returns:
        By value name; values that no run reached (an untaken branch) are missing. The numbers do
        not depend on the order of the feeds, nor on threads.

    Raises:
        DataError: a value holds NaN or infinity.
        ModelError: a name that is not in the model.
        InputError: a feed that does not fit, or a value whose number of channels changes.
    """
    observers = {name: ChannelObserver(axis, bins=bins) for name, axis in axes.items()}
    session = compile_model(model, observers=observers)
    for number, feed in enumerate(feeds):
        session.run(feed)
        for name, observer in observers.items():
            if observer.nonfinite:
                raise DataError(
                    f"tensor {name!r} holds {observer.nonfinite} NaN or infinite values in "
                    f"calibration batch {number}; every tensor must stay finite: check that batch "
                    "and how the inputs are scaled"
                )
    return {
        name: ChannelStatistics.of(observer)
        for name, observer in observers.items()
        if observer.channels
    }
