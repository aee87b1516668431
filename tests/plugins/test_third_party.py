"""A package that is not ours is installed, found, used, and reported: the door has no back "
"entrance."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "plugin_package"

USE = """
import numpy as np
import lowprec
from toy_network import Network, Recording

rng = np.random.default_rng(0)
network = Network([(rng.normal(size=(16, 8)), rng.normal(size=16)),
                   (rng.normal(size=(4, 16)), rng.normal(size=4))])
samples = rng.normal(size=(64, 8))

quantized = lowprec.quantize(network, Recording(samples))
assert type(quantized).__name__ == "QuantizedNetwork", type(quantized)
expected = np.stack([network(sample) for sample in samples])
actual = np.stack([quantized(sample) for sample in samples])
assert actual.shape == expected.shape
error = np.abs(actual - expected).max() / np.abs(expected).max()
assert 0 < error < 0.02, error
records = {layer.name: layer for layer in quantized.report.layers}
assert records["dense.0"].precision == records["dense.1"].precision == "int8"
assert quantized.report.samples == 64

# The forms of data that belong to no framework work for it too.
assert lowprec.quantize(network, list(samples[:, None].astype(np.float32))).report.samples == 64

compiled = lowprec.compile(network)
assert np.abs(compiled(samples[0]) - expected[0]).max() < 1e-4

config = {"calibration": {"method": "toy.halved"}}
halved = lowprec.quantize(network, Recording(samples), config=config)
record = halved.report.layers[0]
assert record.method == "toy.halved", record
assert record.rmax < 0.6 * records["dense.0"].rmax

config = {
    "calibration": {"method": "toy.trimmed"},
    "activations": {"dtype": "s8"},
    "layers": [{"match": "dense.1", "scheme": "symmetric"}],
}
trimmed = lowprec.quantize(network, Recording(samples), config=config)
first, second = trimmed.report.layers[0], trimmed.report.layers[-1]
assert first.method == second.method == "toy.trimmed", (first, second)
assert first.range_note == "64 batches, symmetric False", first
assert second.range_note == "64 batches, symmetric True", second
assert (first.zero_point != 0, second.zero_point) == (True, 0), (first, second)
assert 0.015 < first.clipped < 0.025, first

try:
    lowprec.quantize([1, 2, 3], Recording(samples))
except lowprec.errors.ModelError as error:
    assert "a toy_network.Network" in str(error), error
print("used")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder into which pip has installed the package."""
    folder = tmp_path_factory.mktemp("third_party")
    shutil.copytree(PACKAGE, folder / "source")
    site = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-build-isolation", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*command, str(folder / "source")], check=True, cwd=folder)
    return site


def run(site: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the package installed, away from the repository."""
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=site.parent,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_its_models_are_quantised(site):
    done = run(site, "-c", USE)
    assert done.stdout == "used\n", done.stderr


def test_doctor_reports_it(site):
    done = run(site, "-m", "lowprec.cli", "doctor")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "toy_adapter" in line]
    assert "active" in line
    assert "toy_network 1.2.3" in line


def test_doctor_reports_that_it_is_disabled(site):
    done = run(site, "-m", "lowprec.cli", "doctor", LOWPREC_DISABLE_ADAPTERS="toy")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "toy_adapter" in line]
    assert "disabled" in line


def test_doctor_reports_that_it_cannot_be_imported(site, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(site, broken)
    (broken / "toy_adapter.py").write_text("import a_framework_that_is_not_there\n")
    done = run(broken, "-m", "lowprec.cli", "doctor")
    assert done.returncode == 1
    (line,) = [line for line in done.stdout.splitlines() if "toy_adapter" in line]
    assert "failed" in line
    assert "a_framework_that_is_not_there" in done.stdout  # the table may wrap it
    assert any("onnx" in line and "active" in line for line in done.stdout.splitlines())
