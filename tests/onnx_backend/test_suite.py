"""ONNX's conformance suite: all but the cases of not_passing.txt pass, most of them natively."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

HERE = Path(__file__).resolve().parent
SECONDS = 900  # on a busy machine; alone it takes one minute

# docs/operators.md states both. A new version of onnx has other cases, and these are its least.
PASSING, NATIVE = 2016, 1823


def patterns() -> dict[str, str]:
    """Return the reason of every pattern of the list."""
    lines = (HERE / "not_passing.txt").read_text().splitlines()
    entries = [line.split(None, 1) for line in lines if line and not line.startswith("#")]
    return {entry[0]: entry[1] if len(entry) == 2 else "" for entry in entries}


def listed(name: str) -> list[str]:
    """Return the patterns that name this case."""
    bare = name.removesuffix("_cpu")
    return [pattern for pattern in patterns() if re.fullmatch(pattern, bare)]


def run_suite(log: Path, *arguments: str) -> dict[str, tuple[str, str]]:
    """Return outcome and reason by case, having run the suite in a process of its own.

    Raises:
        AssertionError: it crashed or did not end; the message names the case.
    """
    command = [sys.executable, str(HERE / "suite.py"), "--json", str(log), *arguments]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        how = f"ended with status {ended.returncode}: {ended.stderr[-500:]}"
        status = ended.returncode
    except subprocess.TimeoutExpired:
        how, status = f"did not end within {SECONDS} s", -1
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert status == 0, f"the suite {how}; last started: {rows[-1][0] if rows else 'nothing'}"
    return {name: (outcome, reason) for name, outcome, reason in rows}


def test_every_listed_pattern_has_a_reason():
    assert patterns()
    for pattern, reason in patterns().items():
        assert len(reason) > 10, pattern


@pytest.mark.skipif(not onnx.__version__.startswith("1.23"), reason="the list is that of onnx 1.23")
def test_the_suite_passes_but_for_the_list(tmp_path):
    results = run_suite(tmp_path / "steps.jsonl")
    assert len(results) == 2033
    failed = {name: reason for name, (outcome, reason) in results.items() if outcome == "failed"}
    unlisted = {name: reason for name, reason in failed.items() if not listed(name)}
    assert unlisted == {}, "these fail and are not in not_passing.txt"
    passing = {name for name in results if name not in failed}
    # What is drawn at random may come out as expected, now and then.
    sure = {pattern for pattern, reason in patterns().items() if not reason.startswith("random")}
    wrong = {name for name in passing if sure.intersection(listed(name))}
    assert wrong == set(), "these pass: take them off the list"
    idle = set(patterns()) - {pattern for name in failed for pattern in listed(name)}
    assert idle == set(), "these patterns name no case"
    native = sum(outcome == "native" for outcome, _ in results.values())
    assert len(passing) >= PASSING, f"{len(passing)} cases pass"
    assert native >= NATIVE, f"{native} cases pass natively"
