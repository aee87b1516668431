"""median_times: medians, in turns, so that drift hits all alike."""

from __future__ import annotations

import pytest

from lowprec import timing


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the runs move."""

    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", clock)
    return clock


def test_the_median_of_runs_taken_in_turns(clock):
    order = []
    durations = {"a": iter([9, 1, 2, 30, 2, 1]), "b": iter([9, 5, 5, 5, 5, 5])}

    def run(name: str) -> None:
        order.append(name)
        clock.now += next(durations[name])

    times = timing.median_times({"a": lambda: run("a"), "b": lambda: run("b")}, seconds=0, least=5)
    assert times == {"a": 2, "b": 5}  # the first of each warms up; one hiccup does not count
    assert order == ["a", "b"] * 6


def test_it_measures_as_long_as_asked(clock):
    def run() -> None:
        clock.now += 0.25

    calls = []
    timing.median_times({"a": lambda: (calls.append(1), run())}, seconds=2.0, least=1)
    assert len(calls) == 1 + 8


def test_the_shortest_time_of_each_counts_whatever_the_order() -> None:
    pauses = {"a": iter([0, 0.03, 0.002, 0.03, 0.03]), "b": iter([0, 0.001, 0.02, 0.02, 0.02])}
    order: list[str] = []

    def run(name: str) -> None:
        order.append(name)
        sleep(next(pauses[name]))

    times = least_times({"a": lambda: run("a"), "b": lambda: run("b")}, seconds=0, least=4)
    assert order == list("abab" "baab" "ba")
    assert 0.002 <= times["a"] < 0.02
    assert 0.001 <= times["b"] < 0.02
