"""The commands print what they promise and exit as they promise."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from onnx import helper, numpy_helper

import lowprec
from lowprec.cli.application import application
from lowprec.cli.application import run as command_line

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with model.onnx, data.npz (24 samples) and ragged.npz (3 feeds)."""
    onnx.save(onnx_models.linear(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=RNG.normal(size=(24, 4)).astype(np.float32))
    feeds = {f"x/{n:05d}": RNG.normal(size=(n + 1, 4)).astype(np.float32) for n in range(3)}
    np.savez(tmp_path / "ragged.npz", **feeds)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lowprec_command(capfd):
    """Run a command line in this process; return its exit code, stdout and stderr."""

    def run_(*arguments: str) -> tuple[int, str, str]:
        code = command_line(arguments)
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run_


@pytest.fixture
def quantized(folder, lowprec_command):
    code, _, error = lowprec_command(
        "quantize", "model.onnx", "--calibration", "data.npz", "-o", "int8.onnx"
    )
    assert (code, error) == (0, "")
    return folder / "int8.onnx"


def test_help_lists_the_commands_and_nothing_else(lowprec_command):
    code, out, _ = lowprec_command("--help")
    assert code == 0
    known = {"quantize", "tune", "run", "compare", "bench", "inspect", "config", "doctor"}
    assert set(application.commands) == known
    for name in application.commands:
        assert re.search(rf"^  {name} +\w", out, re.MULTILINE)
    assert lowprec_command()[:2] == (0, out)


@pytest.mark.parametrize("name", sorted(application.commands))
def test_every_option_is_explained(name, lowprec_command):
    code, out, _ = lowprec_command(name, "--help")
    assert code == 0
    for parameter in application.commands[name].params:
        if parameter.param_type_name == "option":
            assert parameter.help
            assert parameter.opts[-1] in out


def test_version(lowprec_command):
    assert lowprec_command("--version")[1] == f"lowprec, version {lowprec.__version__}\n"


def test_quantize_writes_a_model_and_says_what_it_did(quantized, folder, lowprec_command):
    code, out, error = lowprec_command(
        "quantize", "model.onnx", "--calibration", "data.npz", "-o", "b.onnx", "--report", "r.json"
    )
    assert (code, error) == (0, "")
    assert "matmul" in out
    assert "wrote b.onnx" in out
    assert (folder / "b.onnx").read_bytes() == quantized.read_bytes()
    report = json.loads((folder / "r.json").read_text())
    assert report["samples"] == 24
    assert lowprec.load(quantized).report.samples == 24


def test_quantize_takes_a_folder_and_a_function(folder, quantized, lowprec_command):
    (folder / "data").mkdir()
    (folder / "data.npz").rename(folder / "data" / "a.npz")
    (folder / "calibration_module.py").write_text(
        "import numpy as np\n"
        "def feeds():\n"
        "    for x in np.load('data/a.npz')['x']:\n"
        "        yield {'x': x[None]}\n"
    )
    for data in ("data", "calibration_module:feeds"):
        code, _, error = lowprec_command(
            "quantize", "model.onnx", "--calibration", data, "-o", "b.onnx"
        )
        assert (code, error) == (0, "")
        assert (folder / "b.onnx").read_bytes() == quantized.read_bytes()


def test_quantize_obeys_a_configuration(folder, lowprec_command):
    (folder / "conf.yaml").write_text(
        "calibration: {samples: 7}\nlayers: [{match: matmul, precision: f32}]\n"
    )
    code, _, _ = lowprec_command(
        "quantize", "model.onnx", "--calibration", "data.npz", "-o", "b.onnx", "-c", "conf.yaml"
    )
    report = lowprec.load(folder / "b.onnx").report
    assert code == 0
    assert {layer.precision for layer in report.layers} == {"f32"}


def test_a_model_can_be_replaced_by_its_int8_form(quantized, folder, lowprec_command):
    words = ("quantize", "model.onnx", "--calibration", "data.npz", "-o", "model.onnx")
    assert lowprec_command(*words)[0] == 0
    assert (folder / "model.onnx").read_bytes() == quantized.read_bytes()
    code, out, _ = lowprec_command(*words)
    assert code == 0
    assert "already quantised" in out


def test_run_writes_stacked_and_ragged_outputs(quantized, folder, lowprec_command):
    model = lowprec.load(quantized)
    code, out, _ = lowprec_command("run", "int8.onnx", "--data", "data.npz", "-o", "y.npz")
    assert code == 0
    assert "ran 24 samples" in out
    x = np.load(folder / "data.npz")["x"]
    np.testing.assert_array_equal(np.load(folder / "y.npz")["y"], model(x))
    assert lowprec_command("run", "int8.onnx", "--data", "ragged.npz", "-o", "y.npz")[0] == 0
    outputs = np.load(folder / "y.npz")
    assert [outputs[key].shape for key in sorted(outputs)] == [(1, 3), (2, 3), (3, 3)]
    assert sorted(outputs)[0] == "y/00000"


def test_compare_prints_agreement_latency_and_size(quantized, lowprec_command):
    code, out, error = lowprec_command("compare", "model.onnx", "int8.onnx", "--data", "ragged.npz")
    assert (code, error) == (0, "")
    assert "3 samples" in out
    (row,) = [line.split() for line in out.splitlines() if line.startswith(" y ")]
    assert 25 < float(row[1]) < 60
    assert row[2] == "dB"
    assert 0.99 < float(row[3]) <= 1
    for size in ("model.onnx", "int8.onnx"):
        assert any(line.startswith(f" {size} ") and " ms " in line for line in out.splitlines())


def test_compare_with_itself_is_equal(folder, lowprec_command):
    code, out, _ = lowprec_command("compare", "model.onnx", "model.onnx", "--data", "data.npz")
    assert code == 0
    (row,) = [line.split() for line in out.splitlines() if line.startswith(" y ")]
    assert row[1:] == ["equal", "1.000000", "0", row[4], "100.00", "%"]


def test_compare_exits_with_1_when_a_criterion_is_missed(quantized, lowprec_command):
    words = ("compare", "model.onnx", "int8.onnx", "--data", "data.npz")
    assert lowprec_command(*words, "--min-sqnr", "20", "--min-argmax", "0.5")[0] == 0
    code, _, error = lowprec_command(*words, "--min-sqnr", "90")
    assert code == 1
    assert "below 90.0 dB" in error
    assert lowprec_command(*words, "--min-argmax", "1.1")[0] == 1


def test_compare_refuses_other_outputs(quantized, folder, lowprec_command):
    other = onnx_models.linear()
    other.graph.node[-1].output[0] = other.graph.output[0].name = "z"
    onnx.save(other, folder / "other.onnx")
    code, _, error = lowprec_command("compare", "model.onnx", "other.onnx", "--data", "data.npz")
    assert code == 2
    assert "outputs" in error
    assert error.count("\n") == 1


def test_bench_times_ours_and_lists_steps(quantized, lowprec_command):
    code, out, _ = lowprec_command("bench", "int8.onnx", "--seconds", "0")
    assert code == 0
    assert re.search(r"^ lowprec +1 +[\d.]+ ms +1\.00", out, re.MULTILINE)
    assert "QMatMul" in out
    code, out, _ = lowprec_command(
        "bench", "int8.onnx", "--data", "ragged.npz", "--seconds", "0", "--steps", "0"
    )
    assert code == 0
    assert "QMatMul" not in out


def test_bench_has_onnxruntime_beside_ours(quantized, lowprec_command):
    pytest.importorskip("onnxruntime")
    _, out, _ = lowprec_command("bench", "int8.onnx", "--seconds", "0")
    assert re.search(r"^ onnxruntime +1 +[\d.]+ ms +[\d.]+ +[\d.e-]+", out, re.MULTILINE)


def test_inspect_draws_precision_shapes_and_macs(quantized, lowprec_command):
    code, out, _ = lowprec_command("inspect", "int8.onnx", "--shape", "x=1000,4")
    assert code == 0
    rows = {line.split()[1]: line.split()[2:] for line in out.splitlines() if "1000 x 3" in line}
    assert rows["matmul"] == ["MatMul", "int8", "1000", "x", "3", "0.012", "12"]
    assert rows["relu"] == ["Relu", "f32", "1000", "x", "3"]
    assert "QuantizeLinear" not in out
    assert "100.00 % of them in int8" in out
    code, out, _ = lowprec_command("inspect", "model.onnx")
    assert code == 0
    assert "1 x 3" in out
    assert "0.00 % of them in int8" in out


def test_doctor_shows_versions_processor_and_plugins(lowprec_command):
    code, out, error = lowprec_command("doctor")
    assert (code, error) == (0, "")
    for word in ("numpy", "onnx_ir", "scalar", "chosen", "lowprec.adapters.onnx", "active"):
        assert word in out


def test_doctor_shows_a_limit(folder):
    """In a process of its own: the instruction set is chosen once."""

    def doctor(isa: str, threads: str = "3") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lowprec.cli", "doctor"],
            check=False,
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "LOWPREC_ISA": isa, "LOWPREC_NUM_THREADS": threads},
        )

    limited = doctor("scalar")
    assert limited.returncode == 0
    assert re.search(r"scalar +chosen", limited.stdout)
    assert "LOWPREC_ISA=scalar" in limited.stdout
    others = r"(available, but LOWPREC_ISA=scalar|not on this machine)"
    assert re.search(rf"avx2 +{others}", limited.stdout)
    wrong = doctor("avx9000")
    assert wrong.returncode == 1
    assert "problem: LOWPREC_ISA=avx9000 is not one of: scalar, " in wrong.stdout
    assert "threads: 3 (of " in limited.stdout
    many = doctor("scalar", "many")
    assert many.returncode == 1
    assert "problem: LOWPREC_NUM_THREADS=many" in many.stdout


