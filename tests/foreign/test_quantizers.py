"""Whole models as onnxruntime's quantizer and NNCF write them, against onnxruntime.

What a file means is what onnxruntime makes of it without its graph optimisations: Q/DQ graphs in
float. With them it makes integers of the same graphs, as we do. The accumulator of a product is
exact here and rounded once, so a code may be one off at a tie; in a deep network one code can tip
others, and onnxruntime's two answers differ from each other in the same way
(benchmarks/foreign_models.py prints both).
"""

from __future__ import annotations

import importlib.metadata

import foreign_models
import numpy as np
import onnx
import pytest
import small_networks
from foreign_models import DYNAMIC, STATIC, agreement, last_step, onnxruntime_session
from real_models import real_models

import lowprec

LEAST_SAME = 0.995
CALIBRATED = 4  # feeds
# In steps of the last quantised tensor, where one is not enough: onnxruntime's QLinearAdd rounds in
# another place what lies in the middle between two codes (1 + erf often does, sums of codes of
# almost equal scales do), and a deep network passes the difference on.
STEPS = {("transformer", "QOperator"): 2.001, ("PP-OCR cls", "QOperator"): 2.001}
# Decisions count where the peer's two largest outputs are further apart than this.
UNDECIDED = 0.1


@pytest.fixture(scope="session", params=["mobile", "transformer", "PP-OCR cls"])
def network(request, tmp_path_factory):
    """Name, float model in the quantizer's form, and feeds: the first few are for calibration."""
    name = request.param
    if name == "PP-OCR cls":
        model = next(item for item in real_models() if item.name == name)
        try:
            source, feeds = model.load(), model.feeds(16, 3)
        except importlib.metadata.PackageNotFoundError as error:
            pytest.skip(f"package {error.name} is not installed")
    else:
        source, feeds = getattr(small_networks, name)()
    path = tmp_path_factory.mktemp("foreign") / "float.onnx"
    foreign_models.prepare(source, path)
    return name, path, feeds


def share_of_decisions(ours, theirs) -> float:
    """Return how often the largest output is the same, close calls left out."""
    same = []
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            largest = np.sort(b, axis=-1)
            clear = largest[..., -1] - largest[..., -2] > UNDECIDED
            same.append((a.argmax(-1) == b.argmax(-1))[clear])
    decided = np.concatenate(same)
    assert decided.size
    return float(decided.mean())


def assert_agrees(path, feeds, *, within: float) -> None:
    model = onnx.load(path)
    steps = [last_step(model, value.name) for value in model.graph.output]
    session = lowprec.compile(str(path))
    ours = [session.run(feed) for feed in feeds]
    assert not [step for step in session.explain().steps if step.kernel == "reference"]
    sessions = [onnxruntime_session(path, optimised=optimised) for optimised in (False, True)]
    plain, fast = ([peer.run(feed) for feed in feeds] for peer in sessions)
    found = agreement(ours, plain, steps)
    assert share_of_decisions(ours, plain) >= LEAST_SAME
    # Nowhere further from what the file means than onnxruntime is, when it takes integers, too.
    assert found.furthest <= max(within, agreement(fast, plain, steps).furthest)


@pytest.mark.parametrize("options", STATIC, ids=str)
def test_static_files_agree_to_one_step(network, options, tmp_path):
    name, prepared, feeds = network
    path = tmp_path / "int8.onnx"
    foreign_models.write(prepared, feeds[:CALIBRATED], options, path)
    model = onnx.load(path)
    assert all(np.isfinite(last_step(model, value.name)) for value in model.graph.output)
    assert_agrees(path, feeds[CALIBRATED:], within=STEPS.get((name, options.form), 1.001))


@pytest.mark.parametrize("options", DYNAMIC, ids=str)
def test_dynamic_files_agree(network, options, tmp_path):
    """A scale follows from the data, and its last bit decides codes: the bound is a loose one."""
    _, prepared, feeds = network
    path = tmp_path / "int8.onnx"
    foreign_models.write(prepared, [], options, path)
    assert_agrees(path, feeds, within=0.2)


@pytest.mark.parametrize("network", ["mobile", "PP-OCR cls"], indirect=True)
def test_nncf_files_agree(network, tmp_path):
    pytest.importorskip("nncf", reason="nncf is not installed")
    name, prepared, feeds = network
    path = tmp_path / "int8.onnx"
    preset = "MIXED" if name == "mobile" else "PERFORMANCE"
    foreign_models.write_nncf(prepared, feeds[:CALIBRATED], preset, path)
    assert_agrees(path, feeds[CALIBRATED:], within=0.1)  # its last tensors are floats
