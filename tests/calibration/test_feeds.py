"""Feeds from any source, readable again and again."""

import threading

import numpy as np
import pytest

from lowprec.calibration.feeds import Feeds

RNG = np.random.default_rng(5)


def arrays(count):
    return [
        {"x": RNG.standard_normal((1, 3 + i), dtype=np.float32), "n": np.array(i)}
        for i in range(count)
    ]


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            np.testing.assert_array_equal(a[name], b[name])


def test_a_source_that_can_be_read_once_is_read_again():
    wanted = arrays(5)
    feeds = Feeds(iter(wanted))
    assert_equal(list(feeds), wanted)
    assert_equal(list(feeds), wanted)


def test_no_more_is_asked_for_than_needed():
    asked = []

    def source():
        for feed in arrays(9):
            asked.append(feed)
            yield feed

    feeds = Feeds(source())
    assert not asked
    assert len(feeds.first(2)) == 2
    assert len(asked) == 2
    assert feeds.count(4) == 4
    assert len(asked) == 4
    assert feeds.count(100) == 9


def test_a_source_may_reuse_its_arrays():
    buffer = np.zeros(4, np.float32)

    def source():
        for i in range(3):
            buffer[:] = i
            yield {"x": buffer}

    feeds = Feeds(source())
    list(feeds)
    assert [feed["x"][0] for feed in feeds] == [0, 1, 2]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3), np.float32),
        np.float32(3.0),
        np.array(["a", "bc"]),
        np.array(["a", "bc"], object),
        np.arange(12, dtype=np.int64).reshape(3, 4)[:, ::2],
    ],
)
def test_every_kind_of_array_comes_back(array):
    feeds = Feeds(iter([{"x": array}]))
    for _ in range(2):
        assert_equal(list(feeds), [{"x": np.asarray(array)}])


def test_digests_follow_from_the_content_alone():
    wanted = arrays(4)
    whole, part, other = Feeds(wanted), Feeds(wanted), Feeds([*wanted[:3], {"x": wanted[0]["x"]}])
    list(whole)
    assert whole.digest(3) == part.digest(3) == other.digest(3)
    assert whole.digest(4) == part.digest(4) == part.digest(400)
    assert whole.digest(4) not in (other.digest(4), whole.digest(3))


def test_threads_read_at_places_of_their_own():
    wanted = arrays(40)
    feeds = Feeds(iter(wanted))
    failures = []

    def read():
        try:
            for _ in range(5):
                assert_equal(list(feeds), wanted)
        except AssertionError as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert not failures
