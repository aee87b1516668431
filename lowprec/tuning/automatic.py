"""Precision auto: each layer the lowest precision that keeps the accuracy and wins time here.

    measure ─► costs per layer ─► allocate within a budget of noise ─► trial ─► another budget ─► ..

What each layer costs in int8, bf16 and f32 is measured once: its time on this machine, and the
noise that it alone brings into the outputs (`lowprec.sensitivity`). Noise powers of single layers
do not quite add up to that of the whole model, and nobody knows how much noise a metric bears, so
the budget is searched: the fastest model first, then half the noise again and again until the
criterion holds, then back towards the last budget that failed.

Without `evaluate` the criterion is the error of the outputs (before a final Softmax or Sigmoid) on
calibration samples: at most LARGEST_ERROR per cent of their root mean square, which is 20 dB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from lowprec.config import Accuracy
from lowprec.layer_times import layer_times
from lowprec.sensitivity import (
    analyse,
    observable_outputs,
    output_sqnr,
    watching,
    with_rules,
)
from lowprec.tuning.allocation import LayerCost, allocate, total_noise, why
from lowprec.tuning.problem import Problem, runs_to_its_end
from lowprec.tuning.result import TuningResult
from lowprec.tuning.search import tune

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from lowprec.calibration.feeds import Feed
    from lowprec.config import Config
    from lowprec.tuning.trial import Trial
    from lowprec.workbench import Workbench

LARGEST_ERROR = 10.0
"""Per cent of the outputs' root mean square; `tuning.options: {output_error: ...}` overrides it."""
FEEDS = 32  # calibration feeds on which the error of the outputs is measured
HALVINGS = 8  # a budget of 1/256 of the noise: then everything that matters is float
REFINEMENTS = 4  # trials between the budget that failed and the one that passed
REPEATS = 15  # runs of which a layer's median time counts
STRATEGY = "auto"
METRIC = "output error, %"


def choose_precisions(
    workbench: Workbench,
    config: Config,
    evaluate: Mapping[str, Callable[[Any], float]] | Callable[[Any], float] | None = None,
    *,
    rebuild: Callable[[Any], Any] | None = None,
    original: object = None,
    progress: Callable[[int, int], None] | None = None,
) -> TuningResult:
    """Return the model in which each layer has the precision that measurements chose.

    Args:
        workbench: The model and its data.
        config: `precision` is auto; what its `layers` fix stays fixed.
        evaluate: As for `tune`; None measures the error of the outputs on calibration samples.
        rebuild: As for `tune`.
        original: As for `tune`.
        progress: Called as progress(trials done, trials at most).

    Returns:
        As `tune`; the model's configuration is the int8 one with a rule for each layer that is not
        int8, so that it gives the same model again without a search.
    """
    start = msgspec.structs.replace(config, precision="int8")
    tuning = msgspec.structs.replace(config.tuning, strategy=STRATEGY)
    if evaluate is None:
        largest = float(config.tuning.options.get("output_error", LARGEST_ERROR))
        goal = Accuracy(absolute=largest, higher_is_better=False)
        tuning = msgspec.structs.replace(tuning, accuracy=goal, metrics={})
        samples = min(FEEDS, config.calibration.samples)
        feeds = [] if workbench.feeds is None else workbench.feeds.first(samples)
        evaluate = {METRIC: OutputError(workbench.hub, feeds)}
        rebuild = None
    start = msgspec.structs.replace(start, tuning=tuning)
    kept: dict[str, LayerCost] = {}

    @runs_to_its_end
    def strategy(problem: Problem) -> Generator[Config, Trial, None]:
        rows = problem.remember(
            "costs of layers", lambda: [to_row(c) for c in measure_costs(workbench, start)]
        )
        costs = [from_row(row) for row in rows]
        kept.update({cost.name: cost for cost in costs})
        yield from search_budget(start, costs)

    result = tune(
        workbench,
        start,
        evaluate,
        rebuild=rebuild,
        original=original,
        strategies={STRATEGY: strategy},
        progress=progress,
    )
    for record in result.model.report.layers:
        cost = kept.get(record.name)
        chosen = result.best.config.layer_precision(record.name, record.op_type)
        if cost is not None and chosen == record.precision:
            record.reason = why(cost, chosen) or record.reason
    return result


