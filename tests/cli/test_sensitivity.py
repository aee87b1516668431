"""`lowprec inspect --sensitivity`: a table, advice, a page; the second time from the cache."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from sensitive_network import BAD, network

from lowprec.cli.application import run
from lowprec.cli.sensitivity import sparkline

CONFIG = "layers: [{op_type: Gemm, precision: int8}]\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    model, feeds = network()
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", **{f"x/{n:05}": feed["x"] for n, feed in enumerate(feeds)})
    (tmp_path / "conf.yaml").write_text(CONFIG)
    (tmp_path / "scores.py").write_text("def one(model):\n    return 1.0\n")
    monkeypatch.setenv("LOWPREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


ASK = ["inspect", "model.onnx", "--sensitivity", "--calibration", "data.npz", "-c", "conf.yaml"]


def test_table_advice_and_page(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*ASK, "--html", "out.html"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if " Gemm " in line]
    assert next(row[0] for row in rows) == BAD
    assert len(rows) == 3
    assert f"advice: Put '{BAD}' in " in out
    assert f"{{match: {BAD}, precision: " in out
    assert "█" in out
    page = (files / "out.html").read_text()
    assert "Advice" in page
    assert "dB to win" in page


def test_the_second_time_nothing_is_measured(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run([*ASK, "--json"]) == 0
    first = capsys.readouterr().out

    def forbidden(*arguments: object) -> None:
        raise AssertionError("the model was opened")

    monkeypatch.setattr("lowprec.api.capture", forbidden)
    assert run([*ASK, "--json"]) == 0
    assert capsys.readouterr().out == first
    values = json.loads(first)
    assert values["sensitivity"][0]["name"] == BAD
    assert values["advice"]["layers"] == [BAD]
    assert values["times"]
    # Another configuration, other data or other samples are another question.
    (files / "conf.yaml").write_text(CONFIG + "calibration: {method: minmax}\n")
    assert run([*ASK, "--json"]) == 2


def test_damaged_files_of_the_cache_are_ignored(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*ASK, "--json"]) == 0
    capsys.readouterr()
    (kept,) = (files / "cache").glob("*.analysis")
    kept.write_bytes(kept.read_bytes()[:-7])
    assert run([*ASK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sensitivity"]


def test_scores_are_part_of_the_advice(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*ASK, "--evaluate", "scores:one"]) == 0
    assert "one +0 (1 to 1)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "model.onnx", "--sensitivity"], ["--calibration"]),
        (["inspect", "model.onnx", "--html", "x.html"], ["--html", "--sensitivity"]),
        ([*ASK, "--html", "missing/x.html"], ["missing", "does not exist"]),
        ([*ASK, "--evaluate", "scores:two"], ["scores", "two"]),
    ],
)
def test_mistakes_are_one_line(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    assert run(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    for word in words:
        assert word in error


def test_a_histogram_as_letters() -> None:
    assert sparkline([0, 1, 1000, 0], 4) == " ▁█ ".replace("▁", sparkline([0, 1, 1000, 0], 4)[1])
    assert sparkline([0] * 64) == " " * 16
    assert len(sparkline([5] * 64)) == 16
    assert sparkline([1, 10, 100, 1000], 4)[-1] == "█"
    assert sparkline([], 4) == "    "
