"""Times in turns, so that drift hits all alike: medians, and the shortest."""

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


def test_the_shortest_of_runs_whose_turns_rotate(clock, monkeypatch):
    rests = []
    monkeypatch.setattr(timing, "sleep", rests.append)
    order = []
    durations = {"a": iter([1, 5, 3, 9]), "b": iter([1, 7, 7, 6])}

    def run(name: str) -> None:
        order.append(name)
        clock.now += next(durations[name])

    times = timing.least_times({"a": lambda: run("a"), "b": lambda: run("b")}, seconds=0, least=3)
    assert times == {"a": 3, "b": 6}  # the first of each warms up
    assert order == list("ababbaab")
    assert len(rests) == 6
