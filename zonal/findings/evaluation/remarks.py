"""What a reader of an evaluation must know, one sentence each.

Knows the figures and how they were made; computes none.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zonal.findings.evaluation.regression import LEARNED
from zonal.findings.evaluation.schema import Evaluation
from zonal.findings.evaluation.study import Study
from zonal.findings.pca import NEGLIGIBLE

INDEPENDENT = (
    "Intervals of R2 in sample, of the baseline and of correlations take rows as independent; neighbours are "
    "alike, so these intervals are too narrow."
)
KINDS = (
    "Random folds leave a row's neighbours in its training set, and measure prediction between known rows; "
    "spatial folds keep whole places together, and measure prediction of places not seen."
)
FLATTERED = (
    "An R2 in sample above its own interval is flattered by the number of features: the interval is that of "
    "all such rows, not of these alone."
)
BY_HEART = (
    "Boosting in sample is measured on the rows that the trees were grown on, and its interval takes the "
    "trees as given: only the held-out figures say what it knows."
)


def remarks(evaluation: Evaluation, study: Study) -> Iterator[str]:
    """Yield what a reader must know of an evaluation."""
    regressed = [row for row in evaluation.regressions if row.in_sample is not None]
    classified = [row for row in evaluation.classifications if row.random is not None]
    if regressed or classified:
        yield INDEPENDENT
        yield KINDS
    inside = [row.in_sample for row in regressed if row.in_sample is not None]
    if any(
        figure.high is not None and figure.value is not None and figure.value > figure.high
        for figure in inside
    ):
        yield FLATTERED
    if "boosting" in study.models:
        yield BY_HEART
        if study.used > LEARNED:
            yield f"Boosting learned from at most {LEARNED:,} rows of each training set, drawn at random."
    whole = next(iter(study.samples.values()))
    if whole.spatial.about.skipped:
        yield f"There are no spatial folds: {whole.spatial.about.skipped}."
    elif lost := int((whole.spatial.labels < 0).sum()):
        yield f"{lost:,} rows have no place and are in no spatial fold."
    for row in regressed:
        for kind, score in (("random", row.random), ("spatial", row.spatial)):
            if (row.features, row.model) == ("all", "ols") and score and (few := score.folds.count(None)):
                yield f"{row.target} has no R2 in {few} of the {kind} folds: it does not vary there."
    for fit in classified:
        for kind, held in (("random", fit.random), ("spatial", fit.spatial)):
            if fit.features == "all" and held is not None and (few := held.auc.folds.count(None)):
                yield (
                    f"{fit.target}, {fit.model}: {few} of the {kind} folds hold or learn one class only; "
                    "measures that take two are not defined there."
                )
    if study.left_out:
        yield f"No features, for they are targets: {', '.join(study.left_out)}."
    values = study.features.values
    flat = [
        name
        for at, name in enumerate(study.features.names)
        if float(np.ptp(values[:, at])) ** 2 <= NEGLIGIBLE * float(values[0, at]) ** 2
    ]
    if flat:
        yield f"Features that never vary, and say nothing: {', '.join(flat)}."
