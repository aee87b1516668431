"""The ONNX adapter knows its own without importing anything."""

from __future__ import annotations

import subprocess
import sys

import onnx
import onnx_ir as ir

from lowprec.adapters import onnx as adapter


def test_takes_protos_irs_and_paths(linear, linear_path, tmp_path):
    unnamed = tmp_path / "model.bin"
    unnamed.write_bytes(linear_path.read_bytes())
    for model in (linear, ir.from_proto(linear), linear_path, str(linear_path), unnamed):
        captured = adapter.lowprec_capture(model)
        assert captured is not None
        assert captured.kind == "onnx"
        assert captured.source is model
        assert isinstance(captured.graph, ir.Model)


def test_leaves_others_alone(tmp_path):
    frozen = tmp_path / "frozen.pb"
    frozen.write_bytes(b"\x0a\x20tensorflow graph")
    for model in (3, None, "a string", frozen, tmp_path, tmp_path / "none.pb", "a\0b", object()):
        assert adapter.lowprec_capture(model) is None


def test_deciding_imports_nothing_heavy(tmp_path):
    program = (
        "import sys\n"
        "from lowprec.adapters import onnx as adapter\n"
        "assert adapter.lowprec_capture(object()) is None\n"
        "assert adapter.lowprec_capture('model.pb') is None\n"
        "adapter.lowprec_describe()\n"
        "assert not {'onnx', 'onnx_ir', 'torch', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)


def test_describes_itself():
    info = adapter.lowprec_describe()
    assert info.name == "onnx"
    assert info.versions["onnx"] == onnx.__version__
