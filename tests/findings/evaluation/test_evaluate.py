"""Whole evaluations: every figure of evaluation.json equals scikit-learn's, NumPy's or SciPy's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import oracles
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sklearn import metrics
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from zonal.config.analysis import EvaluationSettings
from zonal.errors import InputError
from zonal.findings.evaluation import regression
from zonal.findings.evaluation.assess import assess
from zonal.findings.evaluation.evaluate import evaluate_table, markdown
from zonal.findings.evaluation.schema import Evaluation, Folds, Regression, Score
from zonal.io.store.folder import Folder
from zonal.io.table.finished import load_table

SETS = ("all", "pca", "pca_raw")
EXACT = {"rel": 1e-8, "abs": 1e-8}


def evaluated(folder: Path, table: Path, **asked: Any) -> Evaluation:
    """Evaluate, and read back what was written."""
    settings = EvaluationSettings.model_validate(asked)
    evaluate_table(load_table(str(table)), settings, Folder(str(folder)), "found", lambda place: {})
    written = (folder / "found.json").read_text()
    assert "NaN" not in written and "Infinity" not in written
    return Evaluation.model_validate_json(written)


def row(found: Evaluation, target: str, features: str = "all", model: str = "ols") -> Regression:
    (one,) = [r for r in found.regressions if (r.target, r.features, r.model) == (target, features, model)]
    return one


def equal(score: Score | None, values: Any, sizes: list[int], least: float = -np.inf) -> None:
    assert score is not None
    assert score.folds == pytest.approx(values, **EXACT)
    assert score.mean == pytest.approx(np.mean(values), **EXACT)
    assert score.sd == pytest.approx(np.std(values, ddof=1), **EXACT)
    low, high = oracles.corrected(np.asarray(values), sizes)
    assert score.low == pytest.approx(max(low, least), **EXACT)
    assert score.high == pytest.approx(min(high, 1.0), **EXACT)


def folds(found: Evaluation, kind: str, target: str = "") -> Folds:
    return next(
        f
        for f in found.folds
        if f.kind == kind and not f.stratified and (target in f.targets or not f.targets)
    )


# ------------------------------------------------------------------ a census of one's own


def census(rows: int = 700, seed: int = 0) -> pd.DataFrame:
    """Blocks with zonal's columns; features that know something of some attributes, not of others."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(rows, 6))
    features = hidden @ rng.normal(size=(6, 14)) + 0.5 * rng.normal(size=(rows, 14)) + rng.normal(size=14) * 3
    county = rng.integers(1, 13, rows)
    land = np.exp(10 + hidden[:, 0]).astype(np.int64)
    people = rng.poisson(np.exp(2 + 0.8 * hidden[:, 1]))
    frame = pd.DataFrame(
        {
            "GEOID20": [f"06{c:03d}{n:010d}" for n, c in enumerate(county)],
            "STATEFP20": "06",
            "COUNTYFP20": [f"{c:03d}" for c in county],
            "TRACTCE20": [f"{n % 40:06d}" for n in range(rows)],
            "UR20": np.where(hidden[:, 2] + 0.7 * rng.normal(size=rows) > -0.2, "U", "R"),
            "ALAND20": land,
            "AWATER20": (land * rng.random(rows) * (hidden[:, 3] > 0)).astype(np.int64),
            "HOUSING20": rng.poisson(people / 2.5),
            "POP20": people,
            "pixel_count": land / 100,
        }
    )
    names = [f"A{n:02d}_{stat}" for stat in ("mean", "std") for n in range(7)]
    return pd.concat([frame, pd.DataFrame(features.astype(np.float32), columns=names)], axis=1)


def stored(frame: pd.DataFrame, path: Path, zone_id: str | None = "GEOID20") -> Path:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    about = {"zonal": json.dumps({"zone_id": zone_id, "year": 2020})} if zone_id else {}
    pq.write_table(table.replace_schema_metadata(about), path)
    return path


def matrix(frame: pd.DataFrame) -> oracles.Floats:
    names = [name for name in frame if name.startswith("A") and name.endswith(("_mean", "_std"))]
    return frame[names].to_numpy(float)


