"""The search: limits, exceptions, what is returned and said, and going on from the log."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from fake_workbench import FakeFeeds, FakeWorkbench, loss_of, score

from lowprec.config import Config
from lowprec.errors import ConfigError, LowprecError, OutputError
from lowprec.tuning import tune
from lowprec.tuning.changes import describe, with_layers, with_values


def config(**tuning: object) -> Config:
    return Config.of({"tuning": tuning})


def by_method(problem):
    """A strategy: the configuration as given, then other methods, then every layer in float."""
    yield problem.config
    for method in ("percentile", "minmax", "mse"):
        yield with_values(problem.config, {"calibration.method": method})
    yield with_layers(problem.config, [layer.name for layer in problem.layers()], "f32")


MORE = {"test.method": by_method}


def run(workbench=None, evaluate=score, **tuning):
    tuning = {"strategy": "test.method", **tuning}
    return tune(workbench or FakeWorkbench(), config(**tuning), evaluate, strategies=MORE)


def test_the_first_that_meets_the_criterion_ends_the_search():
    result = run(accuracy={"relative": 0.08})
    assert result.met
    assert [trial.number for trial in result.trials] == [1, 2, 3, 4]
    assert result.best.change == "calibration.method: mse"
    assert result.model.report.config["calibration"]["method"] == "mse"
    assert "is met after 4 trials by trial 4" in result.model.report.notes[-1]


def test_an_exhausted_search_returns_the_best_by_objective():
    result = run(accuracy={"relative": 0.08}, stop="exhausted", objective="size")
    assert len(result.trials) == 5
    assert result.best.number == 4  # the float one has no loss, but is larger
    assert [trial.number for trial in result.pareto] == [5, 4]


def test_an_impossible_goal_returns_the_best_so_far_and_says_so():
    result = run(accuracy={"relative": 0.0}, max_trials=4)
    assert not result.met
    assert result.best.number == 4
    assert result.model.score == pytest.approx(1 - 0.0595)
    note = result.model.report.notes[-1]
    assert "NOT met after 4 trials" in note
    assert "tuning.max_trials (4) was reached" in note


def test_the_report_holds_the_scores_and_every_trial():
    result = run(accuracy={"relative": 0.08})
    report = result.model.report
    assert report.accuracy == {"score": {"float": 1.0, "int8": pytest.approx(1 - 0.0595)}}
    assert [trial["number"] for trial in report.trials] == [0, 1, 2, 3, 4]
    assert report.trials[0]["change"] == "float model"
    assert report.trials[4]["met"] is True
    assert [trial["number"] for trial in report.trials if trial.get("best")] == [4]
    assert report.trials[1]["loss"] == pytest.approx(0.119)
    json.dumps(report.trials, allow_nan=False)


def test_a_nan_score_never_passes_and_is_no_best():
    scores = iter([1.0, math.nan, 0.2, math.nan, 0.1, math.nan])
    result = run(evaluate=lambda model: next(scores), accuracy={"relative": 0.5})
    assert not result.met
    assert result.best.number == 2
    assert math.isnan(result.trials[0].scores["score"])
    json.dumps(result.model.report.trials, allow_nan=False)


class OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [OwnError("x"), KeyboardInterrupt(), StopIteration("y")])
def test_exceptions_of_evaluate_pass_unchanged(error, tmp_path):
    calls = []

    def evaluate(model):
        calls.append(model)
        if len(calls) == 3:
            raise error
        return score(model)

    with pytest.raises(type(error)) as caught:
        run(evaluate=evaluate, log=str(tmp_path / "log"))
    assert caught.value is error
    records = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [r.get("record") for r in records] == [None, "baseline", "trial"]


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        (lambda model: None, "'score' returned NoneType; it must return one number"),
        (lambda model: math.nan, "of the float model is nan"),
        ({}, "evaluate is empty"),
        ({"a": 1}, "'a' is a int; give a function"),
    ],
)
def test_what_is_no_score_is_refused_in_words(evaluate, message):
    with pytest.raises(LowprecError, match=message):
        run(evaluate=evaluate)


def test_an_unknown_strategy_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"'bsic'; accepted are basic, .*test\.method"):
        run(strategy="bsic")


def test_rebuild_makes_what_evaluate_gets_the_original_too():
    seen = []

    def rebuild(model):
        return ("rebuilt", model)

    def evaluate(model):
        seen.append(model)
        return model[1].score

    workbench = FakeWorkbench()
    tune(workbench, config(strategy="basic", max_trials=2), evaluate, rebuild=rebuild)
    assert seen[0] == ("rebuilt", workbench.original)
    assert all(kind == "rebuilt" for kind, _ in seen)
    tune(workbench, config(max_trials=1), evaluate, rebuild=rebuild, original=("mine", seen[0][1]))
    assert ("mine", seen[0][1]) in seen


def test_progress_counts_the_trials():
    seen = []
    tune(
        FakeWorkbench(),
        config(strategy="test.method", max_trials=3),
        score,
        strategies=MORE,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_configuration_that_lowprec_refuses_is_a_failed_trial_unless_it_is_the_users_own():
    refused = {"algorithms": {"rounding": "adaptive"}}

    def strategy(problem):
        yield problem.config
        yield with_values(problem.config, {"algorithms.rounding": "adaptive"})
        yield with_values(problem.config, {"calibration.method": "mse"})

    own = {"test.refused": strategy}
    found = tune(FakeWorkbench(), config(strategy="test.refused"), score, strategies=own)
    assert "is not in the fake" in found.trials[1].error
    assert found.best.number == 3
    with pytest.raises(LowprecError, match="is not in the fake"):
        tune(FakeWorkbench(), Config.of(refused), score)


def test_a_configuration_proposed_twice_is_tried_once():
    def strategy(problem):
        for _ in range(3):
            yield problem.config

    workbench = FakeWorkbench()
    own = {"test.same": strategy}
    assert len(tune(workbench, config(strategy="test.same"), score, strategies=own).trials) == 1
    assert len(workbench.quantized) == 2  # the trial and the answer


def test_a_strategy_that_repeats_itself_for_ever_is_ended():
    def strategy(problem):
        while True:
            yield problem.config

    own = {"test.loop": strategy}
    result = tune(FakeWorkbench(), config(strategy="test.loop"), score, strategies=own)
    assert "repeats what was tried" in result.model.report.notes[-1]


def test_the_deadline_starts_no_trial_that_would_end_too_late(monkeypatch):
    now = [0.0]
    for module in ("lowprec.tuning.search", "lowprec.tuning.scoring"):
        monkeypatch.setattr(f"{module}.perf_counter", lambda: now[0])
    calls = []

    def evaluate(model):
        calls.append(model)
        now[0] += 10.0
        return score(model)

    result = run(evaluate=evaluate, accuracy={"relative": 0.0}, timeout=35.0)
    # Baseline to 10 s, trials to 20 s and 30 s; a third one would have ended at 40 s.
    assert [trial.number for trial in result.trials] == [1, 2]
    assert now[0] == 30.0
    assert "tuning.timeout (35 s)" in result.model.report.notes[-1]


def test_the_first_trial_runs_however_short_the_time_is():
    assert len(run(accuracy={"relative": 0.0}, timeout=1e-9).trials) == 1


def test_latency_is_measured_beside_the_float_model():
    feeds = FakeFeeds([{"x": np.ones(20_000)} for _ in range(6)])
    result = run(FakeWorkbench(feeds=feeds), accuracy={"relative": 0.2})
    trial = result.trials[0]
    assert trial.latency < trial.float_latency
    assert 0.3 < trial.latency_ratio < 0.8
    assert result.model.report.trials[1]["latency_ms"] == 1e3 * trial.latency


# ---- The log -------------------------------------------------------------------------------------


def counting(calls):
    def evaluate(model):
        calls.append(model.score)
        return score(model)

    return evaluate


def test_a_search_goes_on_from_its_log_and_gives_the_same(tmp_path):
    log = str(tmp_path / "trials.jsonl")
    wanted = run(accuracy={"relative": 0.0}, stop="exhausted")
    calls = []
    run(evaluate=counting(calls), accuracy={"relative": 0.0}, max_trials=2, log=log)
    assert len(calls) == 3  # the float model and two trials
    result = run(evaluate=counting(calls), accuracy={"relative": 0.0}, log=log, stop="exhausted")
    assert len(calls) == 6
    assert [t.scores for t in result.trials] == [t.scores for t in wanted.trials]
    assert result.best.change == wanted.best.change
    again = run(evaluate=counting(calls), accuracy={"relative": 0.0}, log=log, stop="exhausted")
    assert len(calls) == 6
    assert again.trials == result.trials


def test_latencies_in_the_log_are_used_again(tmp_path):
    feeds = FakeFeeds([{"x": np.ones(100)}])
    log = str(tmp_path / "log")
    tuning = {"accuracy": {"relative": 0.2}, "stop": "exhausted", "log": log}
    first = run(FakeWorkbench(feeds=feeds), **tuning)
    second = run(FakeWorkbench(feeds=feeds), **tuning)
    assert [t.latency for t in first.trials] == [t.latency for t in second.trials]
    assert first.best.number == second.best.number


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_damaged_last_line_is_tolerated(tmp_path, cut):
    log = tmp_path / "log"
    calls = []
    wanted = run(evaluate=counting(calls), accuracy={"relative": 0.08}, log=str(log))
    log.write_bytes(log.read_bytes()[:-cut])
    calls.clear()
    result = run(evaluate=counting(calls), accuracy={"relative": 0.08}, log=str(log))
    assert len(calls) == 1
    assert [t.scores for t in result.trials] == [t.scores for t in wanted.trials]
    assert len(log.read_text().splitlines()) == 6


def test_a_log_cut_off_anywhere_gives_the_same_answer(tmp_path):
    log = tmp_path / "log"
    tuning = {"accuracy": {"relative": 0.0}, "stop": "exhausted", "log": str(log)}
    wanted = run(**tuning)
    content = log.read_bytes()
    assert len(content) > 1000
    for size in range(0, len(content), 31):
        log.write_bytes(content[:size])
        result = run(**tuning)
        assert [t.scores for t in result.trials] == [t.scores for t in wanted.trials]
        lines = log.read_text().splitlines()
        assert len(lines) == len(content.splitlines())
        assert all(json.loads(line) for line in lines)


def test_a_first_line_cut_off_starts_the_log_again(tmp_path):
    log = tmp_path / "log"
    calls = []
    run(evaluate=counting(calls), log=str(log), accuracy={"relative": 0.08})
    log.write_bytes(log.read_bytes()[:9])
    calls.clear()
    run(evaluate=counting(calls), log=str(log), accuracy={"relative": 0.08})
    assert len(calls) == 5


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path):
    log = tmp_path / "log"
    run(log=str(log))
    lines = log.read_text().splitlines()
    lines[2] = lines[2][:-5]
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match=r"log', line 3: it is damaged; delete the file"):
        run(log=str(log))


def test_what_is_no_log_is_not_touched(tmp_path):
    log = tmp_path / "notes.txt"
    log.write_text("my only copy")
    with pytest.raises(ConfigError, match=r"notes.txt' is not a trial log"):
        run(log=str(log))
    assert log.read_text() == "my only copy"


def other_score(model):
    return score(model) * 0.5


class Scorer:
    def __init__(self, calls):
        self.calls = calls

    def __call__(self, model):
        self.calls.append(model)
        return score(model)


class OtherScorer(Scorer):
    def __call__(self, model):
        return 0.5 * super().__call__(model)


def test_an_edited_object_that_evaluates_is_noticed(tmp_path):
    log, calls = str(tmp_path / "log"), []
    run(evaluate=Scorer(calls), log=log)
    done = len(calls)
    run(evaluate=Scorer(calls), log=log)
    assert len(calls) == done
    Edited = type("Scorer", (Scorer,), {"__call__": OtherScorer.__call__, "__qualname__": "Scorer"})
    with pytest.raises(ConfigError, match="another evaluation function"):
        run(evaluate=Edited(calls), log=log)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workbench": FakeWorkbench(name="other")}, "another model or other calibration data"),
        ({"accuracy": {"relative": 0.5}}, "another configuration"),
        ({"strategy": "basic"}, "strategy 'test.method', this search's is 'basic'"),
        ({"evaluate": {"a": score}}, r"metrics \['score'\], this search's are \['a'\]"),
        ({"evaluate": other_score}, "another evaluation function"),
    ],
)
def test_the_log_of_another_search_is_refused(tmp_path, change, message):
    log = tmp_path / "mine.jsonl"
    run(log=str(log))
    content = log.read_bytes()
    with pytest.raises(ConfigError, match=f"mine.jsonl' .*{message}.*give another tuning.log"):
        run(**{"log": str(log), **change})
    assert log.read_bytes() == content


def test_a_strategy_that_now_proposes_something_else_is_told(tmp_path):
    log = tmp_path / "log"
    run(log=str(log))

    def other(problem):
        yield with_values(problem.config, {"precision": "bf16"})

    now = config(strategy="test.method", log=str(log))
    with pytest.raises(ConfigError, match=r"its trial 1 \(as configured\) is not what"):
        tune(FakeWorkbench(), now, score, strategies={"test.method": other})


def test_two_searches_cannot_write_one_log(tmp_path):
    def evaluate(model):
        with pytest.raises(OutputError, match="being written by another search"):
            run(log=str(tmp_path / "log"))
        return score(model)

    run(evaluate=evaluate, log=str(tmp_path / "log"), max_trials=1)


def test_a_log_in_a_missing_folder_is_refused_before_any_work(tmp_path):
    workbench = FakeWorkbench()
    with pytest.raises(OutputError, match="does not exist"):
        run(workbench, log=str(tmp_path / "none" / "log"))
    assert not workbench.quantized


# ---- Words ---------------------------------------------------------------------------------------


def test_changes_are_said_in_words():
    base = Config.of({"layers": [{"match": "*", "precision": "int8"}]})
    assert describe(base, base) == "as configured"
    changed = with_layers(base, [f"conv[{n}]" for n in range(6)], "f32")
    changed = with_values(changed, {"calibration.method": "mse"})
    text = "calibration.method: mse; f32: conv[0], conv[1], conv[2], conv[3] and 2 more"
    assert describe(base, changed) == text
    assert changed.layer_precision("conv[1]", "Conv") == "f32"
    assert changed.layer_precision("conv1", "Conv") == "int8"


def test_the_fake_is_what_the_tests_take_it_for():
    assert loss_of(Config()) == pytest.approx(0.119)
