"""Build and run the two packages of tests/embedding the way a stranger would: with pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent / "embedding"

# Both packages compute one quantised linear layer; lowprec.numerics says what the bits are.
RUN_LAYERS = """
import numpy as np
import lowprec
import outside_c
import outside_cython
from lowprec import numerics

assert lowprec.__file__.startswith({prefix!r}), lowprec.__file__
for m, k, n in [(1, 16, 16), (5, 33, 70), (64, 128, 192)]:
    rng = np.random.default_rng([m, k, n])
    w = rng.integers(-127, 128, (k, n)).astype(np.int8)
    scales = rng.uniform(0.001, 0.01, n).astype(np.float32)
    bias = rng.standard_normal(n).astype(np.float32)
    x = rng.standard_normal((m, k)).astype(np.float32)
    x_scale, x_zero, y_scale, y_zero = 0.03, 121, 0.01, 7

    codes = numerics.quantize_linear(x, np.float32(x_scale), np.uint8(x_zero))
    expected = numerics.linear(
        codes, numerics.pack_weights(w, scale=scales, bias=bias),
        a_scale=x_scale, a_zero_point=np.uint8(x_zero), activation="relu",
        y_scale=y_scale, y_zero_point=np.uint8(y_zero),
    )
    assert len(np.unique(expected)) > 8

    packed = outside_c.pack(w, k, n, scales, bias)
    y = outside_c.layer(packed, x, x_scale, x_zero, y_scale, y_zero)
    assert y == expected.tobytes(), "the C package"

    layer = outside_cython.Layer(w, scales, bias)
    codes, y = np.empty((m, k), np.uint8), np.empty((m, n), np.uint8)
    layer.run(x, codes, y, x_scale, x_zero, y_scale, y_zero)
    assert y.tobytes() == expected.tobytes(), "the Cython package"
print("equal")
"""


def install(name: str, site: Path, work: Path, **variables: str) -> None:
    """Build the package in a copy, without a network, and install it into `site`."""
    source = work / f"{name}_source"
    shutil.copytree(SOURCES / name, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += [
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        "--upgrade",
    ]
    if "PYTHONPATH" in variables and "PYTHONPATH" in os.environ:
        variables["PYTHONPATH"] += os.pathsep + os.environ["PYTHONPATH"]
    done = subprocess.run(
        [*command, str(source)],
        cwd=work,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]


def run(code: str, *paths: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python code away from the repository, with folders found first."""
    found = [str(path) for path in paths]
    found += filter(None, [os.environ.get("PYTHONPATH")])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOWPREC_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=paths[0].parent,
        env={**environment, "PYTHONPATH": os.pathsep.join(found), **variables},
        capture_output=True,
        text=True,
    )
