"""Which layers to put in a higher precision, found by measuring that very combination.

Gains of single layers do not add up: errors cancel, and what is restored may have hidden another
layer's. So layers are restored one after the other, the most harmful first, each kept only if the
outputs win by it. Those up to the knee of the curve are then quantised anew, in each precision
offered, and measured as any model: dB, milliseconds, the user's own score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from glob import escape
from typing import TYPE_CHECKING, Any

from lowprec.sensitivity.analysis import (
    Array,
    Feed,
    LayerSensitivity,
    Progress,
    analysis_samples,
    observable_outputs,
    output_sqnr,
    unrefined,
    watching,
    with_rules,
)
from lowprec.sensitivity.switchboard import Switchboard
from lowprec.timing import least_times

if TYPE_CHECKING:
    from lowprec.config import Config
    from lowprec.workbench import Workbench

Evaluate = Callable[[Any], float]

MOST_LAYERS = 12
"""Layers that are tried, the most harmful first."""
FEW = 2
"""Layers that a sentence names."""
LEAST_WIN = 0.1
"""dB below which restoring one more layer is not worth it."""
WORTH_SAYING = 1.0
"""dB that all of them together must win: below, the harm is spread over the model."""
GOOD = 40.0
"""dB from which nothing is advised: an error of one percent."""
ENOUGH_MORE = 10.0
"""dB that equal outputs count for above the best unequal ones."""
STRAIGHT = 0.05
"""Height above a straight line that counts as none."""
AS_GOOD = 0.8
"""Share of the best precision's win that is good enough for a faster one..."""
AS_FAST = 1.02
"""...and the ratio of times that counts as the same."""


