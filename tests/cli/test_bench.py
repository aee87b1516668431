"""lowprec bench: peers in turns, threads, profile, JSON, picture, trace."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import onnx_models
import pytest

import lowprec
from lowprec.cli import bench_report, machine, peers
from lowprec.cli.application import run as command_line
from lowprec.engine import StepRow, StepTime
from lowprec.errors import InputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with model.onnx."""
    onnx.save(onnx_models.linear(), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def bench(folder, capfd):
    """Run `lowprec bench` on model.onnx, as short as can be; return code, stdout and stderr."""

    def run_(*arguments: str) -> tuple[int, str, str]:
        code = command_line(("bench", "model.onnx", "--seconds", "0", *arguments))
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run_


def latencies(out: str) -> list[tuple[str, int]]:
    return [(name, int(n)) for name, n in re.findall(r"^ (\w+) +(\d+) +[\d.]+ m?s", out, re.M)]


@pytest.mark.parametrize("peer", ["onnxruntime", "openvino", "torch"])
def test_every_peer_gives_our_outputs(bench, peer):
    pytest.importorskip(peer)
    code, out, error = bench("--vs", peer)
    assert (code, error) == (0, "")
    assert latencies(out) == [("lowprec", 1), (peer, 1)]
    (text,) = re.findall(rf"^ {peer} .* ([\d.e+-]+) *$", out, re.M)
    # OpenVINO computes in bf16 where the processor can.
    assert float(text) <= (2e-2 if peer == "openvino" else 1e-5)


def test_threads_are_measured_one_after_the_other_and_set_back(bench):
    before = lowprec.get_num_threads()
    code, out, _ = bench("--vs", "", "--threads", "1,2")
    assert code == 0
    assert latencies(out) == [("lowprec", 1), ("lowprec", 2)]
    assert lowprec.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vs", "tensorrt"], ["--vs tensorrt", "onnxruntime, openvino, torch"]),
        (["--threads", "0"], ["--threads 0", "1,2"]),
        (["--threads", "many"], ["--threads many", "1,2"]),
        (["--json", "missing/x.json"], ["missing"]),
        (["--trace", "missing/x.json"], ["missing"]),
        (["--picture", "missing/x.png"], ["missing"]),
    ],
)
def test_bad_options_are_one_line(bench, arguments, words):
    code, _, error = bench("--vs", "", *arguments)
    assert code == 2
    assert error.count("\n") == 1
    assert all(word in error for word in words)


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install openvino"):
        peers.parse_peers("openvino")
    assert peers.installed_peers() == []


def test_a_peer_that_refuses_the_model_is_a_note(bench, monkeypatch):
    def refuse(path, feed, threads):
        raise RuntimeError("no such operator")

    monkeypatch.setitem(peers.PEERS, "onnxruntime", refuse)
    monkeypatch.setattr(peers, "find_spec", lambda name: True)
    code, out, error = bench("--vs", "onnxruntime")
    assert code == 0
    assert latencies(out) == [("lowprec", 1)]
    assert error == "note: onnxruntime does not run this model: no such operator\n"


def test_profile_has_operations_peak_and_bytes(bench, folder):
    code, out, _ = bench("--vs", "", "--profile", "--json", "figures.json")
    assert code == 0
    assert re.search(r"GOP/s +of peak +MB moved", out)
    assert re.search(r"peak of f32 products, measured: \d+ GOP/s", out)
    figures = json.loads((folder / "figures.json").read_text())
    (product,) = [step for step in figures["steps"] if step["macs"]]
    weights = onnx.load("model.onnx").graph.initializer
    constants = sum(len(tensor.raw_data) for tensor in weights if len(tensor.dims) == 2)
    x, y = figures["inputs"]["x"], [figures["inputs"]["x"][0], 3]
    assert product["macs"] == x[0] * x[1] * 3
    assert product["moved"] >= constants + 4 * (np.prod(x) + np.prod(y))
    assert 0 < product["of_peak"] < 1.5
    assert figures["latencies"][0]["runner"] == "lowprec"
    assert figures["peaks"].keys() == {"f32"}


def test_a_trace_lays_the_steps_end_to_end(bench, folder):
    code, _, _ = bench("--vs", "", "--trace", "trace.json", "--steps", "0")
    assert code == 0
    trace = json.loads((folder / "trace.json").read_text())
    steps = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert "MatMul" in {event["name"] for event in steps}
    end = 0.0
    for event in steps:
        assert event["ts"] == pytest.approx(end)
        end += event["dur"]
    assert {"kernel", "isa", "output", "macs", "bytes"} <= steps[0]["args"].keys()


def test_a_picture_is_drawn(bench, folder):
    pytest.importorskip("matplotlib")
    assert bench("--vs", "", "--threads", "1,2", "--picture", "speed.png")[0] == 0
    assert (folder / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib_is_refused_before_anything_is_measured(bench, monkeypatch):
    monkeypatch.setattr(bench_report, "find_spec", lambda name: None)
    code, out, error = bench("--picture", "speed.png")
    assert (code, out) == (2, "")
    assert "lowprec[report]" in error


def step(op: str, kernel: str, macs: float = 1e6) -> StepTime:
    return StepTime(StepRow(op, "n", kernel, "avx2", "f32[1]", macs, "", True, 4000), 1e-3)


@pytest.mark.parametrize(
    ("op", "kernel", "kind"),
    [
        ("QConv", "conv u8s8", "int8"),
        ("Conv", "depthwise f32", "f32"),
        ("MatMul", "matrix bf16", "bf16"),
        ("LSTM", "lstm u8s8", "int8"),
    ],
)
def test_a_step_is_compared_with_the_peak_of_its_type(op, kernel, kind):
    assert machine.product_kind(step(op, kernel).row) == kind
    assert machine.product_kind(step(op, kernel, macs=0).row) is None


def test_a_multiply_add_counts_as_two():
    one = step("Conv", "conv f32")
    assert one.operations_per_second == pytest.approx(2e9)
    assert one.bytes_per_second == pytest.approx(4e6)
    assert bench_report.fraction_of_peak(one, {"f32": 4e9}) == pytest.approx(0.5)
    assert bench_report.fraction_of_peak(one, {"int8": 4e9}) is None


def test_int8_products_peak_above_f32_ones():
    if "avx512vnni" not in lowprec.cpu_info()["features"]:
        pytest.skip("int8 is not faster everywhere")
    assert machine.product_peak("int8", 1) > 1.5 * machine.product_peak("f32", 1)


def test_no_difference_hides():
    a, b = np.float32([1, 2]), np.float32([1, 4])
    assert peers.difference([a, a], [a, b]) == pytest.approx(0.5)
    assert peers.difference([a], [np.float32([1, 2, 3])]) == float("inf")
