"""From samples to the range of every tensor that is to be quantised."""

from lowprec.calibration.calibrator import CalibrationResult, calibrate
from lowprec.calibration.channels import ChannelStatistics, observe_channels
from lowprec.calibration.ranges import Range

__all__ = ["CalibrationResult", "ChannelStatistics", "Range", "calibrate", "observe_channels"]
