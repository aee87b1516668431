"""What was decided about each operator, and what the decision costs.

A record is plain data: strings, numbers and None. It goes into the report and from there into the
saved file, so it holds nothing that differs between two runs on the same inputs (no times).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LayerRecord:
    """One operator of the simplified model.

    Attributes:
        name: The node's name.
        op_type: ONNX operator.
        precision: "int8" or "f32".
        reason: Why it has this precision; never empty for f32.
        macs: Multiply-adds for the shapes seen in calibration; None when they are not known.
        tensor: Name of the quantised activation that the layer reads (int8 layers only).
        rmin: Smallest real number that its codes can hold.
        rmax: Largest one.
        method: Calibration method that chose the range.
        clipped: Share of the observed values outside the range, 0..1.
        scale: Real units per code of the activation.
        zero_point: Code of real 0.
        weight_sqnr: Signal to quantisation noise of the weights, dB; None without weights.
        activation_sqnr: The same of the activation, expected from its histogram, dB.
        raised_channels: Output channels whose weight scale was raised so that the bias fits s32.
    """

    name: str
    op_type: str
    precision: str
    reason: str
    macs: int | None = None
    tensor: str | None = None
    rmin: float | None = None
    rmax: float | None = None
    method: str | None = None
    clipped: float | None = None
    scale: float | None = None
    zero_point: int | None = None
    weight_sqnr: float | None = None
    activation_sqnr: float | None = None
    raised_channels: int = 0
