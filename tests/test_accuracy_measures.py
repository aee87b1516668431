"""The measures of `bench_accuracy.py` are what their names say."""

from __future__ import annotations

import numpy as np
import pytest
from accuracy_pictures import Box, boxes_of, overlap
from accuracy_tasks import (
    Criterion,
    area_under_curve,
    f1_score,
    pearson,
    ranks,
    signal_to_noise,
    spearman,
)

rng = np.random.default_rng(5)


def test_ties_share_their_mean_rank():
    assert ranks(np.array([30, 10, 20, 20])).tolist() == [4, 1, 2.5, 2.5]


def test_spearman_sees_order_and_pearson_lines():
    values = rng.standard_normal(50)
    assert spearman(values, np.exp(values)) == pytest.approx(1)
    assert spearman(values, -(values**3)) == pytest.approx(-1)
    assert pearson(values, 3 * values - 1) == pytest.approx(1)
    assert pearson(values, np.exp(3 * values)) < 0.9


def test_the_area_counts_pairs():
    is_positive = np.array([True, True, False, False, True])
    scores = np.array([0.9, 0.4, 0.4, 0.1, 0.2])
    pairs = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in scores[is_positive]
        for n in scores[~is_positive]
    ]
    assert area_under_curve(is_positive, scores) == pytest.approx(np.mean(pairs))


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    precision, recall = 6 / 10, 6 / 8
    expected = 2 * precision * recall / (precision + recall)
    assert f1_score(6, wanted=8, found=10) == pytest.approx(expected)


def test_a_hundredth_of_the_amplitude_is_40_decibel():
    exact = rng.standard_normal((4, 100))
    assert signal_to_noise(exact, 1.01 * exact) == pytest.approx(40)
    assert signal_to_noise(exact, exact) == 200


def test_boxes_are_found_and_grow():
    pytest.importorskip("scipy")
    probability = np.zeros((64, 64), np.float32)
    probability[10:20, 8:48] = 0.9
    probability[40:42, 3:5] = 0.9  # too small
    probability[50:60, 30:40] = 0.35  # not sure enough
    (box,) = boxes_of(probability)
    grow = 1.6 * 400 / 100
    assert box == pytest.approx((10 - grow, 8 - grow, 20 + grow, 48 + grow))


def test_overlap_is_intersection_over_union():
    a: Box = (0, 0, 10, 10)
    assert overlap(a, a) == 1
    assert overlap(a, (0, 5, 10, 15)) == pytest.approx(1 / 3)
    assert overlap(a, (0, 10, 10, 20)) == 0


def test_a_criterion_is_one_sided():
    within = Criterion("F1", within=0.01)
    assert within.is_met({"F1": 0.9}, {"F1": 0.95})
    assert within.is_met({"F1": 0.9}, {"F1": 0.895})
    assert not within.is_met({"F1": 0.9}, {"F1": 0.885})
    assert not within.is_met({"F1": 0.9}, {"F1": float("nan")})
    assert not Criterion("SQNR", at_least=20).is_met({}, {"SQNR": 19.9})
    assert Criterion("SQNR", at_least=20).is_met({}, {"SQNR": 20.1})
