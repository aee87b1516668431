"""`import lowprec` stays light: little more than `import numpy`, and no framework comes with it."""

from __future__ import annotations

import subprocess
import sys
from statistics import median

ALLOWED_SECONDS = 0.060
# On a machine that imports numpy in this time; on a slower one the bound grows in proportion.
NUMPY_SECONDS = 0.100
PROCESSES = 7
HEAVY = ("onnx", "onnx_ir", "torch", "tensorflow", "keras", "rich", "click", "matplotlib")


def fresh_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def import_seconds(module: str) -> float:
    """Return the main thread's CPU time for an import in a new process: others' load is no cost."""
    clock = "time.thread_time()"
    return float(
        fresh_python(f"import time; start = {clock}; import {module}; print({clock} - start)")
    )


def test_import_adds_little_to_numpy():
    import_seconds("lowprec")  # bytecode is written, files are in the page cache
    times: dict[str, list[float]] = {"numpy": [], "lowprec": []}
    for _ in range(PROCESSES):
        for module, taken in times.items():
            taken.append(import_seconds(module))
    numpy_seconds = median(times["numpy"])
    added = median(times["lowprec"]) - numpy_seconds
    allowed = ALLOWED_SECONDS * max(1.0, numpy_seconds / NUMPY_SECONDS)
    assert added <= allowed, f"added {1e3 * added:.0f} ms, allowed {1e3 * allowed:.0f} ms"


def test_import_brings_no_framework():
    loaded = fresh_python("import sys, lowprec; print(*sorted(sys.modules))").split()
    assert "lowprec" in loaded
    assert [name for name in HEAVY if name in loaded] == []
