"""Several Python threads at once: exact, never waiting, the number of threads changing."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from thread_counts import threads

import lowprec
import lowprec.numerics as nx

CALLERS = 8
RNG = np.random.default_rng(7)
A = RNG.integers(0, 256, (120, 301)).astype(np.uint8)
B = RNG.integers(-127, 128, (301, 200)).astype(np.int8)
EXACT = A.astype(np.int64) @ B.astype(np.int64)


def multiply(times: int) -> int:
    """Return how many of `times` products are wrong."""
    return sum(not np.array_equal(nx.matmul_integer(A, B), EXACT) for _ in range(times))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_results_are_exact(count):
    with threads(count), ThreadPoolExecutor(CALLERS) as callers:
        assert list(callers.map(multiply, [40] * CALLERS)) == [0] * CALLERS


def test_the_number_of_threads_may_change_meanwhile():
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            for n in (1, 4, 2, 3):
                lowprec.set_num_threads(n)
                time.sleep(1e-4)

    with threads(2), ThreadPoolExecutor(3) as callers:
        changing = callers.submit(change)
        try:
            assert list(callers.map(multiply, [80, 80])) == [0, 0]
        finally:
            stop.set()
        changing.result()


def network() -> onnx.ModelProto:
    """Three convolutions over images, their values between them in the arena."""
    rng = np.random.default_rng(3)
    text = """<ir_version: 10, opset_import: ["" : 21]>
    net (float[N, 8, 40, 40] x) => (float[N, 8, 40, 40] y) {
      a = Conv <pads = [1, 1, 1, 1]> (x, w0)
      b = Sigmoid (a)
      c = Conv <pads = [1, 1, 1, 1]> (b, w1)
      y = Conv <pads = [1, 1, 1, 1]> (c, w2)
    }"""
    model = onnx.parser.parse_model(text)
    for name, shape in (("w0", (24, 8, 3, 3)), ("w1", (16, 24, 3, 3)), ("w2", (8, 16, 3, 3))):
        weights = rng.standard_normal(shape, dtype=np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    return model


def test_one_session_in_many_threads():
    session = lowprec.compile(network())
    feeds = [
        {"x": RNG.standard_normal((1 + i % 2, 8, 40, 40), dtype=np.float32)} for i in range(CALLERS)
    ]
    with threads(1):
        wanted = [session.run(feed)[0].tobytes() for feed in feeds]

    def run(i: int) -> bool:
        return all(session.run(feeds[i])[0].tobytes() == wanted[i] for _ in range(10))

    with threads(3), ThreadPoolExecutor(CALLERS) as callers:
        assert list(callers.map(run, range(CALLERS))) == [True] * CALLERS


def test_explain_says_how_many_threads():
    session = lowprec.compile(network())
    session.run({"x": np.zeros((1, 8, 40, 40), np.float32)})
    with threads(3):
        assert session.explain().threads == 3
        assert str(session.explain()).endswith("\n3 threads")
    with threads(1):
        assert str(session.explain()).endswith("\n1 thread")


def test_callers_at_once_are_not_slower_than_one_after_the_other():
    # The same work in turns, the fastest turn of each: what others do to the machine comes and
    # goes, a pool in which callers hold each other up is slow every time.
    def elapsed(callers: int) -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(multiply, [CALLERS * 10 // callers] * callers))
        return time.perf_counter() - start

    with threads(2):
        elapsed(1)
        turns = [(elapsed(CALLERS), elapsed(1)) for _ in range(9)]
    together, alone = (min(times) for times in zip(*turns, strict=True))
    assert together < 2.0 * alone
