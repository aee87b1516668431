"""Give every layer of a float hub the precision that the configuration asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from lowprec.quantization.quantize import QuantizationResult, quantize_graph
from lowprec.quantization.use_bf16 import convert_to_bf16

if TYPE_CHECKING:
    import onnx_ir as ir

    from lowprec.calibration.ranges import Range
    from lowprec.config import Config


def apply_precisions(
    model: ir.Model,
    ranges: Mapping[str, Range],
    config: Config,
    *,
    input_shapes: Mapping[str, Iterable[int]] | None = None,
) -> QuantizationResult:
    """Return a copy of `model` with the precisions of `config`, and the account of every operator.

    Args:
        model: Simplified float hub.
        ranges: By value name, for the layers in static int8.
        config: `precision` for all layers, `layers` for those that differ.
        input_shapes: Shapes of the inputs as fed in calibration, by name; decides how many
            multiply-adds each layer has.
    """
    if config.precision == "bf16":
        return convert_to_bf16(model, config, input_shapes=input_shapes)
    return quantize_graph(model, ranges, config, input_shapes=input_shapes)
