"""Median times of several ways to do the same, measured in turns on the same machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from time import perf_counter, sleep

# Another library's threads spin for a while after a run and take processors from the next one.
PAUSE = 0.06  # seconds
REST = 0.002  # seconds


def median_times(
    runs: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 1.0,
    least: int = 5,
    pause: float = 0.0,
) -> dict[str, float]:
    """Return the median duration of each run in seconds.

    Each is called once to warm up, then all are called in turns: a machine that slows down slows
    all of them down.

    Args:
        runs: What to time, by name.
        seconds: How long to measure, for all together.
        least: Turns to take at least, however long they are.
        pause: Seconds to wait before each turn, after which it runs once untimed: for runs on
            several threads (PAUSE is enough).
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    end = perf_counter() + seconds
    turns = 0
    while turns < least or perf_counter() < end:
        for name, run in runs.items():
            if pause:
                sleep(pause)
                run()
            start = perf_counter()
            run()
            times[name].append(perf_counter() - start)
        turns += 1
    return {name: statistics.median(series) for name, series in times.items()}


def least_times(
    runs: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 0.5,
    least: int = 5,
    warm: bool = False,
) -> dict[str, float]:
    """Return the shortest duration of each run in seconds: what it takes when nobody disturbs.

    All are called in turns, each turn starting with another one and each run after a short rest: a
    busy machine interrupts whoever has run for a while.

    Args:
        runs: What to time, by name.
        seconds: How long to measure, for all together.
        least: Turns to take at least, however long they are.
        warm: All of them have run just before: no run is only for warming up.
    """
    times = dict.fromkeys(runs, float("inf"))
    for run in () if warm else runs.values():
        run()
    order = list(runs)
    end = perf_counter() + seconds
    turns = 0
    while turns < least or perf_counter() < end:
        for name in order:
            sleep(REST)
            start = perf_counter()
            runs[name]()
            times[name] = min(times[name], perf_counter() - start)
        order.append(order.pop(0))
        turns += 1
    return times
