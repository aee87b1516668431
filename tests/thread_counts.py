"""Run things with different numbers of threads, and see that they were shared out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import lowprec
from lowprec._ext import _core

COUNTS = (1, 2, 3, 4)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Let lowprec use `n` threads inside."""
    before = lowprec.get_num_threads()
    lowprec.set_num_threads(n)
    try:
        yield
    finally:
        lowprec.set_num_threads(before)


def bytes_by_count(compute: Callable[[], bytes]) -> dict[int, bytes]:
    """Return what `compute` gives with 1 to 4 threads; with more than one, they must share work."""
    made = {}
    for n in COUNTS:
        with threads(n):
            before = _core.shared_calls()
            made[n] = compute()
            shared = _core.shared_calls() - before
        assert (shared > 0) == (n > 1), f"{shared} calls were shared out with {n} threads"
    return made