def test_doctor_says_why_not_more(lowprec_command):
    out = lowprec_command("doctor")[1]
    for name, missing in lowprec.cpu_info()["isas"].items():
        remark = "available" if not missing else f"not on this machine: {missing}"
        assert re.search(rf"^ *{name} .*{re.escape(remark)}", out, re.MULTILINE)


# ---- how errors look ----


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["quantise"], ["quantise", "--help"]),
        (["quantize"], ["no model is named", "'model'"]),
        (["quantize", "model.onnx"], ["calibration data"]),
        (["quantize", "model.onnx", "-o", "b.onnx"], ["calibration data"]),
        (["inspect", "model.onnx", "--colour"], ["--colour"]),
        (["tune", "model.onnx"], ["--evaluate", "evaluation.metric"]),
        (["bench", "model.onnx", "--seconds", "-1"], ["--seconds"]),
        (["bench", "model.onnx", "--shape", "q=1"], ["--shape q=1", "x"]),
        (["bench", "model.onnx", "--shape", "x=a"], ["--shape x=a", "NAME=SIZE"]),
        (["inspect", "none.onnx"], ["none.onnx", "does not exist"]),
        (["inspect", "model.what"], ["model.what", "accepted"]),
        (["run", "model.onnx", "--data", "none.npz", "-o", "y.npz"], ["none.npz"]),
        (["run", "model.onnx", "--data", "data.npz", "-o", "none/y.npz"], ["none", "create"]),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, lowprec_command, arguments, words):
    code, _, error = lowprec_command(*arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert all(word in error for word in words), error


def test_sizes_that_a_model_leaves_open_are_asked_for(folder, lowprec_command):
    model = onnx_models.linear()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "W"
    onnx.save(model, "open.onnx")
    code, _, error = lowprec_command("bench", "open.onnx")
    assert code == 2
    assert "--shape x=" in error
    assert lowprec_command("bench", "open.onnx", "--shape", "x=2x4", "--seconds", "0")[0] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no_such_module:feeds", ["no_such_module", "imported"]),
        ("json:no_such_function", ["'json'", "no_such_function"]),
        ("json:__name__", ["not a function"]),
        ("none.npz", ["none.npz", "does not exist"]),
    ],
)
def test_wrong_calibration_arguments_are_named(folder, lowprec_command, text, words):
    code, _, error = lowprec_command(
        "quantize", "model.onnx", "--calibration", text, "-o", "b.onnx"
    )
    assert code == 2
    assert error.count("\n") == 1
    assert all(word in error for word in words), error
    assert not (folder / "b.onnx").exists()


