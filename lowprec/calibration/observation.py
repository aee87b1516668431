"""What was seen of a model's tensors: enough for every rule, and to be put together from parts.

Memory depends on the number of tensors and bins, plus two numbers per tensor and batch. Parts that
other threads, processes or machines have seen merge into the whole: histograms bit for bit whatever
the order, the extremes of the batches (which only the moving average needs) one after the other.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from zipfile import BadZipFile

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from lowprec._ext._core import TensorObserver
from lowprec.calibration.statistics import Histogram
from lowprec.engine import compile_model
from lowprec.errors import DataError

Feed = Mapping[str, NDArray[Any]]
Extremes = tuple[float, float]

_STATE_EXTREMES, _STATE_BATCH, _STATE_NUMBERS = 1, 2, 64
_NOTHING_SEEN = np.array([np.inf, -np.inf], np.float32).view(np.int64)[0]


@dataclass
class Observation:
    """What was seen of some tensors in some batches.

    Attributes:
        observers: By value name.
        extremes: (smallest, largest) finite value of each tensor in each batch, in order; (inf,
            -inf) where a batch did not reach it.
        samples: Feeds that were run.
        input_shapes: Shapes of the first feed, by input name.
    """

    observers: dict[str, TensorObserver]
    extremes: dict[str, list[Extremes]]
    samples: int = 0
    input_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def merge(self, later: Observation) -> None:
        """Add what `later` has seen of the same tensors, in batches that come after these.

        Raises:
            DataError: it is of other tensors or has other bins.
        """
        if later.observers.keys() != self.observers.keys():
            raise DataError("the other observation is of other tensors: observe the same names")
        for name, observer in self.observers.items():
            if later.observers[name].bins != observer.bins:
                raise DataError(
                    f"tensor {name!r} has {later.observers[name].bins} bins there and "
                    f"{observer.bins} here: observe with the same bins"
                )
        for name, observer in self.observers.items():
            observer.merge(later.observers[name])
            self.extremes[name] += later.extremes[name]
        if not self.samples:
            self.input_shapes = dict(later.input_shapes)
        self.samples += later.samples

    def states(self) -> dict[str, NDArray[np.int64]]:
        """Return what each observer has counted, as int64 arrays: the same data, the same bits."""
        states = {}
        for name, observer in self.observers.items():
            state = observer.state()
            state[_STATE_BATCH] = _NOTHING_SEEN  # of the last batch: in `extremes`
            state[6] = state[9] = 0  # batches, and whether one is open
            states[name] = state
        return states

    def to_bytes(self) -> bytes:
        """Return everything as the bytes of an .npz file without pickled objects."""
        names = list(self.observers)
        arrays: dict[str, NDArray[Any]] = {}
        for i, state in enumerate(self.states().values()):
            arrays[f"state{i}"] = state
            arrays[f"extremes{i}"] = np.array(self.extremes[names[i]], np.float64).reshape(-1, 2)
        about = {"names": names, "samples": self.samples, "input_shapes": self.input_shapes}
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Observation:
        """Return what `to_bytes` of another process has written.

        Raises:
            DataError: the bytes are something else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                found = cls({}, {}, int(about["samples"]))
                for i, name in enumerate(about["names"]):
                    found.observers[name] = _observer_of(arrays[f"state{i}"])
                    found.extremes[name] = [(float(a), float(b)) for a, b in arrays[f"extremes{i}"]]
                for name, shape in about["input_shapes"].items():
                    found.input_shapes[name] = tuple(int(size) for size in shape)
        except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile) as error:
            raise DataError(f"these bytes are no observation of lowprec: {error}") from None
        return found


