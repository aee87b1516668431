"""Run samples through a float model once and say what range each tensor has.

Streaming: a batch is run, seen by the observers inside the run, and forgotten. Memory depends on
the number of tensors and bins, not on the number of samples. Batches may differ in shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec._ext._core import TensorObserver
from lowprec.calibration.ranges import Range
from lowprec.calibration.rules import RULES, Rule, RuleFactory
from lowprec.engine import compile_model
from lowprec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lowprec.config import Config

Feed = Mapping[str, NDArray[Any]]
Progress = Callable[[int, int], None]


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
        config: Its `calibration` section.
        progress: Called with (feeds done, feeds at most) after each feed.
        rules: More rules by method name, from plugins.

    Raises:
        DataError: no feed at all; a NaN or an infinity in a feed, or in a tensor computed from it.
        ConfigError: `calibration.method` names no rule.
        InputError: a feed that does not fit the model's inputs.
    """
    method = config.calibration.method
    known = {**RULES, **(rules or {})}
    if method not in known:
        raise ConfigError(
            f"calibration.method is {method!r}; accepted are {', '.join(sorted(known))}"
        )
    observers = {name: TensorObserver(config.calibration.bins) for name in names}
    tensor_rules: dict[str, Rule] = {name: known[method](config) for name in names}
    session = compile_model(model, observers=observers)
    input_shapes: dict[str, tuple[int, ...]] = {}
    samples = 0
    for feed in _first(batches, config.calibration.samples):
        check_finite(feed, samples)
        for observer in observers.values():
            observer.begin_batch()
        session.run(feed)
        for name, observer in observers.items():
            observer.end_batch()
            if observer.nonfinite:
                raise DataError(
                    f"tensor {name!r} holds {observer.nonfinite} NaN or infinite values in "
                    f"calibration batch {samples}; every tensor must stay finite: check that batch "
                    "and how the inputs are scaled"
                )
            tensor_rules[name].end_batch(observer)
        if not samples:
            input_shapes = {name: np.shape(array) for name, array in feed.items()}
        samples += 1
        if progress is not None:
            progress(samples, config.calibration.samples)
    if not samples:
        raise DataError(
            "no calibration data: the iterable gave no batch (an iterator that was used before is "
            "empty); pass a list, a callable that returns a fresh iterator, or an .npz file"
        )
    ranges = {
        name: tensor_rules[name].range(observer)
        for name, observer in observers.items()
        if observer.count
    }
    return CalibrationResult(ranges, samples, input_shapes, observers)


def _first(batches: Iterable[Feed], count: int) -> Iterator[Feed]:
    """Yield at most `count` feeds, and do not ask for one more: making it may be expensive."""
    iterator = iter(batches)
    for _ in range(count):
        try:
            yield next(iterator)
        except StopIteration:
            return


def check_finite(feed: Feed, batch: int) -> None:
    """Raise DataError when a float array of `feed`, the batch numbered `batch`, is not finite."""
    for name, array in feed.items():
        values = np.asarray(array)
        if values.dtype.kind != "f":
            continue
        bad = int(values.size - np.isfinite(values).sum())
        if bad:
            raise DataError(
                f"input {name!r} of calibration batch {batch} holds {bad} NaN or infinite values; "
                "every value must be finite: repair or leave out that batch"
            )
