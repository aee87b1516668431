"""The strategies: what each proposes, in which order, and that they end."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from fake_workbench import LOSSES, FakeFeeds, FakeWorkbench, precision_of, score

from lowprec.config import Config
from lowprec.errors import ConfigError, LowprecError
from lowprec.hookspecs import hookimpl
from lowprec.tuning import Layer, Problem, Sensitivity, tune
from lowprec.tuning.strategies import STRATEGIES, ranking, space

WORST_FIRST = sorted(LOSSES, key=lambda name: (-LOSSES[name], -int(name.split(".")[1])))


def config(strategy: str, **tuning: object) -> Config:
    return Config.of({"tuning": {"strategy": strategy, **tuning}})


def search(strategy: str, workbench: FakeWorkbench | None = None, **tuning: object):
    return tune(workbench or FakeWorkbench(), config(strategy, **tuning), score)


def in_float(trial) -> set[str]:
    return {name for name in LOSSES if precision_of(trial.config, name) == "f32"}


def in_int8(trial) -> set[str]:
    return {name for name in LOSSES if precision_of(trial.config, name) == "int8"}


def test_basic_tries_the_default_then_the_ladder_then_falls_back():
    result = search("basic", accuracy={"relative": 0.02})
    assert result.met
    changes = [trial.change for trial in result.trials]
    assert changes[0] == "as configured"
    assert changes[1] == "calibration.method: mse"
    # mse halves every loss, and is kept; what changes nothing is not.
    assert all(change.startswith("calibration.method: mse") for change in changes[4:])
    assert "algorithms.smoothing" not in result.best.change
    # 0.0595 - 0.025 - 0.015 = 0.0195
    assert in_float(result.best) == {"layer.5", "layer.2"}
    assert [len(in_float(trial)) for trial in result.trials[-2:]] == [1, 2]


def test_basic_meets_any_goal_in_the_end():
    result = search("basic", accuracy={"relative": 0.0})
    assert result.met
    assert in_float(result.best) == set(LOSSES)
    assert len(result.trials) <= 25


def test_dynamic_products_are_on_the_ladder_where_there_are_products():
    result = search("basic", accuracy={"relative": 0.0})
    assert any("int8-dynamic: all MatMul" in trial.change for trial in result.trials)


def test_what_is_fixed_is_left_alone():
    options = {"fixed": ["calibration.method", "algorithms.smoothing", "layers"]}
    changes = [trial.change for trial in search("basic", options=options).trials]
    assert "algorithms.equalization: true" in changes
    assert not any("calibration" in c or "smoothing" in c or "dynamic" in c for c in changes)
    draws = search("random", options=options, accuracy={"relative": 0.0}, max_trials=20)
    assert not any("calibration" in trial.change for trial in draws.trials)
    with pytest.raises(ConfigError, match="must be a list of keys"):
        search("basic", options={"fixed": "calibration.method"})


def test_a_symmetric_scheme_is_not_given_up():
    given = Config.of({"activations": {"scheme": "symmetric"}, "tuning": {"strategy": "basic"}})
    result = tune(FakeWorkbench(), given, score)
    assert not any("scheme" in trial.change for trial in result.trials)


def test_layers_fall_back_in_the_order_of_what_they_cost():
    result = search("mse", accuracy={"relative": 0.0}, stop="exhausted")
    fallen = [in_float(trial) for trial in result.trials if in_float(trial)]
    assert fallen == [set(WORST_FIRST[: len(names)]) for names in fallen]
    assert [len(names) for names in fallen] == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12]


def test_mse_v2_takes_back_what_was_not_needed():
    result = search("mse_v2", accuracy={"relative": 0.021}, objective="size")
    assert result.met
    # 119 - 50 - 30 - 16 = 23 is not enough; with layer.0 (8) it is 15: then 16 + ... may return.
    assert len(in_float(result.best)) == 4
    sizes = [trial.size for trial in result.trials if trial.met]
    assert result.best.size == min(sizes)
    # No single layer more can go back: the search was thorough.
    kept = in_float(result.best)
    lost = sum(loss for name, loss in LOSSES.items() if name not in kept)
    assert all(lost + LOSSES[name] > 21 for name in kept)


def test_mse_v2_stops_at_once_where_nothing_has_to_fall_back():
    assert len(search("mse_v2", accuracy={"relative": 0.5}).trials) == 1


def test_mse_v2_takes_the_greedy_steps_apart():
    """Growing steps overshoot: what came too much is found and taken back."""
    losses = {f"n{i}": 1.0 for i in range(20)}
    result = tune(UnevenBench(losses), config("mse_v2", accuracy={"relative": 0.0105}), score)
    assert result.met
    kept = sum(rule.precision == "f32" for rule in result.best.config.layers)
    assert kept == 10


class UnevenBench(FakeWorkbench):
    """Layers of one type with losses of their own, in thousandths."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def quantize(self, config, progress=None, *, measure=True):
        model = super().quantize(config, measure=measure)
        record = model.report.layers[0]
        chosen = {
            name: config.layer_precision(name, "Conv") or config.precision for name in self.losses
        }
        model.report.layers = [
            type(record)(name, "Conv", precision, "", activation_sqnr=50.0)
            for name, precision in chosen.items()
        ]
        lost = sum(self.losses[name] for name, p in chosen.items() if p == "int8")
        model.score = 1 - 1e-3 * lost
        model.report.int8_bytes = 100 + sum(p == "f32" for p in chosen.values())
        return model