def search_budget(start: Config, costs: Sequence[LayerCost]) -> Generator[Config, Trial, None]:
    """Yield configurations: int8, the fastest mix, quieter ones until one holds, and back."""

    def configured(chosen: Mapping[str, str]) -> Config:
        return with_rules(start, {name: p for name, p in chosen.items() if p != "int8"})

    plain = yield start
    fastest = allocate(costs, math.inf)
    trial = yield configured(fastest)
    if plain.met or trial.met:
        return  # whichever is faster as a whole
    failed, passed = total_noise(costs, fastest), None
    for _ in range(HALVINGS):
        budget = failed / 2
        trial = yield configured(allocate(costs, budget))
        if trial.met:
            passed = budget
            break
        failed = budget
    if passed is None:
        for precision in ("bf16", "f32"):
            chosen = {
                cost.name: precision if precision in cost.seconds else "f32" for cost in costs
            }
            trial = yield configured(chosen)
            if trial.met:
                return
        return
    for _ in range(REFINEMENTS):
        budget = math.sqrt(passed * failed)
        trial = yield configured(allocate(costs, budget))
        if trial.met:
            passed = budget
        else:
            failed = budget


def measure_costs(workbench: Workbench, config: Config) -> list[LayerCost]:
    """Return what each layer costs by precision.

    The noise of bf16, a hundredth or less of that of int8, counts as none: whether it matters,
    trials show.

    Args:
        workbench: The model and its data.
        config: Precision int8. A layer whose precision its `layers` fix is left out, and so is one
            that has no constant weights.
    """
    feed = workbench.feeds.first(1)[0] if workbench.feeds is not None else {}
    mixed = workbench.quantize(msgspec.structs.replace(config, precision="bf16"), measure=False)
    records = {record.name: record for record in mixed.report.layers if record.precision == "bf16"}
    float_ms, bf16_ms = layer_times(
        mixed.report.layers, workbench.original.session, mixed.session, feed, repeats=REPEATS
    )
    costs = {}
    for layer in analyse(workbench, config):
        if layer.float_ms is None or layer.int8_ms is None:
            continue
        seconds = {"int8": 1e-3 * layer.int8_ms, "f32": 1e-3 * layer.float_ms}
        if layer.name in records and layer.name in bf16_ms:
            seconds["bf16"] = 1e-3 * bf16_ms[layer.name]
        noise = {"int8": _share(layer.isolated)}
        costs[layer.name] = LayerCost(layer.name, layer.op_type, layer.macs, seconds, noise)
    for name, record in records.items():
        if name not in costs and name in bf16_ms and name in float_ms:
            seconds = {"bf16": 1e-3 * bf16_ms[name], "f32": 1e-3 * float_ms[name]}
            costs[name] = LayerCost(name, record.op_type, record.macs, seconds)
    return [
        cost for cost in costs.values() if config.layer_precision(cost.name, cost.op_type) is None
    ]


class OutputError:
    """Error of a model's outputs on a few feeds, in per cent of their root mean square.

    Of several outputs the mean of the noise-to-signal ratios counts; an output that a Softmax or
    Sigmoid makes is compared before it (see `lowprec.sensitivity`).
    """

    def __init__(self, hub: ir.Model, feeds: Iterable[Feed]) -> None:
        """Take the float graph, and what it is run on."""
        self._hub = hub
        self._feeds = list(feeds)
        self._expected: dict[tuple[str, ...], list[list[NDArray[Any]]]] = {}

    def __call__(self, model: Any) -> float:
        """Return the error of `model`, a CompiledModel: 10 stands for 20 dB; 0 for the original."""
        hub = getattr(model, "hub", None)
        if hub is None:
            return 0.0
        names = tuple(observable_outputs(self._hub, hub))
        if names not in self._expected:
            session = watching(self._hub, names, keep=False)
            self._expected[names] = [session.run(feed) for feed in self._feeds]
        session = watching(hub, names, keep=False)
        decibels = output_sqnr(self._expected[names], (session.run(f) for f in self._feeds))
        return 100 * math.sqrt(_share(decibels))


def _share(decibels: float) -> float:
    """Return noise as a share of the signal's power."""
    return 0.0 if decibels == math.inf else 10 ** (-decibels / 10)


def to_row(cost: LayerCost) -> list[Any]:
    """Return `cost` as plain data for the log."""
    return [cost.name, cost.op_type, cost.macs, dict(cost.seconds), dict(cost.noise)]


def from_row(row: Sequence[Any]) -> LayerCost:
    """Return what `to_row` described."""
    return LayerCost(*row)
