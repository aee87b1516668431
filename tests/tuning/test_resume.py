"""Real models: a search in a process of its own that is killed and run again gives the same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tuned_networks

from lowprec.models import QuantizedModel
from lowprec.tuning import tune

TESTS = Path(__file__).parents[1]
PROGRAM = """
import json, sys
sys.path.insert(0, {tests!r})
import tuned_networks
from lowprec.tuning import tune

log, killed_at = {log!r}, {killed_at!r}
config = tuned_networks.start(strategy="mse_v2", accuracy={{"absolute": 53.0}}, log=log, seed=3)
scorer = tuned_networks.Agreement(killed_at)
result = tune(tuned_networks.open_mobile(), config, scorer)
model = result.model.to_onnx()
del model.metadata_props[:]
print(json.dumps([
    result.met, result.best.number, result.best.change,
    [[trial.change, trial.scores] for trial in result.trials],
    hash(model.SerializeToString(deterministic=True)), scorer.calls,
]))
"""


def run(log: Path, killed_at: int | None = None) -> tuple[int, list]:
    program = PROGRAM.format(tests=str(TESTS), log=str(log), killed_at=killed_at)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONHASHSEED": "0", "PATH": ""},
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else []


def test_a_killed_search_goes_on_and_gives_the_same_answer(tmp_path):
    _, whole = run(tmp_path / "whole")
    *wanted, calls = whole
    assert wanted[0] is True
    assert calls >= 4

    code, _ = run(tmp_path / "cut", killed_at=3)
    assert code == -signal.SIGKILL
    records = [json.loads(line) for line in (tmp_path / "cut").read_text().splitlines()]
    assert sum(record.get("record") == "trial" for record in records) == 1
    code, resumed = run(tmp_path / "cut")
    assert code == 0
    assert resumed[:-1] == wanted
    assert resumed[-1] == calls - 2  # the float model and one trial came from the log


def test_a_real_search_returns_a_model_that_scores_as_the_trial_did(tmp_path):
    scorer = tuned_networks.Agreement()
    config = tuned_networks.start(accuracy={"absolute": 59.5}, max_trials=12)
    result = tune(tuned_networks.open_mobile(), config, scorer)
    assert isinstance(result.model, QuantizedModel)
    assert scorer(result.model) == result.best.scores["score"]
    assert result.trials[0].latency is not None
    assert result.trials[0].size == result.model.report.int8_bytes or len(result.trials) > 1
    result.model.save(tmp_path / "tuned.onnx")
    again = QuantizedModel.from_hub(result.model.hub, "again")
    assert scorer(again) == result.best.scores["score"]


def test_a_model_that_was_scored_before_is_not_evaluated_again():
    """Equalisation finds nothing to do in a model without depthwise layers after a Relu."""

    def strategy(problem):
        from lowprec.tuning.changes import with_values

        yield problem.config
        yield with_values(problem.config, {"calibration.percentile": 99.0})  # method: minmax

    scorer = tuned_networks.Agreement()
    config = tuned_networks.start(strategy="test.same", accuracy={"relative": 0.0})
    workbench = tuned_networks.open_mobile()
    result = tune(workbench, config, scorer, strategies={"test.same": strategy})
    assert scorer.calls == 2
    first, second = result.trials
    assert second.same_as == 1
    assert second.scores == first.scores
    assert second.latency == first.latency


@pytest.mark.parametrize("strategy", ["basic", "conservative"])
def test_strategies_meet_a_hard_goal_on_a_real_model(strategy):
    config = tuned_networks.start(strategy=strategy, accuracy={"absolute": 55.0})
    result = tune(tuned_networks.open_mobile(), config, tuned_networks.Agreement())
    assert result.met
    assert result.best.scores["score"] >= 45.0
    assert len(result.trials) <= 40
