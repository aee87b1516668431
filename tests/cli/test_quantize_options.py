"""`lowprec quantize`: everything from a file, everything from options, one over the other."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_models
import pytest
from refusals import refused

import lowprec
from lowprec.cli.application import run as command_line
from lowprec.config import Config
from lowprec.errors import ConfigError, DataError, ModelError
from lowprec.flow import plan_run

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with model.onnx, data.npz and labelled.npz (the model's own labels)."""
    onnx.save(onnx_models.linear(), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    x = RNG.normal(size=(24, 4)).astype(np.float32)
    np.savez("data.npz", x=x)
    labels = lowprec.compile("model.onnx")(x).argmax(axis=1)
    np.savez("labelled.npz", x=x, y=labels)
    (tmp_path / "own_model_score.py").write_text(
        "import numpy as np\n"
        "def norm(model):\n"
        "    return float(np.abs(model(np.load('data.npz')['x'])).sum())\n"
        "norm.higher_is_better = False\n"
        "def batches():\n"
        "    data = np.load('labelled.npz')\n"
        "    return [(data['x'], data['y'])]\n"
    )
    return tmp_path


def test_everything_by_options(folder, capfd):
    command = ["quantize", "model.onnx", "--calibration", "data.npz", "--metric", "topk"]
    assert command_line([*command, "--evaluation", "labelled.npz"]) == 0
    assert "wrote model.int8.onnx" in capfd.readouterr().out
    assert lowprec.load("model.int8.onnx").report.accuracy["topk"]["float"] == 1.0


def test_everything_by_file(folder):
    (folder / "conf.yaml").write_text(
        "model: model.onnx\n"
        "output: made/new.onnx\n"
        "precision: bf16\n"
        "data: {calibration: data.npz, evaluation: 'own_model_score:batches'}\n"
        "evaluation: {metric: Accuracy}\n"
        "tuning: {log: logs/trials.jsonl}\n"
    )
    assert command_line(["quantize", "-c", "conf.yaml"]) == 0
    made = lowprec.load("made/new.onnx")
    assert made.report.accuracy["Accuracy"]["float"] == 1.0
    assert (folder / "logs" / "trials.jsonl").exists()
    # What was read belongs to the run, not to the model.
    assert made.config.model is None
    assert made.config.data.calibration is None


def test_precision_given_as_an_option_wins(folder):
    (folder / "conf.yaml").write_text("precision: bf16\nmodel: model\n")
    command = ["quantize", "-c", "conf.yaml", "--calibration", "data.npz", "-o", "out.onnx"]
    assert command_line(command) == 0
    assert lowprec.load("out.onnx").config.precision == "bf16"
    assert command_line([*command, "--precision", "int8"]) == 0
    assert lowprec.load("out.onnx").config.precision == "int8"


def test_a_metric_of_the_model_itself(folder):
    run = plan_run(Config(), model="model.onnx", calibration="data.npz",
                   metric="own_model_score:norm")  # fmt: skip
    assert set(run.evaluate) == {"norm"}
    assert run.evaluate["norm"](lowprec.compile("model.onnx")) > 0
    result = run.execute()
    assert result.met is not None
    assert "norm" in result.model.report.accuracy


def test_directions_come_from_the_metrics(folder):
    base = {"data": {"evaluation": "labelled.npz"}, "model": "model.onnx"}
    one = plan_run(Config.of({**base, "evaluation": {"metric": "MSE"}}))
    assert not one.config.tuning.accuracy.higher_is_better
    two = plan_run(Config.of({**base, "evaluation": {"metric": ["MSE", "topk"]}}))
    assert two.config.tuning.accuracy.higher_is_better
    assert two.config.tuning.metrics["MSE"].higher_is_better is False
    assert "topk" not in two.config.tuning.metrics
    wrong = {"accuracy": {"higher_is_better": False}}
    with refused(ConfigError, "topk", "higher is better", "take it out"):
        plan_run(Config.of({**base, "evaluation": {"metric": "topk"}, "tuning": wrong}))


def test_scores_of_other_data_are_other_scores(folder):
    names = set()
    for data in ("labelled.npz", {"dataset": {"npz": {"path": "labelled.npz"}}, "batch_size": 2}):
        for metric in ("topk", {"topk": 2}):
            config = Config.of({"model": "model.onnx", "data": {"evaluation": data},
                                "evaluation": {"metric": metric}})  # fmt: skip
            names.add(plan_run(config).evaluate["topk"].__qualname__)
    assert len(names) == 4


@pytest.mark.parametrize(
    ("file", "output"),
    [
        ("net.pb", "net.int8.pb"),
        ("net.keras", "net.int8.keras"),
        ("net.h5", "net.int8.keras"),
        ("net.onnx", "net.int8.onnx"),
        ("net", "net.int8"),
    ],
)
def test_a_model_of_any_form_is_found_by_its_name(tmp_path, monkeypatch, file, output):
    monkeypatch.chdir(tmp_path)
    if "." in file:
        (tmp_path / file).touch()
    else:
        (tmp_path / file).mkdir()  # a SavedModel
    run = plan_run(Config.of({"model": "net"}))
    assert (run.model, str(run.output)) == (file, output)
    assert str(plan_run(Config.of({"model": "net"}), output="other").output) == "other"


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ({}, ConfigError, ["no model is named"]),
        ({"model": "lenet"}, ModelError, ["'lenet'", "lenet.onnx", "argument"]),
        ({"model": "model", "evaluation": {"metric": "topk"}}, ConfigError, ["data.evaluation"]),
        ({"model": "model", "data": {"evaluation": "labelled.npz"}}, ConfigError, ["no metric"]),
        (
            {"model": "model", "data": {"evaluation": "x.csv"}, "evaluation": {"metric": "topk"}},
            DataError,
            ["x.csv", ".npz"],
        ),
        (
            {"model": "model", "data": {"calibration": {"dataset": {"MNIST": {"root": "none"}}}}},
            DataError,
            ["MNIST", "none"],
        ),
        ({"model": "model", "data": {"calibration": "no_module:f"}}, DataError, ["no_module"]),
        ({"model": "model", "output": "model.onnx/x"}, ConfigError, ["model.onnx", "folder"]),
    ],
)
def test_what_is_missing_is_named(folder, values, kind, words):
    with refused(kind, *words):
        plan_run(Config.of(values))


def test_wrong_precision_is_named(folder, capfd):
    assert command_line(["quantize", "model.onnx", "--precision", "int4"]) == 2
    assert "int8-dynamic" in capfd.readouterr().err


def test_quantize_in_python_takes_data_and_metric_from_the_configuration(folder):
    (folder / "conf.yaml").write_text(
        "data: {calibration: data.npz, evaluation: labelled.npz}\n"
        "evaluation: {metric: topk}\n"
        "precision: bf16\n"
    )
    made = lowprec.quantize("model.onnx", config="conf.yaml")
    assert made.report.accuracy["topk"]["float"] == 1.0
    assert made.config.data.evaluation is None
    given = lowprec.quantize("model.onnx", config="conf.yaml", evaluate=lambda model: 2.0)
    assert given.report.accuracy["score"]["float"] == 2.0
