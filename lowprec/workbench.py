"""One model and its calibration data, quantised as often as wanted.

    hub ─► prepare ─► observe ─► choose_ranges ─► apply_precisions ─► refine ─► QuantizedModel
           └───────────── prepared() ────────────┘ kept per setting

What `quantize()` does once, a search does a hundred times: what does not change from one
configuration to the next (the data on disk, the equalised graph, the histograms) is kept here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from lowprec.agreement import AgreementSum
from lowprec.calibration import (
    CalibrationResult,
    Observation,
    Range,
    check_methods,
    choose_ranges,
    observe,
)
from lowprec.calibration.coarse import coarse_histograms
from lowprec.calibration.feeds import Feed, Feeds
from lowprec.calibration.settings import settings_of
from lowprec.errors import ConfigError, DataError
from lowprec.graph import constant_bytes
from lowprec.graph import load as load_graph
from lowprec.graph.digest import model_digest
from lowprec.layer_times import layer_times
from lowprec.models import REPORT_KEY, CompiledModel, QuantizedModel
from lowprec.passes import simplify
from lowprec.quantization import (
    Outcome,
    apply_precisions,
    prepare,
    refine,
    tensors_to_calibrate,
    with_ends,
)
from lowprec.quantization.recognition import find_quantized_operator
from lowprec.report import Report
from lowprec.timing import least_times

if TYPE_CHECKING:
    from lowprec.calibration.rules import RuleFactory
    from lowprec.config import Config

Progress = Callable[[int, int], None]

LOW_SQNR = 10.0  # dB of an output: below, the report says so in a note
FEEDS_KEPT = (
    8  # calibration feeds for what looks at a few: algorithms, and the comparison at the end
)
PROFILE_MS = 150  # how long the layers' times may take to measure
LARGE_MACS = 1_000_000_000  # per sample; from here on fewer feeds are compared
FEEDS_OF_LARGE = 4
KEPT = 8  # settings whose graphs and histograms are remembered


@dataclass(frozen=True)
class Prepared:
    """A float graph ready to be quantised, and the ranges of its tensors.

    Attributes:
        hub: Float; algorithms that come before calibration have been applied.
        calibration: Ranges; None where nothing has to be calibrated.
        outcomes: What the algorithms did.
    """

    hub: ir.Model
    calibration: CalibrationResult | None
    outcomes: tuple[Outcome, ...]


class Workbench:
    """A captured model with its calibration data.

    Attributes:
        hub: Simplified float graph; never changed.
        feeds: The calibration data, readable again and again; None without data.
        name: What reports call the model.
        kind: The framework that it came from.
    """

    def __init__(
        self,
        hub: ir.Model,
        batches: Iterable[Feed] | None = None,
        *,
        name: str = "",
        kind: str = "onnx",
        notes: Iterable[str] = (),
        rules: Mapping[str, RuleFactory] | None = None,
    ) -> None:
        """Simplify a copy of `hub` and take hold of the data; nothing is read yet.

        Args:
            hub: As captured; stays as it is.
            batches: Complete feeds by input name. What its attribute `notes` holds after they were
                read, where there is one, goes into reports.
            name: As the attribute; by default the graph's name.
            kind: As the attribute.
            notes: Lines for every report.
            rules: Calibration methods of plugins, by name.
        """
        self.hub = hub.clone()
        simplify(self.hub)
        self.feeds = None if batches is None else Feeds(batches)
        self.name = name or hub.graph.name or kind
        self.kind = kind
        self._batches = batches
        self._notes = tuple(notes)
        self._rules = dict(rules or {})
        self._prepared: dict[str, Prepared] = {}
        self._observations: dict[str, Observation] = {}
        self._ranges: dict[str, dict[str, Range]] = {}
        self._original: CompiledModel | None = None
        self._lock = threading.RLock()

    @property
    def original(self) -> CompiledModel:
        """The float model on the engine."""
        with self._lock:
            if self._original is None:
                self._original = CompiledModel(self.hub)
            return self._original

    def key(self, samples: int) -> str:
        """Return a hash of the model and its first `samples` feeds: the same work, the same key."""
        data = "" if self.feeds is None else self.feeds.digest(samples)
        return f"{model_digest(self.hub)}-{data}"

    def kept_feeds(self, config: Config) -> list[Feed]:
        """Return the few feeds that algorithms and comparisons look at; empty without data."""
        if self.feeds is None:
            return []
        return self.feeds.first(min(FEEDS_KEPT, config.calibration.samples))

    def prepared(self, config: Config, progress: Progress | None = None) -> Prepared:
        """Return the graph and the ranges for `config`: the first time computed, then remembered.

        Args:
            config: Any precision but auto.
            progress: Called as progress(done, total) while samples are consumed.

        Raises:
            DataError: data is needed and there is none, or it is not usable.
        """
        with self._lock:
            settings = _settings_before_rounding(config)
            found = self._prepared.pop(settings, None) or self._prepare(config, progress)
            self._prepared[settings] = found  # the last one used stands last
            _forget_oldest(self._prepared)
            return found

    def quantize(
        self,
        config: Config,
        progress: Progress | None = None,
        *,
        prepared: Prepared | None = None,
        measure: bool = True,
    ) -> QuantizedModel:
        """Return the model quantised as `config` says, with its report.

        Args:
            config: Any precision but auto.
            progress: Called as progress(done, total) while samples are consumed.
            prepared: From `prepared()` with a configuration that differs in `layers` only: a search
                that moves layers between precisions need not calibrate again.
            measure: Compare outputs and latency with the float model on a few feeds.

        Raises:
            DataError: data is needed and there is none, or it is not usable.
            ConfigError: the configuration cannot be applied.
        """
        if config.precision == "auto":
            raise ConfigError(
                "precision auto is a search: lowprec.quantize() runs it; a workbench "
                "one model: int8, int8-dynamic, int8-weight-only, bf16 or f16-weight-only"
            )
        found = find_quantized_operator(self.hub)
        if found is not None and REPORT_KEY in self.hub.metadata_props:
            # Our own work: its report is still true.
            earlier = QuantizedModel.from_hub(load_graph(self.hub.clone()), self.kind)
            note = f"already quantised: node {found.name!r} is a {found.op_type}"
            if note not in earlier.report.notes:
                earlier.report.notes.append(note)
            return earlier
        if prepared is None:
            prepared = self.prepared(config, progress)
        calibration, feeds = prepared.calibration, self.kept_feeds(config)
        ends = with_ends(self.hub, config)
        result = apply_precisions(
            prepared.hub,
            calibration.ranges if calibration else {},
            ends,
            input_shapes=calibration.input_shapes if calibration else _shapes_of(feeds),
        )
        outcomes = list(prepared.outcomes)
        if not result.note:
            every = islice(self.feeds or (), config.calibration.samples)
            outcomes += refine(prepared.hub, result, every, ends)
        report = Report(
            model=self.name,
            config=config.to_dict(),
            samples=calibration.samples if calibration else len(feeds),
            versions={
                package: version(package) for package in ("lowprec", "onnx", "onnx_ir", "numpy")
            },
            notes=[str(outcome) for outcome in outcomes if outcome.changed],
            algorithms=[outcome.to_dict() for outcome in outcomes],
        )
        report.notes += [*self._notes, *getattr(self._batches, "notes", ())]
        if result.note:
            report.notes.append(result.note)
        report.layers = result.layers
        if calibration is not None:
            report.histograms = coarse_histograms(
                calibration.observers, (layer.tensor for layer in result.layers)
            )
        report.int8_macs, report.total_macs = result.int8_macs, result.total_macs
        report.float_bytes = constant_bytes(self.hub)
        report.int8_bytes = constant_bytes(result.model)
        # What is returned went through the same door as what is loaded from a file: the same bits.
        quantized = QuantizedModel(load_graph(result.model), config, report)
        if feeds and measure:
            few = feeds[:FEEDS_OF_LARGE] if result.total_macs > LARGE_MACS else feeds
            compare_outputs(self.original, quantized, few, report)
            measure_latency(self.original, quantized, feeds[0], report)
            measure_layers(self.original, quantized, feeds[0], report)
        return quantized

    def _prepare(self, config: Config, progress: Progress | None) -> Prepared:
        hub = self.hub.clone()
        config = with_ends(hub, config)
        if not tensors_to_calibrate(hub, config):
            return Prepared(hub, None, ())
        if self.feeds is None:
            raise DataError(
                "no calibration data was given; give an iterable of feeds, a function that returns "
                "one, an .npz file or a folder of them: a hundred typical samples are enough"
            )
        outcomes = prepare(hub, self.kept_feeds(config), config)
        calibration = self._calibrate(hub, config, progress)
        return Prepared(hub, calibration, tuple(outcomes))

    def _calibrate(
        self, hub: ir.Model, config: Config, progress: Progress | None
    ) -> CalibrationResult:
        """Return the ranges that `config` asks for; an equal graph is not run again.

        What was observed serves every method, and a search that takes layer after layer out of int8
        needs fewer ranges than before.
        """
        assert self.feeds is not None
        names = tensors_to_calibrate(hub, config)
        check_methods(hub, names, config, self._rules)
        samples = config.calibration.samples
        graph = f"{model_digest(hub)} {samples} {settings_of(config).observed_bins}"
        seen = self._observations.pop(graph, None)
        if seen is None or not seen.observers.keys() >= set(names):
            self._ranges.clear()
            seen = observe(hub, names, islice(self.feeds, samples), config, progress)
        self._observations[graph] = seen
        _forget_oldest(self._observations)
        chosen = f"{graph} {_settings_of_ranges(config)}"
        ranges = self._ranges.pop(chosen, None)
        if ranges is None:
            ranges = choose_ranges(hub, seen, config, rules=self._rules)
        self._ranges[chosen] = ranges
        _forget_oldest(self._ranges)
        return CalibrationResult(
            {name: ranges[name] for name in names if name in ranges},
            seen.samples,
            seen.input_shapes,
            {name: seen.observers[name] for name in names},
        )


def compare_outputs(
    original: CompiledModel, quantized: QuantizedModel, feeds: Iterable[Feed], report: Report
) -> None:
    """Write into `report` how close the outputs of both models are on `feeds`."""
    sums = [AgreementSum(info.name) for info in original.outputs]
    for feed in feeds:
        results = zip(sums, original.run(feed), quantized.run(feed), strict=True)
        for total, expected, actual in results:
            total.update(expected, actual)
    agreements = [total.result() for total in sums]
    report.agreement = [agreement.to_dict() for agreement in agreements]
    report.notes += [
        f"output '{agreement.name}': only {agreement.sqnr:.1f} dB of the float output are left on "
        f"{agreement.samples} calibration samples; check it with your own measure (evaluate=), "
        "use precision auto, or keep layers in float with the configuration's `layers`"
        for agreement in agreements
        if agreement.sqnr < LOW_SQNR
    ]


def measure_latency(
    original: CompiledModel, quantized: QuantizedModel, feed: Feed, report: Report
) -> None:
    """Write into `report` how long both models take for `feed`, which both have just run."""
    times = least_times(
        {"float": lambda: original.run(feed), report.precision: lambda: quantized.run(feed)},
        seconds=0.15,
        least=2,
        warm=True,
    )
    report.speed["latency of the first sample, ms"] = {
        name: 1e3 * seconds for name, seconds in times.items()
    }


def measure_layers(
    original: CompiledModel, quantized: QuantizedModel, feed: Feed, report: Report
) -> None:
    """Write into `report` how long each layer takes in both models, after `measure_latency`."""
    run = sum(sum(times.values()) for times in report.speed.values())
    repeats = int(min(max(PROFILE_MS / max(run, 1e-3), 1), 3))
    before, after = layer_times(
        report.layers, original.session, quantized.session, feed, repeats=repeats
    )
    for name in {**before, **after}:
        both = {"float": before.get(name), report.precision: after.get(name)}
        report.times[name] = {key: ms for key, ms in both.items() if ms is not None}


def _settings_before_rounding(config: Config) -> str:
    """Return the part of `config` that the prepared graph and the ranges depend on."""
    values: dict[str, Any] = config.to_dict()
    wanted = ("precision", "calibration", "activations", "weights", "algorithms", "layers")
    return json.dumps({key: values[key] for key in wanted}, sort_keys=True)


def _settings_of_ranges(config: Config) -> str:
    """Return the part of `config` that the ranges of a given graph depend on."""
    values: dict[str, Any] = config.to_dict()
    rules = [
        {key: value for key, value in rule.items() if key != "precision"}
        for rule in values["layers"]
        if rule.get("method") or rule.get("scheme")
    ]
    return json.dumps([values["calibration"], values["activations"], rules], sort_keys=True)


def _forget_oldest(remembered: dict[str, Any]) -> None:
    while len(remembered) > KEPT:
        del remembered[next(iter(remembered))]


def _shapes_of(feeds: list[Feed]) -> dict[str, tuple[int, ...]] | None:
    return {name: array.shape for name, array in feeds[0].items()} if feeds else None
