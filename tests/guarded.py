"""Arrays between two pages that must not be touched: one byte too many stops the process.

    x = guarded(array)                # ends where memory ends: catches what runs over the end
    x = guarded(array, at="start")    # begins where memory begins: catches what reads before it
    for x in both_ends(array): ...    # each in turn

Alignment is that of the place: an array at the end begins wherever its size puts it, so sizes that
are no multiple of 64 also exercise misaligned starts.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

_libc = ctypes.CDLL(None, use_errno=True)
_PROT_NONE = 0


def _forbid(address: int, size: int) -> None:
    protect = _libc.mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if protect(address, size, _PROT_NONE) != 0:
        pytest.skip("mprotect refused")


def guarded(array: NDArray[Any], at: str = "end") -> NDArray[Any]:
    """Return a writable C-contiguous copy of `array` with a forbidden page on either side.

    Args:
        array: Any shape and dtype (ml_dtypes too).
        at: "end" puts its last byte against the page behind, "start" its first against the page
            before.
    """
    if at not in ("end", "start"):
        raise ValueError(f"at is {at!r}; expected 'end' or 'start'")
    array = np.asarray(array)
    page = mmap.PAGESIZE
    room = -(-max(array.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, page + room + page)  # stays alive as the base of what is returned
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    _forbid(first, page)
    _forbid(first + page + room, page)
    offset = page if at == "start" else page + room - array.nbytes
    copy = np.frombuffer(memory, np.uint8, array.nbytes, offset)
    copy = copy.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def both_ends(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield `array` against the page behind it, then against the page before it."""
    yield guarded(array, "end")
    yield guarded(array, "start")
