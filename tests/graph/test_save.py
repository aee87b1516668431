"""save() is atomic and repeatable, and what it writes opens elsewhere."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import run_reference
from refusals import refused

from lowprec.errors import OutputError
from lowprec.graph import load, save

X = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_saved_file_loads_and_computes_the_same(linear, tmp_path):
    path = tmp_path / "out.onnx"
    save(load(linear), path)
    written = onnx.load(path)
    onnx.checker.check_model(written)
    assert written.ir_version <= 10
    np.testing.assert_array_equal(
        run_reference(written, {"x": X})[0], run_reference(linear, {"x": X})[0]
    )
    assert load(path).metadata_props == {"character": "a\nb\nc"}
    assert files(tmp_path) == ["out.onnx"]


def test_same_model_same_bytes(linear, tmp_path):
    path = tmp_path / "linear.onnx"
    onnx.save(linear, path)
    program = (
        "import sys; from lowprec.graph import load, save\n"
        "for name in sys.argv[2:]: save(load(sys.argv[1]), name)"
    )
    names = [str(tmp_path / f"{number}.onnx") for number in range(4)]
    for seed, pair in (("1", names[:2]), ("2", names[2:])):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(
            [sys.executable, "-c", program, str(path), *pair],
            check=True,
            env=environment,
            cwd=tmp_path,
        )
    assert len({Path(name).read_bytes() for name in names}) == 1


def test_large_weights_go_beside_the_model(linear, tmp_path):
    path = tmp_path / "out.onnx"
    weight = np.random.default_rng(0).normal(size=(4, 300)).astype(np.float32)
    linear.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w"))
    linear.graph.node[0].attribute[0].t.CopyFrom(
        onnx.numpy_helper.from_array(np.ones(300, np.float32), "b")
    )
    (expected,) = run_reference(linear, {"x": X})
    save(load(linear), path, external_limit=1000)
    first = files(tmp_path)
    assert len(first) == 2
    assert first[1].startswith("out.onnx.")
    assert first[1].endswith(".data")
    assert path.stat().st_size < 1000
    np.testing.assert_array_equal(run_reference(onnx.load(path), {"x": X})[0], expected)

    again = load(path)
    again.graph.initializers["w"].const_value = ir.tensor(weight * 2)
    save(again, path, external_limit=1000)
    assert len(files(tmp_path)) == 2
    assert files(tmp_path) != first
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0]), weight * 2
    )
    save(load(path), path)
    assert files(tmp_path) == ["out.onnx"]
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(onnx.load(path).graph.initializer[0]), weight * 2
    )


def refuses(model: ir.Model, path: Path, *words: str) -> None:
    with refused(OutputError, *words):
        save(model, path)


@pytest.fixture
def model(linear):
    return load(linear)


def test_missing_folder(model, tmp_path):
    refuses(model, tmp_path / "none" / "out.onnx", "does not exist", "create")


def test_target_is_a_folder(model, tmp_path):
    refuses(model, tmp_path, "is a folder")


def test_target_is_a_device(model):
    refuses(model, Path("/dev/null"), "not a regular file")


def test_read_only_folder(model, tmp_path, monkeypatch):
    tmp_path.chmod(0o555)
    if os.geteuid() == 0:  # root may write anywhere: the kernel's answer is given by hand
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    try:
        refuses(model, tmp_path / "out.onnx", "not writable")
    finally:
        tmp_path.chmod(0o755)
    assert files(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_the_old_file_survives_a_full_disk(model, tmp_path, monkeypatch, step):
    path = tmp_path / "out.onnx"
    save(model, path)
    before = path.read_bytes()

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    refuses(model, path, "No space left", "free some space")
    assert path.read_bytes() == before
    assert files(tmp_path) == ["out.onnx"]


@pytest.mark.parametrize("limit", [0, 100, 200])
def test_the_old_file_survives_a_write_that_fails_half_way(linear_path, limit):
    """RLIMIT_FSIZE makes the kernel refuse the write itself, after `limit` bytes."""
    before = linear_path.read_bytes()
    program = (
        "import sys, resource, signal\n"
        "from lowprec.graph import load, save\n"
        "from lowprec.errors import OutputError\n"
        "model = load(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "try:\n"
        "    save(model, sys.argv[1])\n"
        "except OutputError as error:\n"
        "    sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, str(linear_path)], check=False, cwd=linear_path.parent
    )
    assert done.returncode == 7
    assert linear_path.read_bytes() == before
    assert files(linear_path.parent) == ["linear.onnx"]


def test_interrupted_saving_leaves_nothing(model, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(model, tmp_path / "out.onnx")
    assert files(tmp_path) == []


def test_a_link_is_followed_and_the_mode_kept(model, tmp_path):
    real = tmp_path / "real.onnx"
    real.touch(mode=0o640)
    link = tmp_path / "link.onnx"
    link.symlink_to(real)
    save(model, link)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert onnx.load(real).graph.node
