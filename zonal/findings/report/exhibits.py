"""What an evaluation shows on the page: bars of R2 and accuracy, confusion matrices, heat maps, a scree.

Knows evaluations and charts as values; knows neither HTML nor files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zonal.findings.evaluation.model import (
    Classification,
    Correlation,
    Evaluation,
    FeatureSet,
    Figure,
    Held,
    Regression,
    Score,
)
from zonal.findings.report import post
from zonal.findings.report.charts import Bar, Scale, Scree, bar

SETS: dict[FeatureSet, str] = {
    "all": "All features",
    "pca": "PCA-{n}, standardised",
    "pca_raw": "PCA-{n}, as they are",
}
"""Sets of features, in the order of the page."""

MODELS = {
    "ols": "Least squares",
    "ridge": "Ridge regression",
    "boosting": "Gradient boosting",
    "logistic": "Logistic regression",
}

KINDS = (("in_sample", "in sample"), ("random", "random folds"), ("spatial", "spatial folds"))

SHOWN = 24
"""Components of the scree plot, at most."""


@dataclass(frozen=True, slots=True)
class Row:
    """One target's bars, or why there are none."""

    one: Regression
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """All targets of one model on one set of features.

    Parameters
    ----------
    model, features : str
        In words.
    scale : Scale
        The same in all tables, so that they compare.
    rows : tuple of Row
    main : bool
        Whether it is shown at once.
    """

    model: str
    features: str
    scale: Scale
    rows: tuple[Row, ...]
    main: bool


@dataclass(frozen=True, slots=True)
class Matrix:
    """A confusion matrix.

    Parameters
    ----------
    kind : str
        ``random`` or ``spatial``.
    rows : tuple of tuple of (int, float)
        [true class][predicted class]: how many, and their share of the true class.
    """

    kind: str
    rows: tuple[tuple[tuple[int, float], ...], ...]

    @classmethod
    def of(cls, kind: str, held: Held) -> Matrix:
        """Take shares of each true class; of an empty one they are 0."""
        return cls(
            kind, tuple(tuple((cell, cell / max(sum(row), 1)) for cell in row) for row in held.confusion)
        )


@dataclass(frozen=True, slots=True)
class Model:
    """One classifier on one set of features."""

    features: str
    name: str
    bars: tuple[Bar, ...]
    held: tuple[tuple[str, Held], ...]


@dataclass(frozen=True, slots=True)
class Classes:
    """All that is known of telling two classes apart.

    Parameters
    ----------
    first : Classification
        For what all models share; all are skipped if it says so.
    names : (str, str)
        Of class 0 and class 1.
    scale : Scale
    models : tuple of Model
    matrices : tuple of Matrix
        Of the first model.
    """

    first: Classification
    names: tuple[str, str]
    scale: Scale
    models: tuple[Model, ...]
    matrices: tuple[Matrix, ...]


@dataclass(frozen=True, slots=True)
class Heat:
    """Correlations: a row a target, a column a component.

    Parameters
    ----------
    features : str
    components : tuple of int
    rows : tuple of (str, mapping of int to Correlation)
    """

    features: str
    components: tuple[int, ...]
    rows: tuple[tuple[str, Mapping[int, Correlation]], ...]


def regressions(found: Evaluation, *, of_post: bool) -> list[Table]:
    """Make one table for each model and set of features.

    Parameters
    ----------
    found : Evaluation
    of_post : bool
        Mark the post's figures beside least squares in sample.
    """
    scale = Scale.of_scores([value for one in found.regressions for value in _values(one)])
    tables = []
    for model in dict.fromkeys(one.model for one in found.regressions):
        for features in SETS:
            rows = [one for one in found.regressions if (one.model, one.features) == (model, features)]
            if rows:
                posts = post.R2 if of_post and model == "ols" and post.is_set(features, found) else {}
                made = tuple(Row(one, _bars(one, scale, posts)) for one in rows)
                words = feature_set(features, found)
                tables.append(Table(MODELS[model], words, scale, made, features != "pca_raw"))
    return tables


def feature_set(features: FeatureSet, found: Evaluation) -> str:
    """Name a set of features."""
    count = next((one.components for one in found.pca if one.features == features), 0)
    return SETS[features].format(n=count)


def _values(one: Regression) -> Iterable[float | None]:
    return (_value(part) for part in (one.in_sample, one.random, one.spatial) if part is not None)


def _value(part: Figure | Score) -> float | None:
    return part.mean if isinstance(part, Score) else part.value


def _bars(one: Regression, scale: Scale, posts: Mapping[str, tuple[float, float]]) -> tuple[Bar, ...]:
    both = posts.get(one.target)
    mark = None if both is None else both[one.features != "all"]
    return tuple(
        bar(scale, label, kind, _value(part), part.low, part.high, mark if kind == "in_sample" else None)
        for kind, label in KINDS
        if (part := getattr(one, kind)) is not None
    )


def classifications(found: Evaluation) -> list[Classes]:
    """Gather what is known of each target with two classes."""
    return [
        _classes([one for one in found.classifications if one.target == target], found)
        for target in dict.fromkeys(one.target for one in found.classifications)
    ]


def _classes(of_target: Sequence[Classification], found: Evaluation) -> Classes:
    scale = Scale(0.0, 1.0)
    made = sorted(
        (one for one in of_target if one.skipped is None), key=lambda one: list(SETS).index(one.features)
    )
    models = []
    for one in made:
        held = tuple((kind, part) for kind, _ in KINDS[1:] if (part := getattr(one, kind)) is not None)
        base = one.baseline.value if one.baseline is not None else None
        bars = tuple(
            bar(scale, f"{kind} folds", kind, score.mean, score.low, score.high, base)
            for kind, part in held
            for score in (part.accuracy,)
        )
        models.append(Model(feature_set(one.features, found), MODELS[one.model], bars, held))
    first = made[0] if made else of_target[0]
    positive = first.positive or first.target
    matrices = tuple(Matrix.of(kind, held) for kind, held in (models[0].held if models else ()))
    return Classes(first, (_other(positive), positive), scale, tuple(models), matrices)


def _other(positive: str) -> str:
    return "rural" if positive == "urban" else f"not {positive}"


def correlations(found: Evaluation) -> list[Heat]:
    """Make a heat map of each set of components; targets without any figure are left out."""
    maps = []
    for features, words in (("pca", "features standardised first"), ("pca_raw", "features as they are")):
        cells = [one for one in found.correlations if one.features == features and one.r.value is not None]
        rows = tuple(
            (target, {one.component: one for one in cells if one.target == target})
            for target in dict.fromkeys(one.target for one in cells)
        )
        if rows:
            maps.append(Heat(words, tuple(sorted({one.component for one in cells})), rows))
    return maps


def scree(found: Evaluation | None, pca: Mapping[str, Any] | None) -> Scree | None:
    """Show shares of the variance: the evaluation's of standardised features, else the map's."""
    one = next((one for one in found.pca if one.features == "pca"), None) if found is not None else None
    if one is not None and one.explained:
        return Scree(tuple(one.explained[:SHOWN]), one.components)
    if pca is not None and pca["explained"]:
        return Scree(tuple(pca["explained"][:SHOWN]), len(pca["loadings"]))
    return None
