"""The AlexNet story in a small setting, as a user starts it: one command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("matplotlib")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "keras_alexnet_mnist"


def run(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLE / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_story_from_training_to_the_chart(tmp_path):
    small = ("--epochs", 2, "--images", 1024, "--rounds", 1)
    text = run("run.py", "--data", tmp_path / "none", "--out", tmp_path, *small)
    written = {path.name for path in tmp_path.iterdir()}
    assert written >= {
        *("alexnet.keras", "alexnet_saved_model", "alexnet.pb"),
        *("alexnet.int8.pb", "alexnet.python.pb", "alexnet.int8.keras"),
        *("compare.png", "compare.json"),
    }
    assert "tuning: the criterion (0.003 absolute) is" in text
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "compare.json").read_text())
    assert [row["name"] for row in rows] == ["alexnet.pb", "alexnet.int8.pb", "alexnet.python.pb"]
    before = rows[0]
    assert before["accuracy"] > 0.5  # of ten digits, after a few steps
    for row in rows[1:]:
        assert abs(row["accuracy"] - before["accuracy"]) < 0.02
        assert row["size_kb"] < 0.3 * before["size_kb"]
        assert row["latency_ms"] > 0
        assert row["throughput"] > 0
