"""The algorithms in their order: what comes before calibration, and what comes after rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.quantization.algorithms.equalize import equalize
from lowprec.quantization.algorithms.outcome import Outcome
from lowprec.quantization.recognition import find_quantized_operator

if TYPE_CHECKING:
    from lowprec.config import Config
    from lowprec.quantization.quantize import QuantizationResult

Feed = Mapping[str, NDArray[Any]]

FEEDS_USED = 8
"""Feeds that the algorithms look at, at most: what they ask for are moments and extremes."""


def prepare(model: ir.Model, feeds: Iterable[Feed], config: Config) -> list[Outcome]:
    """Change `model` in place so that eight bits lose less; its float outputs stay what they were.

    Args:
        model: Simplified float hub, before calibration: ranges change. A model that is quantised
            already is left as it is.
        feeds: Typical feeds by input name; the first few are used.
        config: Its section `algorithms` switches each algorithm; layers that its rules keep out
            of int8 are left as they are.

    Returns:
        One Outcome per algorithm that was switched on, in the order of their application.
    """
    if find_quantized_operator(model) is not None:
        return []
    first = list(islice(feeds, FEEDS_USED))
    if not first:
        return []
    outcomes = []
    if config.algorithms.equalization is not False:
        outcomes.append(equalize(model, first, config))
    return outcomes


def refine(
    float_model: ir.Model, result: QuantizationResult, feeds: Iterable[Feed], config: Config
) -> list[Outcome]:
    """Change weight codes and biases of `result.model` in place where that lowers the error.

    Args:
        float_model: Simplified float hub that `result` was made of, not changed.
        result: From `quantize_graph`.
        feeds: Typical feeds by input name; the first few are used.
        config: Its section `algorithms` switches each algorithm.

    Returns:
        One Outcome per algorithm that was switched on, in the order of their application.
    """
    return []
