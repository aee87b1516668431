"""The criterion: one metric, several, weighted, NaN; and which trial is the answer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowprec.config import Config
from lowprec.errors import ConfigError, LowprecError
from lowprec.tuning import Trial
from lowprec.tuning.choice import best_trial, pareto
from lowprec.tuning.criterion import Criterion


def criterion(*names: str, **tuning: object) -> Criterion:
    return Criterion(Config.of({"tuning": tuning}).tuning, names or ("score",))


@pytest.mark.parametrize(
    ("limit", "before", "after", "met"),
    [
        ({"relative": 0.01}, 0.8, 0.792, True),
        ({"relative": 0.01}, 0.8, 0.7919, False),
        ({"absolute": 0.01}, 0.99, 0.98, True),  # 0.99 - 0.98 > 0.01 in floating point
        ({"absolute": 0.01}, 0.99, 0.9799, False),
        ({"relative": 0.0}, 0.5, 0.5, True),
        ({"relative": 0.0}, 0.5, 0.4999999, False),
        ({"relative": 0.01}, -2.0, -2.02, True),
        ({"relative": 0.01}, -2.0, -2.03, False),
        ({"relative": 0.01, "higher_is_better": False}, 3.0, 3.03, True),
        ({"relative": 0.01, "higher_is_better": False}, 3.0, 3.04, False),
        ({"relative": 0.01, "higher_is_better": False}, 3.0, 1.0, True),
    ],
)
def test_a_metric_may_lose_what_is_allowed_and_no_more(limit, before, after, met):
    verdict = criterion(accuracy=limit).judge({"score": before}, {"score": after})
    assert verdict.met is met
    assert (verdict.excess <= 0) is met


@pytest.mark.parametrize("higher", [True, False])
def test_nan_never_passes(higher):
    limits = criterion(accuracy={"relative": 1e9, "higher_is_better": higher})
    verdict = limits.judge({"score": 1.0}, {"score": math.nan})
    assert not verdict.met
    assert verdict.excess == math.inf


def test_of_several_metrics_each_must_hold_by_its_own_limit():
    goals = {"latency": {"absolute": 2.0, "higher_is_better": False}}
    limits = criterion("accuracy", "latency", metrics=goals)
    before = {"accuracy": 0.8, "latency": 10.0}
    assert limits.judge(before, {"accuracy": 0.795, "latency": 12.0}).met
    assert not limits.judge(before, {"accuracy": 0.795, "latency": 12.1}).met
    assert not limits.judge(before, {"accuracy": 0.78, "latency": 1.0}).met


def test_weights_make_a_weighted_mean_of_the_losses():
    goals = {"a": {"weight": 3}, "b": {"weight": 1}}
    limits = criterion("a", "b", metrics=goals, accuracy={"absolute": 0.01})
    before = {"a": 0.9, "b": 0.5}
    # (3 * 0.01 + 1 * 0.01) / 4 is allowed
    assert limits.judge(before, {"a": 0.89, "b": 0.49}).met
    assert limits.judge(before, {"a": 0.9, "b": 0.46}).met
    assert not limits.judge(before, {"a": 0.88, "b": 0.495}).met
    assert limits.judge(before, {"a": 0.91, "b": 0.43}).met
    assert not limits.judge(before, {"a": 0.9, "b": math.nan}).met


def test_a_weight_of_nothing_takes_a_metric_out():
    goals = {"a": {"weight": 1}, "b": {"weight": 0}}
    limits = criterion("a", "b", metrics=goals)
    assert limits.judge({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": -math.inf}).met


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"accurracy": {}}, "'accurracy', which is not evaluated; the metrics are a, b"),
        ({"a": {"weight": 1}}, "no weight to 'b'"),
        ({"a": {"weight": 0}, "b": {"weight": 0}}, "add up to 0"),
    ],
)
def test_goals_that_make_no_sense_are_refused(metrics, message):
    with pytest.raises(ConfigError, match=message):
        criterion("a", "b", metrics=metrics)


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_the_original_must_have_a_score(score):
    with pytest.raises(LowprecError, match="of the float model is"):
        criterion().check_original({"score": score})


@given(
    before=st.floats(-1e6, 1e6),
    after=st.floats(-1e6, 1e6),
    better=st.floats(0, 1e3),
    relative=st.floats(0, 0.5),
)
def test_a_better_score_is_never_judged_worse(before, after, better, relative):
    limits = criterion(accuracy={"relative": relative})
    first = limits.judge({"score": before}, {"score": after})
    second = limits.judge({"score": before}, {"score": after + better})
    assert second.excess <= first.excess
    assert second.met or not first.met


# ---- The answer ----------------------------------------------------------------------------------


def trial(number: int, excess: float, latency: float = 1.0, size: int = 100) -> Trial:
    values = {"loss": excess, "excess": excess, "met": excess <= 0}
    return Trial(
        number,
        Config(),
        "",
        {"score": 0.0},
        **values,
        latency=latency,
        float_latency=2.0,
        size=size,
    )


def test_the_best_by_objective_is_returned_among_those_that_meet():
    trials = [trial(1, 0.5, 0.1, 10), trial(2, -0.1, 1.0, 50), trial(3, -0.2, 0.5, 90)]
    assert best_trial(trials, ("latency",)).number == 3
    assert best_trial(trials, ("size",)).number == 2
    assert best_trial(trials, ("latency", "size")).number == 3  # 0.225 against 0.25


def test_nearly_equal_latencies_do_not_decide():
    trials = [trial(1, -0.1, 1.00), trial(2, -0.3, 1.02), trial(3, -0.5, 1.5)]
    assert best_trial(trials, ("latency",)).number == 2


def test_the_least_loss_is_returned_when_none_meets():
    trials = [trial(1, 0.5), trial(2, 0.2), trial(3, 0.2), Trial(4, Config(), "", error="refused")]
    assert best_trial(trials, ("latency",)).number == 2
    assert best_trial(trials[3:], ("latency",)) is None


def test_the_pareto_list_holds_what_nothing_beats():
    trials = [
        trial(1, 0.5, 0.2, 10),
        trial(2, 0.1, 0.4, 20),
        trial(3, 0.1, 0.5, 20),  # slower than 2, nothing better
        trial(4, 0.1, 0.4, 20),  # as 2
        trial(5, 0.0, 0.9, 15),
    ]
    assert [each.number for each in pareto(trials)] == [5, 2, 1]


points = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4))


@given(st.lists(points, min_size=1, max_size=12))
def test_every_trial_is_equalled_or_beaten_by_one_of_the_pareto_list(values):
    trials = [trial(n, loss, time, size) for n, (loss, time, size) in enumerate(values, 1)]
    front = {each.number for each in pareto(trials)}
    assert front
    for number, point in enumerate(values, 1):
        ahead = [
            rival
            for rival, other in enumerate(values, 1)
            if all(theirs <= ours for theirs, ours in zip(other, point, strict=True))
        ]
        assert front & set(ahead)
        if number in front:
            assert not [rival for rival in ahead if values[rival - 1] != point]
