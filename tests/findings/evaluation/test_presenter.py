"""Names, figures and sentences of an evaluation, which page and Markdown share."""

from __future__ import annotations

from typing import get_args

import pytest

from zonal.findings.evaluation import presenter
from zonal.findings.evaluation.schema import (
    Classification,
    Evaluation,
    FeatureSet,
    Figure,
    Folds,
    Held,
    Regression,
    RowCounts,
    Score,
)

SCORE = Score(mean=0.9, sd=0.01, low=0.88, high=0.92, folds=(0.89, 0.91))
HELD = Held(
    accuracy=SCORE, balanced_accuracy=SCORE, f1=SCORE, auc=SCORE, brier=SCORE, confusion=((3, 1), (0, 0))
)


def classified(**changes: object) -> Classification:
    values = {"target": "urban", "features": "all", "model": "logistic", "rows": 4, "dropped": 1}
    values |= {"positive": "urban", "share": 0.25, "baseline": Figure(value=0.75), "random": HELD}
    return Classification.model_validate(values | changes)


def evaluated(*rows: Classification) -> Evaluation:
    return Evaluation(
        zonal_version="1",
        table="t",
        settings={},
        rows=RowCounts(table=4, without_features=0, used=4),
        feature_names=("a", "b"),
        classifications=rows,
    )


def test_every_model_and_every_set_of_features_has_a_name() -> None:
    assert {*presenter.FEATURES} == {*get_args(FeatureSet)}
    models = {
        name
        for row in (Regression, Classification)
        for name in get_args(row.model_fields["model"].annotation)
    }
    assert {*presenter.MODELS} == models
    assert {*presenter.MEASURES} == {*Held.model_fields} - {"confusion"}


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (None, "–"),
        (Figure(value=None), "–"),
        (Figure(value=-0.0001), "0.000"),
        (Figure(value=-0.5, low=-0.6, high=0.25), "−0.500 [−0.600, 0.250]"),
        (SCORE, "0.900 ± 0.010 [0.880, 0.920]"),
        (Score(mean=0.5, sd=None, low=None, high=None, folds=(0.5,)), "0.500"),
    ],
)
def test_an_estimate_is_written_with_what_is_known_of_it(
    estimate: Figure | Score | None, expected: str
) -> None:
    assert str(presenter.cell(estimate)) == expected


def test_folds_are_told_with_their_sizes_or_why_there_are_none() -> None:
    folds = (
        Folds(kind="random", folds=2, seed=7, rows=(2, 2), stratified=True, targets=("log_population",)),
        Folds(kind="spatial", folds=2, by="grid", groups=9, block_km=2.5, rows=(1, 3)),
        Folds(kind="spatial", folds=2, skipped="1 groups by region for 2 folds"),
    )
    assert presenter.facts(evaluated().model_copy(update={"folds": folds}))[1:] == [
        "Stratified random folds for log population: 2, 2 rows each, seed 7.",
        "Spatial folds: 2 of 9 cells of a grid of 2.5 km, never cut; 1 to 3 rows each.",
        "No spatial folds: 1 groups by region for 2 folds.",
    ]


def test_each_model_has_a_confusion_matrix_of_the_first_set_that_was_made() -> None:
    evaluation = evaluated(
        classified(skipped="too few"),
        classified(features="pca"),
        classified(features="pca", model="boosting"),
        classified(features="pca_raw"),
    )
    (group,) = presenter.classes(evaluation)
    matrices = presenter.confusions(group, evaluation)
    assert [matrix.title.split(", ")[2] for matrix in matrices] == [
        "logistic regression",
        "gradient boosting",
    ]
    assert matrices[0].names == ("rural", "urban")
    assert matrices[0].rows == (((3, 0.75), (1, 0.25)), ((0, 0), (0, 0)))
    reasons = presenter.left_out(evaluation.classifications, evaluation)
    assert reasons == ["urban: too few (logistic regression, All features)"]
