"""From samples to the range of every tensor that is to be quantised."""

from lowprec.calibration.calibrator import CalibrationResult, calibrate
from lowprec.calibration.ranges import Range

__all__ = ["CalibrationResult", "Range", "calibrate"]
