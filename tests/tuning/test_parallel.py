"""Trials at the same time: in threads, in processes, on a cluster; the outcome is that of one."""

from __future__ import annotations

import threading

import pytest
import tuned_networks
from fake_workbench import FakeWorkbench, score

from lowprec.config import Config
from lowprec.errors import ConfigError, LowprecError
from lowprec.tuning import tune
from lowprec.tuning.changes import with_values

joblib = pytest.importorskip("joblib")

SPACE = {
    "space": {
        "fallback": [0, 1, 2, 4],
        "calibration.percentile": [99.99, 99.9],
        "calibration.method": ["percentile"],
    }
}


def outcome(result):
    return (
        result.met,
        result.best.number,
        [(trial.number, trial.change, trial.scores, trial.same_as) for trial in result.trials],
    )


def search(strategy: str, goal: float, **tuning: object):
    config = tuned_networks.start(
        strategy=strategy, accuracy={"absolute": goal}, options=SPACE, seed=5, **tuning
    )
    return tune(tuned_networks.open_mobile(), config, tuned_networks.Agreement())


def test_threads_and_processes_give_what_one_by_one_gives():
    wanted = outcome(search("random", 56.0))
    assert wanted[0]
    assert outcome(search("random", 56.0, n_jobs=2, backend="threading")) == wanted
    assert outcome(search("random", 56.0, n_jobs=3, backend="loky")) == wanted


def test_trials_of_a_batch_run_at_the_same_time():
    together = threading.Barrier(3)

    def evaluate(model):
        if model.report.layers:  # not the float model
            together.wait(timeout=30)
        return score(model)

    config = Config.of(
        {
            "tuning": {
                "strategy": "exhaustive",
                "accuracy": {"relative": 0.0},
                "max_trials": 6,
                "n_jobs": 3,
                "backend": "threading",
            }
        }
    )
    assert len(tune(FakeWorkbench(), config, evaluate).trials) == 6


def test_the_users_own_joblib_settings_are_used():
    seen = set()

    def evaluate(model):
        seen.add(threading.get_ident())
        return score(model)

    config = Config.of(
        {"tuning": {"strategy": "exhaustive", "accuracy": {"relative": 0.0}, "max_trials": 8}}
    )
    with joblib.parallel_config(backend="threading", n_jobs=2):
        tune(FakeWorkbench(), config, evaluate)
    assert seen - {threading.get_ident()}


def test_an_exception_in_another_process_is_the_users_own():
    config = tuned_networks.start(strategy="exhaustive", options=SPACE, n_jobs=2, backend="loky")
    with pytest.raises(tuned_networks.OwnError, match="in a trial"):
        tune(tuned_networks.open_mobile(), config, tuned_networks.failing)


def test_what_cannot_be_sent_to_other_processes_is_told():
    lock = threading.Lock()

    def evaluate(model):
        with lock:
            return score(model)

    config = Config.of({"tuning": {"n_jobs": 2, "backend": "loky"}})
    with pytest.raises(LowprecError, match=r"cannot be sent to other processes .*threading"):
        tune(FakeWorkbench(), config, evaluate)


@pytest.mark.parametrize("backend", ["nothing", "dask"])
def test_a_backend_that_is_not_there_is_told(backend):
    config = Config.of({"tuning": {"n_jobs": 2, "backend": backend}})
    with pytest.raises(ConfigError, match=rf"tuning.backend '{backend}': .*accepted are loky"):
        tune(FakeWorkbench(), config, score)


def test_a_cluster_of_two_workers_calibrates_and_tunes():
    distributed = pytest.importorskip("distributed")
    wanted = outcome(search("exhaustive", 56.0))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster),
    ):
        config = tuned_networks.start(
            strategy="exhaustive",
            accuracy={"absolute": 56.0},
            options=SPACE,
            seed=5,
            n_jobs=2,
            backend="dask",
        )
        config = with_values(config, {"calibration.n_jobs": 2, "calibration.backend": "dask"})
        found = tune(tuned_networks.open_mobile(), config, tuned_networks.Agreement())
        assert outcome(found) == wanted
