"""What an evaluation shows on the page as charts: bars of R2 and accuracy, and a scree.

Knows evaluations and charts as values; knows neither HTML nor files, and takes every
name from `presenter`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zonal.findings.evaluation.presenter import (
    FEATURES,
    FOLDS,
    MODELS,
    Classes,
    features_name,
    held_out,
    value_of,
)
from zonal.findings.evaluation.schema import Evaluation, Figure, Regression, Score
from zonal.findings.report import post
from zonal.findings.report.charts import Bar, Scale, Scree, bar

SHOWN = 24
"""Components of the scree plot, at most."""

SHARES = Scale(0.0, 1.0)
"""The axis of accuracies."""


@dataclass(frozen=True, slots=True)
class R2Row:
    """One target's bars, or why there are none."""

    regression: Regression
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class R2Chart:
    """All targets of one model on one set of features.

    Parameters
    ----------
    model, features : str
        In words.
    scale : Scale
        The same in all charts, so that they compare.
    rows : tuple of R2Row
    main : bool
        Whether it is shown at once.
    """

    model: str
    features: str
    scale: Scale
    rows: tuple[R2Row, ...]
    main: bool


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One classifier's bars on one set of features."""

    features: str
    model: str
    bars: tuple[Bar, ...]


def r2_charts(evaluation: Evaluation, *, of_post: bool) -> list[R2Chart]:
    """Draw one chart for each model and set of features.

    Parameters
    ----------
    evaluation : Evaluation
    of_post : bool
        Mark the post's figures beside least squares in sample.
    """
    estimates = [part for row in evaluation.regressions for part, _, _ in _estimates(row)]
    scale = Scale.of_scores([value_of(estimate) for estimate in estimates])
    charts = []
    for model in dict.fromkeys(row.model for row in evaluation.regressions):
        for features in FEATURES:
            rows = [row for row in evaluation.regressions if (row.model, row.features) == (model, features)]
            if rows:
                posts = post.R2 if of_post and model == "ols" and post.is_set(features, evaluation) else {}
                name = features_name(features, evaluation)
                lines = tuple(R2Row(row, _r2_bars(row, scale, posts)) for row in rows)
                charts.append(R2Chart(MODELS[model], name, scale, lines, features != "pca_raw"))
    return charts


def _estimates(row: Regression) -> list[tuple[Figure | Score, str, str]]:
    """Return a regression's figures with their kinds and names."""
    kinds = {"in_sample": "in sample", **FOLDS}
    return [(part, kind, name) for kind, name in kinds.items() if (part := getattr(row, kind)) is not None]


def _r2_bars(row: Regression, scale: Scale, posts: Mapping[str, tuple[float, float]]) -> tuple[Bar, ...]:
    both = posts.get(row.target)
    mark = None if both is None else both[row.features != "all"]
    return tuple(
        bar(scale, name, kind, value_of(part), part.low, part.high, mark if kind == "in_sample" else None)
        for part, kind, name in _estimates(row)
    )


def accuracy_chart(group: Classes, evaluation: Evaluation) -> list[AccuracyRow]:
    """Draw the accuracy of a target's classifiers, with the commoner class's share marked."""
    rows = []
    for row in group.rows:
        base = None if row.baseline is None else row.baseline.value
        bars = tuple(
            bar(SHARES, FOLDS[kind], kind, score.mean, score.low, score.high, base)
            for kind, held in held_out(row).items()
            for score in (held.accuracy,)
        )
        rows.append(AccuracyRow(features_name(row.features, evaluation), MODELS[row.model], bars))
    return rows


def scree(evaluation: Evaluation | None, pca: Mapping[str, Any] | None) -> Scree | None:
    """Show shares of the variance: the evaluation's of standardised features, else the map's."""
    entries = () if evaluation is None else evaluation.pca
    entry = next((entry for entry in entries if entry.features == "pca"), None)
    if entry is not None and entry.explained:
        return Scree(tuple(entry.explained[:SHOWN]), entry.components)
    if pca is not None and pca["explained"]:
        return Scree(tuple(pca["explained"][:SHOWN]), len(pca["loadings"]))
    return None