def truth(frame: pd.DataFrame) -> dict[str, oracles.Floats]:
    """The post's variables, null as NaN."""
    land, water = frame["ALAND20"].to_numpy(float), frame["AWATER20"].to_numpy(float)
    people, homes = frame["POP20"].to_numpy(float), frame["HOUSING20"].to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "log_land_area": np.log(land),
            "urban": frame["UR20"].map({"U": 1.0, "R": 0.0}).to_numpy(float),
            "log_population": np.log(1 + people),
            "water_fraction": water / (land + water),
            "population_density": people / (land / 1e6),
            "housing_density": homes / (land / 1e6),
            "population": people,
            "housing_units": homes,
        }
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in found.items()}


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Evaluation]:
    """Some rows lack a feature, some an attribute, some have no land."""
    folder = tmp_path_factory.mktemp("census")
    frame = census()
    frame.loc[3:9, "A03_mean"] = np.nan
    frame.loc[20:29, "ALAND20"] = 0
    frame["POP20"] = frame["POP20"].astype("Int64")
    frame.loc[[40, 41], "POP20"] = pd.NA
    frame.loc[[50, 51, 52], "UR20"] = None
    frame.loc[[53], "UR20"] = "C"
    found = evaluated(folder, stored(frame, folder / "t.parquet"), models="ridge,ols")
    used = frame.drop(index=range(3, 10)).reset_index(drop=True)
    used["POP20"] = used["POP20"].astype(float)
    return used, found


@pytest.mark.parametrize(
    "target",
    [
        "log_land_area", "urban", "log_population", "water_fraction", "population_density", "housing_density",
        "population", "housing_units",
    ],
)  # fmt: skip
def test_least_squares_equals_scikit_learns_pipelines(
    blocks: tuple[pd.DataFrame, Evaluation], target: str
) -> None:
    frame, found = blocks
    values = truth(frame)[target]
    known = np.isfinite(values)
    x, y = matrix(frame)[known], values[known]
    county = oracles.dealt(frame.loc[known, "COUNTYFP20"].to_list())
    random, spatial = oracles.shuffled(len(y)), oracles.splits(county)
    sizes = [len(test) for _, test in random], [len(test) for _, test in spatial]
    assert folds(found, "spatial").by == "county"
    for features in SETS:
        one = row(found, target, features)
        assert (one.rows, one.dropped, one.skipped) == (len(y), len(frame) - len(y), None)
        assert one.in_sample is not None and one.gap is not None
        assert one.in_sample.value == pytest.approx(oracles.in_sample(features, x, y), **EXACT)
        first, second = (oracles.held_out(features, x, y, cv) for cv in (random, spatial))
        equal(one.random, first, sizes[0])
        equal(one.spatial, second, sizes[1])
        assert one.gap.value == pytest.approx(first.mean() - second.mean(), **EXACT)
        assert one.gap.low is not None and one.gap.high is not None
        assert one.gap.low < one.gap.value < one.gap.high


def test_ridge_equals_scikit_learns_with_a_nested_search(blocks: tuple[pd.DataFrame, Evaluation]) -> None:
    frame, found = blocks
    alphas = [float(alpha) for alpha in np.logspace(-2, 6, 17)]
    values = truth(frame)["housing_units"]
    x, county = matrix(frame), oracles.dealt(frame["COUNTYFP20"].to_list())
    labels = {"random": np.zeros(len(values), int), "spatial": county}
    for fold, (_, test) in enumerate(oracles.shuffled(len(values))):
        labels["random"][test] = fold
    for features in ("all", "pca_raw"):
        one = row(found, "housing_units", features, "ridge")
        for kind, penalties in (("random", one.alpha), ("spatial", one.alpha_spatial)):
            score = getattr(one, kind)
            for fold in (0, 3):
                train, test = np.flatnonzero(labels[kind] != fold), np.flatnonzero(labels[kind] == fold)
                inner = [
                    (np.flatnonzero(labels[kind][train] != k), np.flatnonzero(labels[kind][train] == k))
                    for k in range(5)
                    if k != fold
                ]
                alpha = oracles.ridge_penalty(features, x[train], values[train], inner, alphas)
                assert penalties is not None and penalties[fold] == alpha
                (r2,) = oracles.held_out(features, x, values, [(train, test)], Ridge(alpha))
                assert score.folds[fold] == pytest.approx(r2, **EXACT)
        whole = oracles.ridge_penalty(features, x, values, oracles.splits(labels["random"]), alphas)
        r2 = oracles.pipeline(features, Ridge(whole)).fit(x, values).score(x, values)
        assert one.in_sample is not None and one.in_sample.value == pytest.approx(r2, **EXACT)


