"""Run samples through a float model once and say what range each tensor has.

Streaming: a batch is run, seen by the observers inside the run, and forgotten. Memory depends on
the number of tensors and bins, not on the number of samples. Batches may differ in shape. What was
observed serves every method: another one needs no further run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
import onnx_ir as ir

from lowprec._ext._core import TensorObserver
from lowprec.calibration.codes import codes_of
from lowprec.calibration.observation import Feed, Observation, SeenTensor, Watch
from lowprec.calibration.parallel import is_wanted, observe_in_parallel
from lowprec.calibration.protocol import RuleFactory, range_error
from lowprec.calibration.ranges import Range
from lowprec.calibration.rules import RULES
from lowprec.calibration.settings import settings_of
from lowprec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lowprec.config import Config

Progress = Callable[[int, int], None]

SYMMETRIC_LOSS = 1.05
"""Scheme auto: a tensor becomes symmetric when that raises its expected error by less than this."""


@dataclass
class CalibrationResult:
    """What calibration found.

    Attributes:
        ranges: By value name; a tensor that no run reached (an untaken branch) is missing.
        samples: Feeds that were consumed.
        input_shapes: Shapes of the first feed, by input name.
        observers: By value name, for whoever wants the histograms.
    """

    ranges: dict[str, Range]
    samples: int
    input_shapes: dict[str, tuple[int, ...]]
    observers: dict[str, TensorObserver] = field(default_factory=dict)


def calibrate(
    model: ir.Model,
    names: Sequence[str],
    batches: Iterable[Feed],
    config: Config,
    progress: Progress | None = None,
    *,
    rules: Mapping[str, RuleFactory] | None = None,
) -> CalibrationResult:
    """Return the range of each tensor in `names`, from at most `calibration.samples` feeds.

    Args:
        model: Simplified float hub; not changed.
        names: Float values of its main graph.
        batches: Complete feeds by input name; consumed lazily, once, no further than needed.
        config: Its `calibration` and `activations` sections, and the `layers` that set a method or
            a scheme for the tensors that they read.
        progress: Called with (feeds done, feeds at most) after each feed.
        rules: More rules by method name, from plugins.

    Raises:
        DataError: no feed at all; a NaN or an infinity in a feed, or in a tensor computed from it.
        ConfigError: `calibration.method` names no rule, or its parameters do not go together.
        InputError: a feed that does not fit the model's inputs.
    """
    check_methods(model, names, config, rules)
    observation = observe(model, names, batches, config, progress)
    ranges = choose_ranges(model, observation, config, rules=rules)
    return CalibrationResult(
        ranges, observation.samples, observation.input_shapes, observation.observers
    )


def observe(
    model: ir.Model,
    names: Sequence[str],
    batches: Iterable[Feed],
    config: Config,
    progress: Progress | None = None,
) -> Observation:
    """Return what is seen of `names` in at most `calibration.samples` feeds; see `calibrate`."""
    wanted = config.calibration
    bins = settings_of(config).observed_bins
    feeds = _first(batches, wanted.samples)

    def done(samples: int) -> None:
        if progress is not None:
            progress(samples, wanted.samples)

    found: Observation | None
    if is_wanted(config):
        found = observe_in_parallel(model, names, feeds, config, bins, done)
    else:
        found = Watch(model, names, bins).run(feeds, done=done)
    if found is None or not found.samples:
        raise DataError(
            "no calibration data: the iterable gave no batch (an iterator that was used before is "
            "empty); pass a list, a callable that returns a fresh iterator, or an .npz file"
        )
    return found


def choose_ranges(
    model: ir.Model,
    observation: Observation,
    config: Config,
    *,
    rules: Mapping[str, RuleFactory] | None = None,
) -> dict[str, Range]:
    """Return the range of each observed tensor; those that no run reached are missing.

    Args:
        model: The float hub that was observed: its layers say whose rules a tensor follows.
        observation: From `observe`; any method may be asked of it.
        config: As for `calibrate`.
        rules: More rules by method name, from plugins.
    """
    known = {**RULES, **(rules or {})}
    configs = tensor_configs(model, list(observation.observers), config)
    _check_methods(configs.values(), rules)
    return {
        name: _range(SeenTensor(observer, observation.extremes[name]), configs[name], known)
        for name, observer in observation.observers.items()
        if observer.count
    }


def check_methods(
    model: ir.Model,
    names: Sequence[str],
    config: Config,
    rules: Mapping[str, RuleFactory] | None = None,
) -> None:
    """Raise ConfigError where a method is not known or its parameters do not go together."""
    _check_methods(tensor_configs(model, names, config).values(), rules)


def tensor_configs(model: ir.Model, names: Sequence[str], config: Config) -> dict[str, Config]:
    """Return the configuration that holds for each tensor: `layers` may set its method and scheme.

    A layer's rule is about the tensors that the layer reads; the last rule wins.
    """
    configs = dict.fromkeys(names, config)
    rules = [rule for rule in config.layers if rule.method is not None or rule.scheme is not None]
    if not rules:
        return configs
    readers: dict[str, list[ir.Node]] = {}
    for graph in model.graphs():
        for node in graph:
            for value in node.inputs:
                if value is not None and value.name in configs:
                    readers.setdefault(value.name, []).append(node)
    for name, nodes in readers.items():
        for rule in rules:
            if not any(rule.applies_to(node.name or "", node.op_type) for node in nodes):
                continue
            configs[name] = _with_settings(configs[name], rule.method, rule.scheme)
    return configs


def _with_settings(config: Config, method: str | None, scheme: str | None) -> Config:
    calibration, activations = config.calibration, config.activations
    if method is not None:
        calibration = msgspec.structs.replace(calibration, method=method)
    if scheme is not None:
        activations = msgspec.structs.replace(activations, scheme=scheme)
    return msgspec.structs.replace(config, calibration=calibration, activations=activations)


def _check_methods(configs: Iterable[Config], rules: Mapping[str, RuleFactory] | None) -> None:
    known = {**RULES, **(rules or {})}
    for config in {id(config): config for config in configs}.values():
        method = settings_of(config).method
        if method not in known:
            raise ConfigError(
                f"calibration.method is {method!r}; accepted are {', '.join(sorted(known))}"
            )


def _range(tensor: SeenTensor, config: Config, known: Mapping[str, RuleFactory]) -> Range:
    """Return the tensor's range, on the scheme with the smaller expected error where that is open.

    Symmetric codes are as good as asymmetric ones where the values are; other runtimes are faster
    with them, so they need not win by themselves.
    """
    if config.activations.scheme != "auto":
        return _range_of_scheme(tensor, config, known)
    asymmetric, symmetric = (
        _range_of_scheme(tensor, _with_settings(config, None, scheme), known)
        for scheme in ("asymmetric", "symmetric")
    )
    errors = [
        range_error(tensor, found.rmin, found.rmax, codes_of(config, symmetric=is_symmetric))
        for found, is_symmetric in ((asymmetric, False), (symmetric, True))
    ]
    return symmetric if errors[1] <= SYMMETRIC_LOSS * errors[0] else asymmetric


def _range_of_scheme(tensor: SeenTensor, config: Config, known: Mapping[str, RuleFactory]) -> Range:
    rule = known[settings_of(config).method](config)
    for batch in tensor.batches():
        rule.end_batch(batch)
    found = rule.range(tensor)
    return replace(found, symmetric=config.activations.scheme == "symmetric")


def _first(batches: Iterable[Feed], count: int) -> Iterator[Feed]:
    """Yield at most `count` feeds, and do not ask for one more: making it may be expensive."""
    return islice(iter(batches), count)
