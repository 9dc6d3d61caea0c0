"""An evaluation as Markdown: the reference post's tables, and what it leaves open.

Knows how figures are written; computes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zonal.findings.evaluation.model import (
    Classification,
    Correlation,
    Evaluation,
    Figure,
    Folds,
    Held,
    Regression,
    Score,
)
from zonal.findings.evaluation.regression import SETS

NONE = "–"
"""What stands where there is no figure."""

MODELS = {
    "ols": "Least squares",
    "ridge": "Ridge",
    "boosting": "Gradient boosting",
    "logistic": "Logistic regression",
}
MEASURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "auc": "AUC",
    "brier": "Brier",
}
"""Measures of a classifier, as they are written."""


def markdown(evaluation: Evaluation) -> str:
    """Write an evaluation as Markdown, to be read on GitHub."""
    parts = [
        *_head(evaluation),
        *_regressions(evaluation),
        *_classifications(evaluation),
        *_correlations(evaluation),
        *_notes(evaluation),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(evaluation: Evaluation) -> list[str]:
    rows, joined = evaluation.rows, evaluation.attributes
    lines = [
        f"Rows: {rows.table:,} in the table, {rows.without_features:,} without features, {rows.used:,} used. "
        f"Features: {len(evaluation.feature_names)} (`{evaluation.feature_names[0]}` to "
        f"`{evaluation.feature_names[-1]}`)."
    ]
    if joined is not None:
        lines.append(
            f"Joined `{joined.file}` by `{joined.on[0]}` = `{joined.on[1]}`: {joined.matched:,} rows of the "
            f"table met one of it, {joined.table_unmatched:,} none; {joined.file_unmatched:,} of it met none."
        )
        if joined.replaced:
            lines.append(f"Taken from it in place of the table's own: {', '.join(joined.replaced)}.")
    for one in evaluation.pca:
        scaled = "standardised features" if one.features == "pca" else "features as they are"
        lines.append(
            f"The first {one.components} principal components of {scaled} hold {one.together:.1%} of the "
            f"variance{_range(one.low, one.high, 100)}."
        )
    lines += [_dealt(folds) for folds in evaluation.folds if not folds.targets]
    title = f"# What the features of {evaluation.table} know"
    year = f" ({evaluation.year})" if evaluation.year else ""
    return [title + year, *lines, "Brackets hold 95 % intervals."]


def _dealt(folds: Folds) -> str:
    if folds.skipped:
        return f"No {folds.kind} folds: {folds.skipped}."
    fewest, most = min(folds.rows), max(folds.rows)
    sizes = f"{fewest:,} rows each" if fewest == most else f"{fewest:,} to {most:,} rows each"
    if folds.kind == "random":
        return f"Random folds: {folds.folds}, {sizes}, seed {folds.seed}."
    size = f" of {folds.block_km:g} km" if folds.block_km else ""
    what = {"county": "counties", "tract": "tracts", "grid": "cells of a grid"}.get(
        folds.by or "", f"groups by `{folds.by}`"
    )
    return f"Spatial folds: {folds.folds} of {folds.groups:,} {what}{size}, never cut; {sizes}."


# ------------------------------------------------------------------ regressions


def _regressions(evaluation: Evaluation) -> list[str]:
    names = list(dict.fromkeys(row.target for row in evaluation.regressions))
    found = {(row.model, row.target, row.features): row for row in evaluation.regressions}
    parts: list[str] = []
    for model in dict.fromkeys(row.model for row in evaluation.regressions):
        rows = [[found[model, name, one] for one in SETS] for name in names]
        made = [row for row in rows if any(one.skipped is None for one in row)]
        if not made:
            continue
        parts += [f"## {MODELS[model]}", "R2 in sample:"]
        parts.append(
            _table(
                ["target", *map(_set, made[0]), "rows", "dropped"],
                [[row[0].target, *(_figure(one.in_sample) for one in row), *_rows(row[0])] for row in made],
            )
        )
        for at in range(len(SETS)):
            parts += [
                f"R2 of held-out rows, {_set(made[0][at])}:",
                _table(
                    ["target", "random folds", "spatial folds", "random less spatial"],
                    [
                        [
                            row[at].target,
                            _score(row[at].random),
                            _score(row[at].spatial),
                            _figure(row[at].gap),
                        ]
                        for row in made
                    ],
                ),
            ]
    return [*parts, *_skipped("Regressions left out:", evaluation.regressions)]


def _rows(row: Regression | Classification) -> tuple[str, str]:
    return f"{row.rows:,}", f"{row.dropped:,}"


# ------------------------------------------------------------------ classifications


def _classifications(evaluation: Evaluation) -> list[str]:
    parts: list[str] = []
    made = [row for row in evaluation.classifications if row.skipped is None]
    for target in dict.fromkeys(row.target for row in made):
        rows = [row for row in made if row.target == target]
        first = rows[0]
        parts.append(f"## {target}: two classes")
        parts.append(
            f"{first.rows:,} rows, {first.dropped:,} dropped. Class 1 is `{first.positive}`, of "
            f"{first.share or 0:.1%} of the rows. Always saying the commoner class is right in "
            f"{_percent(first.baseline)} of them."
        )
        for kind, held in (("random", "stratified random folds"), ("spatial", "spatial folds")):
            scored = [(row, one) for row in rows if (one := _held(row, kind)) is not None]
            if scored:
                parts += [f"Held-out rows, {held} (mean ± sd of the folds):", _measures(scored)]
        gaps = [(row, row.gap) for row in rows if row.gap is not None]
        if gaps:
            lines = [[f"{MODELS[row.model]}, {_set(row)}", _figure(gap)] for row, gap in gaps]
            parts += ["Accuracy, random less spatial:", _table(["model", "gap"], lines)]
        parts += _confusions(rows)
    return [*parts, *_skipped("Classifications left out:", evaluation.classifications)]


def _held(row: Classification, kind: str) -> Held | None:
    return row.random if kind == "random" else row.spatial


def _measures(scored: Sequence[tuple[Classification, Held]]) -> str:
    lines = [
        [f"{MODELS[row.model]}, {_set(row)}", *(_score(getattr(held, name)) for name in MEASURES)]
        for row, held in scored
    ]
    return _table(["model", *MEASURES.values()], lines)


def _confusions(rows: Sequence[Classification]) -> list[str]:
    """Confusion matrices of all features: held-out rows of all folds together."""
    lines = []
    for row in rows:
        for kind in ("random", "spatial"):
            held = _held(row, kind)
            if row.features == "all" and held is not None:
                (a, b), (c, d) = held.confusion
                name = f"{MODELS[row.model]}, {kind} folds"
                lines += [[name, "class 0", f"{a:,}", f"{b:,}"], [name, "class 1", f"{c:,}", f"{d:,}"]]
    if not lines:
        return []
    head = ["all features", "is", "said to be class 0", "said to be class 1"]
    return ["Held-out rows of all folds together:", _table(head, lines)]


# ------------------------------------------------------------------ correlations


def _correlations(evaluation: Evaluation) -> list[str]:
    parts: list[str] = []
    for one, scaled in (("pca", "standardised features"), ("pca_raw", "features as they are")):
        found = [row for row in evaluation.correlations if row.features == one and row.r.value is not None]
        if not found:
            continue
        by_target: dict[str, list[Correlation]] = {}
        for row in found:
            by_target.setdefault(row.target, []).append(row)
        most = max(row.component for row in found)
        lines = [
            [name, *(_figure(row.r, sign=True) for row in rows), *[NONE] * (most - len(rows))]
            for name, rows in by_target.items()
        ]
        head = ["target", *(f"PC{component}" for component in range(1, most + 1))]
        parts += [f"## Correlation with principal components of {scaled}", _table(head, lines)]
    return parts


# ------------------------------------------------------------------ words


def _notes(evaluation: Evaluation) -> list[str]:
    if not evaluation.notes:
        return []
    return ["## Notes", "\n".join(f"- {note}" for note in evaluation.notes)]


def _skipped(title: str, rows: Iterable[Regression | Classification]) -> list[str]:
    reasons: dict[tuple[str, str], list[str]] = {}
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.target] = counts.get(row.target, 0) + 1
        if row.skipped:
            reasons.setdefault((row.target, row.skipped), []).append(
                f"{MODELS[row.model]}, {_set(row)}".lower()
            )
    lines = [
        f"- {target}: {reason}" + ("" if len(which) == counts[target] else f" ({'; '.join(which)})")
        for (target, reason), which in reasons.items()
    ]
    return [title, "\n".join(lines)] if lines else []


def _set(row: Regression | Classification) -> str:
    return {"all": "all features", "pca": "PCA", "pca_raw": "PCA, not standardised"}[row.features]


def _figure(figure: Figure | None, *, sign: bool = False) -> str:
    if figure is None or figure.value is None:
        return NONE
    return f"{figure.value:{'+' if sign else ''}.3f}{_range(figure.low, figure.high)}"


def _score(score: Score | None) -> str:
    if score is None or score.mean is None:
        return NONE
    spread = "" if score.sd is None else f" ± {score.sd:.3f}"
    return f"{score.mean:.3f}{spread}{_range(score.low, score.high)}"


def _percent(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return NONE
    return f"{figure.value:.1%}{_range(figure.low, figure.high, 100)}"


def _range(low: float | None, high: float | None, times: int = 1) -> str:
    if low is None or high is None:
        return ""
    digits = 1 if times == 100 else 3
    return f" [{low * times:.{digits}f}, {high * times:.{digits}f}]"


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Write a table; the first column is text, the others are figures."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    cells = ([cell.replace("|", r"\|") for cell in line] for line in (head, rule, *lines))
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
