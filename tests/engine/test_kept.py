"""Compiled programs on disk: the same bits without the hub, and never those of another file."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import lowprec
from lowprec.engine import kept
from lowprec.errors import LowprecError, ModelError

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where programs are kept."""
    path = tmp_path / "kept"
    monkeypatch.setenv("LOWPREC_CACHE", str(path))
    return path


def network(scale: float = 1.0) -> onnx.ModelProto:
    """y = relu(x @ w + b), and the codes of y; x (n, 16), y (n, 8)."""
    weights = {
        "w": scale * RNG.standard_normal((16, 8)).astype(np.float32),
        "b": RNG.standard_normal(8).astype(np.float32),
        "s": np.float32(0.05),
        "z": np.uint8(3),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["p"]),
            helper.make_node("Add", ["p", "b"], ["q"]),
            helper.make_node("Relu", ["q"], ["y"]),
            helper.make_node("QuantizeLinear", ["y", "s", "z"], ["codes"]),
        ],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8]),
            helper.make_tensor_value_info("codes", TensorProto.UINT8, ["n", 8]),
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture
def path(tmp_path) -> Path:
    onnx.save(network(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def results(model: lowprec.CompiledModel, rows: int = 5) -> list[bytes]:
    x = np.random.default_rng(rows).standard_normal((rows, 16)).astype(np.float32)
    return [array.tobytes() for array in model.run({"x": x})]


def uncached(path: Path, monkeypatch) -> lowprec.CompiledModel:
    with monkeypatch.context() as changed:
        changed.setenv("LOWPREC_CACHE", "off")
        return lowprec.compile(path)


def test_the_second_time_has_the_bits_of_the_first(path, folder, monkeypatch):
    expected = results(uncached(path, monkeypatch))
    assert not folder.exists()
    assert results(lowprec.compile(path)) == expected
    (program,) = folder.glob("*.program")
    assert program.stat().st_mode & 0o077 == 0
    again = lowprec.compile(path)
    assert results(again) == expected
    assert [info.shape for info in again.inputs] == [("n", 16)]
    assert {step.op for step in again.explain().steps} >= {"MatMul"}


def test_the_second_time_reads_no_hub(path, folder):
    code = "import lowprec, sys; lowprec.compile(sys.argv[1]); print('onnx_ir' in sys.modules)"
    environment = {**os.environ, "LOWPREC_CACHE": str(folder)}
    printed = [
        subprocess.run(
            [sys.executable, "-c", code, str(path)],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for _ in range(2)
    ]
    assert printed == ["True", "False"]


def test_another_content_is_another_program(path, folder):
    first = results(lowprec.compile(path))
    onnx.save(network(scale=2.0), path)
    assert results(lowprec.compile(path)) != first
    assert len(list(folder.glob("*.program"))) == 2


def test_settings_and_verbs_have_their_own(path, folder, monkeypatch):
    lowprec.compile(path)
    lowprec.load(path)
    monkeypatch.setenv("LOWPREC_FALLBACK", "off")
    lowprec.compile(path)
    assert len(list(folder.glob("*.program"))) == 3


def test_off_keeps_nothing(path, folder, monkeypatch):
    uncached(path, monkeypatch)
    assert not folder.exists()


def test_a_folder_that_others_may_write_is_not_used(path, folder):
    folder.mkdir()
    folder.chmod(0o777)
    lowprec.compile(path)
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_made_is_no_error(path, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOWPREC_CACHE", str(tmp_path / "file" / "below"))
    assert results(lowprec.compile(path))


def test_damage_is_noticed(path, folder, monkeypatch):
    expected = results(lowprec.compile(path))
    (program,) = folder.glob("*.program")
    whole = program.read_bytes()
    length = int.from_bytes(whole[len(kept.MAGIC) : len(kept.MAGIC) + 8], "little")
    places = RNG.integers(0, len(kept.MAGIC) + kept.PREFIX + length, 60)
    broken = [whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :] for at in places]
    broken += [whole[:size] for size in (0, 5, len(whole) // 2, len(whole) - 1)]
    broken += [whole + b"\0", os.urandom(len(whole))]
    for content in broken:
        program.write_bytes(content)
        assert results(lowprec.compile(path)) == expected
        assert program.read_bytes() == whole  # written anew


def test_weights_are_checked_after_the_machine_was_started_anew(path, folder, monkeypatch):
    expected = results(lowprec.compile(path))
    (program,) = folder.glob("*.program")
    whole = program.read_bytes()
    program.write_bytes(whole[: -kept.SLACK - 64] + bytes(kept.SLACK + 64))
    monkeypatch.setattr(kept, "_boot", lambda: "another")
    assert results(lowprec.compile(path)) == expected


def test_the_oldest_go_first(tmp_path, folder, monkeypatch):
    paths = [tmp_path / f"{index}.onnx" for index in range(3)]
    for each in paths:
        onnx.save(network(), each)
    lowprec.compile(paths[0])
    size = next(folder.iterdir()).stat().st_size
    monkeypatch.setattr(kept, "LIMIT", int(2.5 * size))
    lowprec.compile(paths[1])
    lowprec.compile(paths[0])  # used again: younger than paths[1]'s
    before = set(folder.iterdir())
    lowprec.compile(paths[2])
    gone = before - set(folder.iterdir())
    assert len(gone) == 1
    assert len(list(folder.iterdir())) == 2
    lowprec.compile(paths[0])
    assert len(list(folder.iterdir())) == 2  # it was there


def test_a_loaded_model_keeps_its_report_and_saves_its_bytes(tmp_path, folder, monkeypatch):
    onnx.save(network(), tmp_path / "float.onnx")
    samples = [RNG.standard_normal((4, 16)).astype(np.float32) for _ in range(4)]
    quantized = lowprec.quantize(tmp_path / "float.onnx", samples)
    quantized.save(tmp_path / "int8.onnx")
    first = lowprec.load(tmp_path / "int8.onnx")
    second = lowprec.load(tmp_path / "int8.onnx")
    assert results(second) == results(first) == results(quantized)
    assert second.report.to_json() == quantized.report.to_json()
    assert second.config == quantized.config
    (tmp_path / "int8.onnx").rename(tmp_path / "elsewhere.onnx")
    second.save(tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "elsewhere.onnx").read_bytes()


def test_a_file_that_was_written_into_is_not_saved_as_something_else(path, folder):
    lowprec.load(path)
    model = lowprec.load(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="changed since"):
        model.save(path.with_name("other.onnx"))
    assert results(model)


def test_what_a_kernel_refuses_for_one_run_is_read_from_the_model(tmp_path, folder):
    inputs = {"x": TensorProto.FLOAT, "ratio": TensorProto.FLOAT, "training": TensorProto.BOOL}
    graph = helper.make_graph(
        [helper.make_node("Dropout", list(inputs), ["y"], name="it", seed=1)],
        "graph",
        [
            helper.make_tensor_value_info(name, kind, [64] if name == "x" else [])
            for name, kind in inputs.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64])],
    )
    path = tmp_path / "dropout.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)
    lowprec.compile(path)
    again = lowprec.compile(path)
    assert len(list(folder.iterdir())) == 1
    feeds = {"x": np.ones(64, np.float32), "ratio": np.float32(0.5)}
    (y,) = again.run({**feeds, "training": np.array(True)})
    assert 0 < np.count_nonzero(y) < 64
    assert again.explain().fallbacks == ("Dropout",)
    (y,) = again.run({**feeds, "training": np.array(False)})
    np.testing.assert_array_equal(y, feeds["x"])


def test_weights_in_another_file_are_read_every_time(tmp_path, folder):
    path, answers = tmp_path / "model.onnx", []
    for scale in (1.0, 2.0):
        # Only the weights' file changes between the two.
        file = path if scale == 1 else tmp_path / "other.onnx"
        where = {"location": "weights.bin", "size_threshold": 0}
        (tmp_path / "weights.bin").unlink(missing_ok=True)
        onnx.save_model(network(scale), file, save_as_external_data=True, **where)
        answers.append(results(lowprec.compile(path)))
    assert answers[0] != answers[1]
    assert not folder.exists() or not list(folder.glob("*.program"))


def test_what_falls_back_is_not_kept(tmp_path, folder):
    graph = helper.make_graph(
        [helper.make_node("Bernoulli", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "random.onnx")
    lowprec.compile(tmp_path / "random.onnx")
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", ["missing.onnx", ".", "fifo.onnx"])
def test_what_is_no_file_is_the_loaders_to_refuse(tmp_path, folder, name):
    os.mkfifo(tmp_path / "fifo.onnx")
    with pytest.raises(LowprecError):
        lowprec.compile(str(tmp_path / name))


def test_weights_are_held_once(tmp_path, folder):
    """After packing, only what is packed stays in memory: the float weights do not."""
    size = 4096
    weight = np.zeros((size, size), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, size])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "large.onnx")
    lowprec.compile(tmp_path / "large.onnx")
    code = textwrap.dedent("""
        import sys
        import numpy as np
        import lowprec

        def resident():
            lines = open("/proc/self/status").read().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

        lowprec.Config, lowprec.cpu_info()
        before = resident()
        model = lowprec.compile(sys.argv[1])
        model.run({"x": np.zeros((1, 4096), np.float32)})
        print(resident() - before)
    """)
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "large.onnx")],
        env={**os.environ, "LOWPREC_CACHE": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    )
    packed = weight.nbytes / 1024
    assert packed <= int(done.stdout) < 1.5 * packed
