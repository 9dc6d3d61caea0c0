from __future__ import annotations

import numpy as np
import oracles
import pytest
from scipy import stats

from zonal.findings.evaluation import figures, regression
from zonal.findings.evaluation.regression import Training, grams, ols, total, trainings
from zonal.findings.evaluation.schema import Score


def drawn(rows: int, features: int, seed: int = 0) -> tuple[oracles.Floats, oracles.Floats]:
    rng = np.random.default_rng(seed)
    x = (
        rng.normal(size=(rows, 3)) @ rng.normal(size=(3, features)) + rng.normal(size=(rows, features))
    ).astype(np.float32)
    return x.astype(float), x[:, 0] + rng.normal(size=rows)


def test_grams_of_cells_are_those_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = drawn(500, 4)
    cell = np.random.default_rng(1).integers(-1, 3, 500)
    target = np.where(cell < 0, np.nan, y)
    monkeypatch.setattr(regression, "BATCH", 64)
    for number, found in enumerate(grams(x.astype(np.float32), [target], cell, 3)):
        rows = np.column_stack([x, y])[cell == number]
        assert found.count == len(rows)
        assert found.scatter == pytest.approx(np.cov(rows, rowvar=False, ddof=0) * len(rows))


@pytest.mark.parametrize("features", [3, 40])
def test_least_squares_of_few_rows_is_that_of_least_norm(features: int) -> None:
    """Training sets of fewer rows than features: scikit-learn takes the least norm, too."""
    x, y = drawn(40, features)
    labels = np.arange(40) % 4
    folds = grams(x.astype(np.float32), [y], labels, 4)
    found = ols(trainings(folds, features, 2), folds, features)
    for one in regression.SETS:
        scaled = oracles.pipeline(one, oracles.LinearRegression(), 2)
        for fold, (train, test) in enumerate(oracles.splits(labels)):
            expected = scaled.fit(x[train], y[train]).score(x[test], y[test])
            assert found[one][fold, 0] == pytest.approx(expected, abs=1e-8)


def test_a_target_that_does_not_vary_in_a_fold_has_no_r2_there() -> None:
    x, y = drawn(60, 3)
    labels = np.arange(60) % 3
    y[labels == 1] = 0.1
    folds = grams(x.astype(np.float32), [y], labels, 3)
    found = ols(trainings(folds, 3, 2), folds, 3)["all"][:, 0]
    assert np.isnan(found).tolist() == [False, True, False]


def test_features_that_never_vary_are_no_training_set() -> None:
    folds = grams(np.ones((10, 2), np.float32), [np.arange(10.0)], np.arange(10) % 2, 2)
    assert Training.of(total(folds), 2, 1) is None


# ------------------------------------------------------------------ intervals


def test_the_interval_of_r2_covers_the_populations_as_often_as_it_says() -> None:
    """Many features of few rows: R2 in sample is far above the population's, its interval is not."""
    rng = np.random.default_rng(0)
    rows, features, truth = 120, 30, 0.5
    covered = flattered = 0
    for _ in range(400):
        x = rng.normal(size=(rows, features))
        y = x[:, 0] + rng.normal(size=rows)
        a = np.column_stack([x, np.ones(rows)])
        error = y - a @ np.linalg.lstsq(a, y, rcond=None)[0]
        found = figures.in_sample_r2(1 - error.var() / y.var(), rows, features)
        assert found.low is not None and found.high is not None and found.value is not None
        covered += found.low <= truth <= found.high
        flattered += found.value > truth
    assert 0.92 <= covered / 400 <= 0.98
    assert flattered / 400 > 0.9


def test_the_interval_of_r2_is_olkin_and_finns_where_rows_are_many() -> None:
    r2, rows, features = 0.4, 100_000, 10
    error = np.sqrt(4 * r2 * (1 - r2) ** 2 * (rows - features - 1) ** 2 / ((rows**2 - 1) * (rows + 3)))
    found = figures.in_sample_r2(r2, rows, features)
    assert (found.low, found.high) == pytest.approx((r2 - 1.96 * error, r2 + 1.96 * error), abs=2e-4)


@pytest.mark.parametrize(("r2", "rows", "terms"), [(0.0, 50, 3), (0.02, 50, 10), (1.0, 50, 3), (0.5, 4, 3)])
def test_the_interval_of_r2_stays_between_nought_and_one(r2: float, rows: int, terms: int) -> None:
    found = figures.in_sample_r2(r2, rows, terms)
    if rows - terms <= 1:
        assert (found.low, found.high) == (None, None)
    else:
        assert found.low is not None and found.high is not None and 0 <= found.low <= found.high <= 1


def test_the_interval_of_given_predictions_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(500):
        said = rng.normal(size=200)
        y = said + rng.normal(size=200)
        found = figures.r2_of_rows(y, said)
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.5 <= found.high
    assert 0.91 <= covered / 500 <= 0.98


def test_shares_and_correlations_have_scipys_intervals() -> None:
    found = figures.share(594, 1000)
    expected = stats.binomtest(594, 1000).proportion_ci(method="wilson")
    assert (found.value, found.low, found.high) == pytest.approx((0.594, expected.low, expected.high))
    p, n, z = 0.594, 1000, stats.norm.ppf(0.975)
    centre, half = (
        (p + z**2 / (2 * n)) / (1 + z**2 / n),
        z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n),
    )
    assert (found.low, found.high) == pytest.approx((centre - half, centre + half))
    x, y = drawn(40, 1)
    r = stats.pearsonr(x[:, 0], y)
    interval = r.confidence_interval()
    one = figures.correlation(r.statistic, 40)
    assert (one.low, one.high) == pytest.approx((interval.low, interval.high))
    assert figures.correlation(0.5, 3).low is None and figures.correlation(float("nan"), 9).value is None


def test_scores_of_folds_that_are_not_defined_count_for_nothing() -> None:
    sizes = [10, 12, 14, 4]
    found = figures.score([0.5, float("nan"), 0.7, 0.9], sizes)
    assert found.folds == (0.5, None, 0.7, 0.9)
    ratio = np.mean([size / (40 - size) for size in sizes])
    error = np.sqrt((1 / 3 + ratio) * np.var([0.5, 0.7, 0.9], ddof=1))
    low, high = stats.t.interval(0.95, 2, 0.7, error)
    assert (found.mean, found.low, found.high) == pytest.approx((0.7, low, min(high, 1)))
    alone = figures.score([float("nan"), 0.5], [5, 5])
    assert (alone.mean, alone.sd, alone.low) == (0.5, None, None)
    assert figures.score([float("nan")] * 2, [5, 5]).mean is None


def test_the_gap_has_welchs_interval() -> None:
    sizes = [20] * 5
    random, spatial = (
        figures.score(values, sizes) for values in ([0.8, 0.82, 0.81, 0.79, 0.83], [0.5, 0.7, 0.3, 0.6, 0.4])
    )
    found = figures.gap(random, spatial, (sizes, sizes))
    errors = [(1 / 5 + 1 / 4) * (one.sd or 0) ** 2 for one in (random, spatial)]
    freedom = sum(errors) ** 2 / sum(error**2 / 4 for error in errors)
    low, high = stats.t.interval(0.95, freedom, 0.81 - 0.5, np.sqrt(sum(errors)))
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.31, low, high))
    nothing = Score(mean=None, sd=None, low=None, high=None, folds=(None, None))
    assert figures.gap(random, nothing, (sizes, [])) is None
    same = figures.score([0.5] * 5, sizes)
    assert figures.gap(same, same, (sizes, sizes)) == figures.Figure(value=0.0, low=0.0, high=0.0)