@dataclass(frozen=True)
class Measured:
    """One model, measured.

    Attributes:
        precision: Of the restored layers; empty for the model with none.
        sqnr: Of the outputs against float, dB.
        ms: Time of a run on the first sample, milliseconds, measured in turns with the others.
        scores: The user's own measures, by name.
    """

    precision: str
    sqnr: float
    ms: float
    scores: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data; an infinite ratio is the text "inf"."""
        return {
            "precision": self.precision,
            "sqnr": self.sqnr if math.isfinite(self.sqnr) else "inf",
            "ms": self.ms,
            "scores": dict(self.scores),
        }


@dataclass(frozen=True)
class Advice:
    """Layers to restore, and what was measured of it.

    Attributes:
        layers: Names, the most harmful first; empty where no few layers make a difference.
        before: The quantised model as it is.
        options: The same with these layers in each precision, the advised one first.
    """

    layers: tuple[str, ...]
    before: Measured
    options: tuple[Measured, ...]

    @property
    def sentence(self) -> str:
        """What to do and what it wins, in one sentence."""
        if not self.layers and self.before.sqnr >= GOOD:
            return f"Nothing needs to change: the outputs keep {self.before.sqnr:.1f} dB of float's"
        if not self.layers:
            return (
                "No few layers stand out: what quantising costs is spread over the model. Where it "
                "is too much, try precision auto, or bf16 for all"
            )
        best = self.options[0]
        count = len(self.layers)
        names = " and ".join(f"'{name}'" for name in self.layers)
        what = names if count <= FEW else f"these {count} layers"
        return f"Put {what} in {best.precision}: {self._effects(best)}"

    def table(self) -> list[str]:
        """Return a line per precision that was measured."""
        return [f"in {option.precision}: {self._effects(option)}" for option in self.options]

    def yaml(self) -> str:
        """Return rules for the configuration's `layers`, to be added after those that are there."""
        import yaml

        rules = [
            {"match": escape(name), "precision": self.options[0].precision} for name in self.layers
        ]
        text: str = yaml.safe_dump(
            {"layers": rules},
            sort_keys=False,
            default_flow_style=None,
            allow_unicode=True,
            width=200,
        )
        return text if rules else ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON data."""
        return {
            "sentence": self.sentence,
            "layers": list(self.layers),
            "yaml": self.yaml(),
            "before": self.before.to_dict(),
            "options": [option.to_dict() for option in self.options],
            "lines": self.table(),
        }

    def _effects(self, after: Measured) -> str:
        before = self.before
        parts = [f"{after.sqnr - before.sqnr:+.1f} dB ({before.sqnr:.1f} to {after.sqnr:.1f})"]
        if math.isinf(after.sqnr):
            parts = [f"equal to float (before: {before.sqnr:.1f} dB)"]
        parts += [
            f"{name} {after.scores[name] - score:+.4g} ({score:.4g} to {after.scores[name]:.4g})"
            for name, score in before.scores.items()
            if name in after.scores
        ]
        parts.append(f"{after.ms - before.ms:+.2f} ms ({before.ms:.2f} to {after.ms:.2f})")
        return ", ".join(parts)


def advise(
    workbench: Workbench,
    config: Config,
    found: Sequence[LayerSensitivity],
    *,
    feeds: int = 8,
    precisions: Sequence[str] = ("bf16", "f32"),
    evaluate: Mapping[str, Evaluate] | None = None,
    progress: Progress | None = None,
) -> Advice | None:
    """Return the layers that are best restored, or None where nothing is quantised.

    Args:
        workbench: The captured model and its data.
        config: What the whole model is quantised with.
        found: From `analyse` of the same.
        feeds: Calibration feeds to measure on.
        precisions: Layer precisions to offer.
        evaluate: Functions from a model to a score, by name.
        progress: Called as progress(steps done, steps).

    Raises:
        ConfigError: one of `precisions` is none.
    """
    if not found:
        return None
    candidates = [layer for layer in found if layer.gain > 0][:MOST_LAYERS]
    steps = _Steps(len(candidates) + 1, progress)
    prepared = workbench.prepared(config)
    samples = analysis_samples(workbench, feeds)
    raw = unrefined(prepared, config, samples[0])
    outputs = observable_outputs(prepared.hub, raw)
    original = watching(prepared.hub, outputs, keep=False)
    expected = [original.run(feed) for feed in samples]
    board = Switchboard(raw, prepared.hub, [layer.name for layer in candidates], outputs)

    def sqnr_with(switched: Sequence[str]) -> float:
        return output_sqnr(expected, (board.run(feed, switched) for feed in samples))

    chosen: list[str] = []
    ladder = [sqnr_with(())]
    for layer in candidates:
        if layer.name in board.layers:
            reached = sqnr_with([*chosen, layer.name])
            if reached >= ladder[-1] + LEAST_WIN:
                chosen.append(layer.name)
                ladder.append(reached)
        steps.done()
    bench = _Bench(workbench, config, expected, samples, outputs, evaluate or {})
    before: Measured | None = None
    # What layers win together in the switchboard, they need not win when all is quantised anew.
    for count in dict.fromkeys((_fewest(ladder), len(chosen) if _fewest(ladder) else 0)):
        layers = tuple(chosen[:count]) if ladder[0] < GOOD and count < len(found) else ()
        rules = [with_rules(config, dict.fromkeys(layers, low)) for low in precisions if layers]
        before, *options = bench.measure([config, *rules], ["", *precisions][: len(rules) + 1])
        if options and max(option.sqnr for option in options) >= before.sqnr + WORTH_SAYING:
            ranks = [_rank(option, before, options) for option in options]
            ranked = sorted(range(len(options)), key=ranks.__getitem__)
            steps.end()
            return Advice(layers, before, tuple(options[index] for index in ranked))
    steps.end()
    assert before is not None
    return Advice((), before, ())


class _Bench:
    """Quantises and measures: outputs, time, scores."""

    def __init__(
        self,
        workbench: Workbench,
        config: Config,
        expected: Sequence[Sequence[Array]],
        samples: Sequence[Feed],
        outputs: Sequence[str],
        evaluate: Mapping[str, Evaluate],
    ) -> None:
        self._workbench = workbench
        self._prepared = workbench.prepared(config)
        self._expected, self._samples, self._outputs = expected, samples, outputs
        self._evaluate = evaluate
        self._scores: dict[str, dict[str, float]] = {}

    def measure(self, configs: Sequence[Config], precisions: Sequence[str]) -> list[Measured]:
        """Return what was measured of each configuration, the times in turns."""
        models = [
            self._workbench.quantize(config, prepared=self._prepared, measure=False)
            for config in configs
        ]
        feed = self._samples[0]
        runs = {str(index): partial(model.run, feed) for index, model in enumerate(models)}
        times = least_times(runs, seconds=1.0)
        measured = []
        for index, (config, precision, model) in enumerate(
            zip(configs, precisions, models, strict=True)
        ):
            watched = watching(model.hub, self._outputs, keep=False)
            sqnr = output_sqnr(self._expected, (watched.run(feed) for feed in self._samples))
            key = config.to_yaml()
            if key not in self._scores:  # a score may take minutes
                self._scores[key] = {
                    name: float(function(model)) for name, function in self._evaluate.items()
                }
            ms = 1e3 * times[str(index)]
            measured.append(Measured(precision, sqnr, ms, self._scores[key]))
        return measured


def _fewest(ladder: Sequence[float]) -> int:
    """Return how many layers to restore: up to the knee, where the next ones win clearly less.

    The knee lies farthest above the straight line from none to all; where the curve is as good as
    straight, all of them count. 0 where all together are not worth saying.

    Args:
        ladder: dB with none, one, two ... of the layers restored; rising.
    """
    known = [reached for reached in ladder if math.isfinite(reached)]
    if len(ladder) < 2 or not known:
        return 0
    # All layers restored may be the float model itself.
    reached = [min(value, max(known) + ENOUGH_MORE) for value in ladder]
    win = reached[-1] - reached[0]
    if win < WORTH_SAYING:
        return 0
    steps = len(ladder) - 1
    above = [(value - reached[0]) / win - n / steps for n, value in enumerate(reached)]
    highest = max(above[1:])
    return max(n for n in range(1, steps + 1) if above[n] >= highest - STRAIGHT)


def _rank(option: Measured, before: Measured, options: Sequence[Measured]) -> tuple[bool, bool]:
    """Return the order of an option: what wins nearly as much as the best, then what is as fast.

    Of equals the one offered first stays first.
    """
    best = max(other.sqnr for other in options) - before.sqnr
    fastest = min(other.ms for other in options)
    return option.sqnr - before.sqnr < AS_GOOD * best, option.ms > AS_FAST * fastest


class _Steps:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._made = total, progress, 0

    def done(self) -> None:
        self._made = min(self._made + 1, self._total)
        if self._progress is not None:
            self._progress(self._made, self._total)

    def end(self) -> None:
        self._made = self._total
        self.done()