def test_logistic_regression_equals_scikit_learns(blocks: tuple[pd.DataFrame, Evaluation]) -> None:
    frame, found = blocks
    values = truth(frame)["urban"]
    known = np.isfinite(values)
    x, y = matrix(frame)[known], values[known]
    county = oracles.dealt(frame.loc[known, "COUNTYFP20"].to_list())
    for features in SETS:
        (one,) = [c for c in found.classifications if c.features == features]
        share = max(y.mean(), 1 - y.mean())
        assert one.baseline is not None and one.baseline.value == pytest.approx(share, **EXACT)
        assert (one.rows, one.dropped, one.positive) == (len(y), 4, "urban")
        for held, cv in ((one.random, oracles.stratified(y)), (one.spatial, oracles.splits(county))):
            assert held is not None
            sizes = [len(test) for _, test in cv]
            model = oracles.pipeline(features, oracles.logistic())
            confusion = np.zeros((2, 2), int)
            measures: dict[str, list[float]] = {}
            for train, test in cv:
                chance = model.fit(x[train], y[train]).predict_proba(x[test])[:, 1]
                said = model.predict(x[test])
                confusion += metrics.confusion_matrix(y[test], said)
                for name, value in {
                    "accuracy": metrics.accuracy_score(y[test], said),
                    "balanced_accuracy": metrics.balanced_accuracy_score(y[test], said),
                    "f1": metrics.f1_score(y[test], said),
                    "auc": metrics.roc_auc_score(y[test], chance),
                    "brier": metrics.brier_score_loss(y[test], chance),
                }.items():
                    measures.setdefault(name, []).append(value)
            assert np.array_equal(held.confusion, confusion)
            for name, folds in measures.items():
                score = getattr(held, name)
                assert score.folds == pytest.approx(folds, abs=1e-7), name
                low, high = oracles.corrected(np.array(folds), sizes)
                assert (score.low, score.high) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-6)
        assert one.gap is not None and one.random is not None and one.spatial is not None
        assert one.gap.value == pytest.approx(one.random.accuracy.mean - one.spatial.accuracy.mean)


def test_correlations_equal_those_of_scikit_learns_scores(blocks: tuple[pd.DataFrame, Evaluation]) -> None:
    frame, found = blocks
    x = matrix(frame)
    scores = {
        "pca": PCA(5, svd_solver="full").fit_transform(StandardScaler().fit_transform(x)),
        "pca_raw": PCA(5, svd_solver="full").fit_transform(x),
    }
    assert len(found.correlations) == 8 * 2 * 5
    for one in found.correlations:
        values = truth(frame)[one.target]
        known = np.isfinite(values)
        expected = stats.pearsonr(scores[one.features][known, one.component - 1], values[known])
        interval = expected.confidence_interval(0.95)
        assert one.rows == known.sum()
        assert (one.r.value, one.r.low, one.r.high) == pytest.approx(
            (expected.statistic, interval.low, interval.high), **EXACT
        )


