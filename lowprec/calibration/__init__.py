"""From samples to the range of every tensor that is to be quantised."""

from lowprec.calibration.calibrator import (
    CalibrationResult,
    calibrate,
    check_methods,
    choose_ranges,
    observe,
)
from lowprec.calibration.channels import ChannelStatistics, observe_channels
from lowprec.calibration.observation import Observation
from lowprec.calibration.ranges import Range
from lowprec.calibration.statistics import Histogram

__all__ = [
    "CalibrationResult",
    "ChannelStatistics",
    "Histogram",
    "Observation",
    "Range",
    "calibrate",
    "check_methods",
    "choose_ranges",
    "observe",
    "observe_channels",
]
