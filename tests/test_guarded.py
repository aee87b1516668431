"""The guard pages guard: a process that touches one is stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from guarded import both_ends, guarded

PROGRAM = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from guarded import guarded
x = guarded(np.arange(5, dtype=np.int16), sys.argv[2])
ctypes.string_at(x.ctypes.data + int(sys.argv[3]), 1)
"""


def touch(at: str, offset: int) -> int:
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).parent), at, str(offset)]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.parametrize(
    ("at", "inside", "outside"), [("end", 9, 10), ("end", 0, 4096), ("start", 0, -1)]
)
def test_one_byte_too_many_stops_the_process(at, inside, outside):
    assert touch(at, inside) == 0
    assert touch(at, outside) < 0  # killed by a signal


def test_copies_are_equal_and_writable():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    for copy in both_ends(array):
        np.testing.assert_array_equal(copy, array)
        copy += 1
    assert guarded(np.empty((0, 3), np.uint8)).shape == (0, 3)
