"""The pages name only what exists: files, make targets, commands, public names, links."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path

import onnx
import onnx_models
import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")],
)
TOP_FOLDERS = ("lowprec", "adapters", "_ext", "tests", "benchmarks", "examples", "docs", r"\.ci")
PATH = re.compile(rf"(?<![\w/.])((?:{'|'.join(TOP_FOLDERS)})/[\w./-]+)")
PROMPTED_TARGET = re.compile(r"(?:`|^    )make ([a-z]+)\b", re.MULTILINE)
NAME = re.compile(r"(?<![\w./@-])lowprec(?:\.[A-Za-z_]\w*)+")
# The architecture page shows signatures, not examples.
EXAMPLE_PAGES = [page for page in PAGES if page.name != "architecture.md"]
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
VARIABLE = re.compile(r"""["'](LOWPREC_[A-Z_]+)["']""")


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.fixture(params=PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def page(request) -> Path:
    return request.param


def test_paths_exist(page):
    named = {path.rstrip("./") for path in PATH.findall(page.read_text())}
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = {link for link in links if "://" not in link}
    assert {link for link in local if not (page.parent / link).exists()} == set()


def test_make_targets_exist(page):
    assert set(PROMPTED_TARGET.findall(page.read_text())) - make_targets() == set()


def resolve(name: str) -> object:
    """Return the module or attribute that a dotted name stands for; AttributeError if none."""
    found: object = importlib.import_module("lowprec")
    path = "lowprec"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(path)
            except ImportError:
                raise AttributeError(name) from None
    return found


def test_public_names_exist(page):
    unknown = []
    files = {"lowprec.h", "lowprec.json", "lowprec.attention"}  # the last: a key of metadata
    for name in sorted(set(NAME.findall(page.read_text())) - files):
        try:
            resolve(name)
        except AttributeError:
            unknown.append(name)
    assert unknown == []


# Keras's own, when it saves.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("page", EXAMPLE_PAGES, ids=lambda page: page.name)
def test_python_examples_run(page, tmp_path, monkeypatch):
    """An example may use a file model.onnx with an input x (N, 4); one that needs more says so."""
    onnx.save(onnx_models.linear(), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    for example in PYTHON_BLOCK.findall(page.read_text()):
        if not example.startswith(("# not yet", "# needs a model")):
            exec(compile(example, page.name, "exec"), {"__name__": "example"})


def test_environment_variables_are_all_documented():
    sources = [ROOT / "setup.py"]
    for top in ("_ext", "lowprec", "adapters"):
        for ending in ("py", "pyx", "cpp", "h"):
            sources += (ROOT / top).rglob(f"*.{ending}")
    read = {name for source in sources for name in VARIABLE.findall(source.read_text())}
    page = (ROOT / "docs" / "env_vars.md").read_text()
    assert set(re.findall(r"^\| `(LOWPREC_[A-Z_]+)`", page, re.MULTILINE)) == read


def test_bare_make_lists_the_nine_commands():
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"\bmake ([a-z]+)\b", shown)
    assert " ".join(listed) == "demo test lint types bench sanitize isa dist clean"


def test_files_shown_on_the_embedding_page_are_the_files():
    page = (ROOT / "docs" / "embedding.md").read_text()
    shown = re.findall(r"^<!-- (\S+) -->\n```\w+\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(shown) == 4
    for path, text in shown:
        assert (ROOT / path).read_text() == text, path