def test_explained_shares_equal_scikit_learns(blocks: tuple[pd.DataFrame, Evaluation]) -> None:
    frame, found = blocks
    x = matrix(frame)
    for one, values in zip(found.pca, (StandardScaler().fit_transform(x), x), strict=True):
        expected = PCA(svd_solver="full").fit(values).explained_variance_ratio_
        assert one.explained == pytest.approx(expected, **EXACT)
        assert one.together == pytest.approx(expected[:10].sum(), **EXACT)
        without = [
            PCA(svd_solver="full")
            .fit(StandardScaler().fit_transform(x[train]) if one.features == "pca" else x[train])
            .explained_variance_ratio_[:10]
            .sum()
            for train, _ in oracles.shuffled(len(x))
        ]
        error = np.sqrt(4 / 5 * np.sum((without - np.mean(without)) ** 2))
        expected = stats.t.interval(0.95, 4, loc=one.together, scale=error)
        assert (one.low, one.high) == pytest.approx(np.clip(expected, 0, 1), **EXACT)


def test_rows_are_counted_by_what_became_of_them(blocks: tuple[pd.DataFrame, Evaluation]) -> None:
    _, found = blocks
    assert (found.rows.table, found.rows.without_features, found.rows.used) == (700, 7, 693)
    assert found.year == 2020
    assert sum(folds(found, "random").rows) == sum(folds(found, "spatial").rows) == 693
    of_land = [f for f in found.folds if "log_land_area" in f.targets]
    assert [sum(f.rows) for f in of_land] == [683, 683]
    assert set(of_land[0].targets) == {"log_land_area", "housing_density"}


@threadpool_limits.wrap(limits=1)  # so few rows make threads wait for each other
def test_boosting_equals_scikit_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = census(120)
    path = stored(frame, tmp_path / "t.parquet")
    found = evaluated(tmp_path, path, models="boosting", targets="population", seed=3)
    x, y = matrix(frame).astype(np.float32), frame["POP20"].to_numpy(float)
    one = row(found, "population", "all", "boosting")
    cv = oracles.shuffled(120, seed=3)
    expected = []
    for train, test in cv:
        model = HistGradientBoostingRegressor(random_state=3).fit(x[train], y[train])
        expected.append(metrics.r2_score(y[test], model.predict(x[test])))
    equal(one.random, expected, [len(test) for _, test in cv])
    inside = HistGradientBoostingRegressor(random_state=3).fit(x, y).score(x, y)
    assert one.in_sample is not None and one.in_sample.value == pytest.approx(inside, **EXACT)
    urban = (frame["UR20"] == "U").to_numpy(int)
    said = cross_val_predict(
        HistGradientBoostingClassifier(random_state=3), x, urban, cv=oracles.stratified(urban, seed=3)
    )
    (other,) = [c for c in found.classifications if (c.model, c.features) == ("boosting", "all")]
    assert other.random is not None
    assert np.array_equal(other.random.confusion, metrics.confusion_matrix(urban, said))
    monkeypatch.setattr(regression, "LEARNED", 60)
    fewer = row(
        evaluated(tmp_path, path, models="boosting", targets="population"), "population", "all", "boosting"
    )
    assert fewer.random is not None and one.random is not None and fewer.random.mean != one.random.mean


# ------------------------------------------------------------------ random and spatial folds


