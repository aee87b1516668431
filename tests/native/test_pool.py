"""The thread pool on its own (pool_stress.cpp); `make sanitize` runs it under TSan."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")


def test_pool_under_stress(tmp_path):
    core = HERE.parents[1] / "_ext"
    program = tmp_path / "pool_stress"
    sources = [HERE / "pool_stress.cpp", core / "threads.cpp", core / "thread_count.cpp"]
    flags = ["-std=c++17", "-O2", "-pthread", f"-I{core}"]
    compiler = os.environ.get("CXX", "g++").split()
    subprocess.run([*compiler, *flags, *sources, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok ") == 11
