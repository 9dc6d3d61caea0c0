from __future__ import annotations

import numpy as np
import oracles
import pytest
from numpy.typing import NDArray

from zonal.findings.evaluation import classification
from zonal.findings.evaluation.classification import held, logistic


def drawn(rows: int, features: int, spread: float, seed: int = 0) -> tuple[oracles.Floats, oracles.Floats]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, features)) * np.geomspace(0.1, 3, features)
    return x, (x[:, -1] + spread * rng.normal(size=rows) > 0.4).astype(float)


def chances(x: oracles.Floats, y: oracles.Floats, trained: NDArray[np.intp]) -> oracles.Floats:
    return logistic(y)(lambda rows: x[rows], trained)(np.arange(len(y)))


@pytest.mark.parametrize(
    ("rows", "features", "spread"),
    [(400, 5, 1.0), (60, 40, 0.5), (200, 3, 0.0), (40, 1, 100.0)],
    ids=["plain", "more features than it carries", "separable", "noise"],
)
def test_the_optimum_is_scikit_learns(rows: int, features: int, spread: float) -> None:
    x, y = drawn(rows, features, spread)
    trained = np.flatnonzero(np.arange(rows) % 4 > 0)
    expected = oracles.logistic().fit(x[trained], y[trained]).predict_proba(x)[:, 1]
    assert chances(x, y, trained) == pytest.approx(expected, abs=1e-6)


def test_the_optimum_is_the_same_where_some_rows_tell_the_curvature(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = drawn(3000, 8, 1.0)
    rows = np.arange(3000)
    whole = chances(x, y, rows)
    monkeypatch.setattr(classification, "CURVED", 300)
    monkeypatch.setattr(classification, "BLOCK", 128)
    assert chances(x, y, rows) == pytest.approx(whole, abs=1e-9)


def test_features_that_say_nothing_leave_the_share_of_class_one() -> None:
    y = np.array([1.0] * 30 + [0.0] * 10)
    assert chances(np.zeros((40, 2)), y, np.arange(40)) == pytest.approx(0.75)


def test_folds_are_measured_where_they_can_be() -> None:
    x, y = drawn(90, 3, 1.0)
    labels = np.arange(90) % 3
    y[labels == 2] = 0
    found = held(logistic(y), lambda fold: lambda rows: x[rows], y, labels, 3)
    assert found is not None
    assert [value is None for value in found.auc.folds] == [False, False, True]
    assert [value is None for value in found.f1.folds] == [False, False, True]
    assert None not in found.accuracy.folds + found.brier.folds
    assert np.sum(found.confusion) == 90
    y[labels != 2] = 1
    assert held(logistic(y), lambda fold: lambda rows: x[rows], y, np.where(labels == 2, 1, 0), 2) is None
