"""Every kind of bad input that the product promises to refuse, from Python and the command line.

One line that names what, where and the remedy; a LowprecError in Python, exit code 2 on the
command line; nothing left behind.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from onnx import helper
from refusals import refused

import lowprec
from lowprec.cli.application import run as command_line
from lowprec.errors import (
    ConfigError,
    DataError,
    InputError,
    ModelError,
    OutputError,
    UnsupportedError,
)

X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory with model.onnx and data.npz; compared with itself afterwards."""
    onnx.save(onnx_models.linear(), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=X)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def cli_refuses(folder, capfd):
    """Run a command line that must fail with one line and leave the folder as it was."""

    def refuses(*arguments: str, words: tuple[str, ...] = ()) -> None:
        before = content(folder)
        capfd.readouterr()
        assert command_line(arguments) == 2
        printed = capfd.readouterr()
        assert printed.err.startswith("error: ")
        assert printed.err.count("\n") == 1
        assert "Traceback" not in printed.err
        missing = [word for word in words if word not in printed.err]
        assert not missing, printed.err
        assert content(folder) == before

    return refuses


def each_command(model: str) -> list[list[str]]:
    """Return command lines that read `model`."""
    return [
        ["quantize", model, "--calibration", "data.npz", "-o", "out.onnx"],
        ["run", model, "--data", "data.npz", "-o", "y.npz"],
        ["compare", model, "model.onnx", "--data", "data.npz"],
        ["compare", "model.onnx", model, "--data", "data.npz"],
        ["bench", model],
        ["inspect", model],
    ]


def each_call(model: object):
    """Return calls that read `model`."""
    calls = [lambda: lowprec.quantize(model, [X]), lambda: lowprec.compile(model)]
    return [*calls, lambda: lowprec.load(model)] if isinstance(model, (str, Path)) else calls


# ---- models ----


def bad_models() -> dict[str, tuple[type, tuple[str, ...]]]:
    return {
        "missing": (ModelError, ("bad.onnx", "does not exist")),
        "text": (ModelError, ("bad.onnx", "text file")),
        "truncated": (ModelError, ("bad.onnx", "truncated")),
        "folder": (ModelError, ("bad.onnx", "folder")),
        "unknown operator": (ModelError, ("Reluu", "relu")),
        "unknown domain": (UnsupportedError, ("FancyRelu", "relu", "com.example")),
        "external data outside": (ModelError, ("'w'", "../secret.bin", "outside")),
    }


def write_bad_model(kind: str, path: Path) -> None:
    model = onnx_models.linear()
    if kind == "missing":
        return
    if kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\nsize 1234\n")
        return
    if kind == "folder":
        path.mkdir()
        return
    if kind == "unknown operator":
        model.graph.node[-1].op_type = "Reluu"
    if kind == "unknown domain":
        model.graph.node[-1].op_type = "FancyRelu"
        model.graph.node[-1].domain = "com.example"
        model.opset_import.append(helper.make_opsetid("com.example", 1))
    if kind == "external data outside":
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="../secret.bin")
    data = model.SerializeToString()
    path.write_bytes(data[: len(data) // 2] if kind == "truncated" else data)


@pytest.mark.parametrize("kind", sorted(bad_models()))
def test_models_that_cannot_be_used(kind, folder, cli_refuses):
    error, words = bad_models()[kind]
    path = folder / "bad.onnx"
    write_bad_model(kind, path)
    for call in each_call(path):
        with refused(error, *words):
            call()
    for arguments in each_command("bad.onnx"):
        cli_refuses(*arguments, words=words)


def test_objects_that_no_adapter_takes():
    for call in each_call([1, 2]):
        with refused(ModelError, "list", "ModelProto", "lowprec doctor"):
            call()


# ---- what a run is fed ----


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({"y": X}, ("'y'", "x")),
        ({}, ("'x'", "missing")),
        ({"x": X[None]}, ("'x'", "rank 3")),
        ({"x": X.astype(np.float64)}, ("'x'", "float64", "float32")),
        ({"x": X.astype(np.int32)}, ("'x'", "int32", "float32")),
        ({"x": X[:0]}, ("'x'", "empty batch")),
    ],
)
def test_feeds_that_do_not_fit(feeds, words):
    models = (lowprec.compile("model.onnx"), lowprec.quantize("model.onnx", [X]))
    for model in models:
        with refused(InputError, *words):
            model.run(feeds)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"z": X}, ("'x'", "holds z")),
        ({"x": X[:, None, None]}, ("'x'", "dimensions")),
        ({"x": X.astype(np.int32)}, ("'x'", "int32", "float32")),
        ({"x": X[:0]}, ("no samples",)),
    ],
)
def test_data_files_that_do_not_fit(arrays, words, folder, cli_refuses):
    np.savez(folder / "data.npz", **arrays)
    for arguments in each_command("model.onnx")[:3]:
        cli_refuses(*arguments, words=words)
    with refused(DataError, *words):
        lowprec.quantize("model.onnx", "data.npz")


# ---- calibration data ----


def used_up():
    iterator = iter([X])
    list(iterator)
    return iterator


def with_one(number: float) -> np.ndarray:
    array = X.copy()
    array[3, 2] = number
    return array


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, ("no calibration data",)),
        ([], ("no samples",)),
        (used_up(), ("used up",)),
        (lambda: iter(()), ("no samples",)),
        ([X, with_one(np.nan)], ("sample 1", "'x'", "NaN")),
        ([with_one(np.inf)], ("sample 0", "'x'", "infinity")),
        ([X, X[:, :, None]], ("sample 1", "'x'", "dimensions")),
        ([{"y": X}], ("sample 0", "'x'")),
    ],
)
def test_calibration_data_that_cannot_be_used(data, words):
    with refused(DataError, *words):
        lowprec.quantize("model.onnx", data)


