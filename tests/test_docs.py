"""The pages name only what exists: files, make targets, commands, public names, links."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md")],
)
TOP_FOLDERS = ("lowprec", "adapters", "_ext", "tests", "benchmarks", "examples", "docs", r"\.ci")
PATH = re.compile(rf"(?<![\w/.])((?:{'|'.join(TOP_FOLDERS)})/[\w./-]+)")
TARGET = re.compile(r"\bmake ([a-z]+)\b")
PROMPTED_TARGET = re.compile(r"(?:`|^    )make ([a-z]+)\b", re.MULTILINE)
NAME = re.compile(r"(?<![\w./])lowprec((?:\.[A-Za-z_]\w*)+)")


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


def test_bare_make_lists_the_nine_commands():
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = TARGET.findall(shown)
    wanted = "demo test lint types bench sanitize isa dist clean"
    assert listed == wanted.split()