def _observer_of(state: NDArray[Any]) -> TensorObserver:
    """Return an observer that has seen what `state` says, which must be possible."""
    bins = (len(state) - _STATE_NUMBERS) // 2
    if state.dtype != np.int64 or state.ndim != 1 or bins < TensorObserver.MIN_BINS:
        raise ValueError("a state is an int64 array of 64 numbers and twice as many as bins")
    low, high = state[_STATE_EXTREMES : _STATE_EXTREMES + 1].view(np.float32).astype(np.float64)
    width = 2.0 ** int(np.clip(state[0], -126, 1000))
    first, last = np.floor(min(low, 0.0) / width), np.floor(max(high, 0.0) / width)
    fits = -126 <= state[0] <= 128 and -bins <= first and last - first < bins and last < bins
    if (
        (low <= high and not fits)
        or np.isnan([low, high]).any()
        or (state[_STATE_NUMBERS:] < 0).any()
    ):
        raise ValueError("a state whose extremes do not fit its bins")
    observer = TensorObserver(bins)
    observer.set_state(np.ascontiguousarray(state))
    return observer


class SeenTensor:
    """One observed tensor, for a rule; while batches are gone through, also one batch's extremes.

    Beside what `TensorStatistics` promises, rules of plugins may use `count` and `real_histogram`,
    a Histogram in real units with quantiles, shares, power.
    """

    def __init__(self, observer: TensorObserver, extremes: Sequence[Extremes]) -> None:
        self._observer = observer
        self._extremes = extremes
        self.batch_minimum, self.batch_maximum = np.inf, -np.inf

    @property
    def minimum(self) -> float:
        """Smallest finite value."""
        return self._observer.minimum

    @property
    def maximum(self) -> float:
        """Largest finite value."""
        return self._observer.maximum

    @property
    def count(self) -> int:
        """Number of finite values."""
        return self._observer.count

    def histogram(self) -> tuple[NDArray[np.int64], int, float]:
        """Return counts, the index of the first bin (bin 0 starts at real 0), and the width."""
        return self._counted

    @cached_property
    def _counted(self) -> tuple[NDArray[np.int64], int, float]:
        return self._observer.histogram()

    @cached_property
    def real_histogram(self) -> Histogram:
        """The histogram in real units."""
        counts, first, width = self._counted
        return Histogram(counts, first * width, width)

    def batches(self) -> Iterator[SeenTensor]:
        """Yield this tensor once per batch, with that batch's extremes."""
        for low, high in self._extremes:
            self.batch_minimum, self.batch_maximum = low, high
            yield self


class Watch:
    """A model compiled with observers, to be run over one share of the data after another."""

    def __init__(self, model: ir.Model, names: Sequence[str], bins: int) -> None:
        """Compile `model`, a float hub that stays as it is, with an observer for each name."""
        self._observers = {name: TensorObserver(bins) for name in names}
        self._session = compile_model(model, observers=self._observers)

    def run(
        self,
        feeds: Iterable[Feed],
        *,
        first: int = 0,
        done: Callable[[int], None] | None = None,
    ) -> Observation:
        """Return what is seen while `feeds` run; until the next call it is this object's own.

        Args:
            feeds: Complete feeds by input name.
            first: Number of the first one, for messages.
            done: Called with the number of feeds that have run, after each.

        Raises:
            DataError: a NaN or an infinity in a feed, or in a tensor computed from it.
        """
        for observer in self._observers.values():
            observer.reset()
        found = Observation(self._observers, {name: [] for name in self._observers})
        for number, feed in enumerate(feeds, first):
            check_finite(feed, number)
            for observer in self._observers.values():
                observer.begin_batch()
            self._session.run(feed)
            for name, observer in self._observers.items():
                observer.end_batch()
                if observer.nonfinite:
                    raise DataError(
                        f"tensor {name!r} holds {observer.nonfinite} NaN or infinite values in "
                        f"calibration batch {number}; every tensor must stay finite: check that "
                        "batch and how the inputs are scaled"
                    )
                found.extremes[name].append((observer.batch_minimum, observer.batch_maximum))
            if not found.samples:
                found.input_shapes = {name: np.shape(array) for name, array in feed.items()}
            found.samples += 1
            if done is not None:
                done(found.samples)
        return found


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
