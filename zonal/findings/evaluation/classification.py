"""How well features tell two classes apart: logistic regression and boosting, on held-out rows.

Knows training sets, held-out rows and measures; knows nothing of tables or of how
rows were dealt. No copy of the rows is made but of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from zonal.findings.evaluation import figures
from zonal.findings.evaluation.regression import Prepared, RowNumbers, batches, growing, learned
from zonal.findings.evaluation.schema import Held
from zonal.findings.table import Floats

PENALTY = 1.0
"""Of half the squared coefficients, against the summed log loss: 1 / C of scikit-learn."""

PRECISE = 1e-18
"""Newton's method ends when its next step would lower the objective by less than this, a row."""

STEPS = 100
"""Steps of Newton's method, at most; a dozen are many."""

CURVED = 65_536
"""Rows that tell the curvature of the objective, at most; its slope is that of all rows."""

BLOCK = 8192
"""Rows in float64 at once: they fit into a processor's cache."""

MEASURES = ("accuracy", "balanced_accuracy", "f1", "auc", "brier")

Fitted = Callable[[RowNumbers], Floats]
"""Gives the chance of class 1 for some rows."""

Fit = Callable[[Prepared, RowNumbers], Fitted]
"""Fits a model to training rows."""


def logistic(classes: Floats) -> Fit:
    """Return how logistic regression is fitted to some rows of classes, float64 ndarray[row], 0 or 1.

    The model is scikit-learn's LogisticRegression with C = 1, the intercept free. It has one optimum, which
    is found here some rows at a time: 8.1 million rows need no copy.
    """

    def fit(ready: Prepared, trained: RowNumbers) -> Fitted:
        weights = _newton(ready, trained, classes)
        return lambda rows: np.concatenate(
            [special.expit(_line(ready(some), weights)) for some in batches(rows, BLOCK)]
        )

    return fit


def boosting(classes: Floats, seed: int) -> Fit:
    """Return how scikit-learn's histogram gradient boosting is fitted to some rows of classes."""

    def fit(ready: Prepared, trained: RowNumbers) -> Fitted:
        some = learned(trained, seed)
        with growing(some):
            model = HistGradientBoostingClassifier(random_state=seed).fit(ready(some), classes[some])

        def chances(rows: RowNumbers) -> Floats:
            with growing(some):
                return np.concatenate([model.predict_proba(ready(part))[:, 1] for part in batches(rows)])

        return chances

    return fit


def _line(values: npt.NDArray[np.floating], weights: Floats) -> Floats:
    line: Floats = values @ weights[:-1] + weights[-1]
    return line


def _newton(ready: Prepared, rows: RowNumbers, classes: Floats) -> Floats:
    """Minimise the log loss with its penalty; the last weight is the intercept.

    Of many rows, evenly spread ones tell the curvature: steps are a little off, and ten more of them lead to
    the same optimum, where the slope of all rows is zero.
    """
    width = ready(rows[:1]).shape[1] + 1
    penalty = np.full(width, PENALTY)
    penalty[-1] = 0.0
    some = rows[:: -(-len(rows) // CURVED)]

    def slope(weights: Floats) -> tuple[float, Floats]:
        """Objective and gradient."""
        loss, slope = 0.5 * float(penalty @ weights**2), penalty * weights
        for part in batches(rows, BLOCK):
            values = ready(part)
            line = _line(values, weights)
            wrong = special.expit(line) - classes[part]
            loss += float(np.logaddexp(0.0, line).sum() - classes[part] @ line)
            slope += np.append(wrong @ values, wrong.sum())
        return loss, slope

    def curvature(weights: Floats) -> Floats:
        """Hessian."""
        curve = np.zeros((width, width))
        for part in batches(some, BLOCK):
            values = np.column_stack([ready(part), np.ones(len(part))])
            chance = special.expit(values @ weights)
            curve += values.T @ (values * (chance * (1 - chance))[:, None])
        whole: Floats = curve * (len(rows) / len(some)) + np.diag(penalty)
        return whole

    weights = np.zeros(width)
    loss, down = slope(weights)
    for _ in range(STEPS):
        step = np.linalg.lstsq(curvature(weights), down, rcond=None)[0]
        gain = float(down @ step)
        length = 1.0
        ahead = slope(weights - step)
        while ahead[0] > loss - 1e-4 * length * gain + 1e-13 * abs(loss) and length > 1e-6:
            length /= 2
            ahead = slope(weights - length * step)
        weights = weights - length * step
        loss, down = ahead
        if gain < 2 * PRECISE * len(rows):
            break
    return weights


def held(
    fit: Fit,
    prepare: Callable[[int], Prepared],
    classes: Floats,
    labels: npt.NDArray[np.int64],
    folds: int,
    at_once: int = 1,
) -> Held | None:
    """Cross-validate a classifier.

    Parameters
    ----------
    fit : callable
    prepare : callable
        From the number of a fold to what prepares rows as its training set does.
    classes : float64 ndarray[row]
        0 or 1.
    labels : int64 ndarray[row]
        Fold of each row; -1 for none.
    folds : int
    at_once : int
        Folds that are learned at once, each on one thread.

    Returns
    -------
    Held or None
        None where no fold can be learned. A fold whose training rows are of one class has no measure; one
        whose own rows are has neither balanced accuracy nor AUC, and no F1 where it has no class 1.
    """
    by_fold: dict[str, list[float]] = {name: [] for name in MEASURES}
    confusion = np.zeros((2, 2), np.int64)

    def chances(fold: int) -> tuple[RowNumbers, Floats | None]:
        """Return a fold's rows and their chances of class 1; None where its training set has one class."""
        trained, tested = np.flatnonzero((labels >= 0) & (labels != fold)), np.flatnonzero(labels == fold)
        if not len(tested) or len(np.unique(classes[trained])) < 2:
            return tested, None
        return tested, fit(prepare(fold), trained)(tested)

    with ThreadPoolExecutor(at_once) as threads:
        known = [*threads.map(chances, range(folds))]
    for tested, chance in known:
        measured = dict.fromkeys(MEASURES, float("nan"))
        if chance is not None:
            truth = classes[tested].astype(np.int64)
            counts = np.bincount(2 * truth + (chance > 0.5), minlength=4).reshape(2, 2)
            confusion += counts
            measured |= _measured(counts, truth, chance)
        for name, value in measured.items():
            by_fold[name].append(value)
    if not confusion.any():
        return None
    sizes = np.bincount(labels[labels >= 0], minlength=folds).tolist()
    scores: dict[str, Any] = {name: figures.score(values, sizes, 0.0) for name, values in by_fold.items()}
    (a, b), (c, d) = confusion.tolist()
    return Held(**scores, confusion=((a, b), (c, d)))


def _measured(
    confusion: npt.NDArray[np.int64], truth: npt.NDArray[np.int64], chance: Floats
) -> dict[str, float]:
    """Compute the measures that are defined for held-out rows."""
    (right_0, wrong_1), (wrong_0, right_1) = confusion.tolist()
    measured = {
        "accuracy": (right_0 + right_1) / len(truth),
        "brier": float(np.mean((chance - truth) ** 2)),
    }
    zeros, ones = right_0 + wrong_1, wrong_0 + right_1
    if ones:
        measured["f1"] = 2 * right_1 / (2 * right_1 + wrong_0 + wrong_1)
    if zeros and ones:
        measured["balanced_accuracy"] = (right_0 / zeros + right_1 / ones) / 2
        measured["auc"] = float(roc_auc_score(truth, chance))
    return measured
