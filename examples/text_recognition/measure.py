"""Fair timing: runners take turns on every word, so that a busy moment hurts all of them alike."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import median

from recognizer import Runner
from words import Word, to_input


def median_latencies(
    runners: Mapping[str, Runner], words: Sequence[Word], rounds: int = 3
) -> dict[str, float]:
    """Return each runner's median time per word in milliseconds.

    The first pass over the words is not timed: a runner may prepare itself for every new width.
    """
    times: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(rounds + 1):
        for word in words:
            pixels = to_input(word)
            for name, run in runners.items():
                start = time.perf_counter()
                run(pixels)
                if turn:
                    times[name].append(time.perf_counter() - start)
    return {name: 1e3 * median(values) for name, values in times.items()}
