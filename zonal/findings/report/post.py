"""The figures of the reference post, Washington 2020, to stand beside ours.

Robinson and Corley, "Characterizing Census Blocks with Satellite Embedding
Statistics" (2026). Knows the figures as printed there; computes nothing but differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zonal.findings.evaluation.presenter import SCALINGS, features_name
from zonal.findings.evaluation.schema import Evaluation, FeatureSet

READ, KEPT = 158_093, 148_683
DROPPED = {"all water": 8_272, "over 25 km2": 1_138}
COMPONENTS = 10
EXPLAINED = 0.790
"""Share of the variance in them."""

R2 = {
    "log_land_area": (0.843, 0.665),
    "urban": (0.740, 0.676),
    "log_population": (0.575, 0.366),
    "water_fraction": (0.414, 0.073),
    "population_density": (0.380, 0.260),
    "housing_density": (0.299, 0.165),
    "population": (0.252, 0.105),
    "housing_units": (0.229, 0.094),
}
"""In sample, ordinary least squares: all 128 features, and ten components."""

CORRELATIONS = {
    "urban": (-0.71, -0.34, -0.07, 0.13, 0.00),
    "log_land_area": (0.58, 0.39, 0.09, -0.21, 0.01),
    "population_density": (-0.42, -0.21, -0.12, 0.03, -0.07),
    "log_population": (-0.40, -0.01, -0.06, 0.29, 0.17),
    "housing_density": (-0.30, -0.16, -0.08, -0.01, -0.10),
    "water_fraction": (0.05, 0.06, 0.07, -0.08, -0.09),
}
"""Pearson's r with the first five components."""

ACCURACY = (0.925, 0.901)
"""Urban against rural, logistic regression, stratified 5-fold: all features, and ten components."""
BASELINE = 0.594

COLUMN: dict[FeatureSet, int] = {"all": 0, "pca": 1, "pca_raw": 1}
"""Which of the post's two figures stands beside a set of features of ours.

Whether the post standardised is not known: its ten components stand beside both of ours.
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """A figure of the post and ours.

    Parameters
    ----------
    post, ours : float
    kind : str
        ``count``, ``share``, ``r2`` or ``r``: how it is written.
    """

    post: float
    ours: float
    kind: str

    @property
    def difference(self) -> float:
        """Ours less the post's."""
        return self.ours - self.post


@dataclass(frozen=True, slots=True)
class Beside:
    """A table of the post beside ours.

    Parameters
    ----------
    title : str
    columns : tuple of str
        Of each a row has one pair.
    rows : tuple of (str, tuple of Pair or None)
        None where we have no such figure.
    note : str
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Pair | None, ...]], ...]
    note: str = ""


def is_of(manifest: Mapping[str, Any]) -> bool:
    """Whether a run is of what the post is about: Washington, 2020, means and deviations of AEF."""
    settings = manifest.get("settings", {})
    place = settings.get("state") == ["WA"] and not settings.get("county") and not settings.get("bbox")
    blocks = settings.get("zones") == "census_blocks_2020" and settings.get("raster") == ["aef_annual"]
    what = settings.get("year") == 2020 and settings.get("stats") == ["mean", "std"]
    return bool(place and blocks and what)


def beside(manifest: Mapping[str, Any], evaluation: Evaluation | None) -> list[Beside]:
    """Put the post's figures beside those that a run has; tables without any of ours are left out."""
    tables = [_zones(manifest["zones"])]
    if evaluation is not None:
        sets = [features for features in COLUMN if is_set(features, evaluation)]
        tables += [_r2(evaluation, sets), _urban(evaluation, sets)]
        tables += [_correlations(evaluation, features) for features in SCALINGS]
    tables = [replace(table, rows=tuple(row for row in table.rows if any(row[1]))) for table in tables]
    return [table for table in tables if table.rows]


