"""`lowprec tune`: exit codes, what is printed and written, going on from the log."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest
import small_networks

import lowprec
from lowprec.cli.application import run as command_line

SCORES = """
import json, os
import numpy as np

with np.load("scored.npz") as feeds:
    inputs, wanted = feeds["x"], feeds["wanted"]

def agreement(model):
    with open("calls", "a") as calls:
        calls.write("x")
    found = np.stack([model.run({"x": x[None]})[0][0] for x in inputs])
    noise = np.square(found - wanted).sum()
    return 100.0 if noise == 0 else min(100.0, 10 * np.log10(np.square(wanted).sum() / noise))

both = {"agreement": agreement, "constant": lambda model: 1.0}
number = 3
"""

CONF = """
layers: [{match: "*", precision: int8}]
calibration: {method: minmax}
algorithms: {equalization: false}
tuning: {strategy: exhaustive, options: {space: {fallback: [0, 1, 40]}}, accuracy: {absolute: 55}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    model, feeds = small_networks.mobile()
    onnx.save(model, tmp_path / "model.onnx")
    x = np.concatenate([feed["x"] for feed in feeds])
    np.savez(tmp_path / "data.npz", x=x[:8])
    wanted = np.stack([lowprec.compile(model).run({"x": each[None]})[0][0] for each in x[8:20]])
    np.savez(tmp_path / "scored.npz", x=x[8:20], wanted=wanted)
    (tmp_path / "scores.py").write_text(SCORES)
    (tmp_path / "conf.yaml").write_text(CONF)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    sys.modules.pop("scores", None)  # another test's
    yield tmp_path
    sys.modules.pop("scores", None)


@pytest.fixture
def tune(capfd):
    def run(*more: str, evaluate: str = "scores:agreement") -> tuple[int, str, str]:
        fixed = ("tune", "model.onnx", "--calibration", "data.npz", "-o", "best.onnx")
        code = command_line((*fixed, "-c", "conf.yaml", "--evaluate", evaluate, *more))
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run


def test_the_best_model_is_saved_and_the_log_is_gone_on_from(folder, tune):
    code, out, error = tune("--report", "report.json")
    assert (code, error) == (0, ""), out
    assert "the criterion (55 absolute) is met after" in out
    assert "wrote best.onnx" in out
    best = lowprec.load("best.onnx")
    assert next(iter(best.report.accuracy.values()))["int8"] >= 45
    report = json.loads((folder / "report.json").read_text())
    assert report["trials"][0]["change"] == "float model"
    calls = (folder / "calls").read_text()

    code, out, error = tune()
    assert code == 0
    assert "going on from best.onnx.trials.jsonl" in error
    assert (folder / "calls").read_text() == calls


def test_a_missed_criterion_saves_the_best_so_far_and_exits_with_1(folder, tune):
    (folder / "conf.yaml").write_text(CONF.replace("absolute: 55", "absolute: 0"))
    code, out, error = tune("--log", "own.jsonl", "--max-trials", "2")
    assert code == 1, error
    assert "NOT met after 2 trials" in out
    assert lowprec.load("best.onnx").report.notes[-1] in out
    assert (folder / "own.jsonl").is_file()


def test_several_metrics_by_name(folder, tune):
    code, out, _ = tune("--strategy", "basic", evaluate="scores:both")
    assert code == 0
    assert "constant 1 (float 1)" in out


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        ("scores", "give MODULE:FUNCTION"),
        ("nowhere:f", "module 'nowhere' cannot be imported"),
        ("scores:f", "module 'scores' has no 'f'"),
        ("scores:number", "it is a int; name a function"),
    ],
)
def test_a_function_that_is_not_there_is_one_line(folder, tune, evaluate, message):
    code, out, error = tune(evaluate=evaluate)
    assert (code, out) == (2, "")
    assert error.startswith("error: --evaluate")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--strategy", "bsic"), "tuning.strategy is 'bsic'; accepted are basic"),
        (("--max-trials", "0"), "max_trials"),
        (("--log", "model.onnx"), "model.onnx' is not a trial log"),
    ],
)
def test_bad_options_are_one_line(folder, tune, options, message):
    code, _, error = tune(*options)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1


def test_quantize_with_evaluate_searches_in_processes_too(folder):
    pytest.importorskip("joblib")
    sys.path.insert(0, str(folder))
    import scores

    tuning = {
        "strategy": "exhaustive",
        "options": {"space": {"fallback": [0, 1]}},
        "accuracy": {"absolute": 0},
        "n_jobs": 2,
        "backend": "loky",
    }
    data = {"x": np.load("data.npz")["x"][:1]}
    found = lowprec.quantize(
        "model.onnx", [data], config={"tuning": tuning}, evaluate=scores.agreement
    )
    assert [trial["number"] for trial in found.report.trials] == [0, 1, 2]


def test_a_configuration_may_say_all_of_it(folder, capfd):
    with np.load("scored.npz") as scored:
        np.savez("labelled.npz", x=scored["x"], labels=scored["wanted"].argmax(axis=1))
    more = "model: model.onnx\ndata: {calibration: data.npz, evaluation: labelled.npz}\n"
    more += "evaluation: {metric: topk}\noutput: made/best.onnx\n"
    (folder / "conf.yaml").write_text(more + CONF.replace("absolute: 55", "relative: 0.2"))
    code = command_line(("tune", "-c", "conf.yaml"))
    out = capfd.readouterr().out
    assert code == 0, out
    assert lowprec.load("made/best.onnx").report.trials
    assert (folder / "made" / "best.onnx.trials.jsonl").is_file()


def test_something_must_score_the_models(folder, capfd):
    code = command_line(("tune", "model.onnx", "--calibration", "data.npz", "-o", "best.onnx"))
    assert code == 2
    assert "give --evaluate MODULE:FUNCTION" in capfd.readouterr().err
