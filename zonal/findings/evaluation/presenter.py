"""An evaluation in words: names, written figures, sentences and tables, the same for page and Markdown.

Knows what things are called and how figures are written; computes none, and knows
neither HTML nor Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from zonal.findings.evaluation.schema import (
    Attributes,
    Classification,
    Correlation,
    Evaluation,
    Explained,
    FeatureSet,
    Figure,
    Folds,
    Held,
    Regression,
    Score,
)
from zonal.findings.evaluation.targets import CENSUS

NONE = "–"
"""What stands where there is no figure."""

MODELS = {
    "ols": "Least squares",
    "ridge": "Ridge regression",
    "boosting": "Gradient boosting",
    "logistic": "Logistic regression",
}

FEATURES: dict[FeatureSet, str] = {
    "all": "All features",
    "pca": "PCA-{n}, standardised",
    "pca_raw": "PCA-{n}, as they are",
}
"""Sets of features, in the order in which they are shown."""

SCALINGS: dict[FeatureSet, str] = {"pca": "standardised features", "pca_raw": "features as they are"}
"""What principal components are made of."""

FOLDS = {"random": "random folds", "spatial": "spatial folds"}

GAP = "random less spatial"

GROUPS = {"county": "counties", "tract": "tracts", "grid": "cells of a grid"}
"""What spatial folds are made of."""

KEY = "Brackets hold 95 % intervals; ± is the standard deviation over the folds."

CORRELATION_KEY = "Pearson’s r. The sign of a component is a convention; its size is not."


# ------------------------------------------------------------------ names


def target_name(name: str) -> str:
    """Name what is predicted: a census variable in words, a column as it is."""
    return name.replace("_", " ") if name in CENSUS else name


def features_name(features: FeatureSet, evaluation: Evaluation) -> str:
    """Name a set of features, with the number of its components."""
    count = next((entry.components for entry in evaluation.pca if entry.features == features), 0)
    return FEATURES[features].format(n=count)


def _class_names(positive: str) -> tuple[str, str]:
    """Name class 0 and class 1."""
    return ("rural" if positive == "urban" else f"not {positive}"), positive


# ------------------------------------------------------------------ figures


def figure(value: float | None, digits: int = 3) -> str:
    """Write a figure with so many decimals; never "-0"."""
    return NONE if value is None else f"{value:z.{digits}f}".replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share in per cent."""
    return NONE if value is None else f"{100 * value:z.{digits}f} %".replace("-", "−")


Write = Callable[[float | None], str]

MEASURES: dict[str, tuple[str, Write]] = {
    "accuracy": ("accuracy", percent),
    "balanced_accuracy": ("balanced accuracy", percent),
    "f1": ("F1", figure),
    "auc": ("AUC", figure),
    "brier": ("Brier", figure),
}
"""Measures of a classifier: their names, and how they are written."""


class Cell(NamedTuple):
    """What stands in a table: a text, and what is written smaller beside it."""

    text: str
    aside: str = ""

    def __str__(self) -> str:
        return f"{self.text} {self.aside}".rstrip()


def value_of(estimate: Figure | Score) -> float | None:
    """Return the one number of an estimate."""
    return estimate.mean if isinstance(estimate, Score) else estimate.value


def cell(estimate: Figure | Score | None, write: Write = figure) -> Cell:
    """Write a figure with its interval, or a score with its standard deviation too."""
    if estimate is None or value_of(estimate) is None:
        return Cell(NONE)
    asides = []
    if isinstance(estimate, Score) and estimate.sd is not None:
        asides.append(f"± {write(estimate.sd)}")
    if estimate.low is not None and estimate.high is not None:
        asides.append(f"[{write(estimate.low)}, {write(estimate.high)}]")
    return Cell(write(value_of(estimate)), " ".join(asides))


# ------------------------------------------------------------------ sentences


