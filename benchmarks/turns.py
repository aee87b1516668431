"""Several calls timed in turns: a machine that slows down slows all of them down."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

Call = Callable[[], object]
Middle = Callable[[Sequence[float]], float]
BURST = 0.002  # seconds: a timed burst repeats a call to last at least this long
PAUSE = 0.06  # seconds before each burst, so that another library's threads stop spinning


def repeats(call: Call) -> int:
    """Return how often to repeat a call in one burst; warms it up."""
    for _ in range(3):
        call()
    start = time.perf_counter()
    call()
    return max(1, int(BURST / max(time.perf_counter() - start, 1e-7)))


def take_turns(
    calls: Mapping[str, Call],
    rounds: int,
    threads: int,
    middle: Middle = statistics.median,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the seconds of one call of each: the median of all rounds, or another `middle`.

    `clock` may be time.process_time for one thread: who else the machine works for hardly matters.
    """
    counts = {name: repeats(call) for name, call in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for turn in range(rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            call, count = calls[name], counts[name]
            if threads > 1:
                time.sleep(PAUSE)
            call()
            start = clock()
            for _ in range(count):
                call()
            times[name].append((clock() - start) / count)
    return {name: middle(series) for name, series in times.items()}