def test_conservative_starts_in_float_and_keeps_what_holds():
    result = search("conservative", accuracy={"relative": 0.03}, objective="size")
    assert in_float(result.trials[0]) == set(LOSSES)
    assert result.met
    assert result.best.size == min(trial.size for trial in result.trials if trial.met)
    # Whole types do not hold (Conv loses 0.066, MatMul 0.053), parts of them do.
    assert {"layer.5", "layer.2"} <= in_float(result.best)
    assert len(in_int8(result.best)) >= 6


def test_conservative_with_depth_0_keeps_types_whole():
    result = search(
        "conservative", accuracy={"relative": 0.056}, objective="size", options={"depth": 0}
    )
    assert len(result.trials) == 3
    assert in_int8(result.best) == {name for n, name in enumerate(LOSSES) if n % 3 == 0}


SPACE = {"calibration.method": ["auto", "mse", "minmax"], "fallback": [0, 1, 2]}


@pytest.mark.parametrize("strategy", ["random", "bayesian", "exhaustive"])
def test_a_finite_space_is_searched_without_repeats_and_ends(strategy):
    result = search(
        strategy, accuracy={"relative": 0.0}, stop="exhausted", options={"space": SPACE}
    )
    assert len(result.trials) == 9
    assert len({trial.change for trial in result.trials}) == 9
    assert result.best.change == "calibration.method: mse; f32: layer.5, layer.2"
    assert "nothing more to propose" in result.model.report.notes[-1]


@pytest.mark.parametrize("strategy", ["random", "bayesian"])
def test_a_seed_decides_the_draws(strategy):
    def changes(seed):
        result = search(strategy, accuracy={"relative": 0.0}, max_trials=12, seed=seed)
        return [trial.change for trial in result.trials]

    first = changes(1)
    assert first == changes(1)
    assert first != changes(2)
    assert first[0] == "as configured"


def test_bayesian_learns():
    """Of 12 layers' counts and 5 methods it finds the goal in fewer draws than half the space."""
    wanted = {"accuracy": {"relative": 0.004}}
    counts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    dimensions = {"fallback": counts, "calibration.method": ["auto", "mse", "percentile", "minmax"]}
    needed = [
        len(search("bayesian", **wanted, seed=seed, options={"space": dimensions}).trials)
        for seed in range(5)
    ]
    assert sorted(needed)[2] <= 20


