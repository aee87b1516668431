"""An analysis is kept by content; what is damaged, or of something else, counts as missing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_pages import full_report

from lowprec.report import Report
from lowprec.sensitivity import analysis_key, content_key, keep_analysis, read_analysis
from lowprec.sensitivity import cache as cache_module


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LOWPREC_CACHE", str(folder))
    return folder


def report() -> Report:
    return replace(full_report(), model="m", config={}, notes=[])


def test_what_was_kept_comes_back_whole(cache: Path) -> None:
    key = analysis_key("a")
    assert read_analysis(key) is None
    original = Report.from_json(json.dumps(json.loads(report().to_json(times=True))))
    assert keep_analysis(key, original)
    again = read_analysis(key)
    assert again is not None
    assert again.to_dict(times=True) == original.to_dict(times=True)
    assert read_analysis(analysis_key("b")) is None


def test_damage_is_no_answer(cache: Path) -> None:
    key = analysis_key("a")
    assert keep_analysis(key, report())
    (path,) = cache.glob("*.analysis")
    content = path.read_bytes()
    assert read_analysis(key) is not None
    changed = content.replace(b'"samples": 128', b'"samples": 129')
    assert changed != content
    for damaged in (b"", content[:-1], content[: len(content) // 2], changed, b"[]", b"{}"):
        path.write_bytes(damaged)
        assert read_analysis(key) is None
    path.write_bytes(content)
    other = analysis_key("b")
    path.rename(cache / f"{other}.analysis")
    assert read_analysis(other) is None


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWPREC_CACHE", "off")
    key = analysis_key("a")
    assert not keep_analysis(key, report())
    assert read_analysis(key) is None


def test_the_oldest_go(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "MOST_KEPT", 3)
    keys = [analysis_key(str(n)) for n in range(5)]
    for key in keys:
        assert keep_analysis(key, report())
    assert len(list(cache.glob("*.analysis"))) == 3
    assert read_analysis(keys[-1]) is not None


def test_the_key_follows_contents(tmp_path: Path) -> None:
    model, folder = tmp_path / "m.onnx", tmp_path / "data"
    folder.mkdir()
    model.write_bytes(b"model")
    np.savez(folder / "a.npz", x=np.zeros(3))
    first = content_key(model, folder)
    assert first == content_key(model, folder)
    np.savez(folder / "b.npz", x=np.ones(3))
    second = content_key(model, folder)
    assert second != first
    model.write_bytes(b"modem")
    assert content_key(model, folder) not in (first, second)
    assert content_key(tmp_path / "missing") is None


def test_weights_in_other_files_are_not_overlooked(tmp_path: Path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"x" * (cache_module.BLOCK - 3) + b"\x08location" + b"rest")
    assert content_key(model) is None
