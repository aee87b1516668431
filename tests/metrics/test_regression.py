"""Errors and correlations equal their definitions."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from refusals import refused
from scipy import stats

from lowprec.errors import DataError, UnsupportedError
from lowprec.metrics import MAE, MSE, RMSE, Loss, Pearson, Spearman

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(40, 3)).astype(np.float32)
KNOWN = VALUES + RNG.normal(size=(40, 3)).round(1)


def score(metric, outputs=VALUES, labels=KNOWN):
    for start in range(0, len(outputs), 7):
        metric.update(outputs[start : start + 7], labels[start : start + 7])
    return metric.result()


def test_errors():
    difference = VALUES.astype(np.float64) - KNOWN
    assert score(MSE()) == pytest.approx((difference**2).mean())
    assert score(RMSE()) == pytest.approx(np.sqrt((difference**2).mean()))
    assert score(MAE()) == pytest.approx(np.abs(difference).mean())
    assert score(Loss()) == pytest.approx(VALUES.astype(np.float64).mean())
    assert not any(kind.higher_is_better for kind in (MSE, RMSE, MAE, Loss))


def test_correlations():
    x, y = VALUES.ravel().astype(np.float64), KNOWN.ravel()
    assert score(Pearson()) == pytest.approx(stats.pearsonr(x, y)[0])
    assert score(Spearman()) == pytest.approx(stats.spearmanr(x, y)[0])
    assert score(Pearson(), VALUES[:, :1], KNOWN[:, 0]) == pytest.approx(
        stats.pearsonr(x[::3], y[::3])[0]
    )
    with refused(DataError, "Pearson", "equal"):
        score(Pearson(), VALUES, np.zeros_like(KNOWN))


def test_shapes_must_fit_up_to_axes_of_one():
    with refused(DataError, "MSE", "[40, 3]", "[120]"):
        MSE().update(VALUES, KNOWN.ravel())
    with refused(DataError):
        MSE().update(VALUES, KNOWN.T)


def test_a_missing_package_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with refused(UnsupportedError, "Pearson", "scipy", "pip install 'lowprec[metrics]'"):
        score(Pearson())