def field(points: oracles.Floats, seed: int, waves: int) -> oracles.Floats:
    """Smooth functions of place, with nothing else in common: float64 ndarray[row, 12]."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(12, waves, 2)) * 12
    phase = rng.uniform(0, 2 * np.pi, (12, waves))
    return np.cos(np.einsum("rd,fwd->rfw", points, directions) + phase).sum(axis=2)


def somewhere(folder: Path, *, smooth: bool) -> Path:
    rng = np.random.default_rng(5)
    points = rng.random((900, 2))
    features = field(points, 1, 4) if smooth else rng.normal(size=(900, 12))
    target = field(points, 2, 4)[:, 0] if smooth else features[:, 0] + rng.normal(size=900)
    places = {"longitude": -120 + points[:, 0], "latitude": 46 + points[:, 1], "price": target}
    frame = pd.DataFrame({**places, **{f"A{n:02d}": features[:, n] for n in range(12)}})
    return stored(frame, folder / "places.parquet", None)


def test_where_neighbours_are_alike_random_folds_flatter_and_spatial_folds_do_not(tmp_path: Path) -> None:
    """Features and target are smooth fields that know nothing of each other: only places are learned."""
    path = somewhere(tmp_path, smooth=True)
    found = evaluated(
        tmp_path, path, targets="price", models="boosting", classes="", spatial="grid", block_km=25
    )
    one = row(found, "price", "all", "boosting")
    assert one.random is not None and one.spatial is not None and one.gap is not None
    assert one.random.mean is not None and one.random.mean > 0.7
    assert one.spatial.high is not None and one.spatial.high < 0.3 and (one.spatial.mean or 0) < 0
    assert one.gap.low is not None and one.gap.low > 0.4
    linear = row(found, "price")
    assert linear.gap is not None and linear.gap.value is not None and linear.gap.value > 0.3


def test_where_neighbours_are_not_alike_both_kinds_of_folds_agree(tmp_path: Path) -> None:
    found = evaluated(tmp_path, somewhere(tmp_path, smooth=False), targets="price")
    one = row(found, "price")
    assert one.gap is not None and one.gap.low is not None and one.gap.high is not None
    assert abs(one.gap.value or 0) < 0.03 and one.gap.low < 0 < one.gap.high
    assert one.in_sample is not None and one.in_sample.low is not None and one.in_sample.high is not None
    assert one.in_sample.low < 0.5 < one.in_sample.high  # the variances of signal and noise are equal


# ------------------------------------------------------------------ real vectors


def test_real_vectors_are_evaluated_as_scikit_learn_would(tmp_path: Path, shared: Path) -> None:
    path = shared / "data/aef_2024_points_sf_bay.csv"
    found = evaluated(tmp_path, path, targets="trees,water,log(built)", classes="dw_label,region", folds=4)
    frame = pd.read_csv(path)
    x = frame[[f"A{n:02d}" for n in range(64)]].to_numpy(np.float32).astype(float)
    assert found.feature_names == tuple(f"A{n:02d}" for n in range(64))
    about = folds(found, "spatial")
    assert (about.by, about.skipped) == ("grid", None)
    from pyproj import Transformer

    metres = Transformer.from_crs("EPSG:4326", "EPSG:6933", always_xy=True).transform(
        frame["longitude"].to_numpy(), frame["latitude"].to_numpy()
    )
    assert about.block_km is not None
    column, line = np.floor(np.array(metres) / (1000 * about.block_km)).astype(int)
    labels = oracles.dealt(list(column * 10**6 + line), 4)
    assert about.rows == tuple(np.bincount(labels))
    for target, values in (
        ("trees", frame["trees"]),
        ("water", frame["water"]),
        ("log(built)", np.log(frame["built"])),
    ):
        for features in SETS:
            one = row(found, target, features)
            y = np.asarray(values, float)
            assert one.in_sample is not None
            assert one.in_sample.value == pytest.approx(oracles.in_sample(features, x, y), abs=1e-9)
            for score, cv in ((one.random, oracles.shuffled(720, 4)), (one.spatial, oracles.splits(labels))):
                expected = oracles.held_out(features, x, y, cv)
                assert score is not None and score.folds == pytest.approx(expected, abs=1e-8)
    reasons = {one.target: one.skipped for one in found.classifications}
    labels_there, regions = frame["dw_label"].nunique(), frame["region"].nunique()
    assert reasons["dw_label"] == f"dw_label has {labels_there} values; expected two"
    assert (reasons["region"] is None) == (regions == 2)


# ------------------------------------------------------------------ tables that lack something


def test_an_attribute_that_is_absent_null_or_constant_skips_its_row_with_the_reason(tmp_path: Path) -> None:
    frame = census(200).drop(columns=["POP20"])
    frame["HOUSING20"] = pd.array([pd.NA] * 200, "Int64")
    frame["UR20"] = "U"
    frame["AWATER20"] = 0
    found = evaluated(tmp_path, stored(frame, tmp_path / "t.parquet"))
    reasons = {one.target: one.skipped for one in found.regressions}
    assert reasons["population"] == "there is no column POP20 (nor POP10 nor POP100)"
    assert reasons["housing_units"] == reasons["housing_density"] == "HOUSING20 is null in all 200 rows"
    assert reasons["urban"] == "urban is 1 in all 200 rows that have it"
    assert reasons["water_fraction"] == "water_fraction is 0 in all 200 rows that have it"
    assert reasons["log_land_area"] is None
    assert {one.skipped for one in found.classifications} == {"urban is the same in all rows that have it"}
    assert {one.skipped for one in found.correlations if one.target == "population"} == {
        reasons["population"]
    }
    text = (tmp_path / "found.md").read_text()
    assert "- housing units: HOUSING20 is null in all 200 rows" in text


def test_what_is_written_fits_the_schema_whole_or_empty(
    blocks: tuple[pd.DataFrame, Evaluation], tmp_path: Path
) -> None:
    evaluated(tmp_path, stored(census(8), tmp_path / "t.parquet"))
    written = json.loads((tmp_path / "found.json").read_text())
    for one in (written, json.loads(blocks[1].model_dump_json())):
        jsonschema.validate(one, Evaluation.model_json_schema())


def test_an_evaluation_of_nothing_but_features_is_one(tmp_path: Path) -> None:
    frame = census(40)[["GEOID20", *[f"A{n:02d}_mean" for n in range(7)]]]
    found = evaluated(tmp_path, stored(frame, tmp_path / "t.parquet"))
    assert all(one.skipped for one in (*found.regressions, *found.classifications, *found.correlations))
    assert [one.features for one in found.pca] == ["pca", "pca_raw"]


def test_features_that_never_vary_or_repeat_another_change_nothing(tmp_path: Path) -> None:
    frame = census(300)
    plain = evaluated(tmp_path, stored(frame, tmp_path / "a.parquet"), targets="population")
    frame["A07_mean"] = np.float32(0.1)
    frame["A08_mean"] = frame["A00_mean"]
    found = evaluated(tmp_path, stored(frame, tmp_path / "b.parquet"), targets="population")
    first, second = row(plain, "population"), row(found, "population")
    x, y = matrix(frame), frame["POP20"].to_numpy(float)
    assert second.in_sample is not None and first.in_sample is not None and second.random is not None
    assert second.in_sample.model_dump() == pytest.approx(first.in_sample.model_dump(), **EXACT)
    assert second.random.folds == pytest.approx(oracles.held_out("all", x, y, oracles.shuffled(300)), **EXACT)
    assert "Features that never vary, and say nothing: A07_mean." in found.notes


def test_a_component_that_holds_nothing_has_no_correlation(tmp_path: Path) -> None:
    frame = census(200)[["GEOID20", "POP20", "A00_mean"]].assign(A01_mean=lambda f: f["A00_mean"] * 2)
    found = evaluated(tmp_path, stored(frame, tmp_path / "t.parquet"), targets="POP20")
    assert [one.r.value is None for one in found.correlations] == [False, True] * 2
    assert row(found, "POP20").in_sample == row(found, "POP20", "pca").in_sample


def test_a_feature_that_varies_in_one_fold_only_is_not_learned_from_rounding(tmp_path: Path) -> None:
    frame = census(300)
    (_, held), *_ = oracles.shuffled(300)
    frame["A07_mean"] = np.float32(0.1)
    frame.loc[held, "A07_mean"] = np.random.default_rng(0).normal(size=len(held)).astype(np.float32)
    found = evaluated(tmp_path, stored(frame, tmp_path / "t.parquet"), targets="population")
    one = row(found, "population")
    x, y = matrix(frame), frame["POP20"].to_numpy(float)
    assert one.random is not None
    assert one.random.folds == pytest.approx(oracles.held_out("all", x, y, oracles.shuffled(300)), **EXACT)


@pytest.mark.parametrize("rows", [2, 6, 15])
def test_few_rows_skip_what_they_cannot_carry(tmp_path: Path, rows: int) -> None:
    found = evaluated(tmp_path, stored(census(rows), tmp_path / "t.parquet"))
    one = row(found, "population")
    assert one.skipped is not None and "14 features with 5 folds take 16 or more" in one.skipped
    assert (row(found, "log_land_area", "pca").skipped is None) == (rows == 15)


def test_no_row_with_features_is_an_error(tmp_path: Path) -> None:
    frame = census(5)
    frame["A00_mean"] = np.nan
    with pytest.raises(InputError, match=r"none of its 5 rows has all 14 features \(A00_mean"):
        evaluated(tmp_path, stored(frame, tmp_path / "t.parquet"))
    with pytest.raises(InputError, match="none of its 0 rows"):
        evaluated(tmp_path, stored(frame.iloc[:0], tmp_path / "t.parquet"))
    with pytest.raises(InputError, match="two zones"):
        evaluated(tmp_path, stored(census(1), tmp_path / "t.parquet"))


def test_a_fold_of_one_class_has_no_measure_that_takes_two(tmp_path: Path) -> None:
    frame = census(300)
    frame["UR20"] = np.where(frame["COUNTYFP20"] <= "006", "U", "R")
    found = evaluated(
        tmp_path, stored(frame, tmp_path / "t.parquet"), targets="population", spatial="UR20", folds=2
    )
    held = found.classifications[0].spatial
    assert held is None and found.classifications[0].random is not None
    found = evaluated(
        tmp_path, stored(frame, tmp_path / "t.parquet"), targets="population", spatial="COUNTYFP20", folds=12
    )
    held = found.classifications[0].spatial
    assert held is not None
    assert set(held.auc.folds) == set(held.balanced_accuracy.folds) == {None}
    assert None not in held.accuracy.folds and held.f1.folds.count(None) == 6
    assert any("12 of the spatial folds hold or learn one class only" in note for note in found.notes)


# ------------------------------------------------------------------ joined attributes


def test_a_file_is_joined_by_key_and_rows_that_do_not_meet_are_counted(tmp_path: Path) -> None:
    frame = census(300)
    path = stored(frame, tmp_path / "t.parquet")
    rng = np.random.default_rng(1)
    rent = pd.DataFrame(
        {"id": frame["GEOID20"].astype(np.int64), "rent": matrix(frame)[:, 0] + rng.normal(size=300)}
    )
    rent["POP20"] = frame["POP20"] + 1
    rent["name"] = "x"
    rent = rent.iloc[40:].sample(frac=1, random_state=0)
    rent = pd.concat([rent, pd.DataFrame({"id": [1, 2, 3], "rent": 0.0, "POP20": 1, "name": "y"})])
    rent.to_csv(tmp_path / "rent.csv", index=False)  # leading zeros are lost
    found = evaluated(tmp_path, path, attributes=str(tmp_path / "rent.csv"), on="GEOID20=id")
    joined = found.attributes
    assert joined is not None
    assert (joined.matched, joined.table_unmatched, joined.file_unmatched) == (260, 40, 3)
    assert joined.on == ("GEOID20", "id") and joined.replaced == ("POP20",)
    names = list(dict.fromkeys(one.target for one in found.regressions))
    assert names[-2:] == ["rent", "POP20"] and "housing_units" in names
    one, people = row(found, "rent"), row(found, "population")
    assert (one.rows, one.dropped) == (260, 40)
    ordered = rent.set_index("id").loc[frame["GEOID20"].astype(np.int64)[40:]]
    assert one.in_sample is not None and people.in_sample is not None
    x = matrix(frame)[40:]
    assert one.in_sample.value == pytest.approx(
        oracles.in_sample("all", x, ordered["rent"].to_numpy()), **EXACT
    )
    expected = oracles.in_sample("all", x, ordered["POP20"].to_numpy(float))
    assert people.in_sample.value == pytest.approx(expected, **EXACT)


def test_what_does_not_fit_is_an_error(tmp_path: Path) -> None:
    frame = census(60)
    path = stored(frame, tmp_path / "t.parquet")
    pd.DataFrame({"GEOID20": ["1", "1"], "rent": [1, 2]}).to_parquet(tmp_path / "twice.parquet")
    with pytest.raises(InputError, match=r"twice.parquet: GEOID20: 1 ids occur more than once"):
        evaluated(tmp_path, path, attributes=str(tmp_path / "twice.parquet"))
    pd.DataFrame({"GEOID20": ["1", "2"], "rent": [1, 2]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"no row has a key of .*: its GEOID20 is like '1'"):
        evaluated(tmp_path, path, attributes=str(tmp_path / "other.parquet"))
    for asked, says in (
        ({"targets": "populatin"}, "target 'populatin': neither .* did you mean 'population'"),
        (
            {"features": "A00_maen"},
            "no numeric column is like the feature 'A00_maen'; did you mean 'A00_mean'",
        ),
        ({"features": "A00_mean", "targets": "log(A00_mean)"}, "feature 'A00_mean' is what the target 'log"),
        ({"spatial": "contry"}, "spatial folds by 'contry': expected county, tract, grid or a column"),
        ({"spatial": "grid"}, "spatial folds by grid take a geometry, or longitude and latitude"),
    ):
        with pytest.raises(InputError, match=says):
            evaluated(tmp_path, path, **asked)


def test_a_target_is_never_among_the_features(tmp_path: Path) -> None:
    frame = census(200)
    path = stored(frame, tmp_path / "t.parquet")
    found = evaluated(tmp_path, path, targets="A00_mean", classes="")
    assert "A00_mean" not in found.feature_names and len(found.feature_names) == 13
    found = evaluated(tmp_path, path, features="A*", classes="")
    assert not {"ALAND20", "AWATER20"} & {*found.feature_names} and len(found.feature_names) == 14
    assert "No features, for they are targets: ALAND20, AWATER20." in found.notes


def test_the_same_evaluation_has_the_same_bytes(tmp_path: Path) -> None:
    path = stored(census(60), tmp_path / "t.parquet")
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        evaluated(tmp_path / name, path, models="ols,ridge,boosting", targets="population")
        written.append([(tmp_path / name / f"found.{end}").read_bytes() for end in ("json", "md")])
    assert written[0] == written[1]
    assert written[0][0].endswith(b"}\n")


def test_no_credentials_are_written(tmp_path: Path) -> None:
    frame = census(60)
    table = load_table(str(stored(frame, tmp_path / "t.parquet")))
    file = load_table(str(stored(frame[["GEOID20", "POP20"]], tmp_path / "rent.parquet")))
    url = "https://user:word@host/rent.parquet?sig=abc"
    asked = EvaluationSettings(attributes=url, targets=("POP20",))
    written = assess(table, asked, file, version="1").model_dump_json()
    assert "host/rent.parquet" in written and "word" not in written and "abc" not in written


def test_classes_of_any_two_values_say_which_is_class_one(tmp_path: Path) -> None:
    frame = census(200)
    frame["big"] = frame["A00_mean"] > frame["A00_mean"].median()
    frame["says"] = np.where(frame["big"], "yes", "no")
    frame["code"] = np.where(frame["big"], 7, 3)
    found = evaluated(
        tmp_path, stored(frame, tmp_path / "t.parquet"), targets="", classes="big,says,code", features="A01*"
    )
    said = {
        one.target: (one.positive, one.share, one.random)
        for one in found.classifications
        if one.features == "all"
    }
    assert {name: positive for name, (positive, _, _) in said.items()} == {
        "big": "1",
        "says": "yes",
        "code": "7",
    }
    assert len({str(scores) for _, _, scores in said.values()}) == 1


def test_markdown_has_the_posts_tables(blocks: tuple[pd.DataFrame, Evaluation], tmp_path: Path) -> None:
    _, found = blocks
    text = markdown(found)
    one = row(found, "urban", "pca")
    assert one.in_sample is not None
    assert f"{one.in_sample.value:.3f} [{one.in_sample.low:.3f}, {one.in_sample.high:.3f}]" in text
    lines = text.splitlines()
    for head in (
        "## R², least squares",
        "## R², ridge regression",
        "| attribute | features | rows | dropped | in sample | random folds | spatial folds |",
        "| features | model | folds | accuracy |",
        "|  | taken for rural | taken for urban |",
        "| attribute | PC1 |",
    ):
        assert any(line.startswith(head) for line in lines)
    for at, line in enumerate(lines):
        if line.startswith("|") and at and lines[at - 1].startswith("|"):
            assert line.count("|") == lines[at - 1].count("|")
