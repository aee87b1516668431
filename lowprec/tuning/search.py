"""The search: baseline, then what the strategy proposes, trial by trial, each logged.

    strategy ──configurations──► quantise ──► evaluate ──► benchmark ──► log ──trials──► strategy

Because a strategy's proposals follow from its seed and the trials alone, a search goes on from its
log by being run again: what is in the log is sent in, nothing is evaluated twice.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from time import perf_counter
from typing import Any

from lowprec.config import Config, Tuning
from lowprec.errors import ConfigError, LowprecError
from lowprec.tuning.changes import config_digest, describe
from lowprec.tuning.choice import best_trial, pareto
from lowprec.tuning.criterion import Criterion
from lowprec.tuning.identity import log_header
from lowprec.tuning.log import TrialLog
from lowprec.tuning.measuring import Benchmark
from lowprec.tuning.problem import Problem, Strategy
from lowprec.tuning.result import TuningResult, verdict
from lowprec.tuning.scoring import (
    Evaluate,
    Prepared,
    Rebuild,
    Scorer,
    named_functions,
    prepare,
)
from lowprec.tuning.trial import FLOAT, Trial

PATIENCE = 10  # proposals per trial of `max_trials`: repeated ones cost no trial, but end some time


def tune(
    workbench: Any,
    config: Config,
    evaluate: Evaluate | Mapping[str, Evaluate],
    *,
    rebuild: Rebuild | None = None,
    original: object = None,
    strategies: Mapping[str, Strategy] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TuningResult:
    """Return the best quantised model that a search finds, whether or not it meets the criterion.

    Args:
        workbench: A lowprec.workbench.Workbench, or what has its members `quantize`, `original`,
            `feeds` and `key`.
        config: What to start from; its section `tuning` says how to search.
        evaluate: A function from a model to a score, or several by name. It is called with the
            original first. Its exceptions end the search and pass unchanged; the log stays.
        rebuild: Makes what `evaluate` takes of a QuantizedModel; None: it takes that itself.
        original: What `evaluate` gets as the float model; None: `rebuild` of the workbench's.
        strategies: More strategies by name: those of plugins.
        progress: Called as progress(trials done, trials at most).

    Returns:
        The model with its full report, and all trials.

    Raises:
        ConfigError: the strategy or a metric is not known, or the log is of another search.
        LowprecError: the float model's score is not a finite number, or the configuration given
            cannot be quantised.
        OutputError: the log cannot be written.
    """
    functions = named_functions(evaluate)
    strategy = find_strategy(config.tuning.strategy, strategies or {})
    criterion = Criterion(config.tuning, list(functions))
    scorer = Scorer(config.tuning, functions, rebuild)
    with TrialLog(config.tuning.log, log_header(workbench, config, functions)) as log:
        search = Search(workbench, config, criterion, scorer, log, progress)
        if original is None:
            original = workbench.original if rebuild is None else rebuild(workbench.original)
        search.score_original(original)
        search.run(strategy)
        return search.result()


def find_strategy(name: str, more: Mapping[str, Strategy]) -> Strategy:
    """Return the strategy `name`, ours or one of `more`.

    Raises:
        ConfigError: there is none of that name.
    """
    from lowprec.tuning.strategies import STRATEGIES

    known = {**STRATEGIES, **more}
    if name not in known:
        raise ConfigError(
            f"tuning.strategy is '{name}'; accepted are {', '.join(sorted(known))} (plugins add "
            "theirs through the hook lowprec_strategies)"
        )
    return known[name]


class Search:
    """The state of one search; `run` once, then `result`."""

    def __init__(
        self,
        workbench: Any,
        config: Config,
        criterion: Criterion,
        scorer: Scorer,
        log: TrialLog,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self._workbench = workbench
        self._config = config
        self._tuning: Tuning = config.tuning
        self._criterion = criterion
        self._scorer = scorer
        self._log = log
        self._progress = progress
        self._benchmark = Benchmark(workbench.original, workbench.feeds)
        self._started = perf_counter()
        self._logged = list(log.records)  # what an earlier run left, from the first on
        self._facts = {r["name"]: r["value"] for r in self._logged if r["record"] == "fact"}
        self._replay = [r for r in self._logged if r["record"] == "trial"]
        self._spent = sum(float(r.get("seconds", 0.0)) for r in self._logged)
        self._durations = [
            float(r["seconds"]) for r in self._replay if r["same_as"] is None and not r["error"]
        ]
        self._baseline: dict[str, float] = {}
        self.trials: list[Trial] = []
        self._by_config: dict[str, Trial] = {}
        self._by_model: dict[str, Trial] = {}
        self.why_ended = "the strategy has nothing more to propose"

    # ---- The parts of a search -------------------------------------------------------------------

    def score_original(self, original: object) -> None:
        """Score the float model, or take its scores from the log."""
        records = [r for r in self._logged if r["record"] == "baseline"]
        if records:
            self._baseline = _scores(records[0])
            return
        start = perf_counter()
        scores = self._scorer.score_original(original)
        self._criterion.check_original(scores)
        self._baseline = scores
        record = {"scores": scores, "seconds": perf_counter() - start}
        self._log.append({"record": "baseline", **record})

    def run(self, strategy: Strategy) -> None:
        """Try what `strategy` proposes until it ends, or a limit does."""
        to_its_end = getattr(strategy, "runs_to_its_end", False)
        stops = self._tuning.stop == "first" and not to_its_end
        problem = Problem(self._workbench, self._config, self._remember, self._is_faster)
        proposals = 0
        with closing(strategy(problem)) as generator:
            answer: Any = None
            while True:
                try:
                    proposal = generator.send(answer)
                except StopIteration:
                    return
                single = isinstance(proposal, Config)
                configs = [proposal] if isinstance(proposal, Config) else list(proposal)
                trials = self._try_all(configs, stops)
                proposals += len(trials)
                if stops and trials and trials[-1].met:
                    self.why_ended = "the criterion is met"
                    return
                if len(trials) < len(configs):
                    return  # a limit was reached; `why_ended` says which
                if proposals > PATIENCE * self._tuning.max_trials:
                    self.why_ended = "the strategy repeats what was tried"
                    return
                answer = trials[0] if single else trials

    def result(self) -> TuningResult:
        """Return the best model so far, quantised once more with its full report."""
        best = best_trial(self.trials, objectives_of(self._tuning))
        if best is None:
            raise LowprecError(
                f"no configuration could be evaluated; the first: {self.trials[0].error}"
            )
        model = self._workbench.quantize(best.config, measure=True)
        report = model.report
        for name, before in self._baseline.items():
            report.accuracy[name] = {"float": before, report.precision: best.scores[name]}
        original = Trial(0, self._config, FLOAT, self._baseline, 0.0, 0.0, True)
        report.trials = [trial.to_dict() for trial in (original, *self.trials)]
        report.trials[0]["size"] = report.float_bytes
        report.trials[best.number]["best"] = True
        report.notes.append(
            verdict(best, len(self.trials), self._baseline, self._criterion, self.why_ended)
        )
        return TuningResult(model, best.met, list(self.trials), pareto(self.trials), best)

    # ---- Trials ----------------------------------------------------------------------------------

    def _try_all(self, configs: Sequence[Config], stops: bool) -> list[Trial]:
        """Return the trial of each configuration, in order; fewer when a limit is reached.

        No generator: those turn a StopIteration of the user's into another exception.
        """
        trials: list[Trial] = []
        while len(trials) < len(configs) and not (stops and trials and trials[-1].met):
            rest = configs[len(trials) :]
            known = self._repeated(rest[0]) or self._replayed(rest[0])
            if known is not None:
                trials.append(known)
                continue
            room = self._room()
            if room == 0:
                break
            trials += self._evaluated(self._next_chunk(rest, min(room, self._scorer.jobs)), stops)
        return trials

    def _repeated(self, config: Config) -> Trial | None:
        return self._by_config.get(config_digest(config))

    def _replayed(self, config: Config) -> Trial | None:
        """Return the next trial of the log, which must be this one; None after its end."""
        number = len(self.trials) + 1
        if number > len(self._replay):
            return None
        record = self._replay[number - 1]
        if record["trial"] != number or record["config"] != config_digest(config):
            raise ConfigError(
                f"trial log '{self._log.path}': its trial {number} ({record['change']}) is not "
                f"what the strategy proposes now ({describe(self._config, config)}); delete the "
                "file to start the search afresh, or give another tuning.log"
            )
        if self._room(replaying=True) == 0:
            return None
        return self._keep(self._judged(config, record), record.get("model"))

    def _next_chunk(self, rest: Sequence[Config], size: int) -> list[Config]:
        """Return the first configurations of `rest` that are new, at most `size`, at least one."""
        chunk: list[Config] = []
        seen: set[str] = set()
        for config in rest:
            key = config_digest(config)
            if len(chunk) == size or key in seen or key in self._by_config:
                break
            seen.add(key)
            chunk.append(config)
        return chunk

    def _evaluated(self, configs: Sequence[Config], stops: bool) -> list[Trial]:
        """Quantise all, score those that are new models, then benchmark and log one by one.

        What comes after the one that ends the search is dropped, as if it had not been tried.
        """
        prepared = [self._prepared(config) for config in configs]
        new: dict[str, Prepared] = {}
        for position, each in enumerate(prepared):
            if each.model is not None:
                key = each.fingerprint or f"position {position}"
                if key not in self._by_model:
                    new.setdefault(key, each)
        found = self._scorer.scores([each.model for each in new.values() if each.model is not None])
        scored = {id(each): pair for each, pair in zip(new.values(), found, strict=True)}
        trials: list[Trial] = []
        for each in prepared:
            if stops and trials and trials[-1].met:
                break
            record: dict[str, Any] = {
                "record": "trial",
                "trial": len(self.trials) + 1,
                "config": config_digest(each.config),
                "change": describe(self._config, each.config),
                "scores": {},
                "latency": None,
                "float_latency": None,
                "size": None,
                "seconds": each.seconds,
                "same_as": None,
                "model": each.fingerprint,
                "error": "" if each.error is None else str(each.error),
            }
            earlier = self._by_model.get(each.fingerprint or "")
            if id(each) in scored:
                start = perf_counter()
                record["scores"], seconds = scored[id(each)]
                record["size"] = each.model.report.int8_bytes if each.model is not None else None
                record["float_latency"], record["latency"] = self._latencies(each.model)
                record["seconds"] += seconds + perf_counter() - start
                self._durations.append(record["seconds"])
            elif earlier is not None:
                names = ("scores", "latency", "float_latency", "size")
                record.update({name: getattr(earlier, name) for name in names})
                record["same_as"] = earlier.number
            self._log.append(record)
            trials.append(self._keep(self._judged(each.config, record), each.fingerprint))
        return trials

    def _prepared(self, config: Config) -> Prepared:
        prepared = prepare(self._workbench, config)
        if prepared.error is not None and not self.trials:
            raise prepared.error  # what the user asked for cannot be done: nothing to search from
        return prepared

    def _latencies(self, model: Any) -> tuple[float | None, float | None]:
        return self._benchmark.latencies(model) or (None, None)

    def _judged(self, config: Config, record: Mapping[str, Any]) -> Trial:
        scores = _scores(record)
        judged = self._criterion.judge(self._baseline, scores) if scores else None
        values = {} if judged is None else vars(judged)
        names = ("latency", "float_latency", "size", "seconds", "same_as", "error")
        return Trial(
            number=record["trial"],
            config=config,
            change=record["change"],
            scores=scores,
            **values,
            **{name: record[name] for name in names},
        )

    def _keep(self, trial: Trial, model: str | None) -> Trial:
        self.trials.append(trial)
        self._by_config[config_digest(trial.config)] = trial
        if model is not None and trial.same_as is None and trial.scores:
            self._by_model[model] = trial
        if self._progress is not None:
            done = min(self._evaluations(), self._tuning.max_trials)
            self._progress(done, self._tuning.max_trials)
        return trial

    # ---- Limits ----------------------------------------------------------------------------------

    def _evaluations(self) -> int:
        return sum(trial.same_as is None and not trial.error for trial in self.trials)

    def _room(self, *, replaying: bool = False) -> int:
        """Return how many trials may still start: 0 ends the search, and `why_ended` says why."""
        room = self._tuning.max_trials - self._evaluations()
        if room <= 0:
            self.why_ended = (
                f"tuning.max_trials ({self._tuning.max_trials}) was reached; raise it to go on"
            )
            return 0
        timeout = self._tuning.timeout
        if timeout is None or replaying or not self.trials:
            return room
        left = timeout - self._spent - (perf_counter() - self._started)
        # User code is never interrupted: a trial that would end too late does not begin.
        typical = statistics.median(self._durations) if self._durations else 0.0
        if left < typical or left <= 0:
            self.why_ended = (
                f"another trial of {typical:.3g} s would have ended after tuning.timeout "
                f"({timeout:g} s); raise it to go on"
            )
            return 0
        return room

    # ---- What strategies ask for -----------------------------------------------------------------

    def _remember(self, name: str, compute: Callable[[], Any]) -> Any:
        if name not in self._facts:
            start = perf_counter()
            value = compute()
            record = {"name": name, "value": value, "seconds": perf_counter() - start}
            self._log.append({"record": "fact", **record})
            self._facts[name] = value
        return self._facts[name]

    def _is_faster(self, config: Config) -> bool:
        """Return whether the model of `config` runs in clearly less time than the float model."""
        prepared = prepare(self._workbench, config)
        latencies = None if prepared.model is None else self._benchmark.latencies(prepared.model)
        return latencies is not None and latencies[1] < 0.97 * latencies[0]


def objectives_of(tuning: Tuning) -> tuple[str, ...]:
    """Return the objectives as a tuple, however the configuration gives them."""
    objective = tuning.objective
    return (objective,) if isinstance(objective, str) else tuple(objective)


def _scores(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in record["scores"].items()}


__all__ = ["Search", "find_strategy", "objectives_of", "tune"]
