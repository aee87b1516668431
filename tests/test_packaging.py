"""What is shipped: the package list, the sdist, and a wheel that works in an empty environment."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from outside_packages import RUN_LAYERS, install, run

ROOT = Path(__file__).resolve().parent.parent

QUANTIZE_A_MODEL = """
import sys
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
import lowprec

weights = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Relu", ["p"], ["y"])],
    "one_layer",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
    [numpy_helper.from_array(weights, "w")],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
samples = [np.random.default_rng(i).standard_normal((4, 16)).astype(np.float32) for i in range(8)]
quantized = lowprec.quantize(model, samples)
(expected,) = lowprec.compile(model).run({"x": samples[0]})
(answer,) = quantized.run({"x": samples[0]})
assert lowprec.__file__.startswith(sys.prefix), lowprec.__file__
assert 0 < np.abs(answer - expected).max() < 0.05 * np.abs(expected).max()
quantized.save("one_layer.int8.onnx")
(again,) = lowprec.load("one_layer.int8.onnx").run({"x": samples[0]})
assert again.tobytes() == answer.tobytes()
assert "QuantizeLinear" in {node.op_type for node in onnx.load("one_layer.int8.onnx").graph.node}
"""


def declared_packages() -> dict[str, str]:
    """Return the folder of every package that setup.cfg lists, by import name."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    renamed = dict(
        re.split(r"\s*=\s*", line) for line in parser["options"]["package_dir"].strip().splitlines()
    )
    folders = {}
    for name in parser["options"]["packages"].split():
        parent = max((p for p in renamed if name == p or name.startswith(f"{p}.")), key=len)
        folders[name] = renamed[parent] + name[len(parent) :].replace(".", "/")
    return folders


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist and the wheel of this source tree."""
    out = tmp_path_factory.mktemp("dist")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOWPREC_")}
    command = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel"]
    done = subprocess.run(
        [*command, "--outdir", str(out), str(ROOT)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return out


def test_setup_cfg_lists_every_package():
    folders = {
        str(path.parent.relative_to(ROOT))
        for top in ("lowprec", "adapters", "_ext")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(declared_packages().values()) == folders


def test_sdist_holds_every_source_file(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        held = {name.partition("/")[2] for name in sdist.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    needless = {".gitignore", ".clang-format"}
    assert set(tracked) - held - needless == set()
    assert not {name for name in held if name.endswith((".so", ".pyc")) or name == "_ext/_core.cpp"}


def test_wheel_holds_the_library_under_its_import_names(built):
    (archive,) = built.glob("*.whl")
    names = zipfile.ZipFile(archive).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"lowprec"}
    for package, folder in declared_packages().items():
        modules = [path.name for path in (ROOT / folder).glob("*.py")]
        assert {f"{package.replace('.', '/')}/{module}" for module in modules} <= set(names)
    assert any(re.fullmatch(r"lowprec/_ext/_core\..*so", name) for name in names)
    assert "lowprec/py.typed" in names
    assert {"lowprec/report_html/page.css", "lowprec/report_html/page.js"} <= set(names)
    include = "lowprec/_ext/include"
    embedding = {"lowprec.h", "lowprec/_ext/_core.pxd", "lowprec/__init__.pxd"}
    assert {f"{include}/{name}" for name in embedding} <= set(names)


def test_packages_build_against_an_installed_wheel(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True, cwd=tmp_path)
    for package in ("c_package", "cython_package"):
        install(package, site, tmp_path, PYTHONPATH=str(site))
    done = run(RUN_LAYERS.format(prefix=str(site)), site)
    assert done.stdout == "equal\n", done.stderr


def test_wheel_quantizes_a_model_in_an_empty_environment(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LOWPREC_"))}

    def run(*command: str | Path) -> None:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:]

    run(sys.executable, "-m", "venv", "venv")
    python = tmp_path / "venv" / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    run(python, "-m", "pip", "install", "--quiet", "-c", constraints, wheel)
    run(python, "-c", QUANTIZE_A_MODEL)
    run(tmp_path / "venv" / "bin" / "lowprec", "inspect", "one_layer.int8.onnx")
    shutil.rmtree(tmp_path / "venv")
