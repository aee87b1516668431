"""Calibration feeds that may be read again and again, whatever they came from.

The source is consumed lazily, once, and no further than asked for; what was read lies in a
temporary file without a name, so that a hundred pictures take disk and no memory.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Feed = dict[str, Array]


@dataclass(frozen=True)
class _Stored:
    """Where an array lies in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Feeds:
    """Complete feeds by input name: an iterable that starts anew each time.

    Safe to iterate from several threads, also at different places.
    """

    def __init__(self, source: Iterable[Mapping[str, Array]]) -> None:
        """Take feeds from `source`, none of them yet.

        Args:
            source: Complete feeds; its arrays may be reused by it once the next one is asked for.
        """
        self._source: Iterator[Mapping[str, Array]] | None = iter(source)
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._end = 0
        # An array of objects (text) has no bytes to store: it stays as it is.
        self._stored: list[dict[str, _Stored | Array]] = []
        self._digest = hashlib.blake2b(digest_size=16)

    def __iter__(self) -> Iterator[Feed]:
        """Yield the feeds: those that were read before, then what the source still has."""
        position = 0
        while self._reach(position + 1):
            yield self._load(position)
            position += 1

    def first(self, count: int) -> list[Feed]:
        """Return the first `count` feeds, or all that there are when they are fewer."""
        return list(islice(self, count))

    def count(self, most: int) -> int:
        """Return how many feeds there are, or `most` when there are more; reads up to there."""
        self._reach(most)
        return min(len(self._stored), most)

    def digest(self, most: int) -> str:
        """Return a hash of the first `most` feeds: names, shapes, dtypes and values."""
        self._reach(most)
        if len(self._stored) <= most:
            return self._digest.hexdigest()
        digest = hashlib.blake2b(digest_size=16)
        for feed in islice(self, most):
            _add_to(digest, feed)
        return digest.hexdigest()

    def _reach(self, count: int) -> bool:
        """Read from the source until `count` feeds are stored; return whether they are."""
        with self._lock:
            while len(self._stored) < count and self._source is not None:
                try:
                    feed = next(self._source)
                except StopIteration:
                    self._source = None
                    break
                self._store(feed)
            return len(self._stored) >= count

    def _store(self, feed: Mapping[str, Array]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="lowprec-feeds-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        arrays = {name: np.asarray(value) for name, value in feed.items()}
        _add_to(self._digest, arrays)
        entry: dict[str, _Stored | Array] = {}
        for name, array in arrays.items():
            if array.dtype.hasobject:
                entry[name] = array.copy()
                continue
            contiguous = np.ascontiguousarray(array)
            self._file.seek(self._end)
            self._file.write(contiguous.reshape(-1).view(np.uint8).data)
            entry[name] = _Stored(self._end, array.shape, array.dtype)
            self._end += contiguous.nbytes
        self._file.flush()
        self._stored.append(entry)

    def _load(self, position: int) -> Feed:
        feed: Feed = {}
        for name, stored in self._stored[position].items():
            if not isinstance(stored, _Stored):
                feed[name] = stored.copy()
                continue
            array: Array = np.empty(stored.shape, stored.dtype)
            target = array.reshape(-1).view(np.uint8).data
            done = 0
            while done < array.nbytes:
                assert self._file is not None
                # Reads at a place of its own: threads do not disturb each other.
                read = os.preadv(self._file.fileno(), [target[done:]], stored.offset + done)
                if not read:
                    raise OSError("the temporary file of the calibration feeds was cut off")
                done += read
            feed[name] = array
        return feed


def _add_to(digest: hashlib.blake2b, feed: Mapping[str, Array]) -> None:
    for name in sorted(feed):
        array = feed[name]
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        if array.dtype.hasobject:
            digest.update(repr(array.tolist()).encode())
        else:
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
