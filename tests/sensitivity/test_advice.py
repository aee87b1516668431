"""Advice is measured, names the layer that is to blame, and says when none is."""

from __future__ import annotations

import math

import pytest
from sensitive_network import ASK, BAD, workbench

from lowprec.config import Config
from lowprec.errors import ConfigError
from lowprec.sensitivity import Advice, Measured, advise, analyse, output_sqnr, with_rules
from lowprec.sensitivity.advice import _fewest


@pytest.fixture(scope="module")
def advice() -> Advice:
    bench = workbench()
    scores: list[object] = []

    def agreement(model: object) -> float:
        scores.append(model)
        return float(len(scores))

    found = advise(bench, ASK, analyse(bench, ASK), evaluate={"calls": agreement})
    assert found is not None
    assert len(scores) == 3
    return found


def test_the_layer_to_blame_is_named(advice: Advice) -> None:
    assert advice.layers == (BAD,)
    assert advice.sentence.startswith(f"Put '{BAD}' in ")
    assert {option.precision for option in advice.options} == {"bf16", "f32"}
    assert advice.options[0].sqnr > advice.before.sqnr + 10


def test_the_numbers_are_those_of_the_models(advice: Advice) -> None:
    bench = workbench()
    feeds = bench.feeds.first(8)
    expected = [bench.original.run(feed) for feed in feeds]
    for option in (advice.before, *advice.options):
        rules = {BAD: option.precision} if option.precision else {}
        model = bench.quantize(with_rules(ASK, rules), measure=False)
        actual = output_sqnr(expected, [model.run(feed) for feed in feeds])
        assert option.sqnr == pytest.approx(actual, abs=1e-6)
        assert option.ms > 0
    assert advice.before.scores == {"calls": 1.0}
    assert "calls +" in advice.sentence


def test_its_rules_are_a_configuration(advice: Advice) -> None:
    added = Config.from_yaml(advice.yaml())
    assert added.layer_precision(BAD, "Gemm") == advice.options[0].precision
    assert added.layer_precision("first", "Gemm") is None


def test_where_no_layer_stands_out_it_says_so() -> None:
    found = advise(workbench(), ASK, analyse(workbench(), ASK, only=["third"]))
    assert found is not None
    assert found.layers == ()
    assert found.options == ()
    assert "No few layers stand out" in found.sentence
    assert found.yaml() == ""
    assert found.before.ms > 0


def test_what_is_good_needs_no_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = workbench()
    found = analyse(bench, ASK)
    monkeypatch.setattr("lowprec.sensitivity.advice.GOOD", 1.0)
    advice = advise(bench, ASK, found)
    assert advice is not None
    assert advice.layers == ()
    kept = f"{advice.before.sqnr:.1f} dB"
    assert advice.sentence.startswith(f"Nothing needs to change: the outputs keep {kept}")


def test_all_layers_in_float_is_no_advice() -> None:
    bench = workbench()
    found = [layer for layer in analyse(bench, ASK) if layer.name == BAD]
    advice = advise(bench, ASK, found)
    assert advice is not None
    assert advice.layers == ()


def test_what_wins_nothing_when_quantised_anew_is_not_advised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = workbench()
    found = analyse(bench, ASK)
    monkeypatch.setattr("lowprec.sensitivity.advice.WORTH_SAYING", 1000.0)
    monkeypatch.setattr("lowprec.sensitivity.advice._fewest", lambda ladder: 1)
    advice = advise(bench, ASK, found)
    assert advice is not None
    assert advice.layers == ()


def test_nothing_quantised_needs_no_advice() -> None:
    assert advise(workbench(), ASK, []) is None


def test_only_the_precisions_asked_for() -> None:
    bench = workbench()
    found = advise(bench, ASK, analyse(bench, ASK), precisions=("f32",))
    assert found is not None
    assert [option.precision for option in found.options] == ["f32"]
    with pytest.raises(ConfigError, match="f31"):
        advise(bench, ASK, analyse(bench, ASK), precisions=("f31",))


@pytest.mark.parametrize(
    ("ladder", "count"),
    [([20.0], 0), ([20.0, 20.5], 0), ([20.0, 28.0, 30.0], 1), ([20.0, 22.0, 30.0], 2),
     ([20.0, 25.0, 30.0, 30.5, 31.0], 2), ([20.0, 21.0, 22.0, 23.0], 3), ([20.0, math.inf], 1),
     ([20.0, 45.0, 50.0, math.inf], 1), ([math.inf], 0), ([], 0)],
)  # fmt: skip
def test_the_layers_up_to_the_knee(ladder: list[float], count: int) -> None:
    assert _fewest(ladder) == count


def test_the_faster_of_equals_is_advised() -> None:
    before = Measured("", 20.0, 1.0)
    from lowprec.sensitivity.advice import _rank

    def order(*options: Measured) -> list[str]:
        return [o.precision for o in sorted(options, key=lambda o: _rank(o, before, options))]

    assert order(Measured("bf16", 29.0, 1.01), Measured("f32", 30.0, 1.0))[0] == "bf16"
    assert order(Measured("bf16", 29.0, 1.20), Measured("f32", 30.0, 1.0))[0] == "f32"
    assert order(Measured("bf16", 22.0, 0.90), Measured("f32", 30.0, 1.0))[0] == "f32"
