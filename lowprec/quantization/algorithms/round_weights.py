"""Choose codes of weights so that the layer's sums keep their values, not each weight its own.

Rounded to the nearest code, every weight is as close as it can be, and yet the sums are not: inputs
of a layer are correlated. With H = E[x x^T] of the layer's inputs, the error of a row of weights is
(w - q)^T H (w - q). The weights of a row are rounded one after the other, and the error of each is
made up for by those not rounded yet, in closed form.

Frantar et al. 2022, "GPTQ", arXiv:2210.17323, algorithm 1 (after Optimal Brain Quantization,
arXiv:2208.11580), with scales that stay what they are. It has the aim of AdaRound (Nagel et al.
2020, arXiv:2004.10568), learned rounding that keeps a layer's output, at a hundredth of the time:
one factorisation per layer instead of thousands of steps of gradient descent.

The codes are the same on every machine: H is a sum of whole numbers, exact in any order, and the
rest is `lowprec.numerics.rounding`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec.numerics import round_rows
from lowprec.passes.matching import NameSource
from lowprec.quantization.algorithms.integer_layers import (
    IntegerLayer,
    find_integer_layers,
    set_codes,
)
from lowprec.quantization.algorithms.moments import Feed, Probe, fed
from lowprec.quantization.algorithms.outcome import Outcome
from lowprec.quantization.algorithms.patches import has_patches, sample_patches
from lowprec.quantization.weights import WEIGHT_QMAX, weight_qmax

if TYPE_CHECKING:
    from lowprec.config import Config

DAMPING = 0.01
"""Share of the mean diagonal that is added to H: inputs not seen may be different."""
LARGEST_DEPTH = 4608
"""Weights of a row above which a layer is rounded to nearest: H has the square of it."""
CHEAP_DEPTH = 256
"""The same for `rounding: auto`. EfficientNet-Lite0's depthwise and expanding layers are below it:
rounding them takes a second or two and gives 1.5 dB, all others another 7 seconds and 0.1 dB."""
POSITIONS = 4096
"""Positions of a layer that are looked at, over all feeds, at most."""
POSITIONS_PER_WEIGHT = 32
"""The same, for each weight of a row; 512 at least."""
MEMORY = 256 * 2**20
"""Bytes of H that are collected at a time; with more layers the feeds run more often."""
STEPS = 2047
"""Whole numbers that inputs are rounded to for H: sums of their products are exact in float64."""


def round_groups(
    weights: NDArray[np.float32],
    scale: NDArray[np.float32],
    hessian: NDArray[np.float64],
    limit: int = WEIGHT_QMAX,
) -> NDArray[np.int8]:
    """Return codes of rows of weights with the least error of the sums.

    Args:
        weights: Shape (groups, rows, depth).
        scale: Real units per code, shape (groups, rows, 1).
        hessian: E[x x^T] of each group, shape (groups, depth, depth).
        limit: The largest code.

    Returns:
        s8 in [-limit, limit], of the weights' shape.
    """
    in_codes = weights.astype(np.float64) / scale
    result = np.empty(weights.shape, np.int8)
    for group, matrix in enumerate(hessian):
        diagonal = matrix.diagonal()
        # What matters most is rounded while all others can still make up for it.
        order = np.argsort(-diagonal, kind="stable")
        mean = max(math.fsum(diagonal) / len(diagonal), np.finfo(np.float64).tiny)
        damped = matrix[np.ix_(order, order)] / mean
        damped[range(len(order)), range(len(order))] += DAMPING
        result[group][:, order] = round_rows(in_codes[group][:, order], damped, limit)
    return result


def shrunk(hessian: NDArray[np.float64], positions: int) -> NDArray[np.float64]:
    """Return E[x x^T] as believed after few positions: the fewer, the less its correlations count.

    Of fewer positions than weights a row could make all sums exact and know nothing of the rest.
    """
    depth = hessian.shape[1]
    kept = positions / (positions + depth)
    matrix: NDArray[np.float64] = hessian * kept
    matrix[:, range(depth), range(depth)] = np.einsum("gkk->gk", hessian)
    return matrix


def round_weights(
    float_model: ir.Model, quantized: ir.Model, feeds: Sequence[Feed], config: Config
) -> Outcome:
    """Round the weights of `quantized` anew, in place.

    Args:
        float_model: The weights before rounding.
        quantized: What was made of it; scales stay.
        feeds: Typical feeds by input name.
        config: `rounding: auto` leaves out layers whose H is expensive.
    """
    largest = LARGEST_DEPTH if config.algorithms.rounding == "adaptive" else CHEAP_DEPTH
    found = find_integer_layers(float_model, quantized)
    targets = [target for target in found if is_roundable(target, largest)]
    if not targets:
        return Outcome("rounding", 0, None, "no layer whose weights can be rounded by their inputs")
    names = NameSource(quantized)
    changed = total = layers = 0
    for target, codes in list(new_codes(quantized, targets, feeds, weight_qmax(config))):
        others = int((codes != target.codes).sum())
        changed += others
        total += codes.size
        layers += others > 0
        set_codes(target, codes, names)
    note = f"{changed / total:.0%} of the weights in {layers} of {len(found)} layers rounded anew"
    return Outcome("rounding", layers, None, note)


def is_roundable(target: IntegerLayer, largest: int = LARGEST_DEPTH) -> bool:
    """Return whether `target` has a H of acceptable size, and its codes for itself."""
    layer = target.layer
    if layer.weight_array.size == 0:
        return False
    return has_patches(layer) and _depth(target) <= largest and not target.is_shared


def new_codes(
    quantized: ir.Model,
    targets: Sequence[IntegerLayer],
    feeds: Sequence[Feed],
    limit: int,
) -> Iterator[tuple[IntegerLayer, NDArray[np.int8]]]:
    """Yield each layer of `targets` with better codes for it.

    Args:
        quantized: The layers' inputs are what it computes, codes and all.
        targets: Layers for which `is_roundable` holds.
        feeds: At least one.
        limit: The largest code.
    """
    for some in _portions(targets):
        for target, hessian in zip(some, _hessians(quantized, some, feeds), strict=True):
            yield target, _round(target, hessian, limit)


def _portions(targets: Sequence[IntegerLayer]) -> Iterator[list[IntegerLayer]]:
    some: list[IntegerLayer] = []
    size = 0
    for target in targets:
        needed = 8 * _depth(target) ** 2 * _groups(target)
        if some and size + needed > MEMORY:
            yield some
            some, size = [], 0
        some.append(target)
        size += needed
    if some:
        yield some


def _depth(target: IntegerLayer) -> int:
    """Return how many weights an output has."""
    return target.layer.weight_array.size // target.layer.channels


def _groups(target: IntegerLayer) -> int:
    return target.layer.groups if target.layer.node.op_type == "Conv" else 1


def _hessians(
    quantized: ir.Model, targets: Sequence[IntegerLayer], feeds: Sequence[Feed]
) -> list[NDArray[np.float64]]:
    """Return E[x x^T] of each layer's input, shape (groups, depth, depth)."""
    probe = Probe(quantized)
    for target in targets:
        source = target.node.inputs[0]
        probe.add_value((source.name if source is not None else "") or "")
    session = probe.compile()
    total: list[NDArray[np.float64] | float] = [0.0] * len(targets)
    positions = [0] * len(targets)
    for feed in feeds:
        found = session.run(fed(session, feed))
        for index, (target, x) in enumerate(zip(targets, found, strict=True)):
            wanted = min(max(512, POSITIONS_PER_WEIGHT * _depth(target)), POSITIONS)
            rows = sample_patches(x, target.layer, -(-wanted // len(feeds)))
            total[index] = total[index] + _products(rows)
            positions[index] += len(rows)
    return [
        shrunk(np.asarray(matrix) / max(count, 1), count)
        for matrix, count in zip(total, positions, strict=True)
    ]


def _products(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the sum of x x^T over positions, for rows of shape (positions, groups, depth)."""
    largest = float(np.abs(rows).max(initial=0.0))
    if not np.isfinite(largest):
        rows = np.where(np.isfinite(rows), rows, np.float32(0))
        largest = float(np.abs(rows).max(initial=0.0))
    step = largest / STEPS or 1.0
    whole = np.rint(rows.astype(np.float64) / step)
    by_group = whole.transpose(1, 2, 0)
    products: NDArray[np.float64] = by_group @ by_group.transpose(0, 2, 1)
    return products * (step * step)


def _round(target: IntegerLayer, hessian: NDArray[np.float64], limit: int) -> NDArray[np.int8]:
    """Return the codes in the layout of the layer's weights."""
    layer = target.layer
    transposed = layer.node.op_type != "Conv" and layer.weight_axis == 1
    weights = layer.weight_array.T if transposed else layer.weight_array
    rows = weights.reshape(len(hessian), -1, hessian.shape[1])
    steps = np.broadcast_to(target.scale.reshape(-1, 1), (len(weights), 1))
    codes = round_groups(rows, steps.reshape(len(hessian), -1, 1), hessian, limit).reshape(
        weights.shape
    )
    return np.ascontiguousarray(codes.T if transposed else codes)
