"""A metric and data make a function that scores any model; names and options are checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from refusals import refused

import lowprec
from lowprec.errors import ConfigError, DataError
from lowprec.metrics import MSE, TopK, check_metric, make_evaluate, make_metrics
from lowprec.metrics.evaluate import METRICS

RNG = np.random.default_rng(0)


def batches(model, count=5):
    for _ in range(count):
        x = RNG.normal(size=(3, 4)).astype(np.float32)
        yield x, model(x).argmax(axis=1)


def test_a_model_is_scored_again_and_again(linear):
    model = lowprec.compile(linear)
    data = list(batches(model))
    evaluate = make_evaluate(TopK(), data)
    assert evaluate(model) == 1.0
    wrong = make_evaluate(TopK(), [(x, (y + 1) % 3) for x, y in data])
    assert wrong(model) == 0.0
    assert evaluate(model) == 1.0
    assert evaluate.higher_is_better
    assert not make_evaluate(MSE(), data).higher_is_better


def test_inputs_come_as_array_tuple_dict_or_double(linear):
    model = lowprec.compile(linear)
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    labels = model(x).argmax(axis=1)
    for inputs in (x, (x,), {"x": x}, x.astype(np.float64)):
        assert make_evaluate(TopK(), [(inputs, labels)])(model) == 1.0
        assert make_evaluate(TopK(), lambda inputs=inputs: [(inputs, labels)])(model) == 1.0
    assert make_evaluate(TopK(), [(x, labels)])(lambda a: model(a)) == 1.0
    with refused(DataError, "2 inputs", "has 1: x"):
        make_evaluate(TopK(), [((x, x), labels)])(model)
    with refused(DataError, "batch 0", "(inputs, labels)"):
        make_evaluate(TopK(), [x])(model)


def test_used_up_data_is_named(linear):
    model = lowprec.compile(linear)
    evaluate = make_evaluate(TopK(), iter(list(batches(model))))
    evaluate(model)
    with refused(DataError, "used up"):
        evaluate(model)


def test_names_and_options():
    made = make_metrics({"topk": 5, "F1": {"average": "micro"}})
    assert made["topk"].k == 5
    assert list(made) == ["topk", "F1"]
    assert make_metrics("accuracy")["accuracy"].higher_is_better
    assert list(make_metrics(["MSE", {"topk": {"k": 2}}])) == ["MSE", "topk"]
    with refused(ConfigError, "2 mistakes", "'topkk'", "did you mean 'topk'", "k is 0"):
        make_metrics({"topkk": 1, "topk": 0})


def test_functions_and_classes_of_the_user(tmp_path, monkeypatch, linear):
    (tmp_path / "own_scores.py").write_text(
        "def share(outputs, labels):\n"
        "    return float((outputs.argmax(axis=1) == labels).mean())\n"
        "class Count:\n"
        "    higher_is_better = False\n"
        "    def __init__(self): self.n = 0\n"
        "    def reset(self): self.n = 0\n"
        "    def update(self, outputs, labels): self.n += len(labels)\n"
        "    def result(self): return self.n\n"
        "class Broken: pass\n"
    )
    monkeypatch.chdir(tmp_path)
    model = lowprec.compile(linear)
    data = list(batches(model))
    made = make_metrics(["own_scores:share", "own_scores:Count"])
    assert make_evaluate(made["share"], data)(model) == 1.0
    count = make_evaluate(made["Count"], data)
    assert count(model) == count(model) == 15
    assert not count.higher_is_better
    with refused(DataError, "own_scores", "no 'gone'"):
        make_metrics("own_scores:gone")
    with refused(DataError, "Broken", "update"):
        make_metrics("own_scores:Broken")
    with refused(DataError, "no_such_module", "cannot be imported"):
        make_metrics("no_such_module:f")


def test_evaluate_works_with_quantize(linear):
    model = lowprec.compile(linear)
    data = list(batches(model, 8))
    quantized = lowprec.quantize(linear, [x for x, _ in data], evaluate=make_evaluate(TopK(), data))
    assert quantized.report.accuracy["score"]["float"] == 1.0


@pytest.mark.parametrize("value", [None, "topk", {"topk": 1}, ["F1", "a.b:c"], "m:f"])
def test_right_names_are_accepted(value):
    from lowprec.config_text import Mistakes, Source

    mistakes = Mistakes(Source(None, "config"))
    check_metric(value, ("evaluation", "metric"), mistakes)
    mistakes.raise_any()


def test_every_metric_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "metrics_and_data.md").read_text()
    for name in METRICS:
        assert f"| `{name}`" in page


def test_models_may_be_scored_at_the_same_time(linear):
    from concurrent.futures import ThreadPoolExecutor

    model = lowprec.compile(linear)
    data = list(batches(model, 50))
    evaluate = make_evaluate(TopK(), data)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(evaluate, [model] * 8)) == {1.0}
