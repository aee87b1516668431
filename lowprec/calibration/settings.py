"""What the keys of `calibration` come to, presets of other tools included.

| preset   | `auto` is | histogram              | levels | window | smoothing | percentile   |
|----------|-----------|------------------------|--------|--------|-----------|--------------|
| (none)   | auto      | bins of a power of two | codes  | levels | 1e-4      | 99.99        |
| ort      | minmax    | 2048 over +-max |x|    | 128    | 128    | 1e-4      | 99.999       |
| tensorrt | entropy   | 2048 over [0, max |x|] | 128    | 128    | 0         | 99.99 of |x| |
| mxnet    | entropy   | 8001 over +-max |x|    | 255    | 255    | 1e-4      | 99.99        |
| torch    | l2        | 2048 over [min, max]   | 256    |        |           | 99.99        |

A key that differs from its default wins over the preset. Other tools' grids are cut out of a finer
histogram of ours, values spread evenly within its bins: so a preset's result is that tool's up to
about one of its bins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from lowprec.calibration.codes import codes_of
from lowprec.calibration.entropy import Variant
from lowprec.errors import ConfigError

if TYPE_CHECKING:
    from lowprec.config import Calibration, Config

Grid = Literal["own", "both sides", "magnitudes", "extremes"]
_FINER = 4  # bins observed for each bin of a preset's grid, at least
_MAX_BINS = 65536


@dataclass(frozen=True)
class Settings:
    """The parameters of the methods.

    Attributes:
        method: Never auto where a preset names another.
        observed_bins: Of the observer.
        grid: Whose bins the entropy and l2 methods count in: our own, or `bins` over +-max |x|,
            over [0, max |x|], or over [min, max].
        bins: Of that grid; of our own, how many the observer has.
        entropy: Variant of the entropy method; its `levels` are also those of the l2 method.
        window: Bins of the entropy method's first candidate.
        percentile: Percent of the values that are kept.
        percentile_of_magnitudes: Cut off at one end of |x|, not at both ends of x.
        momentum: Of the moving average.
    """

    method: str
    observed_bins: int
    grid: Grid
    bins: int
    entropy: Variant
    window: int
    percentile: float
    percentile_of_magnitudes: bool
    momentum: float


_PLAIN = Variant(0)


@dataclass(frozen=True)
class _Preset:
    method: str
    grid: Grid
    bins: int = 2048
    levels: int = 128
    smoothing: float = 1e-4
    percentile: float = 99.99
    of_magnitudes: bool = False
    variant: Variant = _PLAIN


_PRESETS = {
    "ort": _Preset(
        "minmax",
        "both sides",
        percentile=99.999,
        variant=Variant(0, whole_bins=True, spread_rest=False, only_filled=False, truncate=True),
    ),
    "tensorrt": _Preset("entropy", "magnitudes", smoothing=0.0, of_magnitudes=True),
    "mxnet": _Preset(
        "entropy", "both sides", bins=8001, levels=255, variant=Variant(0, whole_bins=True)
    ),
    "torch": _Preset("l2", "extremes", levels=256),
}


def settings_of(config: Config) -> Settings:
    """Return the parameters that `config.calibration` comes to.

    Raises:
        ConfigError: fewer bins than the entropy method's levels need.
    """
    from lowprec.config import Calibration

    given, default = config.calibration, Calibration()
    codes = codes_of(config)
    if given.preset is None:
        levels = given.levels or codes.levels
        found = Settings(
            method=given.method,
            observed_bins=given.bins,
            grid="own",
            bins=given.bins,
            entropy=Variant(levels, given.smoothing),
            window=given.window or levels,
            percentile=given.percentile,
            percentile_of_magnitudes=codes.symmetric,
            momentum=given.momentum,
        )
        # A histogram that grew by doubling may use half of its bins.
        _check_bins(found, given, 2 * levels)
        return found

    preset = _PRESETS[given.preset]

    def own(key: str, otherwise: float) -> float:
        value: float = getattr(given, key)
        return otherwise if value == getattr(default, key) else value

    levels = given.levels or preset.levels
    bins = int(own("bins", preset.bins))
    finer = 1 << (_FINER * bins - 1).bit_length()
    found = Settings(
        method=preset.method if given.method == "auto" else given.method,
        observed_bins=min(finer, _MAX_BINS),
        grid=preset.grid,
        bins=bins,
        entropy=replace(
            preset.variant, levels=levels, smoothing=own("smoothing", preset.smoothing)
        ),
        window=given.window or levels,
        percentile=own("percentile", preset.percentile),
        percentile_of_magnitudes=preset.of_magnitudes or codes.symmetric,
        momentum=given.momentum,
    )
    _check_bins(found, given, levels)
    return found


def _check_bins(found: Settings, given: Calibration, least: int) -> None:
    if found.method == "entropy" and found.bins <= least:
        raise ConfigError(
            f"calibration.bins is {given.bins}: with {found.entropy.levels} levels the entropy "
            f"method needs more than {least} bins, or its only candidate is the whole range; raise "
            "bins or lower levels"
        )