def facts(evaluation: Evaluation) -> list[str]:
    """Say what was evaluated: rows, features, what was joined, components and folds."""
    rows, names = evaluation.rows, evaluation.feature_names
    return [
        f"Rows: {rows.table:,} in the table, {rows.without_features:,} without features, {rows.used:,} used. "
        f"Features: {len(names):,} ({names[0]} to {names[-1]}).",
        *_joined(evaluation.attributes),
        *(_explained(entry, evaluation) for entry in evaluation.pca),
        *map(_folds, evaluation.folds),
    ]


def _joined(joined: Attributes | None) -> Iterator[str]:
    if joined is None:
        return
    yield (
        f"Joined {joined.file} by {joined.on[0]} = {joined.on[1]}: {joined.matched:,} rows of the table met "
        f"one of it, {joined.table_unmatched:,} none; {joined.file_unmatched:,} of it met none."
    )
    if joined.replaced:
        yield f"Taken from it in place of the table’s own: {', '.join(joined.replaced)}."


def _explained(entry: Explained, evaluation: Evaluation) -> str:
    share = cell(Figure(value=entry.together, low=entry.low, high=entry.high), percent)
    first = "principal component" if entry.components == 1 else f"{entry.components} principal components"
    name = features_name(entry.features, evaluation)
    return f"{name}: the first {first} of {SCALINGS[entry.features]}, {share} of the variance."


def _folds(folds: Folds) -> str:
    whose = f" for {', '.join(map(target_name, folds.targets))}" if folds.targets else ""
    if folds.skipped:
        return f"No {FOLDS[folds.kind]}{whose}: {folds.skipped}."
    fewest, most = min(folds.rows), max(folds.rows)
    sizes = f"{fewest:,} rows each" if fewest == most else f"{fewest:,} to {most:,} rows each"
    if folds.kind == "random":
        kind = "Stratified random folds" if folds.stratified else "Random folds"
        return f"{kind}{whose}: {folds.folds}, {sizes}, seed {folds.seed}."
    size = f" of {folds.block_km:g} km" if folds.block_km else ""
    groups = GROUPS.get(folds.by or "", f"groups by {folds.by}")
    return f"Spatial folds{whose}: {folds.folds} of {folds.groups:,} {groups}{size}, never cut; {sizes}."


def class_shares(row: Classification) -> str:
    """Say how many rows are of class 1, and what always saying the commoner class is worth."""
    return (
        f"{percent(row.share)} of {row.rows:,} rows are {row.positive}; {row.dropped:,} more have no value. "
        f"Always saying the commoner class is right in {cell(row.baseline, percent)} of them: that is the "
        "line to beat."
    )


def left_out(rows: Iterable[Regression | Classification], evaluation: Evaluation) -> list[str]:
    """Say which targets have no figures, why, and from which models and features if not from all."""
    reasons: dict[tuple[str, str], list[str]] = {}
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.target] = counts.get(row.target, 0) + 1
        if row.skipped:
            fit = f"{MODELS[row.model].lower()}, {features_name(row.features, evaluation)}"
            reasons.setdefault((row.target, row.skipped), []).append(fit)
    return [
        f"{target_name(target)}: {reason}" + ("" if len(fits) == counts[target] else f" ({'; '.join(fits)})")
        for (target, reason), fits in reasons.items()
    ]


# ------------------------------------------------------------------ tables


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table to be written.

    Parameters
    ----------
    title : str
    head : tuple of str
    rows : tuple of tuple of Cell
    texts : int
        How many of the first columns hold words; the others hold figures.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    texts: int = 1


def r2_tables(evaluation: Evaluation) -> list[TextTable]:
    """Lay out R2: a table a model, a row for each target and set of features that has figures."""
    head = ("attribute", "features", "rows", "dropped", "in sample", *FOLDS.values(), GAP)
    return [
        TextTable(f"R², {MODELS[model].lower()}", head, lines, texts=2)
        for model in dict.fromkeys(row.model for row in evaluation.regressions)
        if (
            lines := tuple(
                (
                    Cell(target_name(row.target)),
                    Cell(features_name(row.features, evaluation)),
                    Cell(f"{row.rows:,}"),
                    Cell(f"{row.dropped:,}"),
                    *map(cell, (row.in_sample, row.random, row.spatial, row.gap)),
                )
                for row in evaluation.regressions
                if row.model == model and row.skipped is None
            )
        )
    ]