def is_set(features: FeatureSet, evaluation: Evaluation) -> bool:
    """Whether a set of features is one that the post has figures of: all, or as many components."""
    return features == "all" or (features, COMPONENTS) in {
        (entry.features, entry.components) for entry in evaluation.pca
    }


def _pair(post: float, ours: float | None, kind: str) -> Pair | None:
    return None if ours is None else Pair(post, ours, kind)


def _zones(zones: Mapping[str, Any]) -> Beside:
    counts: list[tuple[str, int, int | None]] = [("read", READ, zones["read"])]
    counts += [(f"dropped: {reason}", post, zones["dropped"].get(reason)) for reason, post in DROPPED.items()]
    counts += [("kept", KEPT, zones["kept"])]
    return Beside(
        "Zones", ("zones",), tuple((name, (_pair(post, ours, "count"),)) for name, post, ours in counts)
    )


def _names(evaluation: Evaluation, sets: Sequence[FeatureSet]) -> tuple[str, ...]:
    return tuple(features_name(features, evaluation) for features in sets)


def _r2(evaluation: Evaluation, sets: Sequence[FeatureSet]) -> Beside:
    ours = {
        (row.target, row.features): row.in_sample.value
        for row in evaluation.regressions
        if row.model == "ols" and row.in_sample is not None
    }
    rows = [
        (
            target,
            tuple(_pair(posts[COLUMN[features]], ours.get((target, features)), "r2") for features in sets),
        )
        for target, posts in R2.items()
    ]
    return Beside("R², least squares, in sample", _names(evaluation, sets), tuple(rows))


def _urban(evaluation: Evaluation, sets: Sequence[FeatureSet]) -> Beside:
    """Variance in the components and accuracy by set of features; the baseline is the same for all."""
    explained = {entry.features: entry.together for entry in evaluation.pca}
    models = {
        row.features: row
        for row in evaluation.classifications
        if row.target == "urban" and row.model == "logistic" and row.skipped is None
    }
    accuracy: list[Pair | None] = []
    baseline: list[Pair | None] = []
    variance: list[Pair | None] = []
    for features in sets:
        row = models.get(features)
        ours = row.random.accuracy.mean if row is not None and row.random is not None else None
        accuracy.append(_pair(ACCURACY[COLUMN[features]], ours, "share"))
        ours = row.baseline.value if row is not None and row.baseline is not None else None
        baseline.append(_pair(BASELINE, ours, "share"))
        variance.append(_pair(EXPLAINED, explained.get(features), "share") if features != "all" else None)
    rows = (
        ("accuracy, stratified 5-fold", tuple(accuracy)),
        ("majority baseline", tuple(baseline)),
        ("variance in the components", tuple(variance)),
    )
    return Beside("Urban or rural, logistic regression; variance", _names(evaluation, sets), rows)


def _correlations(evaluation: Evaluation, features: FeatureSet) -> Beside:
    """Pearson's r; a component whose sign is the other way round is turned, for its sign is arbitrary."""
    ours = {
        (row.target, row.component): row.r.value
        for row in evaluation.correlations
        if row.features == features
    }
    numbers = range(1, 1 + len(CORRELATIONS["urban"]))
    turned = [
        number
        for number in numbers
        if sum(posts[number - 1] * (ours.get((name, number)) or 0) for name, posts in CORRELATIONS.items())
        < 0
    ]

    def pair(post: float, name: str, number: int) -> Pair | None:
        value = ours.get((name, number))
        return _pair(post, -value if value is not None and number in turned else value, "r")

    rows = [
        (name, tuple(pair(post, name, number) for number, post in zip(numbers, posts, strict=True)))
        for name, posts in CORRELATIONS.items()
    ]
    names = ", ".join(f"PC{number}" for number in turned)
    note = f"The sign of a component is arbitrary; turned to the post’s: {names}." if turned else ""
    columns = tuple(f"PC{number}" for number in numbers)
    title = f"Correlations, principal components of {SCALINGS[features]}"
    return Beside(title, columns, tuple(rows), note)
