"""What a reader of an evaluation must know, one sentence each.

Knows the figures and how they were made; computes none.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zonal.findings.evaluation.model import Evaluation
from zonal.findings.evaluation.regression import LEARNED
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
    made = [row for row in evaluation.regressions if row.in_sample is not None]
    told = [row for row in evaluation.classifications if row.random is not None]
    if made or told:
        yield INDEPENDENT
        yield KINDS
    inside = [row.in_sample for row in made if row.in_sample is not None]
    if any(one.high is not None and one.value is not None and one.value > one.high for one in inside):
        yield FLATTERED
    if "boosting" in study.models:
        yield BY_HEART
        if study.used > LEARNED:
            yield f"Boosting learned from at most {LEARNED:,} rows of each training set, drawn at random."
    whole = next(iter(study.shares.values()))
    if whole.spatial.about.skipped:
        yield f"There are no spatial folds: {whole.spatial.about.skipped}."
    elif lost := int((whole.spatial.labels < 0).sum()):
        yield f"{lost:,} rows have no place and are in no spatial fold."
    for one in made:
        for kind, score in (("random", one.random), ("spatial", one.spatial)):
            if (one.features, one.model) == ("all", "ols") and score and (few := score.folds.count(None)):
                yield f"{one.target} has no R2 in {few} of the {kind} folds: it does not vary there."
    for row in told:
        for kind, held in (("random", row.random), ("spatial", row.spatial)):
            if row.features == "all" and held is not None and (few := held.auc.folds.count(None)):
                yield (
                    f"{row.target}, {row.model}: {few} of the {kind} folds hold or learn one class only; "
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
