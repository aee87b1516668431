"""A forked child computes, whatever the parent's threads were doing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable

import numpy as np
import onnx_models
import pytest
from thread_counts import threads

import lowprec
import lowprec.numerics as nx
from lowprec._ext import _core

# Python itself warns about forks of processes with threads; that is the subject here.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

RNG = np.random.default_rng(11)
A = RNG.integers(0, 256, (150, 200)).astype(np.uint8)
B = RNG.integers(-127, 128, (200, 300)).astype(np.int8)
EXACT = A.astype(np.int64) @ B.astype(np.int64)
SECONDS = 60  # after which a child that hangs is ended


def computes_in_a_child(compute: Callable[[], bool]) -> bool:
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        right = False
        try:
            right = compute()
        finally:
            os._exit(0 if right else 1)
    return os.waitpid(child, 0)[1] == 0


def shares_exactly() -> bool:
    """Whether products in this process are right and shared out."""
    before = _core.shared_calls()
    right = all(np.array_equal(nx.matmul_integer(A, B), EXACT) for _ in range(5))
    return right and _core.shared_calls() > before


def test_child_after_use():
    with threads(3):
        assert shares_exactly()
        assert computes_in_a_child(shares_exactly)
        assert shares_exactly()


def test_grandchild():
    with threads(2):
        assert shares_exactly()
        assert computes_in_a_child(lambda: shares_exactly() and computes_in_a_child(shares_exactly))


def test_child_keeps_the_number_of_threads():
    with threads(3):
        assert computes_in_a_child(lambda: lowprec.get_num_threads() == 3)


def work_until(stop: threading.Event, session: lowprec.CompiledModel, feed: dict) -> None:
    while not stop.is_set():
        nx.matmul_integer(A, B)
        session.run(feed)


def test_child_while_another_thread_uses_the_pool():
    session = lowprec.compile(onnx_models.linear())
    feed = {"x": RNG.standard_normal((20000, 4), dtype=np.float32)}
    stop = threading.Event()
    with threads(3):
        wanted = session.run(feed)[0].tobytes()
        worker = threading.Thread(target=work_until, args=(stop, session, feed))
        worker.start()
        try:
            for _ in range(20):
                assert computes_in_a_child(
                    lambda: shares_exactly() and session.run(feed)[0].tobytes() == wanted
                )
        finally:
            stop.set()
            worker.join()


def test_child_while_another_thread_plans():
    # The lock of a session may be held by a thread that the child does not have.
    session = lowprec.compile(onnx_models.linear())
    feed = {"x": RNG.standard_normal((3, 4), dtype=np.float32)}
    stop = threading.Event()

    def plan() -> None:
        rows = 4
        while not stop.is_set():
            rows += 1
            session.run({"x": np.zeros((rows, 4), np.float32)})

    wanted = session.run(feed)[0].tobytes()
    worker = threading.Thread(target=plan)
    worker.start()
    try:
        for _ in range(20):
            assert computes_in_a_child(lambda: session.run(feed)[0].tobytes() == wanted)
    finally:
        stop.set()
        worker.join()


def multiply(_: int) -> bool:
    return shares_exactly()


def test_multiprocessing_by_fork():
    with threads(2):
        assert shares_exactly()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map_async(multiply, range(4)).get(SECONDS) == [True] * 4
