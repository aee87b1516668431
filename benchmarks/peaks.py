"""What one core of this machine can do at most: multiply-adds a second, by instruction; bandwidth.

The loops of native/peaks.cpp are compiled for this machine when they are first asked for. On a
machine whose compiler or processor lacks an instruction, its peak is not there.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import lowprec

SOURCE = Path(__file__).with_name("native") / "peaks.cpp"
ROUNDS = 200_000
FEATURE_FLAGS = {  # as lowprec.cpu_info() names features
    "avx2": ["-mavx2"],
    "fma": ["-mfma"],
    "avx512f": ["-mavx512f"],
    "avx512bw": ["-mavx512bw"],
    "avx512vl": ["-mavx512vl"],
    "avx512vnni": ["-mavx512vnni"],
    "avx512bf16": ["-mavx512bf16"],
}


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled loops; None where no compiler is there."""
    features = lowprec.cpu_info()["features"]
    flags = [flag for name in features for flag in FEATURE_FLAGS.get(name, [])]
    folder = Path(tempfile.mkdtemp(prefix="lowprec-peaks-"))
    target = folder / "peaks.so"
    command = ["g++", "-O3", "-shared", "-fPIC", *flags, str(SOURCE), "-o", str(target)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ctypes.CDLL(str(target))


def instruction_peak(kind: str) -> tuple[Callable[[], object], int] | None:
    """Return a loop over `kind` (u8s8, bf16, f32) and its multiply-adds a call; None: not here."""
    loaded = library()
    if loaded is None or not hasattr(loaded, f"peak_{kind}"):
        return None
    loop = getattr(loaded, f"peak_{kind}")
    loop.argtypes, loop.restype = [ctypes.c_uint64], None
    macs = ctypes.c_int64.in_dll(loaded, f"macs_{kind}").value
    return functools.partial(loop, ROUNDS), macs * ROUNDS


def read_bandwidth(megabytes: int = 256) -> float | None:
    """Return bytes a second that one core reads from memory (best of five)."""
    loaded = library()
    if loaded is None:
        return None
    words = np.ones(megabytes * 2**20 // 8, np.uint64)
    loaded.read_all.argtypes, loaded.read_all.restype = (
        [
            ctypes.c_void_p,
            ctypes.c_uint64,
        ],
        ctypes.c_uint64,
    )
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        loaded.read_all(words.ctypes.data, words.size)
        best = min(best, time.perf_counter() - start)
    return float(words.nbytes / best)