@dataclass(frozen=True, slots=True)
class Classes:
    """The classifications of one target that have figures.

    Parameters
    ----------
    target : str
    names : (str, str)
        Of class 0 and class 1.
    rows : tuple of Classification
        By set of features; empty if all were skipped.
    skipped : str or None
        Why, if they were.
    """

    target: str
    names: tuple[str, str]
    rows: tuple[Classification, ...]
    skipped: str | None


def classes(evaluation: Evaluation) -> list[Classes]:
    """Gather the classifications of each target."""
    groups = []
    for target in dict.fromkeys(row.target for row in evaluation.classifications):
        rows = [row for row in evaluation.classifications if row.target == target]
        made = [row for features in FEATURES for row in rows if row.features == features and not row.skipped]
        first = made[0] if made else rows[0]
        names = _class_names(first.positive or target)
        groups.append(Classes(target_name(target), names, tuple(made), None if made else first.skipped))
    return groups


def held_out(row: Classification) -> dict[str, Held]:
    """Return a classifier's figures on held-out rows, by the kind of folds."""
    return {kind: held for kind in FOLDS if (held := getattr(row, kind)) is not None}


def measures(group: Classes, evaluation: Evaluation) -> TextTable:
    """Lay out every measure of a target's classifiers, and how much spatial folds take from the accuracy."""
    lines: list[tuple[Cell, ...]] = []
    for row in group.rows:
        fit = Cell(features_name(row.features, evaluation)), Cell(MODELS[row.model])
        for kind, held in held_out(row).items():
            scores = [cell(getattr(held, name), write) for name, (_, write) in MEASURES.items()]
            lines.append((*fit, Cell(FOLDS[kind]), *scores))
        if row.gap is not None:
            lines.append((*fit, Cell(GAP), cell(row.gap, percent), *[Cell(NONE)] * (len(MEASURES) - 1)))
    head = ("features", "model", "folds", *(name for name, _ in MEASURES.values()))
    return TextTable(f"Held-out rows of {group.target}", head, tuple(lines), texts=3)


@dataclass(frozen=True, slots=True)
class Confusion:
    """A confusion matrix.

    Parameters
    ----------
    title : str
    names : (str, str)
        Of class 0 and class 1.
    rows : tuple of tuple of (int, float)
        [true class][predicted class]: how many, and their share of the true class, 0 of an empty one.
    """

    title: str
    names: tuple[str, str]
    rows: tuple[tuple[tuple[int, float], ...], ...]


def confusions(group: Classes, evaluation: Evaluation) -> list[Confusion]:
    """Give the confusion matrices of a target's models on the first set of features."""
    return [
        Confusion(
            f"{features_name(row.features, evaluation)}, {MODELS[row.model].lower()}, {FOLDS[kind]}: "
            "rows, and their share of the true class",
            group.names,
            tuple(
                tuple((count, count / max(sum(counts), 1)) for count in counts) for counts in held.confusion
            ),
        )
        for row in group.rows
        if row.features == group.rows[0].features
        for kind, held in held_out(row).items()
    ]


@dataclass(frozen=True, slots=True)
class Correlations:
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


def correlations(evaluation: Evaluation) -> list[Correlations]:
    """Gather the correlations with each set of components; targets without any figure are left out."""
    groups = []
    for features, scaling in SCALINGS.items():
        known: dict[str, dict[int, Correlation]] = {}
        for row in evaluation.correlations:
            if row.features == features and row.r.value is not None:
                known.setdefault(target_name(row.target), {})[row.component] = row
        if known:
            components = sorted({component for by_component in known.values() for component in by_component})
            groups.append(Correlations(scaling, tuple(components), tuple(known.items())))
    return groups