def test_a_space_too_large_to_hold_costs_nothing():
    dimensions = {f"precision.Type{n}": ["int8", "f32", "bf16", "int8-dynamic"] for n in range(40)}
    for strategy in ("random", "bayesian", "exhaustive"):
        result = search(
            strategy, accuracy={"relative": 0.0}, max_trials=5, options={"space": dimensions}
        )
        assert len(result.trials) == 5


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ([1], "must map keys"),
        ({"calibration.method": "mse"}, "'calibration.method' has no list of values"),
        ({"fallback": [-1]}, "'fallback' holds numbers of layers"),
        ({"calibration.methods": ["mse"]}, "unknown key 'calibration.methods'"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused(dimensions, message):
    with pytest.raises(ConfigError, match=message):
        search("exhaustive", options={"space": dimensions})


def test_the_usual_space_starts_with_what_the_user_gave():
    given = Config.of({"calibration": {"method": "mse"}, "tuning": {"strategy": "exhaustive"}})
    result = tune(FakeWorkbench(), given, score)
    assert result.trials[0].change == "as configured"


def test_optuna_is_left_as_quiet_as_it_was():
    optuna = pytest.importorskip("optuna")
    before = optuna.logging.get_verbosity()
    search("random", max_trials=3, accuracy={"relative": 0.0})
    assert optuna.logging.get_verbosity() == before


@pytest.mark.parametrize(
    ("strategy", "missing", "extra"), [("random", "optuna", "tune"), ("basic", "joblib", "distrib")]
)
def test_a_missing_package_names_its_extra(monkeypatch, strategy, missing, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(LowprecError, match=rf"pip install 'lowprec\[{extra}"):
        search(strategy, n_jobs=2 if missing == "joblib" else 1)


def test_importing_lowprec_or_tuning_imports_neither_optuna_nor_joblib():
    code = "import sys, lowprec, lowprec.tuning; print({'optuna', 'joblib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ---- Order of layers -----------------------------------------------------------------------------


def problem_with(layers, sensitivities):
    facts = {"layers": layers, "sensitivities": sensitivities, "bf16 wins": True}
    return Problem(None, Config(), lambda name, compute: facts[name], lambda config: False)


ROWS = [[f"n{i}", "Conv", "int8", 10, 50.0 - i] for i in range(4)]


def test_measured_sensitivities_decide_and_what_is_unknown_goes_from_the_output():
    found = [["n0", 30.0, 20.0, 0.5], ["n1", 10.0, 40.0, 2.0], ["n2", "inf", None, "-inf"]]
    problem = problem_with(ROWS, found)
    assert problem.layers()[0] == Layer("n0", "Conv", "int8", 10, 50.0)
    assert problem.sensitivities()["n0"] == Sensitivity(30.0, 20.0, 0.5)

    def names(layers):
        return [layer.name for layer in layers]

    assert names(ranking.by_gain(problem)) == ["n1", "n0", "n3", "n2"]
    assert names(ranking.by_isolated_error(problem)) == ["n1", "n0", "n3", "n2"]
    assert names(ranking.by_error(problem)) == ["n0", "n1", "n3", "n2"]
    assert names(ranking.by_gain(problem_with(ROWS, []))) == ["n3", "n2", "n1", "n0"]


def test_counts_grow_to_the_whole():
    assert list(ranking.growing_counts(0)) == []
    assert list(ranking.growing_counts(1)) == [1]
    assert list(ranking.growing_counts(11)) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    assert len(list(ranking.growing_counts(1000))) < 32


def test_points_of_a_space_come_one_at_a_time():
    problem = problem_with(ROWS, [])
    problem.options = {"space": {f"precision.T{n}": ["int8", "f32"] for n in range(60)}}
    points = space.Space(problem).points()
    assert list(itertools.islice(points, 2)) == [(0,) * 60, (1, *(0,) * 59)]


def test_bf16_comes_before_f32_where_it_is_faster():
    feeds = FakeFeeds([{"x": __import__("numpy").ones(5000)}])
    result = search("mse_v2", FakeWorkbench(feeds=feeds), accuracy={"relative": 0.03})
    assert result.met
    assert any("bf16" in trial.change for trial in result.trials)
    assert not any("f32" in trial.change for trial in result.trials)


# ---- Plugins -------------------------------------------------------------------------------------


class OtherSeeds:
    """A plugin: one strategy more."""

    @staticmethod
    @hookimpl
    def lowprec_strategies():
        def only_last(problem):
            yield problem.config
            from lowprec.tuning.changes import with_layers

            yield with_layers(problem.config, [problem.layers()[-1].name], "f32")

        return {"other.last": only_last}


def test_a_plugins_strategy_searches():
    from lowprec.plugins import Plugins

    plugins = Plugins()
    plugins.register(OtherSeeds, "other")
    result = tune(
        FakeWorkbench(),
        config("other.last", accuracy={"relative": 0.1}),
        score,
        strategies=plugins.strategies(),
    )
    assert [trial.change for trial in result.trials] == ["as configured", "f32: layer.11"]


def test_quantize_knows_the_strategies_of_plugins():
    import tuned_networks

    import lowprec
    from lowprec.plugins import all_plugins

    all_plugins().register(OtherSeeds, "other")
    try:
        model, feeds = tuned_networks.small_networks.mobile()
        settings = {"accuracy": {"absolute": 0.0}, "strategy": "other.last"}
        found = lowprec.quantize(
            model, feeds[:2], config={"tuning": settings}, evaluate=tuned_networks.Agreement()
        )
    finally:
        all_plugins().unregister("other")
    assert len(found.report.trials) == 3
    assert "NOT met" in found.report.notes[-1]


def test_every_strategy_is_documented():
    from pathlib import Path

    page = Path(__file__).parents[2] / "docs" / "tuning.md"
    text = page.read_text()
    assert all(f"`{name}`" in text for name in STRATEGIES)
