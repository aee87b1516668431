"""Layers get precisions: the least time within a budget of noise."""

from itertools import product

import numpy as np
import pytest

from lowprec.tuning.allocation import LayerCost, allocate, total_noise, why


def layer(name, seconds, noise=None):
    return LayerCost(name, "Conv", 1000, seconds, noise or {})


def total_seconds(layers, chosen):
    return sum(item.seconds[chosen[item.name]] for item in layers)


def test_without_pressure_every_layer_is_as_fast_as_it_can_be():
    layers = [
        layer("a", {"int8": 1.0, "f32": 3.0}, {"int8": 0.1}),
        layer("b", {"int8": 2.0, "f32": 1.0}, {"int8": 0.1}),
    ]
    assert allocate(layers, 1.0) == {"a": "int8", "b": "f32"}


def test_int8_stays_unless_another_precision_wins_clearly():
    close = layer("a", {"int8": 1.0, "bf16": 0.9, "f32": 2.0}, {"int8": 0.1})
    clear = layer("b", {"int8": 1.0, "bf16": 0.7, "f32": 2.0}, {"int8": 0.1})
    assert allocate([close, clear], 1.0) == {"a": "int8", "b": "bf16"}


def test_the_cheapest_cure_comes_first():
    layers = [
        layer("loud", {"int8": 1.0, "f32": 2.0}, {"int8": 0.9}),
        layer("quiet", {"int8": 1.0, "f32": 2.0}, {"int8": 0.1}),
    ]
    assert allocate(layers, 0.5) == {"loud": "f32", "quiet": "int8"}
    assert allocate(layers, 0.05) == {"loud": "f32", "quiet": "f32"}


def test_a_middle_precision_is_used_where_it_is_enough():
    costs = {"int8": 1.0, "bf16": 1.5, "f32": 3.0}
    layers = [layer("a", costs, {"int8": 0.5, "bf16": 0.01})]
    assert allocate(layers, 0.1) == {"a": "bf16"}
    assert allocate(layers, 0.001) == {"a": "f32"}


def test_steps_that_were_not_needed_are_taken_back():
    # The cheap cure of "a" comes first and is made superfluous by the one that "b" needs.
    layers = [
        layer("a", {"int8": 1.0, "f32": 1.1}, {"int8": 0.1}),
        layer("b", {"int8": 1.0, "f32": 9.0}, {"int8": 0.9}),
    ]
    assert allocate(layers, 0.2) == {"a": "int8", "b": "f32"}


def test_an_impossible_budget_gives_the_quietest_choice():
    layers = [layer("a", {"int8": 1.0, "bf16": 2.0}, {"int8": 0.5, "bf16": 0.2})]
    assert allocate(layers, 0.0) == {"a": "bf16"}
    assert allocate([], 0.0) == {}


@pytest.mark.parametrize("seed", range(40))
def test_little_is_lost_against_the_best_of_all_choices(seed):
    rng = np.random.default_rng(seed)
    layers = [
        layer(
            f"l{i}",
            {"int8": rng.uniform(0.5, 1.5), "bf16": rng.uniform(1, 2), "f32": rng.uniform(2, 4)},
            {"int8": rng.exponential(0.1), "bf16": rng.exponential(0.001)},
        )
        for i in range(6)
    ]
    budget = rng.uniform(0.0, 0.6)
    chosen = allocate(layers, budget)
    assert total_noise(layers, chosen) <= budget + 1e-12
    names = [item.name for item in layers]
    choices = (
        dict(zip(names, precisions, strict=True))
        for precisions in product(("int8", "bf16", "f32"), repeat=len(layers))
    )
    best = min(
        total_seconds(layers, choice) for choice in choices if total_noise(layers, choice) <= budget
    )
    assert total_seconds(layers, chosen) <= 1.25 * best


def test_reasons_name_the_times_and_the_noise():
    item = layer("a", {"int8": 0.001, "f32": 0.003}, {"int8": 0.25})
    assert why(item, "int8") == ""
    assert "0.25 of the outputs' power" in why(item, "f32")
    slow = layer("b", {"int8": 0.003, "f32": 0.001})
    assert why(slow, "f32") == "fastest here (f32 1 ms, int8 3 ms)"
