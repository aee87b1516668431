"""What a strategy is given: the configuration to start from, the layers, and how they rank.

A strategy is a function from a Problem to a generator. The generator yields configurations and
receives the Trial of each:

    def strategy(problem):
        trial = yield problem.config
        for layer in problem.layers():
            if trial.met:
                return
            trial = yield with_layers(trial.config, [layer.name], "f32")

It may yield a list of configurations that do not depend on each other's results, and then receives
the list of their trials: they may be evaluated at the same time. What it yields must follow from
the problem, its seed and the trials alone, so that a search goes on from its log. It ends when
the generator returns, or is closed by the search: after the first trial that meets the criterion
(`tuning.stop: first`, unless the strategy is marked by `@runs_to_its_end`), after
`tuning.max_trials` trials, or before the deadline.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, Union

from lowprec.config import Config
from lowprec.errors import ConfigError
from lowprec.tuning.changes import with_layers
from lowprec.tuning.trial import Trial

Proposal = Union[Config, Sequence[Config]]  # noqa: UP007 (read at run time on 3.10)
Strategy = Callable[["Problem"], Generator[Proposal, Any, None]]
Remember = Callable[[str, Callable[[], Any]], Any]

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Layer:
    """One operator that the user's configuration makes low precision.

    Attributes:
        name: The node's name.
        op_type: ONNX operator.
        precision: What the configuration makes of it, for example "int8".
        macs: Multiply-adds; 0 where they are not known.
        sqnr: Signal to noise of its quantised operands, the worse of them, in dB, as the report of
            the quantisation has it; None when it has none.
    """

    name: str
    op_type: str
    precision: str
    macs: int
    sqnr: float | None


@dataclass(frozen=True)
class Sensitivity:
    """What quantising one layer costs, in dB; None where it was not measured.

    Attributes:
        isolated: Signal to noise of the model's outputs when this layer alone is quantised.
        accumulated: Signal to noise of the layer's own output when the whole model is.
        gain: What the outputs gain when this layer alone goes back to float.
    """

    isolated: float | None
    accumulated: float | None
    gain: float | None


def runs_to_its_end(strategy: _F) -> _F:
    """Mark a strategy that goes on after a trial met the criterion, to give better ones.

    Returns:
        `strategy`: with `tuning.stop: first` it is not stopped at its first success.
    """
    strategy.runs_to_its_end = True  # type: ignore[attr-defined]
    return strategy


class Problem:
    """One search, as its strategy sees it.

    Attributes:
        config: What the user gave: the first configuration to try.
        seed: `tuning.seed`.
        options: `tuning.options`: the strategy's own.
        remember: remember(name, compute) gives what the log has under `name`, or logs what
            compute() gives: plain data, for what a strategy measures itself.
    """

    def __init__(
        self,
        workbench: Any,
        config: Config,
        remember: Remember,
        wins: Callable[[Config], bool],
    ) -> None:
        """Describe the search of `workbench` from `config`.

        Args:
            workbench: As for `tune`.
            config: As for `tune`.
            remember: remember(name, compute) returns what is in the log under `name`, or what
                compute() gives, which is then logged: plain data.
            wins: Whether the model of a configuration is faster than the float model.
        """
        self.config = config
        self.seed = config.tuning.seed
        self.options: Mapping[str, Any] = config.tuning.options
        self._workbench = workbench
        self.remember = remember
        self._wins = wins

    @property
    def fixed(self) -> frozenset[str]:
        """Keys of the configuration that the search must leave as they are.

        `tuning.options.fixed`; the ladder of `basic` and the usual space heed it.

        Raises:
            ConfigError: it is no list of keys.
        """
        keys = self.options.get("fixed", ())
        if not isinstance(keys, (list, tuple)) or not all(isinstance(key, str) for key in keys):
            raise ConfigError(
                "tuning.options.fixed must be a list of keys, for example [algorithms.smoothing]"
            )
        return frozenset(keys)

    def random(self) -> random.Random:
        """Return a new source of random numbers, the same in every run with the same seed."""
        return random.Random(self.seed)

    def layers(self) -> list[Layer]:
        """Return the layers that `config` makes low precision, from the input to the output."""
        rows = self.remember("layers", self._find_layers)
        return [Layer(*row) for row in rows]

    def sensitivities(self) -> dict[str, Sensitivity]:
        """Return what each layer costs, measured at the first call; {} if it cannot be measured.

        A workbench of a kind that lowprec.sensitivity does not know gives {}: rank by `Layer.sqnr`.
        """
        rows = self.remember("sensitivities", self._analyse)
        return {
            name: Sensitivity(*(None if value is None else float(value) for value in values))
            for name, *values in rows
        }

    @property
    def has_bf16(self) -> bool:
        """Whether bf16 is measurably faster than float here; measured once, kept in the log."""

        def measure() -> bool:
            names = [layer.name for layer in self.layers()]
            return self._wins(with_layers(self.config, names, "bf16"))

        return bool(self.remember("bf16 wins", measure))

    def _find_layers(self) -> list[list[Any]]:
        records = self._workbench.quantize(self.config, measure=False).report.layers
        return [
            [
                record.name,
                record.op_type,
                record.precision,
                record.macs or 0,
                _worst(record.activation_sqnr, record.weight_sqnr),
            ]
            for record in records
            if record.precision not in ("f32", "bf16")
        ]

    def _analyse(self) -> list[list[Any]]:
        from lowprec.sensitivity import analyse
        from lowprec.workbench import Workbench

        if not isinstance(self._workbench, Workbench) or self._workbench.feeds is None:
            return []
        found = analyse(self._workbench, self.config)
        return [[each.name, each.isolated, each.accumulated, each.gain] for each in found]


def _worst(*decibels: float | None) -> float | None:
    known = [value for value in decibels if value is not None]
    return min(known) if known else None


__all__ = ["Layer", "Problem", "Proposal", "Sensitivity", "Strategy", "Trial", "runs_to_its_end"]