def test_unexpected_errors_are_one_line_too(folder, lowprec_command, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("something\nin the depths")

    monkeypatch.setattr(lowprec.api, "capture", broken)
    code, _, error = lowprec_command("inspect", "model.onnx")
    assert code == 2
    assert error == (
        "error: unexpected RuntimeError: something in the depths; --debug shows where\n"
    )
    with pytest.raises(RuntimeError):
        command_line(["--debug", "inspect", "model.onnx"])
    with pytest.raises(RuntimeError):
        command_line(["inspect", "model.onnx", "--debug"])


def test_running_out_of_memory_is_said(folder, lowprec_command, monkeypatch):
    """A model of a hundred bytes can ask for 512 TiB."""
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    shape = numpy_helper.from_array(np.array([4, 1 << 45]), "shape")
    model = onnx_models.make_model(
        nodes, [onnx_models.value("x", [1, 4])], [onnx_models.value("y", None)], [shape]
    )
    onnx.save(model, "huge.onnx")
    code, _, error = lowprec_command("bench", "huge.onnx")
    assert code == 2
    assert error.count("\n") == 1
    assert "TiB" in error


def test_a_reader_that_goes_away_is_no_error(folder):
    command = f"{sys.executable} -m lowprec.cli inspect model.onnx | head -c 1"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, cwd=folder)
    assert done.stderr == b""


def test_interruption_is_one_line(folder, lowprec_command, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(lowprec.api, "capture", interrupted)
    code, _, error = lowprec_command("inspect", "model.onnx")
    assert (code, error.strip()) == (130, "interrupted")  # click starts a new line after ^C


def test_the_installed_command_works(folder):
    command = Path(sys.executable).with_name("lowprec")
    done = subprocess.run([command, "inspect", "none.onnx"], check=False, capture_output=True)
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")