def test_calibration_files_with_nan(folder, cli_refuses):
    np.savez(folder / "data.npz", x=with_one(np.nan))
    cli_refuses(*each_command("model.onnx")[0], words=("sample 3", "'x'", "NaN"))


def test_infinity_that_only_appears_inside_the_model_names_the_tensor(folder):
    """1e30 squared is infinite in f32; the second product would be calibrated on it."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"], "square"),
        helper.make_node("MatMul", ["square", "w"], ["y"], "dense"),
    ]
    weight = onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    model = onnx_models.make_model(
        nodes,
        [onnx_models.value("x", ["N", 4])],
        [onnx_models.value("y", ["N", 3])],
        [weight],
    )
    with refused(DataError, "square", "batch 1"):
        lowprec.quantize(model, [X, with_one(1e30)])


def test_all_zero_data_is_no_error():
    quantized = lowprec.quantize("model.onnx", [np.zeros_like(X)])
    assert quantized.report.layers[0].scale == 1
    assert np.isfinite(quantized(X)).all()


def test_weights_that_are_not_finite(folder):
    model = onnx_models.linear()
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[1, 1] = np.nan
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    with refused(lowprec.errors.QuantizationError, "'w'"):
        lowprec.quantize(model, [X])


# ---- configuration ----


def test_unknown_configuration_keys(folder, cli_refuses):
    (folder / "conf.yaml").write_text("precision: int8\ncalibration:\n  sampels: 3\n")
    words = ("conf.yaml, line 3", "calibration.sampels", "samples")
    with refused(ConfigError, *words):
        lowprec.quantize("model.onnx", [X], config="conf.yaml")
    cli_refuses(*each_command("model.onnx")[0], "-c", "conf.yaml", words=words)
    with refused(ConfigError, "calibration.sampels", "samples"):
        lowprec.quantize("model.onnx", [X], config={"calibration": {"sampels": 3}})


# ---- where results go ----


def test_output_folders_that_are_missing(cli_refuses):
    quantized = lowprec.quantize("model.onnx", [X])
    with refused(OutputError, "none", "create"):
        quantized.save("none/out.onnx")
    words = ("none", "does not exist", "create")
    data = ("--calibration", "data.npz")
    cli_refuses("quantize", "model.onnx", *data, "-o", "none/out.onnx", words=words)
    report = ("--report", "none/report.json")
    cli_refuses("quantize", "model.onnx", *data, "-o", "out.onnx", *report, words=words)
    cli_refuses("run", "model.onnx", "--data", "data.npz", "-o", "none/y.npz", words=words)


def test_output_folders_that_are_read_only(folder, cli_refuses, monkeypatch):
    quantized = lowprec.quantize("model.onnx", [X])
    (folder / "locked").mkdir(mode=0o555)
    if os.geteuid() == 0:  # root may write anywhere: the kernel's answer is given by hand
        monkeypatch.setattr(os, "access", lambda path, mode: "locked" not in str(path))
    with refused(OutputError, "locked", "not writable"):
        quantized.save("locked/out.onnx")
    arguments = ("quantize", "model.onnx", "--calibration", "data.npz", "-o", "locked/out.onnx")
    cli_refuses(*arguments, words=("locked", "not writable"))


def test_a_disk_that_is_full(folder, cli_refuses, monkeypatch):
    (folder / "out.onnx").write_bytes(b"the old file")
    (folder / "y.npz").write_bytes(b"the old outputs")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    quantized = lowprec.quantize("model.onnx", [X])
    monkeypatch.setattr(os, "fsync", full)
    with refused(OutputError, "out.onnx", "No space left", "free some space"):
        quantized.save("out.onnx")
    words = ("No space left", "free some space")
    cli_refuses(*each_command("model.onnx")[0], words=("out.onnx", *words))
    cli_refuses(*each_command("model.onnx")[1], words=("y.npz", *words))
    assert (folder / "out.onnx").read_bytes() == b"the old file"


# ---- depths at which sums could overflow ----


@pytest.mark.parametrize("depth", [65_792, 65_793, 65_794, 131_587])
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_are_exact_either_side_of_the_depth_that_s32_holds(depth, sign):
    """Every code at its extreme: 255 * 127 * K, past 2^31 where K > 66 311."""
    weight = onnx.numpy_helper.from_array(np.full((depth, 2), sign, np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "deep")
    model = onnx_models.make_model(
        [node],
        [onnx_models.value("x", [1, depth])],
        [onnx_models.value("y", [1, 2])],
        [weight],
    )
    x = np.ones((1, depth), np.float32)
    quantized = lowprec.quantize(model, [x])
    assert quantized.report.layers[0].precision == "int8"
    # Codes 255 and +-127 stand for 1: the exact sum is 255 * 127 * depth codes.
    record = quantized.report.layers[0]
    step = np.float32(np.float32(record.scale) * np.float32(1 / 127))
    expected = np.float32(sign * 255 * 127 * depth) * step
    np.testing.assert_allclose(quantized(x), [[expected] * 2], rtol=3e-7)
    np.testing.assert_allclose(quantized(x), [[sign * depth] * 2], rtol=1e-5)
