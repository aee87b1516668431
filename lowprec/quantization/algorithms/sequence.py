"""The algorithms in their order: what comes before calibration, and what comes after rounding.

    prepare     equalize ─► smooth ─► absorb_bias          the float model, its outputs unchanged
    refine      round_weights ─► correct_bias              codes of weights, biases

Each step is tried: where the quantised model's outputs get worse by it, it is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING

import onnx_ir as ir

from lowprec.quantization.algorithms.absorb_bias import absorb_bias
from lowprec.quantization.algorithms.correct_bias import CHEAP_MACS, correct_bias
from lowprec.quantization.algorithms.equalize import equalize
from lowprec.quantization.algorithms.integer_layers import find_integer_layers
from lowprec.quantization.algorithms.moments import Feed
from lowprec.quantization.algorithms.outcome import Outcome
from lowprec.quantization.algorithms.round_weights import round_weights
from lowprec.quantization.algorithms.smooth import smooth
from lowprec.quantization.algorithms.trial import FEEDS_TRIED, Trial
from lowprec.quantization.recognition import find_quantized_operator

if TYPE_CHECKING:
    from lowprec.config import Config
    from lowprec.quantization.quantize import QuantizationResult

Algorithm = Callable[[ir.Model, Sequence[Feed], "Config"], Outcome]
Refinement = Callable[[ir.Model, ir.Model, Sequence[Feed], "Config"], Outcome]

FEEDS_USED = 8
"""Feeds that the algorithms look at, at most: what they ask for are moments and extremes."""
FEEDS_LEARNED = 16
"""Feeds that bias correction learns from, at most, beside those of the trial. A mean over four
pictures is off by what is particular to them: EfficientNet-Lite0 has 24.1 dB (23.7 to 24.4, by the
choice of pictures) from 4, 24.6 (24.4 to 24.7) from 16, 24.7 from 60."""
MIN_GAIN = 0.1
"""dB of the outputs that a step must gain to stay; less is chance on a few feeds."""


def prepare(model: ir.Model, feeds: Iterable[Feed], config: Config) -> list[Outcome]:
    """Change `model` in place so that eight bits lose less; its float outputs stay what they were.

    Args:
        model: Simplified float hub, before calibration: ranges change. A model that is quantised
            already is left as it is.
        feeds: Typical feeds by input name; the first few are used.
        config: Its section `algorithms` switches each algorithm; layers that its rules keep out
            of int8 are left as they are.

    Returns:
        One Outcome per algorithm that was switched on, in the order of their application; its gain
        is that of the outputs on the feeds.
    """
    if find_quantized_operator(model) is not None:
        return []
    first = few_samples(model, feeds)
    steps: list[tuple[object, Algorithm]] = [
        (config.algorithms.equalization, equalize),
        (config.algorithms.smoothing, smooth),
        (config.algorithms.bias_absorption, absorb_bias),
    ]
    wanted = [step for switch, step in steps if switch is not False]
    if not first or not wanted:
        return []
    outcomes: list[Outcome] = []
    trial: Trial | None = None
    before = 0.0
    for step in wanted:
        kept = model.clone()
        outcome = step(model, first, config)
        if outcome.changed and outcome.gain is None:
            if trial is None:
                trial = Trial(kept, first, config)
                before = trial.sqnr(kept)
            after = trial.sqnr(model)
            outcome, undone = _judge(outcome, after - before)
            if undone:
                model.graph = kept.graph
            else:
                before = after
        outcomes.append(outcome)
    return outcomes


def batch_of(model: ir.Model, feed: Feed) -> int:
    """Return how many samples `feed` holds; 1 where it cannot be cut into samples.

    It can where every input leaves its first dimension open, and all have the same size there.
    """
    sizes = set()
    for value in model.graph.inputs:
        array = feed.get(value.name or "")
        is_open = value.shape is not None and len(value.shape) > 0
        if array is None or not is_open or isinstance(value.shape[0], int):  # type: ignore[index]
            return 1
        sizes.add(array.shape[0] if array.ndim else 0)
    return sizes.pop() if len(sizes) == 1 and 0 not in sizes else 1


def few_samples(model: ir.Model, feeds: Iterable[Feed], count: int = FEEDS_USED) -> list[Feed]:
    """Return at most `count` feeds, of one sample each where batches can be cut: time is short.

    Args:
        model: Its inputs say what a batch is.
        feeds: By input name; samples are taken from as many as there are.
        count: Of samples.
    """
    given = list(islice(feeds, count))
    found: list[Feed] = []
    for place in range(count):
        for feed in given:
            batch = batch_of(model, feed)
            if place >= batch:
                continue
            part = slice(place, place + 1)
            cut = {name: array[part] for name, array in feed.items()} if batch > 1 else feed
            found.append(cut)
        if len(found) >= count:
            break
    return found[:count]


def _more_samples(model: ir.Model, given: list[Feed], rest: Iterable[Feed]) -> list[Feed]:
    """Return samples of `given`, and of `rest` too where those are too few: batches are large."""
    most = FEEDS_TRIED + FEEDS_LEARNED
    are_enough = sum(batch_of(model, feed) for feed in given) >= most
    return few_samples(model, given if are_enough else chain(given, rest), most)


def _without_tried(feeds: list[Feed]) -> list[Feed]:
    """Return what to learn from: where there are enough, others than those that judge."""
    return feeds[FEEDS_TRIED:] if len(feeds) >= 2 * FEEDS_TRIED else feeds


def _judge(outcome: Outcome, gain: float) -> tuple[Outcome, bool]:
    """Return the outcome with its gain, and whether the step is to be undone."""
    if gain >= MIN_GAIN:
        return replace(outcome, gain=gain), False
    what = f"lose {-gain:.1f} dB" if gain < -MIN_GAIN else "gain nothing"
    note = f"{outcome.note}; undone: the outputs would {what}"
    return replace(outcome, changed=0, gain=gain, note=note), True


def refine(
    float_model: ir.Model, result: QuantizationResult, feeds: Iterable[Feed], config: Config
) -> list[Outcome]:
    """Change weight codes and biases of `result.model` in place where that lowers the error.

    Args:
        float_model: Simplified float hub that `result` was made of, not changed.
        result: From `apply_precisions`.
        feeds: Typical feeds by input name; the first few are used, a few more where the model is
            small enough for `auto`.
        config: Its section `algorithms` switches each algorithm. `auto` leaves large models
            alone.

    Returns:
        One Outcome per algorithm that was switched on, in the order of their application.
    """
    source = iter(feeds)
    given = list(islice(source, FEEDS_USED))
    first = few_samples(float_model, given)
    steps: list[Refinement] = []
    rounding, correction = config.algorithms.rounding, config.algorithms.bias_correction
    macs = result.total_macs // max(batch_of(float_model, given[0]) if given else 1, 1)
    is_cheap = macs <= CHEAP_MACS
    if rounding == "adaptive" or (rounding == "auto" and is_cheap):
        steps.append(round_weights)
    if correction is True or (correction == "auto" and is_cheap):
        steps.append(correct_bias)
    if not first or not steps or not find_integer_layers(float_model, result.model):
        return []
    learned = _without_tried(first)
    trial = Trial(float_model, first, config)
    before = trial.sqnr_of(result.model)
    outcomes = []
    for step in steps:
        kept = result.model.clone()
        if step is correct_bias and is_cheap:
            learned = _without_tried(_more_samples(float_model, given, source))
        outcome = step(float_model, result.model, learned, config)
        if outcome.changed:
            after = trial.sqnr_of(result.model)
            outcome, undone = _judge(outcome, after - before)
            if undone:
                result.model.graph = kept.graph
            else:
                before = after
        outcomes.append(outcome)
    return outcomes
